"""The windows of one process: who waits in which, who sends for all, and what came of it.

`core.batching` decides under the lock of this module; nothing is sent, told or woken under it. A window has
no owner while it collects. When it has left, one of its members sends in its own call; if that one is
cancelled or interrupted, the next living member sends again.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from underlay.core.batching import Enter, Lane, Member
from underlay.records import record

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from underlay.core.batching import Rule, Window
    from underlay.core.circuit_breaker import Refusal
    from underlay.pipeline.call import Call
    from underlay.pipeline.circuits import Name
    from underlay.pipeline.ports import Exchange, Ports
    from underlay.telemetry.attributes import BatchTrigger

__all__ = ["Apart", "Departure", "Failed", "Refused", "Seat", "Shares", "Waiting", "Windows"]

_LANES = 512  # lanes remembered; idle ones are forgotten first, and with them what they learned


@record(frozen=True, slots=True)
class Shares:
    """A reply came: `bodies` has each member's own, in the order of the members, and their common head."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    bodies: Sequence[bytes]


@record(frozen=True, slots=True)
class Failed:
    """The request failed: for every member."""

    error: Exception


@record(frozen=True, slots=True)
class Refused:
    """The circuit let nobody through."""

    refusal: Refusal


@record(frozen=True, slots=True)
class Apart:
    """Each member sends by itself after all."""


Outcome = Shares | Failed | Refused | Apart


class Departure:
    """A window that left: frozen. `sender` sends for all of a merged one, and tells of a released one."""

    __slots__ = (
        "at",
        "lane",
        "members",
        "opened",
        "origin",
        "outcome",
        "sender",
        "sent",
        "told",
        "trigger",
    )

    def __init__(self, lane: Lane, window: Window, at: float) -> None:
        assert window.trigger is not None  # noqa: S101 it has left
        self.lane = lane
        self.trigger: BatchTrigger = window.trigger
        self.opened = window.opened
        self.at = at
        # Without those that were interrupted on their way in, and have no seat any more.
        self.members = [member.call for member in window.members if isinstance(member.call, Seat)]
        self.sender: Seat | None = None
        self.sent: tuple[Seat, ...] = ()
        self.origin = b""
        self.told = False
        self.outcome: Outcome | None = None

    @property
    def rule(self) -> Rule:
        """The bounds of its lane."""
        return self.lane.rule


class Seat:
    """A call's place: in a window that collects (`window`), in one that left (`departure`), or in none: then
    it goes alone, and is in flight until it says otherwise."""

    __slots__ = (
        "_waiter",
        "call",
        "departure",
        "exchange",
        "lane",
        "member",
        "place",
        "ports",
        "started",
        "window",
    )

    def __init__(self, call: Call, exchange: Exchange, ports: Ports, member: Member) -> None:
        self.call = call
        self.exchange = exchange
        self.ports = ports
        self.member = member
        self.lane: Lane | None = None
        self.window: Window | None = None
        self.departure: Departure | None = None
        self.place = 0  # among those that were sent together
        self.started = member.entered
        self._waiter: object | None = None

    def vacate(self) -> None:
        """Let go of the window, once this call needs it no more: its members hold each other, with their
        requests and everybody's answer, until the garbage collector comes."""
        self.window = self.departure = None
        self.member.window = self.member.call = None


@record(frozen=True, slots=True)
class Waiting:
    """The window still collects, or another member sends: wait on this, at most until then."""

    waiter: object
    until: float | None


