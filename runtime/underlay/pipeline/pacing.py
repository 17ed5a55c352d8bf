"""How calls that start at once leave: those of an event loop by turns, where `core.pacing` decides and the
loop says when it comes round, and those of threads through a gate."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType

from underlay.core.pacing import Turns
from underlay.pipeline.gate import Gate
from underlay.settings import Mode
from underlay.telemetry.events import Paced

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from underlay.pipeline.ports import Now, Ports
    from underlay.pipeline.watch import Watched
    from underlay.settings import Settings

    Soon = Callable[[Callable[[], object]], object]

__all__ = ["Pacing"]

_LONGEST = 1.0  # seconds: a thread is inside of the gate for some milliseconds


class _Held:
    """A call that waits for its turn."""

    __slots__ = ("ports", "waiter")

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self.waiter = ports.waiter()


class Pacing:
    """The turns of a process, by event loop; each loop's are touched in that loop's thread alone, so there is
    no lock. And the gate of its threads, for those who send; None where all go."""

    def __init__(self, settings: Settings) -> None:
        pacing = settings.pacing
        self._observes = pacing.mode is Mode.OBSERVE
        self._off = pacing.mode is Mode.OFF
        self._turn = pacing.turn_ms / 1000
        self._at_once = pacing.at_once
        self.patience = settings.coalesce.wait_timeout
        """Seconds without a word from a loop after which all go that wait for it."""
        self._turns: dict[Hashable, Turns[_Held]] = {}
        self.wires = pacing.mode is Mode.ENFORCE
        """Whether what is sent leaves through connections of ours."""
        self.gate = Gate(pacing.threads, _LONGEST) if self.wires and _one_at_a_time() else None

    def holds(self, ports: Ports) -> bool:
        """Whether the call of these ports must wait for its turn to be sent."""
        soon = ports.soon
        if soon is None or self._off:
            return False
        turns = self._turns.get(ports.home)
        if turns is None:
            turns = self._open(ports.home)
        now = ports.now()
        if turns.holds(now):
            return True
        if turns.watch(now):
            _watch(turns, soon, ports.now)
        return False

    async def turn(self, ports: Ports, watched: Watched) -> None:
        """Wait for it, and tell. Bounded: where a loop forgets to tell that it came round (a signal handler
        raised in the middle of that), everybody goes."""
        if self._observes:
            watched.event(Paced(0.0, observed=True))
            return
        turns, held, began = self._turns[ports.home], _Held(ports), ports.now()
        turns.enter(held, began)
        try:
            while turns.waits(held):
                rounds, until = turns.rounds, ports.now() + self.patience
                await ports.wait(held.waiter, until)
                if not turns.waits(held):
                    break
                held.waiter = ports.waiter()
                if turns.rounds == rounds and ports.now() >= until:
                    _wake(turns.released())
        finally:
            turns.leave(held)
        watched.event(Paced(ports.now() - began))

    def _open(self, home: Hashable) -> Turns[_Held]:
        for key in list(self._turns):  # a copy: loops of other threads come meanwhile
            if _is_over(key):
                self._turns.pop(key, None)
        turns = self._turns[home] = Turns(self._turn, self._at_once, self.patience)
        return turns


def _one_at_a_time() -> bool:
    """Whether this interpreter runs one thread at a time (PEP 703)."""
    enabled = getattr(sys, "_is_gil_enabled", None)
    return enabled is None or bool(enabled())


def _is_over(home: Hashable) -> bool:
    """Whether its loop is gone, or closed: calls that waited as it was would keep it."""
    loop: Any = home() if isinstance(home, ReferenceType) else home
    return loop is None or (hasattr(loop, "is_closed") and bool(loop.is_closed()))


def _watch(turns: Turns[_Held], soon: Soon, clock: Now) -> None:
    def came_round() -> None:
        gone = turns.came_round(clock())
        try:
            _wake(gone)
        finally:
            # After those that were woken: they are sent before the loop tells again, and looks for replies.
            if gone:
                soon(came_round)

    soon(came_round)


def _wake(gone: list[_Held]) -> None:
    for held in gone:
        held.ports.wake(held.waiter)
