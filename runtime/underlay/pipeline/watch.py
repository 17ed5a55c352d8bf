"""The listeners of a runtime as one: what a listener raises is counted and dropped, and changes no call."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from underlay.pipeline.faults import Faults
from underlay.telemetry.attributes import Stage
from underlay.telemetry.events import Faulted
from underlay.telemetry.listener import NOTHING, QuietHandle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from underlay.telemetry.events import BatchEnded, BatchStarted, CallEvent, CallStarted, ProcessEvent
    from underlay.telemetry.listener import Dispatch, Handle, Listener

__all__ = ["Watch", "Watched", "WatchedDispatch"]


class _Held(Protocol):
    """What a handle on a call and one on a dispatch share."""

    def attempt(self) -> AbstractContextManager[object]: ...

    def origin(self) -> bytes: ...


class Watched:
    """Every listener's handle on one call. `_speaking` are those that may have a scope or a pointer to
    give."""

    __slots__ = ("_faults", "_handles", "_speaking")

    def __init__(self, handles: Sequence[Handle], speaking: Sequence[Handle], faults: Faults) -> None:
        self._handles = handles
        self._speaking = speaking
        self._faults = faults

    def event(self, event: CallEvent) -> None:
        """Tell every listener."""
        for handle in self._handles:
            try:
                handle.event(event)
            except Exception as error:  # noqa: BLE001 a listener is foreign code
                self._faults.report(Stage.LISTENER, error)

    def origin(self) -> bytes:
        """The first listener's pointer to this call that is not empty."""
        return _origin(self._speaking, self._faults) if self._speaking else b""

    def trace_id(self) -> str:
        """The first listener's trace of this call that is not empty."""
        for handle in self._speaking:
            try:
                trace_id = handle.trace_id()
            except Exception as error:  # noqa: BLE001 a listener is foreign code
                self._faults.report(Stage.LISTENER, error)
            else:
                if trace_id:
                    return trace_id
        return ""

    def sending(self) -> AbstractContextManager[object]:
        """Entered around the send alone."""
        return _Sending(self._speaking, self._faults) if self._speaking else NOTHING


@lru_cache(maxsize=64)
def _speaks(kind: type) -> bool:
    """Whether handles of this class have anything to give, or are as quiet as their base."""
    asked = ("attempt", "origin", "trace_id")
    return any(getattr(kind, name, None) is not getattr(QuietHandle, name) for name in asked)


class WatchedDispatch:
    """Every interested listener's hold on one dispatch of a window."""

    __slots__ = ("_faults", "_handles")

    def __init__(self, handles: Sequence[Dispatch], faults: Faults) -> None:
        self._handles = handles
        self._faults = faults

    def event(self, event: BatchEnded) -> None:
        """Tell every listener that the dispatch is over."""
        for handle in self._handles:
            try:
                handle.event(event)
            except Exception as error:  # noqa: BLE001 a listener is foreign code
                self._faults.report(Stage.LISTENER, error)

    def origin(self) -> bytes:
        """The first listener's pointer to this dispatch that is not empty."""
        return _origin(self._handles, self._faults)

    def sending(self) -> _Sending:
        """Entered around the send of a merged request."""
        return _Sending(self._handles, self._faults)


def _origin(handles: Sequence[_Held], faults: Faults) -> bytes:
    for handle in handles:
        try:
            origin = handle.origin()
        except Exception as error:  # noqa: BLE001 a listener is foreign code
            faults.report(Stage.LISTENER, error)
        else:
            if origin:
                return origin
    return b""


class _Sending:
    """Enters every handle's `attempt()` and leaves them in reverse; never raises and never swallows what the
    send raised."""

    __slots__ = ("_entered", "_faults", "_handles")

    def __init__(self, handles: Sequence[_Held], faults: Faults) -> None:
        self._handles = handles
        self._faults = faults
        self._entered: list[AbstractContextManager[object]] = []

    def __enter__(self) -> None:
        for handle in self._handles:
            try:
                scope = handle.attempt()
                scope.__enter__()
            except Exception as error:  # noqa: BLE001 a listener is foreign code
                self._faults.report(Stage.LISTENER, error)
            else:
                self._entered.append(scope)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._entered:
            try:
                self._entered.pop().__exit__(kind, error, trace)
            except Exception as fault:  # noqa: BLE001 a listener is foreign code
                self._faults.report(Stage.LISTENER, fault)


class Watch:
    """The listeners of one runtime."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = tuple(listeners)
        self.faults = Faults(self.event)

    def start(self, started: CallStarted) -> Watched:
        """A call begins: ask every listener for its handle."""
        handles: list[Handle] = []
        speaking: list[Handle] = []
        for listener in self.listeners:
            try:
                handle = listener.start(started)
            except Exception as error:  # noqa: BLE001 a listener is foreign code
                self.faults.report(Stage.LISTENER, error)
            else:
                if handle is not None:
                    handles.append(handle)
                    if _speaks(type(handle)):
                        speaking.append(handle)
        return Watched(handles, speaking, self.faults)

    def dispatch(self, started: BatchStarted) -> WatchedDispatch:
        """A window leaves: ask every listener that wants to know for its handle."""
        handles: list[Dispatch] = []
        for listener in self.listeners:
            try:
                told = getattr(listener, "dispatch", None)
                handle = told(started) if told is not None else None
            except Exception as error:  # noqa: BLE001 a listener is foreign code
                self.faults.report(Stage.LISTENER, error)
            else:
                if handle is not None:
                    handles.append(handle)
        return WatchedDispatch(handles, self.faults)

    def event(self, event: ProcessEvent) -> None:
        """Tell every listener something about the process."""
        for listener in self.listeners:
            try:
                listener.event(event)
            except Exception as error:  # noqa: BLE001 a listener is foreign code
                # A listener that fails on the news of a fault is only counted: telling it again would not
                # end.
                if isinstance(event, Faulted):
                    self.faults.counts[Stage.LISTENER] += 1
                else:
                    self.faults.report(Stage.LISTENER, error)
