"""Everything that calls share. What a fork child must not inherit hangs off one object, `State`."""

from __future__ import annotations

import logging
import os
import secrets
import weakref
from collections import deque
from typing import TYPE_CHECKING, Protocol

from underlay.core.circuit_breaker import Policy
from underlay.pipeline.circuits import Circuits
from underlay.pipeline.flights import Flights
from underlay.pipeline.pacing import Pacing
from underlay.pipeline.prices import Prices
from underlay.pipeline.recognise import Memo, Singles
from underlay.pipeline.watch import Watch
from underlay.pipeline.windows import Windows
from underlay.stores.memory import MemoryStore
from underlay.stores.opening import open_store
from underlay.telemetry.attributes import Stage
from underlay.telemetry.events import Unpriced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from underlay.core.cache import Entry
    from underlay.pipeline.recognise import Asked
    from underlay.providers.dialect import Outcome
    from underlay.providers.recognise import Recogniser
    from underlay.settings import Settings
    from underlay.stores.store import Store
    from underlay.telemetry.listener import Listener

__all__ = ["Clock", "Engine", "State"]

_log = logging.getLogger("underlay")


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """Seconds, monotonic."""
        ...

    def wall(self) -> float:
        """Seconds since 1970, UTC: for prices that depend on the date, never for a duration."""
        ...


class Droppable(Protocol):
    """A reader that the garbage collector took."""

    def drop(self, now: float) -> None:
        """Close its books as of `now`."""
        ...


class State:
    """The state of one process: locks, circuits, store, memo, flights, windows, turns, and the readers that
    were garbage-collected.

    A finaliser may run anywhere, also while this thread holds one of our locks. So it only appends to
    `dropped`, and the next caller closes those books.
    """

    def __init__(
        self,
        settings: Settings,
        watch: Watch,
        store: Store[Entry] | None = None,
        results: Store[Entry] | None = None,
    ) -> None:
        breaker, cache = settings.circuit_breaker, settings.llm_cache
        policy = Policy(
            breaker.failure_threshold,
            breaker.recovery_timeout,
            breaker.success_threshold,
            breaker.probe_timeout,
        )
        self.circuits = Circuits(policy, watch.event)
        self.store = store if store is not None else open_store(cache)
        # Results of plain functions are kept pickled, and a pickle is read from this process's memory alone.
        self.results = (
            self.store
            if self.store.local
            else results
            if results is not None
            else MemoryStore(cache.maxsize, cache.max_bytes)
        )
        self.memo = Memo()
        self.singles = Singles()
        self.flights = Flights(shared=not self.store.local)
        self.windows = Windows()
        self.pacing = Pacing(settings)
        self.dropped: deque[tuple[Droppable, float]] = deque()


class Engine:
    """One runtime's engine: settings, clock, listeners, prices and state."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        recogniser: Recogniser,
        listeners: Sequence[Listener],
        store: Store[Entry] | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.recogniser = recogniser
        self.watch = Watch(listeners)
        self.faults = self.watch.faults
        self.prices = Prices()
        self.state = State(settings, self.watch, store)
        # The user's, or that of the store, which all who share it must have; else random per process: an
        # unknown credential must never share a scope.
        self.secret = (
            settings.secret.reveal().encode()
            if settings.secret is not None
            else self.state.store.secret() or secrets.token_bytes(32)
        )
        self.namespaced = settings.llm_cache.namespace is not None
        """Whether credentials share answers."""
        self._unpriced: set[tuple[str, str]] = set()
        _engines.add(self)

    def cost(self, asked: Asked, outcome: Outcome) -> float | None:
        """US dollars of an answer, None when unknown. A model without a price is said once."""
        if outcome.usage is None:
            return None
        provider, model = asked.circuit
        cost, priced = self.prices.cost(
            provider, (outcome.model, model), outcome.usage, outcome.billing, self.clock.wall()
        )
        if not priced and (provider, model) not in self._unpriced and len(self._unpriced) < 1000:
            self._unpriced.add((provider, model))
            _log.warning(
                "underlay: no price for %s/%s in the table of %s: what its calls cost is unknown",
                provider,
                model,
                self.prices.book.date,
            )
            self.watch.event(Unpriced(provider, model))
        return cost

    def free(self, key: bytes, token: int) -> None:
        """Give a lease back where there are no ports to do it: of a body that was garbage-collected."""
        for store in {id(store): store for store in (self.state.store, self.state.results)}.values():
            store.free(key, token)

    def settle_dropped(self) -> None:
        """Close the books of readers that were garbage-collected since the last caller."""
        dropped = self.state.dropped
        while dropped:
            try:
                reader, at = dropped.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                reader.drop(at)
            except Exception as error:  # noqa: BLE001 never break the app
                self.faults.report(Stage.RECORD, error)

    def forked(self) -> None:
        """In a fork child: circuits, permits, flights and windows of the parent do not exist here, and its
        locks may be held for ever."""
        listeners = self.watch.listeners
        self.watch = Watch(listeners)
        self.faults = self.watch.faults
        self.prices = Prices(self.prices.book)
        store, results = self.state.store, self.state.results
        self.state = State(
            self.settings,
            self.watch,
            store.forked(),
            results.forked() if results is not store else None,
        )
        failed: list[Exception] = []
        for listener in listeners:
            try:
                forked = getattr(listener, "forked", None)
                if forked is not None:
                    forked()
            except Exception as error:  # noqa: BLE001 a listener is foreign code
                failed.append(error)
        for fault in failed:  # told last: a listener that has not started afresh may wait for ever
            self.faults.report(Stage.LISTENER, fault)


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
