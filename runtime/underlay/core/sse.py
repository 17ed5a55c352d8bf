"""Server-sent events out of bytes in any slicing: the parsing rules of the WHATWG HTML standard, §9.2.6.

Decides where events begin and end, nothing about their meaning, and keeps bytes as bytes (names and data of
the APIs are compared, not shown). It runs for every chunk on the application's own path, so whole events in
one chunk take a short way without a buffer.
"""

from __future__ import annotations

__all__ = ["LIMIT", "Event", "SSEParser"]

LIMIT = 16 * 1024 * 1024
"""Default bound of one event in bytes."""

Event = tuple[bytes, bytes]
"""(event name, data). The name is empty where the stream gave none, which the standard reads as `message`."""

_BOM = b"\xef\xbb\xbf"


class SSEParser:
    """An incremental parser. `feed` gives the events that a chunk completed; `finish` the one a missing last
    blank line left open.

    An event of more than `limit` bytes makes it give up: `lost` turns true and nothing comes out any more. It
    never raises.
    """

    __slots__ = ("_between", "_cr", "_data", "_limit", "_name", "_partial", "_size", "_started", "lost")

    def __init__(self, limit: int = LIMIT) -> None:
        self.lost = False
        self._limit = limit
        self._started = False
        self._between = False  # two events, with nothing kept: the short way is open
        self._cr = False
        self._partial: list[bytes] = []
        self._size = 0
        self._name = b""
        self._data: list[bytes] | None = None

    def feed(self, chunk: bytes) -> list[Event]:
        """Events completed by `chunk`, in order."""
        # Not `in`: it asks its operand for a number first, which costs an exception inside.
        if self._between and chunk.endswith(b"\n\n") and chunk.find(b"\r") < 0 and len(chunk) <= self._limit:
            return _whole(chunk)
        return self._slow(chunk)

    def finish(self) -> list[Event]:
        """The event that the end of the body left without its blank line, if there is one.

        The standard drops it. Here it is given, because a provider that ends on `data: [DONE]` without a
        blank line has ended cleanly.
        """
        if self.lost:
            return []
        events: list[Event] = []
        if self._partial:
            line = b"".join(self._partial)
            self._partial = []
            self._line(line, events)
        self._line(b"", events)
        return events

    def _slow(self, chunk: bytes) -> list[Event]:
        events: list[Event] = []
        if self.lost or not chunk:
            return events
        if not self._started:
            chunk = self._without_bom(chunk)
            if not self._started:
                return events
        if self._cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._cr = chunk.endswith(b"\r") if chunk else False
        self._lines(chunk, events)
        if self._size > self._limit:
            self.lost = True
            self._partial, self._data = [], None
        self._between = not (self._size or self._cr or self.lost)
        return events

    def _without_bom(self, chunk: bytes) -> bytes:
        head = b"".join((*self._partial, chunk))
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._partial = [head]
            return b""
        self._partial = []
        self._started = True
        return head.removeprefix(_BOM)

    def _lines(self, chunk: bytes, events: list[Event]) -> None:
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._size += len(line)
            if self._size > self._limit:
                return
            if self._partial:
                self._partial.append(line)
                line = b"".join(self._partial)
                self._partial = []
            self._line(line, events)
        if rest:
            self._partial.append(rest)
            self._size += len(rest)

    def _line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            if self._data is not None:
                events.append((self._name, b"\n".join(self._data)))
            self._name, self._data, self._size = b"", None, 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            if self._data is None:
                self._data = []
            self._data.append(value.removeprefix(b" "))
        elif name == b"event":
            self._name = value.removeprefix(b" ")


def _whole(chunk: bytes) -> list[Event]:
    """Events of a chunk that starts and ends at a boundary and ends its lines with LF alone."""
    # The frame that streams are made of: one line of data, alone or after the event's name.
    head, _, data = chunk[:-2].partition(b"data: ")
    if data and data.find(b"\n") < 0:
        if not head:
            return [(b"", data)]
        if head.startswith(b"event: ") and head.find(b"\n") == len(head) - 1:
            return [(head[7:-1], data)]
    return [event for block in chunk[:-2].split(b"\n\n") if (event := _block(block)) is not None]


def _block(block: bytes) -> Event | None:
    name, data = b"", None
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            value = value.removeprefix(b" ")
            data = value if data is None else data + b"\n" + value
        elif field == b"event":
            name = value.removeprefix(b" ")
    return None if data is None else (name, data)
