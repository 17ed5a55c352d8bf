"""A list filled in part from replies to single inputs: what is asked, and what it is put together to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from merge_lab import BODIES, SPELLINGS, TEXTS, body, completed, embedded, inputs_in

from underlay.providers.recognise import OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS

EMBEDDINGS, COMPLETIONS = OPENAI_EMBEDDINGS.merger, OPENAI_COMPLETIONS.merger
BODY = b'{"model":"m","input":[ "a" , "b","c"],"user":"u"}'


def one(vector: str, index: int = 0, *, model: str = "m") -> bytes:
    data = f'[{{"index":{index},"embedding":{vector}}}]'
    return f'{{"data":{data},"model":"{model}","usage":{{"prompt_tokens":1}}}}'.encode()


def test_singles_are_the_bodies_that_ask_for_one_input() -> None:
    """A text is likeliest asked for by itself, tokens in a list of one; all other fields stay."""
    assert EMBEDDINGS.singles(BODY) == [
        (
            b'{"model":"m","input":"%c","user":"u"}' % letter,
            b'{"model":"m","input":["%c"],"user":"u"}' % letter,
        )
        for letter in b"abc"
    ]
    assert EMBEDDINGS.singles(b'{"input":[[1, 2],[3]]}') == [
        (b'{"input":[[1, 2]]}', b'{"input":[1, 2]}'),
        (b'{"input":[[3]]}', b'{"input":[3]}'),
    ]


@pytest.mark.parametrize("value", [b'"a"', b'["a"]', b"[1,2,3]", b"[[1,2,3]]"])
def test_one_input_has_no_singles(value: bytes) -> None:
    """One input, or a list of one, is answered as a whole or not at all."""
    assert EMBEDDINGS.singles(b'{"input":' + value + b"}") == []


def test_what_is_known_is_left_out() -> None:
    """The rest is still a list, in its order, spelled as it was."""
    assert EMBEDDINGS.without(BODY, [1]) == b'{"model":"m","input":["a","c"],"user":"u"}'
    assert EMBEDDINGS.without(BODY, [2, 0]) == b'{"model":"m","input":["b"],"user":"u"}'
    assert EMBEDDINGS.without(b'{"input":[[1, 2],[3]]}', [1]) == b'{"input":[[1, 2]]}'


@settings(deadline=None)
@given(drawn=BODIES, data=st.data())
def test_a_filled_embeddings_reply_is_the_whole_one(drawn: Any, data: Any) -> None:
    """Whichever inputs are known, singly or all of them: equal to the byte, counts included."""
    values, rest, spelling = drawn
    inputs = [each for value in values for each in inputs_in(value)]
    asked = body("input", inputs, rest, spelling)
    known = data.draw(st.sets(st.integers(0, len(inputs) - 1), max_size=len(inputs)))
    bodies = EMBEDDINGS.singles(asked)
    singles = {at: embedded(data.draw(st.sampled_from(bodies[at]))) for at in known}
    left = EMBEDDINGS.without(asked, sorted(known)) if len(known) < len(inputs) else b""
    answer = embedded(left) if left else b""
    assert EMBEDDINGS.fill(singles, answer) == embedded(asked)


@settings(deadline=None)
@given(prompts=st.lists(TEXTS, min_size=2, max_size=5), n=st.integers(1, 3), data=st.data())
def test_a_filled_completion_is_the_whole_one(prompts: list[str], n: int, data: Any) -> None:
    """The same with several choices to a prompt: indexes and all counts are those of the whole."""
    asked = body("prompt", prompts, {"model": "m", "n": n}, "compact")
    known = data.draw(st.sets(st.integers(0, len(prompts) - 1), max_size=len(prompts)))
    singles = {at: completed(COMPLETIONS.singles(asked)[at][0]) for at in known}
    left = COMPLETIONS.without(asked, sorted(known)) if len(known) < len(prompts) else b""
    assert COMPLETIONS.fill(singles, completed(left) if left else b"") == completed(asked)


def test_vectors_keep_their_spelling_and_their_place() -> None:
    """Stored vectors go in as they were stored, new ones as they came, spaced as the reply to the rest is."""
    rest = json.dumps(json.loads(one("[1]")), **SPELLINGS["indented"]).encode()
    filled = EMBEDDINGS.fill({0: one("[ 1e-05 ]"), 2: one('"\\/w=="')}, rest)
    assert filled is not None
    vectors = ['[ 1e-05 ]},\n    {\n      "index": 1,\n', '{"index":2,"embedding":"\\/w=="}\n  ]']
    assert all(part in filled.decode() for part in vectors)
    assert json.loads(filled)["usage"] == {"prompt_tokens": 3}


def test_nothing_known_leaves_the_reply() -> None:
    """Without singles the reply is what came, whatever it is."""
    assert EMBEDDINGS.fill({}, b"anything") == b"anything"


@pytest.mark.parametrize(
    ("singles", "rest"),
    [
        ({2: one("[1]")}, one("[2]")),
        ({-1: one("[1]")}, one("[2]")),
        ({0: one("[1]", index=1)}, one("[2]")),
        ({0: one("[1]")}, one("[2]", index=1)),
        ({0: one("[1]", model="old")}, one("[2]")),
        ({0: one("[1]", model="old"), 1: one("[1]")}, b""),
        ({0: b'{"data":[],"model":"m"}'}, one("[2]")),
        ({0: b"{"}, one("[2]")),
        ({0: one("[1]")}, b'{"error":{"type":"server_error"}}'),
        ({1: one("[1]")}, b""),
    ],
)
def test_replies_that_do_not_fit_are_not_put_together(singles: dict[int, bytes], rest: bytes) -> None:
    """A gap, a wrong position, another model or an error: the list is asked for as a whole."""
    assert EMBEDDINGS.fill(singles, rest) is None


def test_choices_must_be_as_many_everywhere() -> None:
    """A reply to two choices a prompt cannot be filled from one with three."""
    two, three = (completed(body("prompt", "a", {"model": "m", "n": n}, "compact")) for n in (2, 3))
    assert COMPLETIONS.fill({0: two}, three) is None
    assert COMPLETIONS.fill({0: two, 1: three}, two) is None
    assert COMPLETIONS.fill({0: two}, two) is not None
