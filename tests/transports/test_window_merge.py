"""Merged windows: every caller is given exactly what it would have been given alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transport_lab import JSON_TYPE, json_reply
from window_lab import WindowLab, embedding
from window_provider import COMPLETIONS_URL, EMBEDDINGS_URL, answer, gzipped

from underlay.telemetry.events import AttemptEnded, CallEnded
from underlay.testing import Received, Scripted

INPUTS: dict[str, list[Any]] = {
    "texts": ["alpha", "beta", "gamma"],
    "lists of texts": [["a", "b"], ["c"], ["d", "e", "f"]],
    "a text and lists": ["one", ["two", "three"], ["four"]],
    "tokens": [[1, 2, 3], [4], [5, 6]],
    "lists of tokens": [[[1, 2], [3]], [[4]], [[5], [6], [7]]],
    "tokens and lists of them": [[1, 2], [[3, 4], [5]], [6]],
    "the same list in three": [["a", "a"], ["a", "b"], ["a"]],
    "what is hard to spell": ['"],"input":["x', "é😀\n\\", "日本語 \u2028"],
}


def completion(prompt: object, **fields: object) -> dict[str, Any]:
    """A body for legacy completions."""
    return {"model": "gpt-3.5-turbo-instruct", "prompt": prompt, "max_tokens": 5, **fields}


def told(response: Any) -> tuple[int, dict[str, str], bytes]:
    """What a caller sees of a reply."""
    return response.status_code, dict(response.headers), response.content


def alone(lab: WindowLab, bodies: list[Any], url: str = EMBEDDINGS_URL, **options: Any) -> list[Any]:
    """What each caller is told when nothing is merged."""
    lab.setup(llm_batch={"mode": "off"}, llm_cache={"mode": "off"}, coalesce={"mode": "off"})
    holds, lab.provider.holds = lab.provider.holds, False
    calls = lab.ask_all(lab.client(), bodies, url=url, **options)
    assert len(lab.sent) == len(bodies)
    lab.provider.seen.clear()
    lab.provider.holds = holds
    return [told(call.result()) for call in calls]


def merged(lab: WindowLab, bodies: list[Any], url: str = EMBEDDINGS_URL, **options: Any) -> list[Any]:
    """What each caller is told when all share one request."""
    lab.windows(linger="fixed", max_batch_size=len(bodies))
    calls = lab.ask_all(lab.client(), bodies, url=url, **options)
    assert len(lab.sent) == 1
    lab.sent[0].reply()
    assert len(lab.sent) == 1
    return [told(call.result()) for call in calls]


@pytest.mark.parametrize("encoding", ["float", "base64", None])
@pytest.mark.parametrize("kind", list(INPUTS))
def test_every_caller_has_the_reply_it_would_have_had_alone(
    crowd: WindowLab, kind: str, encoding: str | None
) -> None:
    """Status, headers and body to the byte, for every shape of input and both encodings of vectors."""
    more = {} if encoding is None else {"encoding_format": encoding}
    bodies = [embedding(inputs, **more) for inputs in INPUTS[kind]]
    expected = alone(crowd, bodies)
    assert merged(crowd, bodies) == expected
    assert crowd.faults == {}


def test_a_merged_request_is_the_senders_with_everybodys_inputs(crowd: WindowLab) -> None:
    """One request leaves, with all inputs in the order of the callers, every other field and header as each of
    them sent it, and a length that fits."""
    merged(crowd, [embedding("a", user="u"), embedding(["b", "c"], user="u")], headers={"x-own": "1"})
    (sent,) = crowd.sent
    assert sent.body == embedding(["a", "b", "c"], user="u")
    assert sent.headers["content-length"] == str(len(sent.received.body))
    assert (sent.headers["x-own"], sent.headers["authorization"]) == ("1", "Bearer key")
    assert sent.headers["accept-encoding"] == "gzip, deflate"
    names = [name.lower() for name, _ in sent.received.headers]
    assert len(names) == len(set(names))


def test_a_compressed_reply_is_split(crowd: WindowLab) -> None:
    """A gzip reply is given in plain, and its headers fit what is given."""
    bodies = [embedding("a"), embedding(["b", "c"])]
    expected = alone(crowd, bodies)
    crowd.provider.answer = gzipped
    assert merged(crowd, bodies) == expected
    assert crowd.faults == {}


@pytest.mark.parametrize("coding", ["identity", "IDENTITY", "GZIP"])
def test_a_coding_is_read_in_any_case(crowd: WindowLab, coding: str) -> None:
    """The name of a coding has no case, and identity is none."""
    bodies = [embedding("a"), embedding("b")]
    expected = alone(crowd, bodies)
    made = gzipped if coding == "GZIP" else answer

    def coded(received: Received) -> Scripted:
        scripted = made(received)
        return Scripted(200, {**dict(scripted.headers), "content-encoding": coding}, scripted.frames)

    crowd.provider.answer = coded
    assert merged(crowd, bodies) == expected


def test_parts_of_usage_add_up(crowd: WindowLab) -> None:
    """Whatever the provider counted is given out whole: whole numbers, by weight, and their sum is its count."""

    def counted(received: Received) -> Scripted:
        reply = json.loads(b"".join(answer(received).frames))  # type: ignore[arg-type]
        return json_reply({**reply, "usage": {"prompt_tokens": 101, "total_tokens": 101}})

    crowd.provider.answer = counted
    replies = merged(crowd, [embedding("x" * 400), embedding(["y" * 400, "z" * 400]), embedding("w")])
    parts = [json.loads(content)["usage"] for _, _, content in replies]
    assert sum(part["prompt_tokens"] for part in parts) == 101
    assert all(part["prompt_tokens"] == part["total_tokens"] for part in parts)
    assert parts[0]["prompt_tokens"] * 2 == pytest.approx(parts[1]["prompt_tokens"], abs=2)
    used = [attempt.usage.input_tokens for attempt in crowd.attempts() if attempt.usage is not None]
    assert used == [part["prompt_tokens"] for part in parts]


@pytest.mark.parametrize("times", [None, 2])
def test_completions_are_merged(crowd: WindowLab, times: int | None) -> None:
    """Legacy completions: every caller has its own texts, counted from 0, its prompts' tokens, a share of what was
    written, and an id of its own."""
    more = {} if times is None else {"n": times}
    bodies = [completion("Once", **more), completion(["upon", "a time"], **more)]
    before = alone(crowd, bodies, COMPLETIONS_URL)
    after = merged(crowd, bodies, COMPLETIONS_URL)
    expected, given = ([json.loads(content) for _, _, content in each] for each in (before, after))
    for one, other in zip(expected, given, strict=True):
        assert {**one, "id": 0, "usage": 0} == {**other, "id": 0, "usage": 0}
        assert one["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"]
        used = other["usage"]
        assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"]
    written = [sum(each["usage"]["completion_tokens"] for each in bodies) for bodies in (expected, given)]
    assert written[0] == written[1]
    assert len({one["id"] for one in given}) == 2
    assert [len(one["choices"]) for one in given] == [times or 1, 2 * (times or 1)]
    assert [headers["content-length"] for _, headers, _ in after] == [str(len(each[2])) for each in after]


def test_a_reply_in_pieces_is_split(crowd: WindowLab) -> None:
    """A chunked reply that comes in small frames is put together before it is split."""
    bodies = [embedding("a"), embedding("b")]
    expected = alone(crowd, bodies)

    def chunked(received: Received) -> Scripted:
        body = b"".join(answer(received).frames)  # type: ignore[arg-type]
        frames = [body[at : at + 7] for at in range(0, len(body), 7)]
        return Scripted(200, {**JSON_TYPE, "x-request-id": "req_1", "transfer-encoding": "chunked"}, frames)

    crowd.provider.answer = chunked
    assert merged(crowd, bodies) == expected


def test_answers_in_another_order_are_put_right(crowd: WindowLab) -> None:
    """The reply is split by the positions that it names, not by the order in which it lists them."""

    def turned(received: Received) -> Scripted:
        reply = json.loads(b"".join(answer(received).frames))  # type: ignore[arg-type]
        return json_reply({**reply, "data": reply["data"][::-1]})

    bodies = [embedding("a"), embedding(["b", "c"]), embedding("d")]
    vectors = [json.loads(content)["data"] for _, _, content in alone(crowd, bodies)]
    crowd.provider.answer = turned
    assert [json.loads(content)["data"] for _, _, content in merged(crowd, bodies)] == vectors


def test_a_merged_reply_is_read_in_any_way(crowd: WindowLab) -> None:
    """In pieces, raw, closed unread, closed twice: a part is a body like any other."""
    crowd.windows(linger="fixed", max_batch_size=4)
    client = crowd.client()
    ways = ["read", "raw", "unread", "twice"]

    async def call(way: str) -> bytes:
        response = await crowd.open(client, EMBEDDINGS_URL, embedding(way))
        got = b""
        if way == "raw":
            got = b"".join(await crowd.frames(response).rest())
        elif way != "unread":
            got = await crowd.read(response)
        await crowd.close(response)
        if way == "twice":
            await crowd.close(response)
        return got

    calls = [crowd.start(lambda way=way: call(way)) for way in ways]  # type: ignore[misc]
    crowd.sent[0].reply()
    bodies = [call.result() for call in calls]
    assert [json.loads(body)["data"][0]["index"] if body else None for body in bodies] == [0, 0, None, 0]
    assert [call.of(CallEnded)[0].ending for call in crowd.recorder.calls] == [
        "complete",
        "complete",
        "closed",
        "complete",
    ]


def test_money_and_tokens_are_each_members_own(crowd: WindowLab) -> None:
    """The books have each member's part of usage and cost, and one request."""
    merged(crowd, [embedding("a"), embedding(["b", "c"]), embedding("d")])
    attempts = crowd.attempts()
    assert [attempt.sent for attempt in attempts] == [False, False, True]
    assert [attempt.usage.input_tokens for attempt in attempts if attempt.usage] == [1, 2, 1]
    assert all(attempt.cost_usd for attempt in attempts)
    (stats,) = crowd.runtime.stats().values()
    assert (stats.calls, sum(stats.upstream.values()), stats.tokens["input"]) == (3, 1, 4)
    assert isinstance(crowd.recorder.calls[0].of(AttemptEnded)[0], AttemptEnded)


