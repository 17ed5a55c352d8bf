"""The circuits of a process, one per (provider, model), behind one lock."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from underlay.core.circuit_breaker import Circuit, Counts, Permit, Policy, Refusal, Transition
from underlay.telemetry.events import CircuitChanged

if TYPE_CHECKING:
    from collections.abc import Callable

    from underlay.telemetry.attributes import CircuitState, Verdict

__all__ = ["CircuitView", "Circuits", "Name"]

_LIMIT = 1000  # circuits kept; a typo in a model name mints one, so idle ones are forgotten first


class Name(NamedTuple):
    """Which circuit: the provider by the conventions' name, and the model as asked for."""

    provider: str
    model: str


class CircuitView(NamedTuple):
    """A circuit as a reader sees it."""

    name: Name
    state: CircuitState
    counts: Counts


class Circuits:
    """Decides under the lock and tells of a transition outside it."""

    def __init__(self, policy: Policy, tell: Callable[[CircuitChanged], None]) -> None:
        self.policy = policy
        self._tell = tell
        self._lock = Lock()
        self._circuits: OrderedDict[Name, Circuit] = OrderedDict()

    def look(self, name: Name, now: float) -> Refusal | None:
        """Would an attempt be refused now? Takes no permit."""
        circuit = self._circuits.get(name)
        if circuit is None or circuit.closed:
            return None  # without the lock: whatever changes meanwhile is met at the attempt
        with self._lock:
            return circuit.look(now)

    def admit(self, name: Name, now: float) -> Permit | Refusal:
        """Take a permit for one attempt, or be refused."""
        with self._lock:
            circuit = self._circuits.get(name) or self._new(name, now)
            permit, changed = circuit.admit(now)
        if changed is not None:
            self._announce(name, changed)
        return permit

    def settle(self, name: Name, permit: Permit, verdict: Verdict, now: float, origin: bytes) -> None:
        """Report what an admitted attempt said about the provider."""
        with self._lock:
            circuit = self._circuits.get(name) or self._new(name, now)
            changed = circuit.settle(permit, verdict, now, origin)
        if changed is not None:
            self._announce(name, changed)

    def refused(self, name: Name, now: float) -> None:
        """Count one refused call."""
        with self._lock:
            circuit = self._circuits.get(name) or self._new(name, now)
            circuit.refused()

    def reset(self, name: Name, now: float) -> None:
        """Close a circuit by hand."""
        with self._lock:
            circuit = self._circuits.get(name)
            changed = circuit.reset(now) if circuit is not None else None
        if changed is not None:
            self._announce(name, changed)

    def view(self, name: Name, now: float) -> CircuitView:
        """One circuit; a model that was never called reads as closed."""
        with self._lock:
            circuit = self._circuits.get(name) or Circuit(self.policy, now)
            return _view(name, circuit, now)

    def views(self, now: float) -> list[CircuitView]:
        """Every circuit that is remembered."""
        with self._lock:
            return [_view(name, circuit, now) for name, circuit in self._circuits.items()]

    def _new(self, name: Name, now: float) -> Circuit:
        if len(self._circuits) >= _LIMIT:
            self._forget()
        circuit = self._circuits[name] = Circuit(self.policy, now)
        return circuit

    def _forget(self) -> None:
        idle = next((name for name, circuit in self._circuits.items() if circuit.idle), None)
        if idle is None:
            self._circuits.popitem(last=False)
        else:
            del self._circuits[idle]

    def _announce(self, name: Name, changed: Transition) -> None:
        self._tell(
            CircuitChanged(
                name.provider,
                name.model,
                changed.left,
                changed.entered,
                changed.reason,
                changed.lasted,
                changed.failures,
                changed.causes,
            )
        )


def _view(name: Name, circuit: Circuit, now: float) -> CircuitView:
    counts = circuit.counts
    copy = Counts(counts.successes, counts.failures, counts.nothings, counts.refusals, counts.transitions)
    return CircuitView(name, circuit.state(now), copy)
