"""Embeddings made one request, and its reply made several: nothing is written anew but positions and counts."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_lab import BODIES, SPELLINGS, VECTORS, body, embedded, inputs_in, written

from underlay.providers.recognise import OPENAI_EMBEDDINGS

MERGER = OPENAI_EMBEDDINGS.merger
TWO = [b'{"model":"m","input":"a"}', b'{"model":"m","input":["b","c"]}']
USAGE = {"prompt_tokens": 3, "total_tokens": 3}


def reply(count: int, **fields: Any) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": [index]} for index in range(count)]
    return json.dumps({"object": "list", "data": data, "model": "m", "usage": USAGE, **fields}).encode()


@settings(deadline=None)
@given(drawn=BODIES, last=st.booleans())
def test_a_merged_body_asks_for_everybodys_inputs(drawn: Any, last: bool) -> None:
    """The inputs stand in the order of the callers; each other field is the first body's, to the byte."""
    values, rest, spelling = drawn
    bodies = [body("input", value, rest, spelling, last=last) for value in values]
    merged = MERGER.merge(bodies)
    asked = json.loads(merged)
    assert asked.pop("input") == [each for value in values for each in inputs_in(value)]
    assert asked == rest
    # No string, number or list of the first body is spelled in another way.
    emptied = body("input", "@", rest, spelling, last=last)
    before, after = emptied.split(b'"@"', 1)
    assert merged.startswith(before)
    assert merged.endswith(after)


def test_inputs_keep_their_spelling() -> None:
    """An escape stays the escape that the caller wrote, and so does a number."""
    bodies = [b'{"input": "\\u00e9\\/"}', '{"input":[ "é" , "\\n" ]}'.encode()]
    assert MERGER.merge(bodies) == '{"input": ["\\u00e9\\/","é" , "\\n"]}'.encode()
    assert MERGER.merge([b'{"input":[1, 2]}', b'{"input":[[3], [4,5]]}']) == b'{"input":[[1, 2],[3], [4,5]]}'


def test_one_body_stays_as_it_is() -> None:
    """Nobody to merge with: nothing changes."""
    assert MERGER.merge([TWO[0]]) == TWO[0]
    assert MERGER.split(reply(1), [TWO[0]]) == [reply(1)]


@settings(deadline=None)
@given(drawn=BODIES)
def test_every_reply_is_the_one_that_the_member_alone_would_have(drawn: Any) -> None:
    """Against the simulator, whose tokens follow the rule of thumb: equal to the byte, counts included."""
    values, rest, spelling = drawn
    bodies = [body("input", value, rest, spelling) for value in values]
    parts = MERGER.split(embedded(MERGER.merge(bodies)), bodies)
    assert parts == [embedded(each) for each in bodies]


