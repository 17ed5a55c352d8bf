"""Decides how long a window waits, and how many requests are under way at once, from what was seen.

Two questions, each with a rule from the literature; what is new is only that their inputs are measured.

How long? The threshold policy of batch service (R. K. Deb and R. F. Serfozo, "Optimal control of batch
service queues", Adv. Appl. Prob. 5(2), 1973): serve as soon as the queue holds Q calls. Here Q is the calls
that are expected until a request ends, divided by the requests that may still be sent: fewer, and the last of
them would find none left. A window leaves when it holds Q calls, or when the time in which they were expected
has passed without them.

How many at once? The provider answers some number of requests at the same time and lets the others stand. A
call that would only stand there loses nothing by waiting in a window, where it is merged: beyond that number
windows wait for an answer (J. Nagle, RFC 896, 1984, with more than one segment under way). The number is
learned as TCP Vegas does (L. Brakmo and L. Peterson, IEEE JSAC 13(8), 1995): of n requests under way whose
answer takes L instead of S seconds, n * S / L are being served (J. Little, 1961), and the rest stand.

Besides, calls that come in bunches are waited for when Q does not ask for it, for as long as nobody notices.

Times are seconds; nothing here is thread-safe.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Learned"]

_GRACE: Final = 1 / 64  # share of an answer's time that nobody misses: the wait for company that may not come
_LONGEST: Final = 1 / 2  # share of an answer's time beyond which no window waits, whatever was learned
_LOAD: Final = 0.75  # how busy the provider should be: nearer to 1, every random burst makes requests stand
_BUNCHED: Final = 0.4  # chance of company within the grace from which a lone call waits for it
_TAIL: Final = 4.0  # usual gaps within a bunch, after which it is over: e^-4 of exponential gaps are longer

_START: Final = 8.0  # requests at once while nothing is known
_FEW_AT_FIRST: Final = 1 / 2  # share of the limit at which none stands, before and after one was seen to
_FEW: Final = 3 / 4
_NEAR: Final = 0.9  # share of the limit at which an answer says whether more would go
_SMOOTH: Final = 0.95  # S / L from which a request has not stood; noise of the latency allowed for
_STOOD: Final = 0.75  # S / L below which it has
_FASTEST: Final = 1.5  # S / L above which an answer says no more
_SLOWEST: Final = 3.0  # L / S beyond which it does not either: one answer that hung teaches little
_GAIN: Final = 1 / 8  # weight of an answer in the limit
_PROBE: Final = 64  # answers at the limit after which one more is tried


class _Mean:
    """A plain mean of the first `memory` values, and an exponentially weighted one afterwards."""

    __slots__ = ("_memory", "_seen", "value")

    def __init__(self, memory: int, *, doubtful: bool = False) -> None:
        self._memory = memory
        self._seen = memory if doubtful else 0  # doubtful: zero until many values say otherwise
        self.value = 0.0

    def add(self, value: float) -> None:
        """Take another value in."""
        self._seen = min(self._seen + 1, self._memory)
        self.value += (value - self.value) / self._seen


class _Demand:
    """How calls arrive: the usual gap of a busy spell, the gaps within bunches, and how many calls come while
    a request is under way."""

    __slots__ = ("_during", "_last", "_lone", "_squared", "bunched", "count", "gap", "tight")

    def __init__(self) -> None:
        self.count = 0
        self.gap = _Mean(8)
        self.tight = _Mean(16, doubtful=True)
        self.bunched = _Mean(16, doubtful=True)
        self._during = _Mean(32)
        self._squared = _Mean(32)
        self._last: float | None = None
        self._lone = False

    @property
    def burst(self) -> float:
        """Calls to be expected during one answer, as seen by a call: E[a^2] / E[a], so that bursts weigh by
        the calls that are in them. For Poisson arrivals that is their mean and one more."""
        return self._squared.value / self._during.value if self._during.value else 0.0

    def arrived(self, now: float, base: float, *, lone: bool) -> None:
        """A call comes; `lone` when nothing was open or under way. Gaps longer than an answer say that it was
        quiet, and not how fast calls come when it is not."""
        if self._last is not None:
            gap, grace = now - self._last, base * _GRACE
            if not base or gap < base:
                self.gap.add(gap)
            if self._lone:
                self.bunched.add(gap <= grace)
            if gap <= grace:
                self.tight.add(gap)
        self._last, self._lone = now, lone
        self.count += 1

    def answered(self, arrived: int) -> None:
        """So many calls came while a request was under way."""
        self._during.add(arrived)
        self._squared.add(arrived * arrived)


class _Provider:
    """How the provider answers: `base` seconds for one input, `slope` more for each further one, and `limit`
    requests at once."""

    __slots__ = (
        "_asked",
        "_base",
        "_inputs",
        "_joint",
        "_rising",
        "_seconds",
        "_shares",
        "_spread",
        "limit",
        "slope",
    )

    def __init__(self) -> None:
        self._base = _Mean(32)
        self._inputs = _Mean(256)
        self._seconds = _Mean(256)
        self._spread = _Mean(256)
        self._joint = _Mean(256)
        self._rising = True
        self._asked = 0
        self._shares = 0.0
        self.slope = 0.0
        self.limit = _START

    @property
    def base(self) -> float:
        """Seconds for one input, when no request stands; 0 while unknown."""
        return self._base.value

    def answered(self, flying: int, inputs: int, latency: float) -> None:
        """A request with so many inputs took `latency`; with it, `flying` were under way when it was sent."""
        if self.base:
            latency = min(latency, (self.base + self.slope * (inputs - 1)) * _SLOWEST)
        self._regress(inputs, latency)
        if flying <= max(1.0, self.limit * (_FEW_AT_FIRST if self._rising else _FEW)):
            self._base.add(max(latency - self.slope * (inputs - 1), 0.0))
        if not self.base:
            return
        share = (self.base + self.slope * (inputs - 1)) / latency
        served = flying * min(share, _FASTEST)
        if self._rising and share >= _SMOOTH and flying >= self.limit * _NEAR:
            self.limit = max(self.limit, flying * 9 / 8)
        elif flying >= self.limit - 0.5:
            self._rising = self._rising and share >= _STOOD
            self.limit += (served - self.limit) * _GAIN
            self._probe(share)
        elif share < _STOOD and flying >= self.limit / 2:
            self._rising = False
            self.limit += (served - self.limit) * _GAIN
        self.limit = max(1.0, self.limit)

    def _probe(self, share: float) -> None:
        """Try one more, after so many answers at the limit of which hardly any had stood."""
        self._asked += 1
        self._shares += min(share, _FASTEST)
        if self._asked == _PROBE:
            if self._shares >= _SMOOTH * _PROBE:
                self.limit += 1
            self._asked, self._shares = 0, 0.0

    def _regress(self, inputs: int, latency: float) -> None:
        """Least squares of latency on inputs, forgetting, with half an input of variance against noise."""
        off = inputs - self._inputs.value
        self._inputs.add(inputs)
        self._seconds.add(latency)
        self._spread.add(off * (inputs - self._inputs.value))
        self._joint.add(off * (latency - self._seconds.value))
        most = self._seconds.value / max(1.0, self._inputs.value)
        self.slope = min(max(self._joint.value / (self._spread.value + 0.5), 0.0), most)


class Learned:
    """What one lane has learned, and what it says about the window that collects. `timeout` bounds every
    wait."""

    __slots__ = ("_demand", "_provider", "_ready", "_under_way", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._demand = _Demand()
        self._provider = _Provider()
        self._ready = 0.0  # when the open window has waited long enough for others
        self._under_way: list[tuple[float, int, int, int]] = []  # sent at, in flight, inputs, calls so far

    @property
    def limit(self) -> int:
        """Requests that the provider answers at once."""
        return max(1, round(self._provider.limit))

    @property
    def room(self) -> bool:
        """Whether another request would be answered and not stand."""
        return len(self._under_way) < self.limit

    @property
    def longest(self) -> float:
        """Seconds that a window stays open at most."""
        return min(self.timeout, self._provider.base * _LONGEST or self.timeout)

    def arrived(self, now: float, *, lone: bool) -> bool:
        """A call comes, `lone` when nothing is open or in flight. Returns whether it may wait at all: a lone
        one only if such calls mostly had company at once."""
        self._demand.arrived(now, self._provider.base, lone=lone)
        return not lone or self._demand.bunched.value > _BUNCHED

    def leaves(self, opened: float, members: int, inputs: int, now: float) -> float:
        """When the open window has waited long enough, now that it holds so many calls."""
        demand, grace = self._demand, self._provider.base * _GRACE
        under_way = len(self._under_way)
        tail = grace if under_way and members == 1 else min(grace, demand.tight.value * _TAIL)
        if self._provider.slope * inputs > 2 * grace:
            tail = 0.0  # by now another input delays the others more than a request of its own
        self._ready = min(now + tail, opened + 2 * grace)
        if under_way and self._provider.base:
            missing = self._threshold(now) - members
            self._ready = max(self._ready, now + missing * demand.gap.value)
        return min(self._ready, opened + self.longest)

    def ready(self, now: float) -> bool:
        """Whether the open window may leave now that a request has ended."""
        return not self._under_way or (self.room and self._ready <= now)

    def sent(self, now: float, inputs: int) -> None:
        """A request leaves."""
        self._under_way.append((now, len(self._under_way) + 1, inputs, self._demand.count))

    def ended(self, now: float, latency: float | None) -> None:
        """A request ended, after `latency` seconds; None says nothing but that it is gone."""
        if not self._under_way:
            return
        if latency is None or latency <= 0:
            self._under_way.pop(0)
            return
        began = now - latency
        sent = min(self._under_way, key=lambda request: abs(request[0] - began))
        self._under_way.remove(sent)
        _, flying, inputs, count = sent
        self._demand.answered(self._demand.count - count)
        self._provider.answered(flying, inputs, latency)

    def _threshold(self, now: float) -> float:
        """Q: the calls of one answer's time for every request at once, or, when more, those until a request
        ends for each that may still be sent."""
        left = 1 - (now - self._under_way[0][0]) / self._provider.base
        free = max(1, self.limit - len(self._under_way))
        return self._demand.burst * max(1 / self.limit, left / free) / _LOAD