class Windows:
    """The lanes of one process, by window key."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lanes: OrderedDict[Hashable, tuple[Lane, Name]] = OrderedDict()

    def enter(self, seat: Seat, key: Hashable, rule: Rule, name: Name) -> None:
        """Give a call its place."""
        leaving, member = None, seat.member
        member.call = seat
        with self._lock:
            # Read here: a thread that stood at the lock would open a window that is due already.
            now = seat.ports.now()
            lane = seat.lane = self._lane(key, rule, name)
            arrival = lane.arrive(member, now)
            seat.started = now
            if isinstance(arrival, Enter):
                seat.window = arrival.window
                if arrival.closed is not None:
                    leaving = _depart(lane, arrival.closed, now)
                if arrival.window.trigger is not None:
                    _depart(lane, arrival.window, now, seat)
        _wake(leaving)

    def look(self, seat: Seat, now: float) -> Departure | Waiting | None:
        """Where the call stands: None when it goes alone. Whoever finds the window due closes it, and
        sends. The others wait for that, also where each is sent by itself: for whoever tells of the window
        first."""
        window = seat.window
        if window is None:
            return None
        with self._lock:
            departure = seat.departure
            if departure is None:
                assert seat.lane is not None  # noqa: S101 a seat in a window has its lane
                if seat.lane.close_due(window, now) or window.trigger is not None:
                    # Closed, and yet no departure: whoever closed it was interrupted in the middle.
                    return _depart(seat.lane, window, now, seat)
                seat._waiter = seat.ports.waiter()
                return Waiting(seat._waiter, window.due)
            if departure.sender is not seat and departure.outcome is None:
                seat._waiter = seat.ports.waiter()
                return Waiting(seat._waiter, None)
            return departure

    def compose(self, departure: Departure) -> tuple[Seat, ...]:
        """The members that are sent: those that live now. What is split later is split by their places."""
        with self._lock:
            departure.sent = tuple(seat for seat in departure.members if seat.member.alive)
            for place, seat in enumerate(departure.sent):
                seat.place = place
            return departure.sent

    def resolve(self, departure: Departure, outcome: Outcome, now: float, latency: float | None) -> None:
        """The dispatch is over: its members go on, and whoever waited for its end."""
        with self._lock:
            departure.outcome = outcome
            closed = departure.lane.ended(now, latency)
            leaving = _depart(departure.lane, closed, now) if closed is not None else None
        _go(departure)
        _wake(leaving)

    def release(self, departure: Departure, now: float) -> None:
        """The members of a released window are on their way."""
        with self._lock:
            departure.outcome = Apart()
            departure.lane.ended(now, None)
            for seat in departure.members:
                seat.started = now
        _go(departure)

    def landed(self, seat: Seat, now: float, *, answered: bool) -> None:
        """A call that went alone is over. Once."""
        leaving = None
        with self._lock:
            lane, seat.lane = seat.lane, None
            if lane is not None:
                closed = lane.ended(now, now - seat.started if answered else None)
                leaving = _depart(lane, closed, now) if closed is not None else None
        _wake(leaving)

    def alone(self, seat: Seat, now: float) -> None:
        """The only one left of a window that was about to be sent: it goes by itself, as the window's
        dispatch."""
        seat.vacate()
        seat.started = now

    def leave(self, seat: Seat, now: float, *, fault: bool) -> None:
        """The call ended in its window, or before its own request left. The next living member sends in its
        place; after a fault of ours, each by itself."""
        heir, member = None, seat.member
        with self._lock:
            departure = seat.departure
            entered = seat.window is not None or member.window is not None
            if seat.lane is not None:
                seat.lane.leave(member)
            if entered:
                if departure is None or departure.sender is not seat or departure.outcome is not None:
                    return
                if not fault:
                    heir = next((other for other in departure.members if other.member.alive), None)
                    departure.sender = heir
        if departure is None:
            self.landed(seat, now, answered=False)
        elif heir is not None:
            _wake_seat(heir)
        else:
            self.resolve(departure, Apart(), now, None)

    def queued(self) -> Iterable[tuple[Name, int]]:
        """Calls that wait in open windows, by provider and model."""
        counts: Counter[Name] = Counter()
        with self._lock:
            for lane, name in self._lanes.values():
                counts[name] += lane.waiting
        return list(counts.items())

    def _lane(self, key: Hashable, rule: Rule, name: Name) -> Lane:
        known = self._lanes.get(key)
        if known is not None:
            self._lanes.move_to_end(key)
            return known[0]
        if len(self._lanes) >= _LANES:
            self._forget()
        lane = Lane(rule)
        self._lanes[key] = lane, name
        return lane

    def _forget(self) -> None:
        for key in [key for key, (lane, _) in self._lanes.items() if lane.idle][: _LANES // 8]:
            del self._lanes[key]


def _depart(lane: Lane, window: Window, now: float, sender: Seat | None = None) -> Departure:
    """Called under the lock, as the window closes: its members are told where they belong."""
    departure = Departure(lane, window, now)
    departure.sender = sender or next((seat for seat in departure.members if seat.member.alive), None)
    for seat in departure.members:
        seat.departure = departure
    return departure


def _go(departure: Departure) -> None:
    for seat in departure.members:
        if seat is not departure.sender:
            _wake_seat(seat)


def _wake(departure: Departure | None) -> None:
    if departure is not None and departure.sender is not None:
        _wake_seat(departure.sender)


def _wake_seat(seat: Seat) -> None:
    waiter = seat._waiter
    if waiter is not None:
        seat.ports.wake(waiter)
