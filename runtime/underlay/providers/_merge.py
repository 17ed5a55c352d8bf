"""Requests that hold a list of inputs: several made one, its reply made several, by position.

Inputs and answers move as the text that came; only positions, counts and ids are written anew. A reply that
was split looks as it would have looked alone, white space included.
"""

from __future__ import annotations

import re
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from underlay.core.usage import usage_parts, usage_sums
from underlay.providers._ask import integer
from underlay.providers._spans import Edit, Span, spans, spliced, value_at
from underlay.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ListMerger"]

_TOKEN: Final = 4
"""Bytes of text that are about one token, by OpenAI's rule of thumb: as a weight its error cancels out, where
the upper estimate that bounds a request would favour short texts."""

_NUMBER: Final = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9][-+.0-9eE]*')
_BROKEN: Final = (ValueError, IndexError, KeyError, RecursionError)


@record(frozen=True, slots=True)
class _Request:
    """A body, the value that holds its inputs, and each of them; `each` is how many answers one input has."""

    text: str
    value: Span
    inputs: list[Span]
    each: int

    def inner(self) -> str:
        return self.text[self.inputs[0].start : self.inputs[-1].end]

    def weight(self) -> int:
        return sum(_weight(self.text, span) for span in self.inputs)


@record(frozen=True, slots=True)
class _Reply:
    """A reply, its fields, the list of its answers, and each of them in the order of their positions."""

    text: str
    fields: dict[str, Span]
    listed: Span
    items: list[Span]

    def item(self, position: int, index: int) -> str:
        """The answer at a position, with another index."""
        span = self.items[position]
        at = _members(span)["index"]
        return spliced(self.text, span.start, span.end, [(at.start, at.end, str(index))])

    def list_of(self, items: list[str]) -> str:
        """A list of other answers, spaced as this reply's is."""
        written = self.listed.items or []
        opened = self.text[self.listed.start : written[0].start]
        between = self.text[written[0].end : written[1].start] if len(written) > 1 else "," + opened[1:]
        return opened + between.join(items) + self.text[written[-1].end : self.listed.end]

    def value(self, name: str) -> object:
        span = self.fields.get(name)
        return None if span is None else value_at(self.text, span)

    def counts(self) -> list[tuple[int, int]]:
        """Where the numbers of `usage` stand, in the order in which they are written."""
        span = self.fields.get("usage")
        if span is None or self.text[span.start] != "{":
            return []
        found = _NUMBER.finditer(self.text, span.start, span.end)
        return [match.span() for match in found if self.text[match.start()] != '"']

    def edited(self, edits: list[Edit]) -> bytes:
        return spliced(self.text, 0, len(self.text), edits).encode()