ODD: dict[str, bytes] = {
    "an empty text": b'{"model":"m","input":""}',
    "an empty list": b'{"model":"m","input":[]}',
    "an empty text in a list": b'{"model":"m","input":["a",""]}',
    "no input": b'{"model":"m"}',
    "null": b'{"model":"m","input":null}',
    "a number": b'{"model":"m","input":7}',
    "kinds mixed": b'{"model":"m","input":["a",[1]]}',
    "fractions": b'{"model":"m","input":[1.5]}',
    "a field twice": b'{"model":"m","input":"a","input":"b"}',
    "UTF-16": '{"model":"m","input":"a"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"model":"m","input":"a"}',
    "half a character": b'{"model":"m","input":"\\ud83d"}',
    "a list": b'["model","input"]',
    "no JSON": b'{"model":"m","input":"a"',
}


@pytest.mark.parametrize("odd", list(ODD))
def test_an_odd_request_spoils_nobodys_window(crowd: WindowLab, odd: str) -> None:
    """Whatever a caller sends leaves byte for byte, alone or with its own kind, and the others have their
    answers."""
    crowd.windows(linger="fixed", max_batch_size=4)
    crowd.provider.holds = False
    crowd.provider.answer = lambda received: (
        answer(received) if b'"z' in received.body else Scripted(200, JSON_TYPE, [received.body])
    )
    client = crowd.client()
    before = crowd.ask_all(client, [b'{"model":"m","input":"z1"}', b'{"model":"m","input":"z2"}'])
    call = crowd.ask(client, ODD[odd])
    crowd.advance(0.05)
    assert [len(each.result().json()["data"]) for each in before] == [1, 1]
    if not call.done:
        crowd.advance(0.05)
    mine = [held.received.body for held in crowd.sent if b'"z' not in held.received.body]
    merged = [held for held in crowd.sent if b'"z' in held.received.body and len(held.inputs) == 3]
    assert mine == [ODD[odd]] or len(merged) == 1
    assert call.done
