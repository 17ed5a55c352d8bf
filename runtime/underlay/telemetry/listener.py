"""The seam between the runtime and whoever watches it: a listener is asked, not only told."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from underlay.telemetry.events import BatchEnded, BatchStarted, CallEvent, CallStarted, ProcessEvent

__all__ = ["NOTHING", "Dispatch", "DispatchListener", "Handle", "Listener", "QuietHandle"]

NOTHING: Final = nullcontext()
"""What a handle enters around a send when it has nothing to enter."""


class Handle(Protocol):
    """A listener's hold on one call. Methods are called in the caller's context, from any thread, and never
    after `CallEnded` except for `AttemptEnded`, which may come later when other readers still hold the
    body."""

    def attempt(self) -> AbstractContextManager[object]:
        """Entered around the send alone, so that the HTTP client's own span lies under the call's."""
        ...

    def origin(self) -> bytes:
        """Opaque bytes that identify this call to the same listener later, on a hit or a transition; empty
        when there is nothing to link."""
        ...

    def trace_id(self) -> str:
        """The trace that this call is in: 32 hexadecimal digits, empty when it is in none."""
        ...

    def event(self, event: CallEvent) -> None:
        """Something happened to this call."""
        ...


class Dispatch(Protocol):
    """A listener's hold on one dispatch of a window. Methods are called in the context of the member that
    sends."""

    def attempt(self) -> AbstractContextManager[object]:
        """Entered around the send of a merged request."""
        ...

    def origin(self) -> bytes:
        """Opaque bytes that identify this dispatch to the same listener: its members are told them."""
        ...

    def event(self, event: BatchEnded) -> None:
        """The dispatch is over."""
        ...


class Listener(Protocol):
    """Watches calls and the process. Whatever it raises is counted and dropped; it cannot change a call."""

    def start(self, started: CallStarted) -> Handle | None:
        """A recognised call entered. None: not interested in this one."""
        ...

    def event(self, event: ProcessEvent) -> None:
        """Something happened that belongs to no single call."""
        ...


class DispatchListener(Listener, Protocol):
    """A listener that is told of windows too. A listener need not have the method."""

    def dispatch(self, started: BatchStarted) -> Dispatch | None:
        """A window leaves. Called in the context of the member that sends. None: not interested."""
        ...


class QuietHandle:
    """A handle that only listens: the base of those that have no scope to enter and nothing to link."""

    __slots__ = ()

    def attempt(self) -> AbstractContextManager[object]:
        """Enter nothing."""
        return NOTHING

    def origin(self) -> bytes:
        """Nothing to link."""
        return b""

    def trace_id(self) -> str:
        """No trace."""
        return ""
