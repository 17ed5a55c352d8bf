"""A lease of the memory store is taken only where two homes meet: by whoever comes second, for the first too."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from lead_lab import KEY, Caller, Lends, contended, enter, keep

from underlay import Runtime
from underlay.pipeline.flights import Fate, Flights
from underlay.pipeline.ports import Timeouts
from underlay.stores.memory import MemoryStore
from underlay.stores.store import Held, Lease
from underlay.testing import FakeClock

ASK = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


class Counting(MemoryStore[Any]):
    """A store of one process that says how often it was asked for a lease."""

    def __init__(self) -> None:
        super().__init__(100, 10**6)
        self.asked = 0

    def lease(self, key: bytes, now: float, ttl: float, token: int = 0) -> Lease | Held:
        self.asked += 1
        return super().lease(key, now, ttl, token)


def test_a_call_that_meets_nobody_takes_no_lease() -> None:
    """A miss, a hit and a failure of one home ask the store of this process for no lease."""
    store = Counting()
    runtime = Runtime(clock=FakeClock(), store=store)
    statuses = iter((200, 503))

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(next(statuses), json={"choices": [{"index": 0, "finish_reason": "stop"}]})

    with httpx.Client(transport=runtime.httpx_transport(httpx.MockTransport(answer))) as client:
        codes = [client.post("https://api.openai.com/v1/chat/completions", json=ASK | more).status_code for more in ({}, {}, {"n": 2})]  # fmt: skip
    assert (codes, store.counts().entries) == ([200, 200, 503], 1)
    assert (store.asked, store._leases) == (0, {})


def test_only_who_finds_another_home_is_contended() -> None:
    """The first of a key knows of nobody, a follower is none of the leads, and a call of another home leads too,
    contended."""
    flights = Flights()
    first, leads = enter(flights, Caller("a"))
    assert (leads, contended(first)) == (True, False)
    assert enter(flights, Caller("a")) == (first, False)
    other, leads = enter(flights, Caller("b"))
    assert (leads, contended(other), contended(first)) == (True, True, False)
    assert flights.rival(other) is first


def test_none_is_taken_for_who_waits_for_one() -> None:
    """A contended call takes its own lease, or waits for it: one that a third took for it would make it wait for
    itself."""
    flights = Flights()
    first, _ = enter(flights, Caller("a"))
    second, _ = enter(flights, Caller("b"))
    flights.landed(first, keep, 0)
    third, _ = enter(flights, Caller("c"))
    assert flights.rival(third) is None
    assert flights.rival(second) is None
    assert [contended(lead) for lead in (first, second, third)] == [False, True, True]


def test_who_leads_in_anothers_place_has_no_right_to_a_lease() -> None:
    """A home has one lease of a key at most: nobody waits for a flight that only they may drive. When who had the
    right has ended, the next to lead has it."""
    flights, hurried, brief = Flights(), Caller("a"), Caller("a")
    hurried.timeouts, brief.timeouts = Timeouts(read=1.0), Timeouts(read=5.0)
    first, _ = enter(flights, hurried)
    second, leads = enter(flights, brief)
    assert (leads, flights.meet(first).leases, flights.meet(second).leases) == (True, True, False)
    flights.landed(first, keep, 0)
    third, leads = enter(flights, Caller("a"))
    assert (leads, flights.meet(third).leases) == (True, True)


def test_in_a_shared_store_every_lead_sees_to_its_own_lease() -> None:
    """Other processes may be fetching the same, whoever is in the table."""
    flights = Flights(shared=True)
    enter(flights, Caller("a"))
    other, _ = enter(flights, Caller("b"))
    assert flights.rival(other) is None


def test_a_lease_is_lent_once_and_to_nobody_who_has_ended() -> None:
    """A lead takes what is lent to it while it runs, and gives it back; it never has two, and none after its end."""
    flights, given_back = Flights(), []
    lead, _ = enter(flights, Caller("a"))
    assert flights.lend(lead, 7, 30.0)
    assert (lead.token, flights.meet(lead).renew_at) == (7, 30.0)
    assert not flights.lend(lead, 8, 40.0)
    flights.landed(lead, Lends(lambda key, token: given_back.append((key, token))), 0)
    assert given_back == [(KEY, 7)]
    assert not flights.lend(lead, 9, 50.0)
    assert (lead.token, flights._leads, flights._elsewhere) == (0, {}, {})


@pytest.mark.parametrize("how", ["landed", "ended"])
def test_who_comes_to_wait_before_the_lease_is_free_is_woken(how: str) -> None:
    """A lead is out of the table before its lease is given back. Whoever began to wait in between, because the store
    still said that the key is held, is woken as well."""
    flights, late = Flights(), Caller("b")
    early = Caller("c")
    lead, _ = enter(flights, Caller("a"))
    flights.lend(lead, 7, 30.0)
    waiters = [flights.wait_elsewhere(KEY, early)]  # type: ignore[arg-type]

    def free(_: bytes, __: int) -> None:
        assert flights._leads == {}
        waiters.append(flights.wait_elsewhere(KEY, late))  # type: ignore[arg-type]

    if how == "landed":
        flights.landed(lead, Lends(free), 1)
    else:
        flights.ended(lead, Fate.GONE, Lends(free))
    assert [*early.woken, *late.woken] == waiters
    assert flights._elsewhere == {}


def test_without_a_lease_none_is_given_back() -> None:
    """The end of a lead that nobody lent anything asks the store for nothing, and wakes who waits."""
    flights, waiting = Flights(), Caller("b")
    lead, _ = enter(flights, Caller("a"))
    waiter = flights.wait_elsewhere(KEY, waiting)  # type: ignore[arg-type]
    flights.landed(lead, keep, 1)
    assert (waiting.woken, flights.landings) == ([waiter], 1)
