"""One stored answer as bytes, for stores outside the process: framed, versioned, and checked when it is read.

    version     1 byte
    CRC-32      4 bytes, of all that follows
    fixed part  status, flags, size, duration, cost, five token counts, and how many headers and frames
    lengths     4 bytes each: names and values of the headers by turns, frames, origin
    bytes       the same, one after the other

Numbers are big-endian. `stored_at` and `ttl` are not in it: a store keeps them where it can compare them. The
reader believes nothing: what it cannot read whole is a ValueError.
"""

from __future__ import annotations

from binascii import crc32
from itertools import chain
from struct import Struct, error, pack, unpack_from
from typing import Final

from underlay.core.cache import Entry
from underlay.telemetry.events import Usage

__all__ = ["VERSION", "decode", "encode"]

VERSION: Final = 1
"""First byte of every record. A record of another version cannot be read."""

_HEAD: Final = Struct("!BI")
_FIXED: Final = Struct("!HBQdd5qII")
_STREAM, _USAGE, _COST = 1, 2, 4
_UNKNOWN: Final = -1  # tokens are never negative


def encode(entry: Entry) -> bytes:
    """The entry as one record. Raises ValueError when a number of it does not fit."""
    usage, cost = entry.usage, entry.cost_usd
    counts = (
        (
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.reasoning_tokens,
        )
        if usage is not None
        else (None,) * 5
    )
    flags = (entry.stream and _STREAM) | (usage is not None and _USAGE) | (cost is not None and _COST)
    pieces = (*chain.from_iterable(entry.headers), *entry.frames, entry.origin)
    try:
        fixed = _FIXED.pack(
            entry.status,
            flags,
            entry.size,
            entry.duration,
            0.0 if cost is None else cost,
            *[_UNKNOWN if count is None else count for count in counts],
            len(entry.headers),
            len(entry.frames),
        )
        rest = b"".join((fixed, pack(f"!{len(pieces)}I", *map(len, pieces)), *pieces))
    except error as wrong:
        raise ValueError(f"entry cannot be written: {wrong}") from None
    return _HEAD.pack(VERSION, crc32(rest)) + rest


def decode(record: bytes, stored_at: float, ttl: float) -> Entry:
    """The entry of a record. Raises ValueError when the record is not whole or not of this version."""
    try:
        version, checksum = _HEAD.unpack_from(record)
        if version != VERSION or crc32(memoryview(record)[_HEAD.size :]) != checksum:
            raise ValueError("record is damaged or of another version")
        status, flags, size, duration, cost, *tokens, headers, frames = _FIXED.unpack_from(record, _HEAD.size)
        pieces = _pieces(record, _HEAD.size + _FIXED.size, 2 * headers + frames + 1)
    except error:
        raise ValueError("record is cut") from None
    counts = [None if count == _UNKNOWN else count for count in tokens]
    named = iter(pieces[: 2 * headers])
    return Entry(
        status,
        tuple(zip(named, named, strict=True)),
        tuple(pieces[2 * headers : -1]),
        stored_at,
        ttl,
        size,
        bool(flags & _STREAM),
        duration,
        Usage(*counts) if flags & _USAGE else None,
        cost if flags & _COST else None,
        pieces[-1],
    )


def _pieces(record: bytes, at: int, number: int) -> list[bytes]:
    start = at + 4 * number
    pieces: list[bytes] = []
    for length in unpack_from(f"!{number}I", record, at):
        pieces.append(record[start : start + length])
        start += length
    if start != len(record):
        raise ValueError("record has another length than it says")
    return pieces
