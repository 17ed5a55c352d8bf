"""Legacy completions made one request, and its reply made several: choices by prompt, usage by estimate."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_lab import BODIES, body, completed, respelled

from underlay.providers.recognise import OPENAI_COMPLETIONS

MERGER = OPENAI_COMPLETIONS.merger
TWO = [b'{"model":"m","prompt":"a","n":2}', b'{"model":"m","prompt":["b","c"],"n":2}']


def reply(*texts: str, **fields: Any) -> bytes:
    choices = [
        {"text": each, "index": index, "logprobs": None, "finish_reason": "stop"}
        for index, each in enumerate(texts)
    ]
    usage = {"prompt_tokens": 6, "completion_tokens": 12, "total_tokens": 18}
    return json.dumps({"id": "cmpl-1", "choices": choices, "model": "m", "usage": usage, **fields}).encode()


@settings(deadline=None)
@given(
    drawn=BODIES,
    options=st.fixed_dictionaries(
        {}, optional={"n": st.one_of(st.none(), st.integers(1, 3)), "max_tokens": st.integers(1, 9)}
    ),
    share=st.floats(0, 1),
)
def test_every_reply_is_the_one_that_the_member_alone_would_have(
    drawn: Any, options: dict[str, Any], share: float
) -> None:
    """Against the simulator: equal to the byte but for the ids after the first and the counts that nobody can
    know; those are whole, add up to the merged reply's, and each total is the sum of its two."""
    values, rest, spelling = drawn
    bodies = [body("prompt", value, {**rest, **options}, spelling) for value in values]
    merged = completed(MERGER.merge(bodies), share)
    parts = MERGER.split(merged, bodies)
    assert parts is not None
    used = [json.loads(part)["usage"] for part in parts]
    for place, (part, usage, asked) in enumerate(zip(parts, used, bodies, strict=True)):
        alone = completed(asked)
        name = "cmpl-7" if place == 0 else f"cmpl-7-{place + 1}"
        assert part == respelled(alone, usage, "compact", id=name)
        assert usage["prompt_tokens"] == json.loads(alone)["usage"]["prompt_tokens"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert 0 <= usage["prompt_tokens_details"]["cached_tokens"] <= usage["prompt_tokens"]
    whole = json.loads(merged)["usage"]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert sum(usage[name] for usage in used) == whole[name]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in used]
    assert sum(cached) == whole["prompt_tokens_details"]["cached_tokens"]


def test_choices_go_to_their_prompt() -> None:
    """Choice p * n + j is answer j to prompt p; everyone counts from 0, in whatever order they came."""
    shuffled = json.loads(reply("a0", "a1", "b0", "b1", "c0", "c1"))
    shuffled["choices"].reverse()
    parts = MERGER.split(json.dumps(shuffled).encode(), TWO)
    got = [[(c["index"], c["text"]) for c in json.loads(part)["choices"]] for part in parts or []]
    assert got == [[(0, "a0"), (1, "a1")], [(0, "b0"), (1, "b1"), (2, "c0"), (3, "c1")]]


def test_output_is_divided_by_the_length_of_the_texts() -> None:
    """Who was answered at more length had more output tokens; prompts are weighed for themselves."""
    bodies = [b'{"model":"m","prompt":"a"}', b'{"model":"m","prompt":[1,2,3,4,5]}']
    parts = MERGER.split(reply("x" * 10, "\u00e9" * 10), bodies)
    used = [json.loads(part)["usage"] for part in parts or []]
    assert [(each["prompt_tokens"], each["completion_tokens"], each["total_tokens"]) for each in used] == [
        (1, 4, 5),
        (5, 8, 13),
    ]


@pytest.mark.parametrize("texts", [(), ("a",) * 5, ("a",) * 7, ("a",) * 3])
def test_a_reply_with_another_number_of_choices_is_not_split(texts: tuple[str, ...]) -> None:
    """Every prompt has as many choices as were asked for."""
    assert MERGER.split(reply(*texts), TWO) is None
    assert MERGER.split(reply(*"abcdef"), TWO) is not None


def test_answers_without_text_are_divided_evenly() -> None:
    """Nothing was written, or nobody can say how much: equal parts, and they still add up."""
    bodies = [b'{"model":"m","prompt":"aaaa"}', b'{"model":"m","prompt":"bbbb"}']
    for given_reply in (reply("", ""), reply("", "").replace(b'"text": ""', b'"text": null')):
        parts = MERGER.split(given_reply, bodies)
        used = [json.loads(part)["usage"] for part in parts or []]
        assert [each["completion_tokens"] for each in used] == [6, 6]


def test_a_merged_body_keeps_the_other_fields() -> None:
    """The number of choices and all the rest are those of the first body."""
    assert MERGER.merge(TWO) == b'{"model":"m","prompt":["a","b","c"],"n":2}'


def test_bounds() -> None:
    """Nobody documents a limit, so it is one for all."""
    assert MERGER.bounds("openai") == MERGER.bounds("") == (20, 81_920)
