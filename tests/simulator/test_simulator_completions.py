"""Legacy completions of the simulator, and the limits of what one request may hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underlay.errors import SettingsError
from underlay.simulator import Simulator, SimulatorOptions, openai_completions, text
from underlay.simulator.replies import Context

MODEL = "gpt-3.5-turbo-instruct"
PROMPTS = st.one_of(
    st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=4),
    st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), min_size=1, max_size=4),
)


def choices(**body: Any) -> list[dict[str, Any]]:
    """The choices of one request for completions, in process."""
    asked = {"model": "m", **body}
    context = Context(SimulatorOptions(seed=3), text.request_key(3, "completions", asked), 7, 0, 0.0)
    return json.loads(openai_completions.exchange(asked, context).payload())["choices"]


def test_the_sdk_completes(gpt: openai.OpenAI) -> None:
    """One prompt has one text of at most 16 tokens, with usage that adds up."""
    reply = gpt.completions.create(model=MODEL, prompt="Say this is a test")
    assert reply.object == "text_completion"
    assert reply.id.startswith("cmpl-")
    (choice,) = reply.choices
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == 5
    assert reply.usage.completion_tokens == len(choice.text.split()) <= 16
    assert reply.usage.total_tokens == 5 + reply.usage.completion_tokens


def test_a_stream_is_the_same_text(gpt: openai.OpenAI) -> None:
    """The chunks of every choice join to its whole text, and usage comes when it is wanted."""
    asked: dict[str, Any] = {"model": MODEL, "prompt": ["a", "b"], "n": 2, "echo": True}
    whole = gpt.completions.create(**asked)
    chunks = list(gpt.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    for choice in whole.choices:
        own = [each for chunk in chunks for each in chunk.choices if each.index == choice.index]
        assert "".join(each.text for each in own) == choice.text
        assert [each.finish_reason for each in own if each.finish_reason] == [choice.finish_reason]
    assert chunks[-1].usage == whole.usage
    assert {chunk.usage for chunk in chunks[:-1]} == {None}


def test_a_stream_ends_with_done(sim: Simulator) -> None:
    """The bytes end as OpenAI's do."""
    body = {"model": MODEL, "prompt": "a", "stream": True}
    reply = httpx.post(f"{sim.url}/v1/completions", json=body)
    assert reply.text.endswith("data: [DONE]\n\n")
    assert '"usage"' not in reply.text


@settings(deadline=None)
@given(prompts=PROMPTS, n=st.integers(1, 3))
def test_an_answer_depends_on_its_own_prompt(prompts: list[Any], n: int) -> None:
    """What stands beside a prompt changes nothing: choice p * n + j is answer j to prompt p alone."""
    together = choices(prompt=prompts, n=n)
    assert [choice["index"] for choice in together] == list(range(len(prompts) * n))
    alone = [choice["text"] for prompt in prompts for choice in choices(prompt=prompt, n=n)]
    assert [choice["text"] for choice in together] == alone


def test_choices_differ() -> None:
    """Several answers to one prompt are different, and another field of the body makes them others."""
    texts = [choice["text"] for choice in choices(prompt="a", n=3, max_tokens=50)]
    assert len(set(texts)) == 3
    assert choices(prompt="a", n=3, max_tokens=50, temperature=0.5)[0]["text"] not in texts


def test_echo_and_limit() -> None:
    """`echo` puts the prompt before its answer, and the limit is said to have cut it."""
    (plain,), (echoed,) = (
        choices(prompt="Once ", max_tokens=2),
        choices(prompt="Once ", max_tokens=2, echo=True),
    )
    assert plain["finish_reason"] == "length"
    assert len(plain["text"].split()) == 2
    assert echoed["text"].startswith("Once ")


def test_counts_have_prompts(sim: Simulator) -> None:
    """The books count every prompt of an answered request, under a path of their own."""
    for prompt in ("a", ["a", "b"], [[1], [2], [3]], [1, 2]):
        httpx.post(f"{sim.url}/gateway/v1/completions", json={"model": MODEL, "prompt": prompt})
    counts = sim.counts().of("completions", MODEL)
    assert (counts.requests, counts.inputs) == (4, 7)
    assert sim.counts().of("chat").requests == 0


def test_faults_find_the_path(sim: Simulator) -> None:
    """A fault may be ordered for completions alone."""
    sim.fault("503", path="completions")
    body = {"model": MODEL, "prompt": "a", "messages": [{"role": "user", "content": "a"}]}
    assert httpx.post(f"{sim.url}/v1/chat/completions", json=body).status_code == 200
    assert httpx.post(f"{sim.url}/v1/completions", json=body).status_code == 503


@pytest.mark.parametrize("prompt", [None, "", [], [""], ["a", 1], [[]], [[1], "a"], {"a": 1}, 5, True])
def test_bad_prompts(sim: Simulator, prompt: object) -> None:
    """A prompt of another kind, or an empty one, is refused by name."""
    reply = httpx.post(f"{sim.url}/v1/completions", json={"model": MODEL, "prompt": prompt})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "prompt"


@pytest.fixture(scope="module")
def small() -> Iterator[Simulator]:
    """A provider that takes three inputs and twelve tokens a request."""
    with Simulator(SimulatorOptions(max_inputs=3, max_request_tokens=12)) as simulator:
        yield simulator


@pytest.mark.parametrize(("path", "field"), [("embeddings", "input"), ("completions", "prompt")])
def test_too_many_inputs(small: Simulator, path: str, field: str) -> None:
    """A longer list than the provider takes is a 400 in its words; nothing is counted as answered."""
    small.reset()
    assert httpx.post(f"{small.url}/v1/{path}", json={"model": "m", field: ["a"] * 3}).status_code == 200
    reply = httpx.post(f"{small.url}/v1/{path}", json={"model": "m", field: ["a"] * 4})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error",
        field,
        "array_above_max_length",
    )
    assert "maximum length 3, but got an array with length 4" in error["message"]
    assert small.counts().of(path).inputs == 3


@pytest.mark.parametrize(("path", "field"), [("embeddings", "input"), ("completions", "prompt")])
@pytest.mark.parametrize("more", [["aaaa" * 6, "bbbb" * 7], [list(range(13))], [[1] * 6, [2] * 7]])
def test_too_many_tokens(small: Simulator, path: str, field: str, more: object) -> None:
    """More tokens over all inputs than the provider takes is a 400 in its words."""
    assert (
        httpx.post(f"{small.url}/v1/{path}", json={"model": "m", field: [[1] * 6, [2] * 6]}).status_code
        == 200
    )
    reply = httpx.post(f"{small.url}/v1/{path}", json={"model": "m", field: more})
    assert reply.status_code == 400
    assert reply.json() == {
        "error": {
            "message": "Requested 13 tokens, max 12 tokens per request",
            "type": "max_tokens_per_request",
            "param": None,
            "code": "max_tokens_per_request",
        }
    }


def test_the_sdk_reads_the_refusal(small: Simulator) -> None:
    """OpenAI's own client raises a bad request with the provider's code."""
    with (
        openai.OpenAI(base_url=f"{small.url}/v1", api_key="k", max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as caught,
    ):
        client.embeddings.create(model="m", input=list(range(13)))
    assert caught.value.code == caught.value.type == "max_tokens_per_request"


def test_limits_are_checked() -> None:
    """Limits are whole numbers from 1."""
    with pytest.raises(SettingsError, match=r"max_inputs[\s\S]*max_request_tokens"):
        SimulatorOptions(max_inputs=0, max_request_tokens=True)
