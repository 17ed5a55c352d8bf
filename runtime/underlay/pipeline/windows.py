"""The windows of one process: who waits in which, who sends for all, and what came of it.

`core.batching` decides under the lock of this module; nothing is sent, told or woken under it. A window has
no owner while it collects. When it has left, one of its members sends in its own call; if that one is
cancelled or interrupted, the next living member sends again.
"""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
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

__all__ = [
    "Apart",
    "Departure",
    "Failed",
    "Place",
    "Refused",
    "Shares",
    "Waiting",
    "Windows",
]

_LANES = 512  # lanes remembered; idle ones are forgotten, least recently used first, with what they learned


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
        "heirs",
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
        # Who was interrupted on its way in is not living; that all are places is for the type checkers.
        self.members = [member for member in window.living if isinstance(member, Place)]
        self.heirs = iter(self.members)
        self.sender: Place | None = None
        self.sent: tuple[Place, ...] = ()
        self.origin = b""
        self.told = False
        self.outcome: Outcome | None = None

    @property
    def rule(self) -> Rule:
        """The bounds of its lane."""
        return self.lane.rule

    def inherit(self) -> Place | None:
        """The next living member sends, if there is one."""
        self.sender = next((place for place in self.heirs if place.alive), None)
        return self.sender


class Place(Member):
    """A call's place in a window that collects (`window`), and in one that left (`departure`): its `number`
    among those that were sent together."""

    __slots__ = ("_waiter", "call", "departure", "exchange", "lane", "number", "ports")

    def __init__(self, call: Call, exchange: Exchange, ports: Ports) -> None:
        super().__init__(inputs=1, tokens=0)
        self.call = call
        self.exchange = exchange
        self.ports = ports
        self.lane: Lane | None = None
        self.departure: Departure | None = None
        self.number: int | None = None
        self._waiter: object | None = None

    def vacate(self) -> None:
        """Let go of the window, once this call needs it no more: its members hold each other, with their
        requests and everybody's answer, until the garbage collector comes."""
        self.window = self.departure = None


@record(frozen=True, slots=True)
class Waiting:
    """The window still collects, or another member sends: wait on this, at most until then."""

    waiter: object
    until: float | None


