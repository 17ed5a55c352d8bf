"""OpenAI embeddings: what is asked, and what came back."""

from __future__ import annotations

from typing import Any

import pytest
from replies import EMBEDDINGS, dumped

from underlay.providers.dialect import Inputs, Outcome
from underlay.providers.openai_embeddings import OpenAIEmbeddings
from underlay.telemetry.events import Usage

DIALECT = OpenAIEmbeddings()


@pytest.mark.parametrize("given", ["text", ["a", "b"], [1, 2, 3], [[1, 2], [3]]])
def test_every_kind_of_input(given: object) -> None:
    """Texts and tokens, one or many; the answer depends on the input alone."""
    ask = DIALECT.ask({"model": "text-embedding-3-small", "input": given, "stream": True})
    assert ask is not None
    assert (ask.operation, ask.stream, ask.deterministic, ask.uncacheable) == ("embeddings", False, True, "")


@pytest.mark.parametrize(
    "wrong", [{"model": "m"}, {"model": "m", "input": ""}, {"model": "m", "input": 3}, {"input": "x"}]
)
def test_another_body_is_not_ours(wrong: dict[str, Any]) -> None:
    """Without a model and an input the call is not ours."""
    assert DIALECT.ask(wrong) is None


def test_parameters() -> None:
    """Dimensions and encoding are attributes of the conventions."""
    ask = DIALECT.ask(
        {"model": "m", "input": "x", "dimensions": 256, "encoding_format": "base64", "user": "me"}
    )
    assert ask is not None
    assert ask.parameters == {
        "gen_ai.embeddings.dimension.count": 256,
        "gen_ai.request.encoding_formats": ("base64",),
    }


@pytest.mark.parametrize(
    ("given", "kind", "count", "tokens"),
    [
        ("text", "text", 1, 4 + 2),
        ("é" * 5, "text", 1, 10 + 2),
        ("\ud800", "text", 1, 3 + 2),
        (["a", "日本"], "text", 2, 1 + 2 + 6 + 2),
        ([5, 0, 7], "tokens", 1, 3),
        ([0], "tokens", 1, 1),
        ([[1, 2], [3]], "tokens", 2, 3),
    ],
)
def test_inputs_are_counted(given: object, kind: str, count: int, tokens: int) -> None:
    """A list of numbers is one input; tokens are counted, and of texts bounded by their UTF-8 bytes."""
    ask = DIALECT.ask({"model": "m", "input": given})
    assert ask is not None
    assert ask.inputs == Inputs("input", kind, count, tokens)


@pytest.mark.parametrize(
    "given",
    [[""], ["a", ""], ["a", 1], [1, [2]], [[1], []], [True], [1.5], [[1, "a"]], [{"text": "a"}], [[[1]]]],
)
def test_what_is_not_merged(given: object) -> None:
    """An empty input, a mixture and anything unknown go alone: the provider may refuse them."""
    ask = DIALECT.ask({"model": "m", "input": given})
    assert ask is not None
    assert ask.inputs is None


def test_inputs_that_depend_on_each_other_are_not_merged() -> None:
    """Late chunking makes one text of the inputs, so nobody else's may stand among them."""
    ask = DIALECT.ask({"model": "jina-embeddings-v3", "input": ["a", "b"], "late_chunking": True})
    assert ask is not None
    assert ask.inputs is None


def test_answer() -> None:
    """The reference's answer gives input tokens only, and has no text."""
    observer = DIALECT.observe(stream=False, status=200)
    observer.feed(dumped(EMBEDDINGS))
    assert observer.outcome() == Outcome(complete=True, usage=Usage(8), model="text-embedding-3-small")
    assert DIALECT.text(EMBEDDINGS) is None


def test_an_answer_without_vectors_is_not_stored() -> None:
    """An empty list is nothing to replay."""
    observer = DIALECT.observe(stream=False, status=200)
    observer.feed(dumped({**EMBEDDINGS, "data": []}))
    assert not observer.outcome().storable
