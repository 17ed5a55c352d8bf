"""Dispatches of windows as the listeners are told of them: whoever wants to know is asked, and what they raise
is counted and dropped."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest

from underlay.pipeline.watch import Watch
from underlay.telemetry.attributes import BatchMode, BatchTrigger, Stage
from underlay.telemetry.events import BatchEnded, BatchStarted, Faulted
from underlay.testing import Recorder

STARTED = BatchStarted(
    "openai", "embeddings", "m", BatchMode.MERGED, BatchTrigger.SIZE, (b"1", b"2"), 3, 3, 256, 0.05
)
ENDED = BatchEnded(0.5, 200)


def broken(*_: Any) -> Any:
    """A listener's fault."""
    raise RuntimeError("what was asked")


class Listener:
    """A listener that keeps what it is told, and may raise in one place."""

    def __init__(self, origin: bytes = b"", wrong: str = "") -> None:
        self.told: list[object] = []
        self._origin = origin
        if wrong:
            setattr(self, wrong, broken)

    def start(self, started: Any) -> None:
        """Not interested in calls."""

    def event(self, event: object) -> None:
        """Keep what belongs to the process, and the end of a dispatch."""
        self.told.append(event)

    def dispatch(self, started: BatchStarted) -> Any:
        """This listener is its own handle on the dispatch."""
        self.told.append(started)
        return self

    @contextmanager
    def attempt(self) -> Any:
        """Keep both ends of the send."""
        self.told.append("in")
        try:
            yield
        finally:
            self.told.append("out")

    def origin(self) -> bytes:
        """The origin it was made with."""
        return self._origin


class Deaf:
    """A listener that knows nothing of windows."""

    def start(self, started: Any) -> None:
        """Not interested in calls."""

    def event(self, event: object) -> None:
        """Nothing."""


class Indifferent(Deaf):
    """A listener that is not interested in this window."""

    def dispatch(self, started: Any) -> None:
        """Not interested."""


class Unreadable(Deaf):
    """A listener of which even the look for the method fails."""

    dispatch = property(broken)


def test_whoever_has_the_method_is_asked() -> None:
    """Listeners without it, or without interest, are passed over; the others hear start, send and end in
    order."""
    one, two = Listener(), Listener()
    watch = Watch([Deaf(), one, Indifferent(), two])
    dispatch = watch.dispatch(STARTED)
    with dispatch.sending():
        pass
    dispatch.event(ENDED)
    assert one.told == two.told == [STARTED, "in", "out", ENDED]
    assert watch.faults.counts == {}


def test_scopes_are_left_in_reverse() -> None:
    """The listener that was entered last is left first."""
    order: list[object] = []
    one, two = Listener(), Listener()
    one.told = two.told = order
    with Watch([one, two]).dispatch(STARTED).sending():
        order.append("send")
    assert order == [STARTED, STARTED, "in", "in", "send", "out", "out"]


@pytest.mark.parametrize(("origins", "first"), [((), b""), ((b"", b"x", b"y"), b"x"), ((b"",), b"")])
def test_the_first_origin_that_is_not_empty(origins: tuple[bytes, ...], first: bytes) -> None:
    """Members are told the first pointer that leads anywhere."""
    assert Watch([Listener(origin) for origin in origins]).dispatch(STARTED).origin() == first


@pytest.mark.parametrize("wrong", ["dispatch", "attempt", "origin", "event"])
def test_what_a_listener_raises_is_counted_and_dropped(wrong: str) -> None:
    """A listener that fails in one place takes nothing from the send nor from the other listeners."""
    good = Listener(b"x")
    watch = Watch([Listener(wrong=wrong), good])
    dispatch = watch.dispatch(STARTED)
    with dispatch.sending():
        good.told.append("send")
    assert dispatch.origin() == b"x"
    dispatch.event(ENDED)
    told = [one for one in good.told if not isinstance(one, Faulted)]
    assert told == [STARTED, "in", "send", "out", ENDED]
    assert watch.faults.counts[Stage.LISTENER] >= 1


def test_a_method_that_cannot_be_looked_up_is_a_fault() -> None:
    """What the look for `dispatch` raises is dropped as well."""
    watch = Watch([Unreadable()])
    assert watch.dispatch(STARTED).origin() == b""
    assert watch.faults.counts == {Stage.LISTENER: 1}


def test_what_the_send_raises_goes_on() -> None:
    """The send's own error is the app's, and every scope is left."""
    one = Listener()
    with pytest.raises(KeyboardInterrupt), Watch([one]).dispatch(STARTED).sending():
        raise KeyboardInterrupt
    assert one.told == [STARTED, "in", "out"]


def test_the_recorder_remembers_dispatches() -> None:
    """What a window was, how often it was sent, how it ended, and a pointer of its own for each."""
    recorder = Recorder()
    watch = Watch([recorder])
    first, second = watch.dispatch(STARTED), watch.dispatch(STARTED)
    with first.sending():
        pass
    first.event(ENDED)
    assert (first.origin(), second.origin()) == (b"d1", b"d2")
    assert [(one.started, one.events, one.sends) for one in recorder.dispatches] == [
        (STARTED, [ENDED], 1),
        (STARTED, [], 0),
    ]
