"""Where the values of a JSON text stand, so that they can be moved without being written anew.

A vector of 3,072 numbers is passed over with one regular expression; nothing is built for it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Edit", "Span", "spans", "spliced", "value_at"]

Edit = tuple[int, int, str]
"""From, to, and the text that takes this place."""

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_FLAT: Final = re.compile(r"\[[-+.0-9eE, \t\n\r]*\]|-?[0-9][-+.0-9eE]*")
_decoder: Final = json.JSONDecoder()


@dataclass(slots=True)
class Span:
    """A value from `start` to `end`. `members` are the values of an object, `items` those of an array; what
    was passed over, a list of numbers among it, has neither."""

    start: int
    end: int
    members: dict[str, Span] | None = None
    items: list[Span] | None = None


def spans(text: str, depth: int) -> Span:
    """The one value of a text, with what is in it down to `depth` levels. ValueError or IndexError where the
    text is no JSON or an object repeats a name, RecursionError where it is too deep."""
    span = _span(text, _skip(text, 0), depth)
    if _skip(text, span.end) != len(text):
        raise ValueError("text after the value")
    return span


def value_at(text: str, span: Span) -> object:
    """The value itself."""
    value: object = _decoder.raw_decode(text, span.start)[0]
    return value


def spliced(text: str, start: int, end: int, edits: Iterable[Edit]) -> str:
    """The text from `start` to `end`, with edits that do not overlap."""
    parts: list[str] = []
    for begin, stop, new in sorted(edits):
        parts += (text[start:begin], new)
        start = stop
    parts.append(text[start:end])
    return "".join(parts)


def _span(text: str, at: int, depth: int) -> Span:
    if text[at] == '"':
        end = text.index('"', at + 1)
        if text.find("\\", at, end) < 0:
            return Span(at, end + 1)
    elif (flat := _FLAT.match(text, at)) is not None:
        return Span(at, flat.end())
    if depth > 0 and text[at] == "{":
        return _object(text, at, depth)
    if depth > 0 and text[at] == "[":
        return _array(text, at, depth)
    return Span(at, _decoder.raw_decode(text, at)[1])


def _object(text: str, start: int, depth: int) -> Span:
    found: dict[str, Span] = {}
    at = _skip(text, start + 1)
    if text[at] == "}":
        return Span(start, at + 1, members=found)
    while True:
        if text[at] != '"':
            raise ValueError("not a name")
        name, at = scanstring(text, at + 1, True)  # noqa: FBT003 it takes no keywords
        if name in found:
            raise ValueError("a name twice")
        at = _after(text, _skip(text, at), ":")
        found[name] = span = _span(text, at, depth - 1)
        at = _skip(text, span.end)
        if text[at] == "}":
            return Span(start, at + 1, members=found)
        at = _after(text, at, ",")


def _array(text: str, start: int, depth: int) -> Span:
    found: list[Span] = []
    at = _skip(text, start + 1)
    if text[at] == "]":
        return Span(start, at + 1, items=found)
    while True:
        found.append(span := _span(text, at, depth - 1))
        at = _skip(text, span.end)
        if text[at] == "]":
            return Span(start, at + 1, items=found)
        at = _after(text, at, ",")


def _after(text: str, at: int, mark: str) -> int:
    if text[at] != mark:
        raise ValueError(f"no {mark}")
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    if text[at : at + 1] not in {" ", "\t", "\n", "\r"}:
        return at
    match = _SPACE.match(text, at)
    return at if match is None else match.end()
