"""An answer as bytes: everything comes back, and nothing that is damaged does."""

from __future__ import annotations

import dataclasses
from binascii import crc32
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underlay.core.cache import Entry
from underlay.stores.codec import VERSION, decode, encode
from underlay.telemetry.events import Usage

BYTES = st.binary(max_size=20)
TIMES = st.floats(0, 1e9)
TOKENS = st.none() | st.integers(0, 2**62)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "status": st.integers(100, 599),
    "headers": st.lists(st.tuples(BYTES, BYTES), max_size=4).map(tuple),
    "frames": st.lists(BYTES, max_size=6).map(tuple),
    "stored_at": TIMES,
    "ttl": TIMES,
    "size": st.integers(0, 2**40),
    "stream": st.booleans(),
    "duration": TIMES,
    "usage": st.none() | st.builds(Usage, *[TOKENS] * 5),
    "cost_usd": st.none() | st.floats(0, 1e6),
    "origin": BYTES,
}
ENTRIES = st.builds(Entry, **FIELDS)
WHOLE = Entry(
    200,
    ((b"content-type", b"application/json"), (b"x-a", b"")),
    (b'{"a":', b"", b"1}"),
    1.0,
    2.0,
    30,
    False,
    0.5,
    Usage(1, 2, 0, None, 3),
    0.25,
    b"origin",
)


def test_the_table_above_has_every_field() -> None:
    """A field that is added to an entry or to its usage has to be added to the records."""
    assert set(FIELDS) == {field.name for field in dataclasses.fields(Entry)}
    assert len(dataclasses.fields(Usage)) == 5


@given(ENTRIES)
def test_any_entry_comes_back_equal(entry: Entry) -> None:
    """Every field, empty frames and unknown numbers included; unknown is not zero."""
    assert decode(encode(entry), entry.stored_at, entry.ttl) == entry


@given(ENTRIES, st.data())
def test_any_changed_byte_is_noticed(entry: Entry, data: st.DataObject) -> None:
    """One wrong bit anywhere makes the record unreadable, never another answer."""
    record = bytearray(encode(entry))
    place = data.draw(st.integers(0, len(record) - 1))
    record[place] ^= data.draw(st.sampled_from([1 << bit for bit in range(8)]))
    with pytest.raises(ValueError):
        decode(bytes(record), 0.0, 1.0)


@pytest.mark.parametrize("length", range(len(encode(WHOLE))))
def test_a_cut_record_is_noticed(length: int) -> None:
    """Whatever is left of it."""
    with pytest.raises(ValueError):
        decode(encode(WHOLE)[:length], 0.0, 1.0)


def test_a_record_with_something_behind_it_is_noticed() -> None:
    """The lengths add up to the record or it is none."""
    with pytest.raises(ValueError):
        decode(encode(WHOLE) + b"\x00", 0.0, 1.0)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(record: bytes) -> None:
    """What is no record is a ValueError and nothing else."""
    with pytest.raises(ValueError):
        decode(record, 0.0, 1.0)


COUNTS = st.integers(0, 3) | st.integers(0, 2**32 - 1)


@given(st.integers(0, 9).map(lambda number: bytes(4 * number)) | st.binary(max_size=120), COUNTS, COUNTS)
def test_a_record_that_lies_with_a_right_checksum_is_refused(rest: bytes, headers: int, frames: int) -> None:
    """Counts and lengths are not believed: no huge format, no read beyond the end."""
    fixed = pack("!HBQdd5qII", 200, 0, 1, 0.0, 0.0, 0, 0, 0, 0, 0, headers, frames)
    record = pack("!BI", VERSION, crc32(fixed + rest)) + fixed + rest
    try:
        entry = decode(record, 0.0, 1.0)
    except ValueError:
        return
    assert (len(entry.headers), len(entry.frames)) == (headers, frames)
    pieces = [*(piece for header in entry.headers for piece in header), *entry.frames, entry.origin]
    assert len(rest) == sum(4 + len(piece) for piece in pieces)


def test_a_record_of_a_later_version_is_refused() -> None:
    """Another release may have written it."""
    with pytest.raises(ValueError, match="another version"):
        decode(b"\x02" + encode(WHOLE)[1:], 0.0, 1.0)


def test_a_number_that_does_not_fit_is_a_value_error() -> None:
    """The writer says so in the words that the reader uses."""
    with pytest.raises(ValueError, match="cannot be written"):
        encode(dataclasses.replace(WHOLE, status=70_000))
