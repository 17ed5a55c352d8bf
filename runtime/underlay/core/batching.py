"""Decides which calls are sent together: a lane of one window key, with at most one window that collects.

Three kinds of linger. `fixed`: every arrival enters a window, which stays open for its whole time or until it
is full. `adaptive`: a call goes at once when nothing is open or in flight, and whoever comes meanwhile shares
a window, which leaves when the last dispatch ends (J. Nagle, RFC 896, 1984, with calls for segments).
`learned`: as `adaptive`, but the wait, and how many dispatches are in flight at once, follow from what
`core.linger` has seen.

Nobody owns a window that collects. The arrival that fills it, the end of the last dispatch or whoever finds
it due detaches it in the same step; after that its members stay in place, and those that leave are only
marked, because the reply is split by position. An arrival never closes a window for its time: whoever waits
in it does, so that a burst that keeps its threads or its loop busy for longer than the linger still fills it.

Not thread-safe: the caller holds a lock. Times are seconds on a monotonic clock.
"""

from __future__ import annotations

import math
from typing import Final

from underlay.core.linger import Learned
from underlay.records import record
from underlay.telemetry.attributes import BatchTrigger

__all__ = ["ALONE", "Alone", "Enter", "Lane", "Member", "Released", "Rule", "Window"]

_CROWD: Final = 4  # dispatches in flight beyond which a window waits no longer for them
_SMOOTHING: Final = 1 / 8  # weight of a new latency, as for round trips in RFC 6298, section 2


@record(frozen=True, slots=True)
class Rule:
    """Bounds of one runtime and one kind of operation: how long a window stays open (seconds), how many
    calls it takes, and how many inputs and estimated tokens its merged request may carry. `linger` is
    `adaptive`, `fixed` or `learned`."""

    linger: str
    timeout: float
    members: int
    inputs: int
    tokens: int

    @property
    def longest(self) -> float:
        """The longest that a window may collect, in seconds."""
        return self.timeout * _CROWD if self.linger == "adaptive" else self.timeout


class Member:
    """One call that may share a request: its inputs, its estimated tokens, when it arrived, and the moment
    after which its answer is of no use. `alive` is false once it has left."""

    __slots__ = ("alive", "deadline", "entered", "inputs", "latest", "tokens", "window")

    def __init__(self, inputs: int, tokens: int, deadline: float = math.inf) -> None:
        self.inputs = inputs
        self.tokens = tokens
        self.deadline = deadline
        self.entered = 0.0
        self.alive = True
        self.window: Window | None = None
        self.latest = math.inf  # when it must be sent to be answered before its deadline


class Window:
    """Calls that are sent together. `limit` is when its own time is over; `trigger` is None while it
    collects."""

    __slots__ = ("_inputs", "_latest", "_members", "_tokens", "limit", "opened", "trigger")

    def __init__(self, opened: float, limit: float) -> None:
        self.opened = opened
        self.limit = limit
        self.trigger: BatchTrigger | None = None
        self._members: dict[Member, None] = {}  # a list would be searched and moved for each that leaves
        self._latest: float | None = math.inf  # None: to be looked for among the members
        self._inputs = 0
        self._tokens = 0

    @property
    def latest(self) -> float:
        """When its most hurried member must be sent."""
        if self._latest is None:
            self._latest = min([member.latest for member in self._members], default=math.inf)
        return self._latest

    @property
    def due(self) -> float:
        """When it must leave. This comes nearer with a hurried member and moves away when that one leaves:
        whoever waits asks again."""
        return min(self.limit, self.latest)

    @property
    def inputs(self) -> int:
        """Inputs of the living members."""
        return self._inputs

    @property
    def tokens(self) -> int:
        """Estimated tokens of the living members."""
        return self._tokens

    @property
    def members(self) -> list[Member]:
        """Everybody in it, in the order of arrival; in a window that has left, also those who are gone."""
        return list(self._members)

    @property
    def living(self) -> list[Member]:
        """The members that have not left, in the order of their arrival."""
        return [member for member in self._members if member.alive]

    def _add(self, member: Member) -> None:
        self._members[member] = None
        self._inputs += member.inputs
        self._tokens += member.tokens
        self._latest = min(self.latest, member.latest)
        member.window = self

    def _mark(self, member: Member) -> None:
        """Gone, in its place."""
        self._inputs -= member.inputs
        self._tokens -= member.tokens

    def _remove(self, member: Member) -> None:
        self._mark(member)
        del self._members[member]
        if self._latest == member.latest < math.inf:
            self._latest = None  # looked for when asked: a whole crowd may be leaving
        member.window = None


@record(frozen=True, slots=True)
class Alone:
    """Go at once, by itself. It is in flight until `Lane.ended`."""


@record(frozen=True, slots=True)
class Enter:
    """The member is in `window`; a trigger there says that this arrival filled and detached it. `closed` is
    an earlier window that had to leave first because the member did not fit into it."""

    window: Window
    closed: Window | None = None


ALONE: Final = Alone()