class Windows:
    """The lanes of one process, by window key."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lanes: dict[Hashable, Lane] = {}
        self._names: dict[Hashable, Name] = {}  # of each lane's provider and model
        self._most = _LANES  # lanes from which idle ones are looked for

    def go_alone(self, call: Call, key: Hashable) -> bool:
        """Let a call go at once, where its lane says so without knowing more of it. False: it has to
        `enter`."""
        with self._lock:
            lane = call.lane = self._lanes.get(key)  # first: who is interrupted here is counted out
            if lane is None:
                return False
            if lane.go_alone():
                return True
            call.lane = None
            return False

    def enter(self, place: Place, key: Hashable, rule: Rule, name: Name) -> Call | None:
        """Give a call its place in a window, unless it is one that goes alone."""
        leaving = None
        with self._lock:
            # Read here: a thread that stood at the lock would open a window that is due already.
            now = place.ports.now()
            lane = place.lane = self._lane(key, rule, name)
            arrival = lane.arrive(place, now)
            if not isinstance(arrival, Enter):
                place.call.lane = lane
                return place.call
            if arrival.closed is not None:
                leaving = _depart(lane, arrival.closed, now)
            if arrival.window.trigger is not None:
                _depart(lane, arrival.window, now, place)
        _wake(leaving)
        return None

    def look(self, place: Place, now: float) -> Departure | Waiting:
        """Where the call stands. Whoever finds the window due closes it, and sends. The others wait for that,
        also where each is sent by itself: for whoever tells of the window first."""
        with self._lock:
            departure = place.departure
            if departure is None:
                lane, window = place.lane, place.window
                assert lane is not None  # noqa: S101 who has a place has its lane
                assert window is not None  # noqa: S101 and its window
                if lane.close_due(window, now) or window.trigger is not None:
                    # Closed, and yet no departure: whoever closed it was interrupted in the middle.
                    return _depart(lane, window, now, place)
                place._waiter = place.ports.waiter()
                return Waiting(place._waiter, window.due)
            if departure.sender is not place and departure.outcome is None:
                place._waiter = place.ports.waiter()
                return Waiting(place._waiter, None)
            return departure

    def compose(self, departure: Departure) -> tuple[Place, ...]:
        """The members that are sent: those that live now. What is split later is split by their numbers."""
        with self._lock:
            departure.sent = tuple([place for place in departure.members if place.alive])
            for number, place in enumerate(departure.sent):
                place.number = number
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
            departure.lane.ended(now, None)
            departure.outcome = Apart()
        _go(departure)

    def landed(self, call: Call, now: float, latency: float | None) -> None:
        """A call that went alone is over, after `latency` seconds where it was answered. Once."""
        with self._lock:
            lane = call.lane
            if lane is None:
                return
            call.lane = None
            closed = lane.ended(now, latency)
            if closed is None:
                return
            assert isinstance(lane, Lane)  # noqa: S101 no window waits for one of a released window
            leaving = _depart(lane, closed, now)
        _wake(leaving)

    def leave(self, seat: Place | Call, now: float, *, fault: bool) -> None:
        """The call ended in its window, or before its own request left. The next living member sends in its
        place; after a fault of ours, each by itself."""
        if not isinstance(seat, Place):
            self.landed(seat, now, None)
            return
        heir = None
        with self._lock:
            departure, entered = seat.departure, seat.window is not None
            if seat.lane is not None:
                seat.lane.leave(seat)
            if entered:
                if departure is None or departure.sender is not seat:
                    return
                if departure.outcome is None and not fault:
                    heir = departure.inherit()
        if departure is None:
            seat.call.lane = seat.lane
            self.landed(seat.call, now, None)  # interrupted on its way in
        elif departure.outcome is not None:
            _go(departure)  # interrupted before it could
        elif heir is not None:
            _wake_member(heir)
        else:
            self.resolve(departure, Apart(), now, None)

    def queued(self) -> Iterable[tuple[Name, int]]:
        """Calls that wait in open windows, by provider and model."""
        counts: Counter[Name] = Counter()
        with self._lock:
            for key, lane in self._lanes.items():
                counts[self._names[key]] += lane.waiting
        return list(counts.items())

    def _lane(self, key: Hashable, rule: Rule, name: Name) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) >= self._most:
                self._forget()
            self._names[key] = name
            lane = self._lanes[key] = Lane(rule)
        return lane

    def _forget(self) -> None:
        """Make room. Lanes in use stay: where they are many, they are looked through again when twice as
        many, and not for every newcomer."""
        idle = [(lane.used, key) for key, lane in self._lanes.items() if lane.idle]
        surplus = len(self._lanes) - _LANES * 7 // 8
        for _, key in sorted(idle, key=itemgetter(0))[:surplus]:
            del self._lanes[key], self._names[key]
        self._most = max(_LANES, 2 * len(self._lanes))


def _depart(lane: Lane, window: Window, now: float, sender: Place | None = None) -> Departure:
    """Called under the lock, as the window closes: its members are told where they belong."""
    departure = Departure(lane, window, now)
    departure.sender = sender or departure.inherit()
    if departure.sender is not None:
        departure.sender.departure = departure  # first: interrupted from here on, it is followed by its heir
    for place in departure.members:
        place.departure = departure
    return departure


def _go(departure: Departure) -> None:
    for place in departure.members:
        if place is not departure.sender:
            _wake_member(place)


def _wake(departure: Departure | None) -> None:
    if departure is not None and departure.sender is not None:
        _wake_member(departure.sender)


def _wake_member(place: Place) -> None:
    waiter = place._waiter
    if waiter is not None:
        place.ports.wake(waiter)
