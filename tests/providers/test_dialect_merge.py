"""The official SDK as oracle of merging: its own requests are merged, and it parses the replies that are split
from the merged one into what it would have been given alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest
from merge_lab import completed, embedded

from underlay.providers.recognise import DIALECTS, OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from openai.types import Completion, CreateEmbeddingResponse

EMBED: dict[str, list[list[Any]]] = {
    "texts": [["a"], ["b", "c"], ["é" * 9], ["x" * 99, "y"]],
    "tokens": [[[1, 2, 3]], [[4], [5, 6]], [[7, 8]]],
}


def with_sdk(answer: Callable[[bytes], bytes], call: Callable[[openai.OpenAI], Any]) -> Any:
    """What the SDK makes of a call whose body is answered so."""

    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            200, headers={"content-type": "application/json"}, content=answer(request.content)
        )

    http = httpx2.Client(transport=httpx2.MockTransport(reply))
    with openai.OpenAI(api_key="k", http_client=http, max_retries=0) as client:
        return call(client)


def bodies_of(calls: list[Callable[[openai.OpenAI], Any]], answer: Callable[[bytes], bytes]) -> list[bytes]:
    """The bodies that the SDK sends for these calls."""
    sent: list[bytes] = []

    def keep(body: bytes) -> bytes:
        sent.append(body)
        return answer(body)

    for call in calls:
        with_sdk(keep, call)
    return sent


def embed(value: Any, **more: Any) -> Callable[[openai.OpenAI], CreateEmbeddingResponse]:
    return lambda client: client.embeddings.create(
        model="text-embedding-3-small", input=value, dimensions=8, **more
    )


def complete(value: Any, **more: Any) -> Callable[[openai.OpenAI], Completion]:
    return lambda client: client.completions.create(model="gpt-3.5-turbo-instruct", prompt=value, **more)


@pytest.mark.parametrize("kind", list(EMBED))
@pytest.mark.parametrize("more", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_embeddings(kind: str, more: dict[str, Any]) -> None:
    """Single inputs and lists, floats and base64: the SDK's objects are equal to those of calls of their own."""
    values = [value[0] if len(value) == 1 else value for value in EMBED[kind]]
    calls = [embed(value, **more) for value in values]
    bodies = bodies_of(calls, embedded)
    merged = OPENAI_EMBEDDINGS.merger.merge(bodies)
    assert json.loads(merged)["input"] == [each for value in EMBED[kind] for each in value]
    parts = OPENAI_EMBEDDINGS.merger.split(embedded(merged), bodies)
    assert parts is not None
    for call, part, value in zip(calls, parts, EMBED[kind], strict=True):
        got = with_sdk(lambda _, part=part: part, call)
        assert got == with_sdk(embedded, call)
        assert [item.index for item in got.data] == list(range(len(value)))
        if more.get("encoding_format") != "base64":
            assert all(len(item.embedding) == 8 for item in got.data)


@pytest.mark.parametrize("more", [{}, {"n": 2}, {"n": 2, "best_of": 3, "max_tokens": 5}, {"echo": True}])
@pytest.mark.parametrize("values", [["a", ["b", "c"], "d" * 50], [[1, 2, 3], [[4], [5, 6]]]])
def test_completions(values: list[Any], more: dict[str, Any]) -> None:
    """One prompt and lists, one choice and several: the choices are those of calls of their own, with own ids
    and usage that adds up."""
    calls = [complete(value, **more) for value in values]
    bodies = bodies_of(calls, completed)
    merged = completed(OPENAI_COMPLETIONS.merger.merge(bodies))
    parts = OPENAI_COMPLETIONS.merger.split(merged, bodies)
    assert parts is not None
    replies = []
    for call, part in zip(calls, parts, strict=True):
        got = with_sdk(lambda _, part=part: part, call)
        assert got.choices == with_sdk(completed, call).choices
        assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
        replies.append(got)
    assert len({got.id for got in replies}) == len(replies)
    assert sum(got.usage.total_tokens for got in replies) == json.loads(merged)["usage"]["total_tokens"]


def test_a_filled_list() -> None:
    """A list whose inputs are partly known comes back as the SDK's object of the whole."""
    (asked,) = bodies_of([embed(["a", "b", "c"])], embedded)
    merger = OPENAI_EMBEDDINGS.merger
    (alone,) = bodies_of([embed("b")], embedded)
    assert alone == merger.singles(asked)[1][0]
    filled = merger.fill({1: embedded(alone)}, embedded(merger.without(asked, [1])))
    assert filled is not None
    assert with_sdk(lambda _: filled, embed(["a", "b", "c"])) == with_sdk(embedded, embed(["a", "b", "c"]))


def test_who_merges() -> None:
    """Embeddings and completions do; a conversation has one answer to itself."""
    assert [each.name for each in DIALECTS if each.merger] == ["openai.embeddings", "openai.completions"]