@settings(deadline=None)
@given(
    drawn=BODIES,
    data=st.data(),
    spelling=st.sampled_from(sorted(SPELLINGS)),
    end=st.booleans(),
)
def test_vectors_move_as_the_text_that_came(drawn: Any, data: Any, spelling: str, end: bool) -> None:
    """In whatever order, spelling and spacing a server answers, each part has its own vectors unchanged, in
    order, spaced as the server spaces a reply, and every other field as it came."""
    values, rest, style = drawn
    bodies = [body("input", value, rest, style) for value in values]
    sizes = [len(inputs_in(value)) for value in values]
    raw = data.draw(st.lists(VECTORS, min_size=sum(sizes), max_size=sum(sizes)))

    def answer(own: list[int], order: list[int], usage: object) -> bytes:
        items = [{"index": i, "embedding": f"@{own[i]}@", "x": {"index": 9}} for i in order]
        fields = {"data": items, "object": "list", "é": ["\n", 1.50]}
        counted = {"usage": usage, "model": "m"}
        return written({**fields, **counted} if end else {**counted, **fields}, spelling, raw)

    order = data.draw(st.permutations(range(sum(sizes))))
    merged = answer(list(range(sum(sizes))), order, {"total_tokens": None, "kind": "x 1"})
    places = itertools.accumulate(sizes, initial=0)
    own = [list(range(start, start + size)) for start, size in zip(places, sizes, strict=False)]
    expected = [answer(mine, list(range(len(mine))), {"total_tokens": None, "kind": "x 1"}) for mine in own]
    assert MERGER.split(merged, bodies) == expected


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 300), min_size=2, max_size=8),
    total=st.integers(0, 5000),
    cached=st.integers(0, 5000),
)
def test_counts_add_up(sizes: list[int], total: int, cached: int) -> None:
    """Every whole number in usage, nested ones too, is the sum of its parts; a detail is within its part."""
    cached = min(cached, total)
    usage = {
        "prompt_tokens": total,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    bodies = [json.dumps({"model": "m", "input": list(range(size))}).encode() for size in sizes]
    parts = MERGER.split(reply(len(sizes), usage=usage), bodies)
    assert parts is not None
    used = [json.loads(part)["usage"] for part in parts]
    assert sum(each["prompt_tokens"] for each in used) == total
    assert sum(each["prompt_tokens_details"]["cached_tokens"] for each in used) == cached
    for each, size in zip(used, sizes, strict=True):
        assert each["total_tokens"] == each["prompt_tokens"]
        assert abs(each["prompt_tokens"] - total * size / sum(sizes)) < 1
        assert each["prompt_tokens_details"]["cached_tokens"] <= each["prompt_tokens"]


def test_token_arrays_are_counted_exactly() -> None:
    """Token ids are the tokens: each member has what it sent."""
    bodies = [b'{"input":[1,2,3]}', b'{"input":[[4],[5, 6]]}', b'{"input":[7]}']
    parts = MERGER.split(reply(4, usage={"prompt_tokens": 7, "total_tokens": 7}), bodies)
    assert [json.loads(part)["usage"]["prompt_tokens"] for part in parts or []] == [3, 3, 1]


def test_output_of_embeddings_goes_by_the_inputs() -> None:
    """Some servers report completion tokens, and nobody's vector is longer than another's."""
    usage = {"prompt_tokens": 8, "completion_tokens": 8, "total_tokens": 16}
    parts = MERGER.split(reply(2, usage=usage), [b'{"input":[1]}', b'{"input":[2,3,4]}'])
    assert [list(json.loads(part)["usage"].values()) for part in parts or []] == [[2, 2, 4], [6, 6, 12]]


@pytest.mark.parametrize(
    "usage", [b"5", b"null", b'"3 tokens"', b"[3]", b'{"cost": 0.00, "total_tokens": 0}']
)
def test_what_has_no_parts_keeps_its_spelling(usage: bytes) -> None:
    """A usage that is no object of counts, and a nothing that divides into nothing, stay as they came."""
    whole = reply(3, usage="@").replace(b'"@"', usage)
    assert [usage in part for part in MERGER.split(whole, TWO) or []] == [True, True]


def test_ids_are_distinct() -> None:
    """The first keeps the provider's id; the others can be told apart and still be traced to it."""
    parts = MERGER.split(reply(3, id="emb-\\1"), TWO)
    assert [json.loads(part)["id"] for part in parts or []] == ["emb-\\1", "emb-\\1-2"]
    assert [json.loads(part)["id"] for part in MERGER.split(reply(3, id=5), TWO) or []] == [5, 5]


INDEXES: list[list[Any]] = [
    [0, 1],
    [0, 1, 2, 3],
    [0, 1, 1],
    [0, 1, 2, 2],
    [1, 2, 3],
    [0, 1, 3],
    [-1, 0, 1],
    [0, 1, "2"],
    [0, True, 2],
    [0, 1.0, 2],
    [0, 1, None],
]


@pytest.mark.parametrize("indexes", INDEXES)
def test_a_reply_that_does_not_match_is_not_split(indexes: list[Any]) -> None:
    """One answer at every position and no other, or nobody is given anything."""
    data = [{"index": index, "embedding": [1]} for index in indexes]
    assert MERGER.split(reply(0, data=data), TWO) is None


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b'{"data":',
        b'{"data":[]}',
        b'{"data":{}}',
        b'{"data":[1,2,3]}',
        b'{"data":[{"index":0},{"index":1},{"embedding":[]}]}',
        reply(3) + b"x",
        reply(3)[:-1],
        reply(3).replace(b'"model"', b'"data"'),
        reply(3).replace(b'"object": "embedding", "index": 1', b'"index": 0, "index": 1'),
        reply(3).replace(b'"prompt_tokens": 3', b'"prompt_tokens": NaN'),
        reply(3).replace(b'"prompt_tokens": 3', b'"total_tokens": 3'),
        reply(3, error="\xff").replace(b"\\u00ff", b"\xff"),
        b'{"error":{"message":"no","type":"server_error"}}',
        b"[" * 100_000,
    ],
)
def test_a_broken_reply_is_not_split(wrong: bytes) -> None:
    """Whatever a server answers instead of vectors, splitting it says so and raises nothing."""
    assert MERGER.split(wrong, TWO) is None


def test_bounds_are_the_providers() -> None:
    """Documented limits are data; a server nobody knows gets what small ones take."""
    assert MERGER.bounds("openai") == (2048, 300_000)
    assert MERGER.bounds("mistral_ai") == (512, 16_384)
    assert MERGER.bounds("gcp.gemini")[0] == 100
    assert MERGER.bounds("") == MERGER.bounds("somebody") == (32, 16_384)
    assert all(inputs > 0 < tokens for inputs, tokens in MERGER.limits.values())
