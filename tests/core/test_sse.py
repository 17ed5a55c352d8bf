"""The event parser: the rules of the WHATWG standard, in any slicing, within its bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underlay.core.sse import Event, SSEParser

LINE = st.sampled_from(
    [
        b"data: one",
        b"data:two",
        b"data:  spaced",
        b"data",
        b"data:",
        b"event: delta",
        b"event:",
        b": comment",
        b"id: 7",
        b"retry: 10",
        b"unknown: x",
        b"data: caf\xc3\xa9",
        b"",
        b"",
    ]
)
BREAK = st.sampled_from([b"\n", b"\r", b"\r\n"])


def reference(stream: bytes) -> list[Event]:
    """The standard's algorithm over a whole stream, written for clarity: the oracle of the property."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[Event] = []
    name, data = b"", None
    for line in text.split(b"\n")[:-1]:
        if line == b"":
            if data is not None:
                events.append((name, data[:-1]))
            name, data = b"", None
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            data = (data or b"") + value + b"\n"
        elif field == b"event":
            name = value
    return events


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    parts = draw(st.lists(st.tuples(LINE, BREAK), max_size=30))
    head = draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\xef\xbb"]))
    return head + b"".join(line + end for line, end in parts)


@st.composite
def sliced(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    stream = draw(streams())
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return stream, [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@given(sliced())
def test_any_slicing_gives_the_events_of_the_standard(case: tuple[bytes, list[bytes]]) -> None:
    """However a stream is cut, its events are those that the standard's algorithm finds in the whole."""
    stream, pieces = case
    parser = SSEParser()
    assert [event for piece in pieces for event in parser.feed(piece)] == reference(stream)
    assert not parser.lost


@given(streams())
def test_byte_by_byte_equals_whole(stream: bytes) -> None:
    """The slow way (one byte a chunk) and the fast way (one chunk) agree."""
    whole, single = SSEParser(), SSEParser()
    assert whole.feed(stream) == [e for byte in stream for e in single.feed(bytes([byte]))]


WHOLE = st.lists(st.one_of(LINE, st.just(b"data: a\rdata: b")), min_size=1, max_size=6).map(
    lambda lines: b"\n".join(lines) + b"\n\n"
)
"""Chunks that end where an event does."""


@given(st.lists(WHOLE, max_size=6))
def test_whole_chunks_take_the_short_way_to_the_same_events(chunks: list[bytes]) -> None:
    """Whatever whole events the later chunks of a stream hold, they are those of the standard."""
    stream = [b"data: first\n\n", *chunks]
    parser = SSEParser()
    assert [event for chunk in stream for event in parser.feed(chunk)] == reference(b"".join(stream))


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_noise_never_raises(chunks: list[bytes]) -> None:
    """Arbitrary bytes give events or nothing, never an exception."""
    parser = SSEParser()
    for chunk in chunks:
        parser.feed(chunk)
    parser.finish()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [(b"", b"a")]),
        (b"event: x\ndata: {}\n\n", [(b"x", b"{}")]),
        (b"data: a\ndata: b\n\n", [(b"", b"a\nb")]),
        (b"data\n\n", [(b"", b"")]),
        (b"event: x\n\ndata: y\n\n", [(b"", b"y")]),
        (b": ping\n\ndata: a\n\n", [(b"", b"a")]),
        (b"data: a\n\n\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
        (b"data: \n\n", [(b"", b"")]),
        (b"event:  x\ndata:  a\n\n", [(b" x", b" a")]),
        (b"event: x\nid: 7\ndata: a\n\n", [(b"x", b"a")]),
        (b"event: x data: y\n\n", []),
        (b"id: data: y\n\n", []),
        (b"event: x\ndata: a\rdata: b\n\n", [(b"x", b"a\nb")]),
    ],
)
def test_documented_cases(stream: bytes, events: list[Event]) -> None:
    """Comments, several data lines and a field without a colon are read as the standard says, at the start
    and later."""
    parser = SSEParser()
    assert parser.feed(stream) == events
    assert parser.feed(stream) == events


def test_a_byte_order_mark_is_passed_over() -> None:
    """At the start of the stream, as the standard says."""
    assert SSEParser().feed(b"\xef\xbb\xbfdata: a\r\n\r\n") == [(b"", b"a")]


def test_fast_way_is_taken_after_the_first_chunk() -> None:
    """Whole events in later chunks come out at once, with their names."""
    parser = SSEParser()
    parser.feed(b"data: first\n\n")
    assert parser.feed(b"event: e\ndata: 1\n\ndata: 2\ndata: 3\n\n: c\n\n") == [(b"e", b"1"), (b"", b"2\n3")]


@pytest.mark.parametrize("rest", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r"])
def test_finish_gives_the_last_event_without_its_blank_line(rest: bytes) -> None:
    """A body that ends on its terminal event without a blank line still told it."""
    parser = SSEParser()
    assert parser.feed(b"data: a\n\n" + rest) == [(b"", b"a")]
    assert parser.finish() == [(b"", b"[DONE]")]
    assert parser.finish() == []


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_an_event_beyond_the_bound_loses_the_stream_without_raising(size: int) -> None:
    """The parser gives up on an event that is too large, keeps what came before and holds no memory."""
    parser = SSEParser(limit=64)
    stream = b"data: small\n\ndata: " + b"x" * 100 + b"\n\ndata: after\n\n"
    events = [e for i in range(0, len(stream), size) for e in parser.feed(stream[i : i + size])]
    assert events == [(b"", b"small")]
    assert parser.lost
    assert parser.finish() == []


def test_a_whole_chunk_is_bounded_too() -> None:
    """An event that comes in one piece is no exception."""
    parser = SSEParser(limit=64)
    assert parser.feed(b"data: small\n\n") == [(b"", b"small")]
    assert parser.feed(b"data: " + b"x" * 100 + b"\n\n") == []
    assert parser.lost


def test_many_small_lines_count_towards_the_bound() -> None:
    """An event of many lines is bounded as one of a single line is."""
    parser = SSEParser(limit=64)
    for _ in range(20):
        parser.feed(b"data: 1234\n")
    assert parser.lost


def test_a_long_stream_of_small_events_is_not_lost() -> None:
    """The bound is on one event, not on the stream."""
    parser = SSEParser(limit=64)
    for _ in range(100):
        assert parser.feed(b"data: 1234\n") == []
        assert parser.feed(b"\n") == [(b"", b"1234")]
    assert not parser.lost