@record(frozen=True, slots=True)
class ListMerger:
    """Merges requests whose body field `field` is one input or a list of them, and whose reply has an answer
    for each in its list `answers`. `times` is the body field that asks for several answers to every input,
    `output` the text of an answer; empty where the API has none. `limits` is a table of `_bounds`."""

    field: str
    answers: str
    limits: Mapping[str, tuple[int, int]]
    times: str = ""
    output: str = ""

    def bounds(self, provider: str) -> tuple[int, int]:
        """Most inputs and most tokens that this provider takes in one request; "" is any other server."""
        return self.limits.get(provider, self.limits[""])

    def merge(self, bodies: Sequence[bytes]) -> bytes:
        """The first body with everybody's inputs, in order; one body stays as it is."""
        if len(bodies) == 1:
            return bodies[0]
        requests = [self._request(body) for body in bodies]
        first = requests[0]
        inputs = ",".join([request.inner() for request in requests])
        return _asking(first, f"[{inputs}]")

    def split(self, reply: bytes, bodies: Sequence[bytes]) -> list[bytes] | None:
        """The reply of each: its own answers, counted from 0, and its part of every count. The first keeps
        the reply's `id`, those after it get "-2", "-3", … at its end. None when the reply has not exactly one
        answer at every position."""
        try:
            return self._split(self._reply(reply), [self._request(body) for body in bodies])
        except _BROKEN:
            return None

    def singles(self, body: bytes) -> list[tuple[bytes, ...]]:
        """For each input, the body with it alone and the body with a list of it alone. A text is likelier to
        be asked for by itself, tokens are likelier to be in a list, because that is how clients send them."""
        request = self._request(body)
        if len(request.inputs) < 2:
            return []
        found: list[tuple[bytes, ...]] = []
        for span in request.inputs:
            one = request.text[span.start : span.end]
            bare, listed = _asking(request, one), _asking(request, f"[{one}]")
            found.append((bare, listed) if one[0] == '"' else (listed, bare))
        return found

    def without(self, body: bytes, places: Sequence[int]) -> bytes:
        """The body without the inputs at these places; what is left stays a list."""
        request, gone = self._request(body), set(places)
        kept = [span for place, span in enumerate(request.inputs) if place not in gone]
        inputs = ",".join([request.text[span.start : span.end] for span in kept])
        return _asking(request, f"[{inputs}]")

    def fill(self, singles: Mapping[int, bytes], reply: bytes) -> bytes | None:
        """The reply to the whole list, with the counts of all together. `reply` is empty when nothing was
        left to ask. None when positions do not match or another model answered."""
        try:
            return self._fill({at: self._reply(single) for at, single in singles.items()}, reply)
        except _BROKEN:
            return None

    def _request(self, body: bytes) -> _Request:
        text = body.decode()
        fields = _members(spans(text, 2))
        value = fields[self.field]
        times = fields.get(self.times) if self.times else None
        each = 1 if times is None else integer(value_at(text, times)) or 1
        return _Request(text, value, value.items or [value], each)

    def _reply(self, data: bytes) -> _Reply:
        text = data.decode()
        fields = _members(spans(text, 3))
        listed = fields[self.answers]
        placed = {integer(value_at(text, _members(item)["index"])): item for item in listed.items or []}
        if not placed or len(placed) != len(listed.items or []):
            raise ValueError("no answers, or two at one position")
        return _Reply(text, fields, listed, [placed[index] for index in range(len(placed))])

    def _split(self, reply: _Reply, requests: list[_Request]) -> list[bytes] | None:
        ends = [0, *accumulate(len(request.inputs) * request.each for request in requests)]
        if ends[-1] != len(reply.items):
            return None
        own = [range(start, end) for start, end in pairwise(ends)]
        entered = [request.weight() for request in requests]
        produced = [sum(self._size(reply, position) for position in mine) for mine in own]
        parts = usage_parts(reply.value("usage"), entered, produced if self.output else entered)
        where = reply.counts()
        made = []
        for place, mine in enumerate(own):
            items = [reply.item(position, index) for index, position in enumerate(mine)]
            edits = [(reply.listed.start, reply.listed.end, reply.list_of(items))]
            edits += _named(reply, place)
            edits += _counted(reply, where, [None if part is None else part[place] for part in parts])
            made.append(reply.edited(edits))
        return made

    def _size(self, reply: _Reply, position: int) -> int:
        span = _members(reply.items[position]).get(self.output)
        return 0 if span is None else _bytes(reply.text, span)

    def _fill(self, singles: dict[int, _Reply], data: bytes) -> bytes | None:
        if not singles:
            return data
        known = list(singles.values())
        rest = self._reply(data) if data else None
        found = known if rest is None else [rest, *known]
        first, each = found[0], len(known[0].items)
        left, odd = divmod(0 if rest is None else len(rest.items), each)
        places = range(len(singles) + left)
        if odd or not singles.keys() <= set(places) or any(len(single.items) != each for single in known):
            return None
        if any(one.value("model") != first.value("model") for one in found):
            return None
        asked = iter([] if rest is None else [(rest, start) for start in range(0, len(rest.items), each)])
        sources = [(singles[place], 0) if place in singles else next(asked) for place in places]
        items = [
            source.item(start + j, place * each + j)
            for place, (source, start) in enumerate(sources)
            for j in range(each)
        ]
        edits = [(first.listed.start, first.listed.end, first.list_of(items))]
        sums = usage_sums([one.value("usage") for one in found])
        return first.edited(edits + _counted(first, first.counts(), sums))


def _members(span: Span) -> dict[str, Span]:
    if span.members is None:
        raise ValueError("not an object")
    return span.members


def _asking(request: _Request, inputs: str) -> bytes:
    at = request.value
    return spliced(request.text, 0, len(request.text), [(at.start, at.end, inputs)]).encode()


def _bytes(text: str, span: Span) -> int:
    value = value_at(text, span)
    return len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else 0


def _weight(text: str, span: Span) -> int:
    if text[span.start] == "[":
        return text.count(",", span.start, span.end) + 1
    return max(1, -(-_bytes(text, span) // _TOKEN))


def _named(reply: _Reply, place: int) -> list[Edit]:
    span = reply.fields.get("id")
    if place == 0 or span is None or reply.text[span.start] != '"':
        return []
    return [(span.end - 1, span.end, f'-{place + 1}"')]


def _counted(
    reply: _Reply, where: list[tuple[int, int]], numbers: Sequence[int | float | None]
) -> list[Edit]:
    return [
        (start, end, repr(number))
        for (start, end), number in zip(where, numbers, strict=True)
        if number is not None and float(reply.text[start:end]) != number
    ]
