"""The two kinds of observer that all dialects share: one JSON value, or a stream of events whose data are
JSON."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from underlay.core.sse import SSEParser
from underlay.providers._errors import blames
from underlay.providers.dialect import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from underlay.core.usage import Billing
    from underlay.telemetry.events import Usage

__all__ = ["JSON_LIMIT", "JSONObserver", "StreamObserver", "escapes", "named", "parsed"]

JSON_LIMIT = 32 * 1024 * 1024
"""Bound of a JSON body that is read, in bytes. A merged embeddings answer of 256 x 3072 numbers is
about 9 MB."""

_SPACES = b" \t\n\r"
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def parsed(data: bytes) -> dict[str, object] | None:
    """The JSON object in `data`, or None when it is anything else."""
    # An object in UTF-8, as servers write it, goes to the scanner itself: what `loads` does around it takes
    # half as long again.
    try:
        text = data.strip(_SPACES).decode()
        value, end = _scan(text, 0)
    except (ValueError, StopIteration):
        return _loaded(data)
    except RecursionError:
        return None
    return value if end == len(text) and isinstance(value, dict) else None


def _loaded(data: bytes) -> dict[str, object] | None:
    """The same of UTF-16 and UTF-32, after a byte order mark, and with lone surrogates."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def named(value: object, known: str = "") -> str:
    """`known` if there is one, else `value` if it is a string: the first name that an answer gave stays."""
    return known or (value if isinstance(value, str) else "")


def escapes(data: bytes) -> bool:
    """Whether a `\\u` escape is there, which could spell any name."""
    # A single byte is found three times as fast. Events are looked through with `find`: `in` asks its operand
    # for a number first, which costs an exception inside.
    return data.find(b"\\") >= 0 and data.find(b"\\u") >= 0


class JSONObserver:
    """Collects a body and parses it once, at the end. `read` turns the object of a 2xx answer into an
    outcome, `kind` finds an error's type."""

    __slots__ = ("_kind", "_parts", "_read", "_size", "_status")

    ended = False

    def __init__(
        self, status: int, read: Callable[[dict[str, object]], Outcome], kind: Callable[[object], str]
    ) -> None:
        self._status = status
        self._read = read
        self._kind = kind
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Keep `data`, unless the body has grown past the bound."""
        self._size += len(data)
        if self._size > JSON_LIMIT:
            self._parts.clear()
        else:
            self._parts.append(data)

    def outcome(self) -> Outcome:
        """Complete when the bytes are exactly one JSON object: every answer and every error of these APIs is
        one."""
        if self._size > JSON_LIMIT:
            return Outcome(complete=False, storable=False, lost=True)
        body = parsed(b"".join(self._parts))
        if body is None:
            return Outcome(complete=False, storable=False)
        error = self._kind(body)
        if error:
            return Outcome(complete=True, storable=False, error=error, blame=blames(error, self._status))
        if not 200 <= self._status < 300:
            return Outcome(complete=True, storable=False)
        return self._read(body)


class StreamObserver(ABC):
    """Reads events as they pass. A dialect says in `_event` what an event means, and parses its JSON only
    when it has to.

    After the terminal event nothing is read any more. An error event is terminal too: the SDKs raise on it
    and read no further.
    """

    __slots__ = ("_finished", "_parser", "error", "finish", "model", "response_id", "storable")

    def __init__(self) -> None:
        self._parser = SSEParser()
        self._finished = False
        self.storable = True
        self.error = ""
        self.model = ""
        self.response_id = ""
        self.finish: dict[int, str] = {}

    @property
    def ended(self) -> bool:
        """True once the terminal event has been seen."""
        return self._finished

    def feed(self, data: bytes) -> None:
        """Read the events that `data` completes."""
        if self._finished:
            return
        for _, payload in self._parser.feed(data):
            self._event(payload)
            if self._finished:
                return

    def outcome(self) -> Outcome:
        """The verdict over the events, a last one without its blank line included."""
        if not self._finished:
            for _, payload in self._parser.finish():
                self._event(payload)
        return self._verdict()

    def _end(self, error: str = "") -> None:
        self._finished = True
        self.error = error

    def _outcome(self, usage: Usage | None = None, billing: Billing | None = None) -> Outcome:
        return Outcome(
            complete=self._finished,
            storable=self.storable and self._finished and not self.error,
            error=self.error,
            blame=bool(self.error) and blames(self.error),
            usage=usage,
            model=self.model,
            response_id=self.response_id,
            finish_reasons=tuple(reason for _, reason in sorted(self.finish.items())),
            lost=self._parser.lost and not self._finished,
            billing=billing,
        )

    @abstractmethod
    def _event(self, data: bytes) -> None: ...

    @abstractmethod
    def _verdict(self) -> Outcome: ...
