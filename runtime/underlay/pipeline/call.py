"""The book of one call: from its entry to the moment its reader has done with the reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.pipeline.flights import Lead
from underlay.telemetry.attributes import BatchMode, CacheResult, Ending
from underlay.telemetry.events import CallEnded

if TYPE_CHECKING:
    from underlay.core.batching import Lane, Released
    from underlay.pipeline.watch import Watched
    from underlay.telemetry.events import Usage

__all__ = ["Call"]

# A member is slow to reach through its class (CPython 3.11), and every call asks.
_BYPASS = CacheResult.BYPASS
_ALONE = BatchMode.ALONE


class Call(Lead):
    """Ends once, with its reader. Times are seconds on the runtime's clock. `stream`: its answer is one, or
    while there is none was asked for as one. `saved` is what its own request would have cost, for a call
    that read another's answer.

    It is also what flights and windows keep of it while it is under way: an object of their own for each
    would cost as much as all else that they do for a call that meets nobody. `lane` is where it is in flight
    while it goes alone, until it lands.
    """

    __slots__ = (
        "_chunks",
        "_ended",
        "_first",
        "batch_mode",
        "error_type",
        "lane",
        "result",
        "saved",
        "started",
        "status",
        "stream",
    )

    def __init__(self, watched: Watched, started: float) -> None:
        self.watched = watched
        self.started = started
        self.stream = False
        self.result = _BYPASS
        self.batch_mode = _ALONE
        self.status: int | None = None
        self.error_type = ""
        self.saved: tuple[float | None, Usage | None] = (None, None)
        self._chunks = 0
        self._first: float | None = None
        self.last = started
        self._ended = False
        self.lane: Lane | Released | None = None

    def chunk(self, now: float) -> None:
        """The reader was given a frame."""
        if self._first is None:
            self._first = now
        self.last = now
        self._chunks += 1

    def end(self, ending: Ending, now: float, error_type: str = "") -> None:
        """The reader has done. Only the first end counts."""
        if self._ended:
            return
        self._ended = True
        first = interval = None
        if self.stream and self._first is not None:
            first = self._first - self.started
            if self._chunks > 1:
                interval = (self.last - self._first) / (self._chunks - 1)
        saved_usd, saved_usage = self.saved
        self.watched.event(
            CallEnded(
                self.result,
                ending,
                max(0.0, now - self.started),
                self.status,
                error_type or self.error_type,
                self._chunks,
                first,
                interval,
                self.batch_mode,
                self.watched.trace_id(),
                saved_usd,
                saved_usage,
            )
        )
