"""Events that are passed over without being parsed tell nothing, and a body's short way through the scanner
reads what `json.loads` reads: the short way equals the long one."""

from __future__ import annotations

import codecs
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from replies import dumped

from underlay.providers import openai_chat
from underlay.providers._observe import StreamObserver, parsed
from underlay.providers.anthropic_messages import MessageStream
from underlay.providers.openai_chat import ChatStream, read_choices
from underlay.providers.openai_responses import ResponseStream


class FullChat(ChatStream):
    """Parses every chunk."""

    def _event(self, data: bytes) -> None:
        if data.startswith(b"[DONE]"):
            self._end()
        else:
            self._chunk(parsed(data))


class FullResponse(ResponseStream):
    """Parses every event."""

    def _event(self, data: bytes) -> None:
        if (event := parsed(data)) is not None:
            self._told(event)


class FullMessage(MessageStream):
    """Parses every event."""

    def _event(self, data: bytes) -> None:
        if (event := parsed(data)) is not None:
            self._told(event)


WORDS = [
    "usage",
    '"usage":{"prompt_tokens":1}',
    '"usage":null',
    '"finish_reason":"stop"',
    "finish_reason",
    "error",
    '"error"',
    '"error":{}',
    "message_stop",
    '{"type":"message_stop"}',
    "response.completed",
    '"response":{"id":"x"}',
    '"type":"error"',
    "[DONE]",
    "é\u2028\n\\u0022",
    "\\",
    '"',
    "",
]
TEXT = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))
COUNT = st.one_of(st.none(), st.integers(0, 9))
USAGE = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"]), COUNT
    ),
)
ERROR = st.one_of(
    st.none(), TEXT, st.fixed_dictionaries({}, optional={"type": TEXT, "code": TEXT, "message": TEXT})
)
DELTA = st.sampled_from(["content", "usage", "error"])
CHOICE = st.fixed_dictionaries(
    {"index": st.integers(0, 2), "delta": st.dictionaries(DELTA, TEXT, max_size=2)},
    optional={"finish_reason": st.one_of(st.none(), TEXT), "logprobs": st.none()},
)
CHUNK = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["", "chatcmpl-1", "chatcmpl-2"]),
        "model": st.sampled_from(["", "gpt-4o", "gpt-4o-2024-08-06"]),
        "choices": st.lists(CHOICE, max_size=2),
        "usage": USAGE,
        "error": ERROR,
        "service_tier": st.one_of(st.none(), TEXT),
        "obfuscation": TEXT,
        "x_groq": st.one_of(st.none(), st.fixed_dictionaries({"usage": USAGE})),
    },
)
RESPONSE = st.fixed_dictionaries(
    {}, optional={"id": TEXT, "model": TEXT, "status": TEXT, "usage": USAGE, "error": ERROR}
)
EVENT = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                "response.created",
                "response.completed",
                "response.incomplete",
                "response.failed",
                "response.output_text.delta",
                "response.output_item.done",
                "error",
                "message_start",
                "message_delta",
                "message_stop",
                "content_block_delta",
                "ping",
            ]
        )
    },
    optional={
        "response": st.one_of(RESPONSE, st.none()),
        "message": st.one_of(RESPONSE, TEXT),
        "delta": st.one_of(TEXT, st.fixed_dictionaries({}, optional={"text": TEXT, "stop_reason": TEXT})),
        "usage": USAGE,
        "error": ERROR,
        "code": st.one_of(st.none(), TEXT),
    },
)
FORM = st.fixed_dictionaries({"spaced": st.booleans(), "ascii_only": st.booleans()})


def agree(
    short: StreamObserver, full: StreamObserver, values: list[tuple[Any, dict[str, bool]]], *, done: bool
) -> None:
    """Feed both the same stream and compare what they say after each event, and at the end."""
    stream = [b"data: " + dumped(value, **form) + b"\n\n" for value, form in values] + [
        b"data: [DONE]\n\n"
    ] * done
    for piece in stream:
        short.feed(piece)
        full.feed(piece)
        assert short.ended == full.ended
    assert short.outcome() == full.outcome()


@given(st.lists(st.tuples(CHUNK, FORM), max_size=8), st.booleans())
def test_chat_chunks(values: list[tuple[Any, dict[str, bool]]], done: bool) -> None:
    """Whatever chunks say, and however their JSON is spelled, passing over the idle ones loses nothing."""
    agree(ChatStream(), FullChat(), values, done=done)


@given(st.lists(st.tuples(EVENT, FORM), max_size=8))
def test_response_events(values: list[tuple[Any, dict[str, bool]]]) -> None:
    """Only events with a response or an error tell something."""
    agree(ResponseStream(), FullResponse(), values, done=False)


@given(st.lists(st.tuples(EVENT, FORM), max_size=8))
def test_message_events(values: list[tuple[Any, dict[str, bool]]]) -> None:
    """Only events about the message and errors tell something."""
    agree(MessageStream(), FullMessage(), values, done=False)


def test_an_ordinary_delta_takes_the_short_way() -> None:
    """The chunk that streams are made of is passed over; one that spells a name with escapes is not."""
    delta = {
        "id": "c",
        "choices": [{"index": 0, "delta": {"content": 'hi "usage"'}, "finish_reason": None}],
        "usage": None,
    }
    assert openai_chat._idle(dumped(delta))
    assert not openai_chat._idle(dumped(delta).replace(b'"usage":null', b'"\\u0075sage":{}'))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=8,
)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
AROUND = st.sampled_from(["", " ", "\n", "\r\n\t", "\0", "\x0b", "\u00a0", "\ufeff", "{}", "x", ","])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON in any encoding, with anything around it, whole or cut."""
    value = draw(st.one_of(st.dictionaries(TEXT, JSON, max_size=3), JSON))
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 2])))
    text = draw(AROUND) + text + draw(AROUND)
    data = text.encode(draw(st.sampled_from(ENCODINGS)), "surrogatepass")
    return data[: len(data) - draw(st.sampled_from([0, 0, 0, 1, 2, 3]))]


def loaded(data: bytes) -> dict[str, object] | None:
    """What `json.loads` makes of a body."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


@given(st.one_of(bodies(), st.binary(max_size=12)))
@example(b'{"a":"\xed\xa0\x80"}')
@example(b'{"a":1e400,"b":NaN,"a":2}')
@example(b'{"a":' + b"9" * 5000 + b"}")
@example(codecs.BOM_UTF8 + b'{"a":1}')
@example(b"\n{}\0")
@example(b"\x0b{}")
@example(b" {}\r\n")
@example(b"1\0\0\0")
def test_a_body_reads_as_json_loads_reads_it(data: bytes) -> None:
    """Any encoding that JSON has, white space, lone surrogates, cut bodies and noise: what was accepted is
    still accepted, and as the same value."""
    assert repr(parsed(data)) == repr(loaded(data))


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, codecs.BOM_UTF8 + b"[" * 100_000])
def test_a_body_that_is_nested_too_deep_is_none(data: bytes) -> None:
    """By either way."""
    assert parsed(data) is None


@given(st.lists(CHOICE, max_size=3))
def test_finish_reasons_of_one_choice_are_read_as_those_of_many(choices: list[dict[str, Any]]) -> None:
    """The reasons come in order of the choices' indices, one each."""
    reasons = {choice["index"]: choice.get("finish_reason") or "" for choice in choices}
    expected = tuple(reasons[index] for index in sorted(reasons) if reasons[index])
    assert read_choices({"choices": choices}).finish_reasons == expected
