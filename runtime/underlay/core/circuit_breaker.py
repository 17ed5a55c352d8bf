"""Decides whether a provider's model may be called: the circuit breaker of one (provider, model).

Three states (M. Nygard, *Release It!*, 2007): `closed` counts consecutive failures; `open` refuses until the
recovery time is due; `half_open` lets one probe through at a time and closes after enough successes. Rules
that the field gets wrong, and that hold here: every admission carries the generation it was made in, and a
result of an earlier generation settles nothing; a verdict of `nothing` (a cancel, a 4xx) moves no counter but
always returns the probe's slot; a probe that never reports loses its slot.

Not thread-safe: the caller holds a lock. `now` is seconds on a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from underlay.records import record
from underlay.telemetry.attributes import CircuitState, Verdict

__all__ = ["Circuit", "Counts", "Permit", "Policy", "Refusal", "Transition"]

# A member is slow to reach through its class (CPython 3.11), and every call asks.
_CLOSED, _OPEN, _HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
_FAILURE, _SUCCESS = Verdict.FAILURE, Verdict.SUCCESS

_CAUSES = 8  # origins remembered for the links of a transition


@record(frozen=True, slots=True)
class Policy:
    """Bounds of one breaker: consecutive failures that open it, seconds until a probe, successes that close
    it, seconds after which a silent probe's slot is given to another."""

    failure_threshold: int = 5
    recovery_timeout: float = 60.0
    success_threshold: int = 2
    probe_timeout: float = 600.0


@record(frozen=True, slots=True)
class Permit:
    """Leave to make one attempt. Must be settled once; a second settlement, or one of an earlier generation,
    does nothing."""

    generation: int
    probe: int = 0


@record(frozen=True, slots=True)
class Refusal:
    """The attempt may not be made. `retry_after` is seconds until a probe may be tried."""

    state: CircuitState
    retry_after: float


@record(frozen=True, slots=True)
class Transition:
    """The state changed; `lasted` is the seconds spent in `left`, `causes` the origins of the failures that
    led to it."""

    left: CircuitState
    entered: CircuitState
    reason: str
    lasted: float
    failures: int = 0
    causes: tuple[bytes, ...] = ()


@dataclass(slots=True)
class Counts:
    """Totals over the life of a circuit. A call is settled or refused; `nothing` verdicts count in
    neither."""

    successes: int = 0
    failures: int = 0
    nothings: int = 0
    refusals: int = 0
    transitions: int = 0


_FIRST_LEAVE = Permit(0)


@dataclass(slots=True)
class Circuit:
    """State of one breaker."""

    policy: Policy
    since: float
    counts: Counts = field(default_factory=Counts)
    _state: CircuitState = _CLOSED
    _generation: int = 0
    _failures: int = 0
    _successes: int = 0
    _probe: int = 0
    _probe_at: float | None = None
    _causes: deque[bytes] = field(default_factory=lambda: deque(maxlen=_CAUSES))
    _leave: Permit = _FIRST_LEAVE  # of every attempt in this generation while it is closed

    def state(self, now: float) -> CircuitState:
        """The state as a reader should see it: an open circuit whose recovery is due reads `half_open`."""
        if self._state is _OPEN and now - self.since >= self.policy.recovery_timeout:
            return _HALF_OPEN
        return self._state

    @property
    def closed(self) -> bool:
        """True while nothing is refused and a failure is only counted."""
        return self._state is _CLOSED

    @property
    def idle(self) -> bool:
        """True when nothing would be lost by forgetting this circuit: closed, without failures in a row."""
        return self._state is _CLOSED and self._failures == 0

    def look(self, now: float) -> Refusal | None:
        """Would an attempt be refused now? Takes no permit and changes nothing."""
        if self._state is _CLOSED:
            return None
        if self._state is _OPEN:
            left = self.policy.recovery_timeout - (now - self.since)
            return Refusal(_OPEN, left) if left > 0 else None
        if self._probe_at is None:
            return None
        left = self.policy.probe_timeout - (now - self._probe_at)
        return Refusal(_HALF_OPEN, min(left, self.policy.recovery_timeout)) if left > 0 else None

    def admit(self, now: float) -> tuple[Permit | Refusal, Transition | None]:
        """Take a permit for one attempt, or be refused. An open circuit that is due becomes half_open
        here."""
        if self._state is _CLOSED:
            return self._leave, None
        refused = self.look(now)
        if refused is not None:
            return refused, None
        changed = None
        if self._state is _OPEN:
            changed = self._enter(_HALF_OPEN, "recovery_due", now)
        elif self._probe_at is not None:
            # The slot of a probe that never reported: a new generation, so that its late result settles
            # nothing.
            self._generation += 1
        self._probe += 1
        self._probe_at = now
        return Permit(self._generation, self._probe), changed

    def settle(self, permit: Permit, verdict: Verdict, now: float, origin: bytes = b"") -> Transition | None:
        """Report what one admitted attempt said about the provider."""
        counts = self.counts
        if verdict is _SUCCESS:
            counts.successes += 1
        elif verdict is _FAILURE:
            counts.failures += 1
        else:
            counts.nothings += 1
        if permit.generation != self._generation:
            return None
        if permit.probe:
            if permit.probe != self._probe or self._probe_at is None:
                return None
            self._probe_at = None
            return self._probed(verdict, now, origin)
        if verdict is _FAILURE:
            self._failures += 1
            if origin:
                self._causes.append(origin)
            if self._failures >= self.policy.failure_threshold:
                return self._enter(_OPEN, "failures", now)
        elif verdict is _SUCCESS:
            self._failures = 0
            self._causes.clear()
        return None

    def refused(self) -> None:
        """Count one refused call."""
        self.counts.refusals += 1

    def reset(self, now: float) -> Transition | None:
        """Close the circuit by hand. Attempts under way settle nothing afterwards."""
        if self._state is _CLOSED:
            self._failures = 0
            self._causes.clear()
            return None
        return self._enter(_CLOSED, "reset", now)

    def _probed(self, verdict: Verdict, now: float, origin: bytes) -> Transition | None:
        if verdict is _FAILURE:
            self._failures += 1
            if origin:
                self._causes.append(origin)
            return self._enter(_OPEN, "probe_failed", now)
        if verdict is _SUCCESS:
            self._successes += 1
            if origin:
                self._causes.append(origin)
            if self._successes >= self.policy.success_threshold:
                return self._enter(_CLOSED, "recovered", now)
        return None

    def _enter(self, state: CircuitState, reason: str, now: float) -> Transition:
        changed = Transition(
            self._state, state, reason, max(0.0, now - self.since), self._failures, tuple(self._causes)
        )
        self._state = state
        self.since = now
        self.counts.transitions += 1
        self._generation += 1
        self._successes = 0
        self._probe_at = None
        if state is _HALF_OPEN:
            self._causes.clear()
        elif state is _CLOSED:
            self._failures = 0
            self._causes.clear()
            self._leave = Permit(self._generation)
        return changed
