"""A list of embeddings whose inputs were asked one by one before: the official SDK against the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from underlay import Runtime
from underlay.simulator import Simulator
from underlay.telemetry.events import AttemptEnded, CacheLooked, CallEnded
from underlay.testing import Recorder

MODEL = "text-embedding-3-small"


class Desk:
    """A client, what its listeners heard, and what reached the provider."""

    def __init__(self, simulator: Simulator, **settings: Any) -> None:
        self.simulator = simulator
        self.recorder = Recorder()
        self.runtime = Runtime(settings, listeners=[self.recorder])
        self.client = openai.OpenAI(
            api_key="key", base_url=f"{simulator.url}/v1", http_client=self.runtime.httpx2_client()
        )

    def embed(self, texts: str | list[str], **options: Any) -> list[list[float]]:
        """The vectors."""
        reply = self.client.embeddings.create(model=MODEL, input=texts, dimensions=8, **options)
        assert [item.index for item in reply.data] == list(range(len(reply.data)))
        return [item.embedding for item in reply.data]

    @property
    def asked(self) -> tuple[int, int]:
        """Requests and inputs that reached the provider."""
        counts = self.simulator.counts().of("embeddings")
        return counts.requests, counts.inputs

    @property
    def last(self) -> Any:
        """The last call as the listener was told of it."""
        return self.recorder.calls[-1]


@pytest.fixture(scope="module")
def running() -> Iterator[Simulator]:
    """One simulator for a module."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def desk(running: Simulator) -> Iterator[Desk]:
    """A fresh runtime over a simulator that nobody has called."""
    running.reset()
    made = Desk(running)
    yield made
    assert made.runtime.engine.faults.counts == {}
    made.client.close()


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_only_the_unknown_inputs_are_asked(desk: Desk, encoding: Any) -> None:
    """Two of four inputs are known: the provider is asked for the other two, and the answer is the whole list
    in its order, with the usage of the whole."""
    alone = {text: desk.embed(text, encoding_format=encoding)[0] for text in ("one", "three")}
    reply = desk.client.embeddings.create(
        model=MODEL, input=["one", "two", "three", "four"], dimensions=8, encoding_format=encoding
    )
    assert desk.asked == (3, 4)
    vectors = [item.embedding for item in reply.data]
    assert (vectors[0], vectors[2]) == (alone["one"], alone["three"])
    plain = Desk(desk.simulator, llm_cache={"enabled": False})
    whole = plain.client.embeddings.create(
        model=MODEL, input=["one", "two", "three", "four"], dimensions=8, encoding_format=encoding
    )
    assert reply == whole
    plain.client.close()


def test_the_books_of_a_filled_list_show_what_was_bought(desk: Desk) -> None:
    """The attempt has the usage of the inputs that were sent, the call is a miss, and the list is stored
    whole."""
    desk.embed("one")
    desk.embed(["one", "two two two"])
    (attempt,) = desk.last.of(AttemptEnded)
    alone = Desk(desk.simulator, llm_cache={"enabled": False})
    alone.embed(["two two two"])
    (bought,) = alone.last.of(AttemptEnded)
    assert attempt.usage == bought.usage
    assert (attempt.stored, attempt.verdict) == (True, "success")
    assert [event.result for event in desk.last.of(CallEnded)] == ["miss"]
    before = desk.asked
    desk.embed(["one", "two two two"])
    assert desk.asked == before
    alone.client.close()


def test_a_list_that_is_known_input_by_input_is_a_hit(desk: Desk) -> None:
    """Nothing is asked, and the hit says what it saved."""
    alone = [desk.embed(text)[0] for text in ("one", "two")]
    assert desk.embed(["two", "one"]) == alone[::-1]
    assert desk.asked == (2, 2)
    (looked,) = desk.last.of(CacheLooked)
    assert (looked.result, looked.origin) == ("hit", b"2")
    assert looked.saved_usage.input_tokens == 2
    assert desk.last.of(AttemptEnded) == []


def test_other_parameters_are_other_answers(desk: Desk) -> None:
    """A vector of another size is not a part of the list."""
    desk.client.embeddings.create(model=MODEL, input="one", dimensions=4)
    assert all(len(vector) == 8 for vector in desk.embed(["one", "two"]))
    assert desk.asked == (2, 3)


def test_a_fresh_answer_is_asked_for_whole(desk: Desk) -> None:
    """`Cache-Control: no-cache` takes nothing from the store."""
    desk.embed("one")
    desk.embed(["one", "two"], extra_headers={"cache-control": "no-cache"})
    assert desk.asked == (2, 3)


def test_without_windows_a_list_goes_as_it_is(running: Simulator) -> None:
    """With `llm_batch` off no request is changed."""
    running.reset()
    desk = Desk(running, llm_batch={"enabled": False})
    desk.embed("one")
    desk.embed(["one", "two"])
    assert desk.asked == (2, 3)
    desk.client.close()