class Lane:
    """One window key: the window that collects, and how many dispatches (lone calls or windows) are in
    flight, whatever the linger. `used` is when the last call came that had to `arrive`, or when the last
    dispatch ended."""

    __slots__ = ("_eager", "_expected", "_flying", "_learned", "_open", "rule", "used")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._eager = rule.linger == "adaptive"
        self._learned = Learned(rule.timeout) if rule.linger == "learned" else None
        self._open: Window | None = None
        self._flying = 0
        self.used = 0.0
        self._expected = 0.0  # smoothed latency of a dispatch; 0 while unknown

    @property
    def idle(self) -> bool:
        """True when nothing would be lost by forgetting this lane: nothing open, nothing in flight."""
        return self._open is None and self._flying == 0

    @property
    def waiting(self) -> int:
        """Members of the open window."""
        return len(self._open._members) if self._open is not None else 0

    def go_alone(self) -> bool:
        """Take a call in that needs no place, because it would go alone whatever it asks: under `adaptive`,
        with nothing open or in flight. It is in flight until `ended`. False: it has to `arrive`."""
        if self._flying or self._open is not None or not self._eager:
            return False
        self._flying = 1
        return True

    def arrive(self, member: Member, now: float) -> Alone | Enter:
        """Take a call in. Bounds are never exceeded: whoever does not fit sends the open window off first,
        and a call that is larger than a bound, or has no time to wait, goes alone."""
        self.used = member.entered = now
        member.latest = member.deadline - self._expected
        lone = self._open is None and self._flying == 0
        waits = not lone or self.rule.linger == "fixed"
        if self._learned is not None:
            waits = self._learned.arrived(now, lone=lone)
        if not waits or self._apart(member, now):
            self._sent(now, member.inputs)
            return ALONE
        window, closed = self._open, None
        if window is not None and not self._fits(window, member):
            closed, window = window, None
            self._detach(closed, BatchTrigger.SIZE, now)
        if window is None:
            window = self._open = Window(now, now + self._time())
        window._add(member)
        if self._learned is not None:
            window.limit = self._learned.leaves(window.opened, len(window._members), window.inputs, now)
        if self._full(window):
            self._detach(window, BatchTrigger.SIZE, now)
        return Enter(window, closed)

    def _time(self) -> float:
        """How long a window that opens now collects. Under `adaptive` its time counts once for each dispatch
        in flight, at most `_CROWD` times: a burst that outlasts the linger would leave in many small
        requests, and what follows several others is late by little more when it waits for company."""
        if self.rule.linger != "adaptive":
            return self.rule.timeout
        return self.rule.timeout * min(max(1, self._flying), _CROWD)

    def close_due(self, window: Window, now: float) -> bool:
        """Detach a window that still collects and is due. Returns whether this call did it.

        Under `learned` it may be due later than before instead: while a request would only stand upstream."""
        if window is not self._open or now < window.due:
            return False
        if self._learned is not None and now < window.latest and not self._learned.room:
            window.limit = window.opened + self._learned.longest
            if now < window.limit:
                return False
        trigger = BatchTrigger.TIME if window.limit <= window.latest else BatchTrigger.DEADLINE
        self._detach(window, trigger, now)
        return True

    def leave(self, member: Member) -> None:
        """This call is gone. It leaves a window that collects, and an empty window goes away; in a detached
        window it keeps its place and is only marked. Leaving twice, or from no window, is harmless."""
        window = member.window
        if not member.alive:
            return
        member.alive = False
        if window is None:
            return
        if window is not self._open:
            window._mark(member)
            return
        window._remove(member)
        if not window._members:
            self._open = None

    def took(self, latency: float) -> None:
        """A call of a released window was answered after `latency` seconds: its dispatch has ended before."""
        known = self._expected
        self._expected = known + (latency - known) * _SMOOTHING if known else latency

    def ended(self, now: float, latency: float | None) -> Window | None:
        """One dispatch ended, after `latency` seconds, or None when that says nothing about the provider. It
        counts once, also when its members were sent apart or all left before it was sent. Returns the open
        window if it leaves for it: under `adaptive` when nothing is in flight any more, under `learned` also
        when it has waited long enough and the provider has room again."""
        self.used = now
        flying = self._flying
        if flying:
            self._flying = flying - 1
        if latency is not None:
            known = self._expected  # as `took` has it: on the path of every call
            self._expected = known + (latency - known) * _SMOOTHING if known else latency
        if self._learned is not None:
            self._learned.ended(now, latency)
        window = self._open
        if window is None or self.rule.linger == "fixed":
            return None
        if self._flying and not (self._learned is not None and self._learned.ready(now)):
            return None
        self._detach(window, BatchTrigger.IDLE, now)
        return window

    def _apart(self, member: Member, now: float) -> bool:
        """Whether a call may share no window: too large for any, or without time for the linger.

        Under `fixed` it would wait for all of it; otherwise it may enter and make the window leave early, if
        it could still wait at all."""
        rule = self.rule
        if member.inputs > rule.inputs or member.tokens > rule.tokens:
            return True
        patient = now + self._time()
        if rule.linger == "fixed":
            return member.latest < patient
        return member.deadline < patient or member.latest <= now

    def _fits(self, window: Window, member: Member) -> bool:
        rule = self.rule
        return (
            len(window._members) < rule.members
            and window._inputs + member.inputs <= rule.inputs
            and window._tokens + member.tokens <= rule.tokens
        )

    def _full(self, window: Window) -> bool:
        rule = self.rule
        return (
            len(window._members) >= rule.members
            or window._inputs >= rule.inputs
            or window._tokens >= rule.tokens
        )

    def _detach(self, window: Window, trigger: BatchTrigger, now: float) -> None:
        window.trigger = trigger
        self._open = None
        self._sent(now, window.inputs)

    def _sent(self, now: float, inputs: int) -> None:
        self._flying += 1
        if self._learned is not None:
            self._learned.sent(now, inputs)


class Released:
    """The lane of a call of a released window, which was counted and is over: it learns what the call
    took."""

    __slots__ = ("_lane",)

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    def ended(self, _: float, latency: float | None) -> None:
        """The call is over."""
        if latency is not None:
            self._lane.took(latency)
