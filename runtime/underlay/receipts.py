"""What a library call learns of itself: the events of its own call, found again through the caller's
context."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from underlay.telemetry.events import AttemptEnded, CallEnded
from underlay.telemetry.listener import QuietHandle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from underlay.telemetry.events import CallEvent, CallStarted, ProcessEvent

__all__ = ["Receipt", "Receipts", "receipt"]


class Receipt:
    """The last attempt and the end of one call; None until they happened."""

    __slots__ = ("attempt", "ended")

    def __init__(self) -> None:
        self.attempt: AttemptEnded | None = None
        self.ended: CallEnded | None = None


_current: ContextVar[Receipt | None] = ContextVar("underlay_receipt", default=None)


@contextmanager
def receipt() -> Iterator[Receipt]:
    """A receipt for the call that is made inside."""
    made = Receipt()
    token = _current.set(made)
    try:
        yield made
    finally:
        _current.reset(token)


class Receipts:
    """The listener that fills them."""

    def start(self, started: CallStarted) -> _Filling | None:
        """A call began; most have nobody who asked for a receipt."""
        asked_for = _current.get()
        return _Filling(asked_for) if asked_for is not None else None

    def event(self, event: ProcessEvent) -> None:
        """Nothing that concerns one call."""


class _Filling(QuietHandle):
    __slots__ = ("_receipt",)

    def __init__(self, receipt: Receipt) -> None:
        self._receipt = receipt

    def event(self, event: CallEvent) -> None:
        if isinstance(event, AttemptEnded):
            self._receipt.attempt = event
        elif isinstance(event, CallEnded):
            self._receipt.ended = event
