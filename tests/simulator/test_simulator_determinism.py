"""What an answer depends on, and what it does not."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import struct
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underlay.simulator import Latency, Simulator, SimulatorOptions, latency, openai_embeddings, text
from underlay.simulator import anthropic as anthropic_dialect
from underlay.simulator import openai_chat as chat_dialect
from underlay.simulator.replies import BadCall, Context

INPUTS = st.one_of(
    st.text(min_size=1, max_size=40), st.lists(st.integers(0, 200_000), min_size=1, max_size=9)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def context(body: dict[str, Any], **options: Any) -> Context:
    """A context as the endpoint makes it, for request number 7."""
    made = SimulatorOptions(**options)
    return Context(made, text.request_key(made.seed, "chat", body), 7, 0, made.cached_fraction)


@given(value=INPUTS, model=st.sampled_from(["a", "b"]), size=st.integers(1, 64))
def test_vectors_are_stable_unit_vectors(value: str | list[int], model: str, size: int) -> None:
    """A vector has the wanted size and length 1, and is the same each time."""
    first = openai_embeddings.vector(value, model, size)
    assert first == openai_embeddings.vector(value, model, size)
    assert len(first) == size
    assert math.isclose(math.hypot(*first), 1.0, rel_tol=1e-5)


@given(one=INPUTS, other=INPUTS)
def test_vectors_differ_with_the_input(one: str | list[int], other: str | list[int]) -> None:
    """Two inputs have one vector only if they are one input."""
    same = openai_embeddings.vector(one, "m", 8) == openai_embeddings.vector(other, "m", 8)
    assert same == (one == other)


def test_vectors_differ_with_model_and_dimensions() -> None:
    """Model and dimensions are part of what a vector depends on."""
    vector = openai_embeddings.vector
    assert vector("x", "m", 8) != vector("x", "n", 8)
    assert vector("x", "m", 8) != vector("x", "m", 9)[:8]


def test_vectors_do_not_depend_on_batch_seed_or_encoding() -> None:
    """An input embedded alone, in a batch, as base64 or by another seed has the same vector."""

    def ask(seed: int, **body: Any) -> list[Any]:
        simulator = Simulator(SimulatorOptions(seed=seed))
        transport = _Sync(simulator)
        return [
            item["embedding"] for item in transport.post("/v1/embeddings", {"model": "m", **body})["data"]
        ]

    (alone,) = ask(1, input="b", dimensions=16)
    assert ask(2, input=["a", "b"], dimensions=16)[1] == alone
    (packed,) = ask(1, input="b", dimensions=16, encoding_format="base64")
    assert list(struct.unpack("<16f", base64.b64decode(packed))) == alone
    assert len(ask(1, input=[[1, 2], [3]], dimensions=4)) == 2
    assert len(ask(1, input=[1, 2, 3], dimensions=4)) == 1


@settings(max_examples=60)
@given(prompt=st.text(max_size=300), limit=st.integers(1, 90), seed=st.integers(0, 3), share=st.floats(0, 1))
def test_usage_adds_up(prompt: str, limit: int, seed: int, share: float) -> None:
    """Tokens are whole, within the limit, and the parts of the prompt add up to it, for every prompt."""
    messages = [{"role": "user", "content": prompt}]
    body = {"model": "m", "messages": messages, "max_tokens": limit}
    made = context(body, seed=seed, cached_fraction=share)
    openai_usage = chat_dialect.exchange(body, made).usage
    assert openai_usage.input == -(-len(prompt.encode()) // 4) + 4
    assert 1 <= openai_usage.output <= limit
    assert 0 <= openai_usage.cached <= openai_usage.input
    marked = {**body, "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]}
    usage = anthropic_dialect.exchange(marked, made).usage
    assert 0 <= usage.written + usage.cached <= usage.input


@given(prompt=st.text(max_size=30), seed=st.integers(0, 5))
def test_streams_carry_the_whole_answer(prompt: str, seed: int) -> None:
    """The tokens of a stream's events are those of the usage, in an order of time."""
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}], "n": 2}
    exchange = chat_dialect.exchange(body, context(body, seed=seed, tokens_per_event=3))
    frames = list(exchange.frames())
    assert sum(frame.tokens for frame in frames) == exchange.usage.output
    assert [frame.after for frame in frames] == sorted(frame.after for frame in frames)
    assert frames[-1].data == b"data: [DONE]\n\n"
    assert max(frame.after for frame in frames) == exchange.steps


@given(
    extra=st.dictionaries(st.sampled_from(["n", "tools", "tool_choice", "response_format", "stream"]), JSON)
)
def test_no_body_breaks_the_dialects(extra: dict[str, Any]) -> None:
    """Any JSON is answered or refused by name, never a fault of the simulator."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5, **extra}
    for dialect in (chat_dialect, anthropic_dialect):
        with contextlib.suppress(BadCall):
            exchange = dialect.exchange(body, context(body))
            assert json.loads(exchange.payload())
            assert list(exchange.frames())


def test_same_request_same_text_other_id() -> None:
    """Two equal requests have equal texts and different ids, whatever the order of the fields."""
    transport = _Sync(Simulator())
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    first = transport.post("/v1/chat/completions", body)
    second = transport.post("/v1/chat/completions", dict(reversed(body.items())))
    assert first["choices"] == second["choices"]
    assert first["id"] != second["id"]


def test_seed_and_body_change_the_text() -> None:
    """Another seed, or another field anywhere in the body, is another text."""
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    texts = {
        _Sync(Simulator(SimulatorOptions(seed=seed))).post("/chat/completions", {**body, **more})["choices"][
            0
        ]["message"]["content"]
        for seed in (1, 2)
        for more in ({}, {"temperature": 0.5})
    }
    assert len(texts) == 4


def test_length_max_fills_the_limit() -> None:
    """With `length="max"` an answer has exactly the tokens that the request allows."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 333}
    assert chat_dialect.exchange(body, context(body, length="max")).usage.output == 333


def test_schedule() -> None:
    """Times come from the model's pace, the seed and the body; jitter stays within its share."""
    steady = latency.schedule(Latency(first_token=0.5, tokens_per_second=50), "k", slow=1.0)
    assert steady.due(0) == 1.5
    assert steady.due(100) == pytest.approx(3.5)
    assert latency.schedule(Latency(), "k").due(10_000) == 0.0
    shaky = Latency(first_token=1.0, tokens_per_second=10, jitter=0.2)
    drawn = [latency.schedule(shaky, str(number)) for number in range(50)]
    assert all(0.8 <= each.first <= 1.2 for each in drawn)
    assert len({each.first for each in drawn}) == 50
    assert drawn[0] == latency.schedule(shaky, "0")


class _Sync:
    """Asks a simulator in process."""

    def __init__(self, simulator: Simulator) -> None:
        self._app: Any = simulator.app

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON reply to one POST."""

        async def ask() -> Any:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://sim") as client:
                return (await client.post(path, json=body)).raise_for_status().json()

        return anyio.run(ask)
