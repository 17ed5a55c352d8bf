"""The bench of the tests of leads: callers without a transport, all under one key."""

from __future__ import annotations

from collections.abc import Callable

from underlay.pipeline.flights import Flights, Lead, _chain
from underlay.pipeline.ports import NO_TIMEOUTS

KEY = b"k" * 32


class Caller:
    """As much of one call's ports as flights ask for: its home, and who was woken."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.timeouts = NO_TIMEOUTS
        self.woken: list[object] = []

    def now(self) -> float:
        return 0.0

    def waiter(self) -> object:
        return object()

    def wake(self, waiter: object) -> None:
        self.woken.append(waiter)


def enter(flights: Flights, caller: Caller) -> tuple[Lead, bool]:
    """Lead or follow under the one key."""
    call = Lead()
    call.last = caller.now()
    lead = flights.enter(call, KEY, caller)  # type: ignore[arg-type]
    return lead, lead is call


def contended(lead: Lead) -> bool:
    """Whether it has met another home."""
    return lead.company is not None and lead.company.contended


def waiting(lead: Lead) -> object:
    """Who waits for its head."""
    return lead.company.waiting if lead.company is not None else None


def chained(flights: Flights) -> dict[bytes, list[Lead]]:
    """The leads of each key, in the order in which they came."""
    return {key: list(_chain(first)) for key, first in flights._leads.items()}


class Lends:
    """Takes leases back, and does this then."""

    def __init__(self, then: Callable[[bytes, int], object]) -> None:
        self.free = then


def _unasked(_: bytes, token: int) -> None:
    raise AssertionError(f"a lease was given back that nobody took: {token}")


keep = Lends(_unasked)
"""There is no lease to give back."""
