"""The table of leads: the first of a key enters without the lock, so whoever comes next must find it there, or lead."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lead_lab import KEY, Caller, chained, contended, enter, keep, waiting

from underlay.pipeline.flights import Fate, Flights, Lead

HOMES = "abc"
PATIENCE = 30.0  # seconds of real time after which a test that hangs fails


class AtTheLock:
    """A lock that something happens at, once, before it is taken."""

    def __init__(self, flights: Flights, then: Callable[[], object]) -> None:
        self._lock = flights._lock
        self._then = then
        self._flights = flights
        flights._lock = self  # type: ignore[assignment]

    def __enter__(self) -> None:
        self._flights._lock = self._lock
        self._then()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_who_stands_at_the_lock_while_the_only_lead_ends_leads() -> None:
    """It had seen somebody; by the time that it may look there is nobody, and it meets no rival."""
    flights = Flights()
    first, _ = enter(flights, Caller("a"))
    AtTheLock(flights, lambda: flights.landed(first, keep, 0))
    second, leads = enter(flights, Caller("b"))
    assert (leads, contended(second), chained(flights)) == (True, False, {KEY: [second]})


def test_who_stands_at_the_lock_while_the_lead_changes_meets_the_new_one() -> None:
    """The list that it saw is another by then."""
    flights, new = Flights(), list[Lead]()
    first, _ = enter(flights, Caller("a"))

    def change() -> None:
        flights.landed(first, keep, 0)
        new.append(enter(flights, Caller("b"))[0])

    AtTheLock(flights, change)
    second, leads = enter(flights, Caller("c"))
    assert (leads, contended(second), chained(flights)) == (True, True, {KEY: [*new, second]})
    AtTheLock(flights, lambda: flights.landed(second, keep, 0))
    assert enter(flights, Caller("b")) == (new[0], False)
    assert chained(flights) == {KEY: new}


class Table(dict[bytes, Lead]):
    """Leads by key, and how often a key was taken out."""

    taken_out = 0

    def pop(self, *given: object) -> object:  # type: ignore[override]
        """Take one out."""
        self.taken_out += 1
        return super().pop(*given)  # type: ignore[call-overload]

    def __delitem__(self, key: bytes) -> None:
        self.taken_out += 1
        super().__delitem__(key)


@pytest.mark.parametrize("end", ["land", "forget"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_key_is_never_out_of_the_table_while_it_has_a_lead(first: int, end: str) -> None:
    """Whoever enters at that moment, without the lock, would not see who leads."""
    flights = Flights()
    table = flights._leads = Table()
    leads = [enter(flights, Caller(home))[0] for home in "ab"]
    for place, gone in ((first, 0), (1 - first, 1)):
        if end == "land":
            flights.landed(leads[place], keep, 0)
        else:
            flights.forget(leads[place])
        assert table.taken_out == gone
    assert table == {}


def test_a_lead_of_before_a_fork_takes_nobody_out_of_the_table_of_the_child() -> None:
    """Its end is told to flights that never knew it, where another may lead the same key."""
    old, new = Flights(), Flights()
    parents, _ = enter(old, Caller("a"))
    new.landed(parents, keep, 1)
    childs, _ = enter(new, Caller("a"))
    new.landed(parents, keep, 1)
    new.forget(parents)
    assert (chained(new), new.landings) == ({KEY: [childs]}, 2)


@given(st.lists(st.tuples(st.sampled_from(["enter", "land", "forget", "fail"]), st.integers(0, 5))))
def test_there_is_one_lead_of_a_home_until_it_ends(steps: list[tuple[str, int]]) -> None:
    """Whatever comes and goes: a home's next call follows its lead, or leads when there is none."""
    flights, there, known = Flights(), list[Lead](), list[Lead]()
    for step, number in steps:
        if step == "enter":
            home = HOMES[number % len(HOMES)]
            lead, mine = enter(flights, Caller(home))
            expected = [other for other in there if other.ports.home == home]
            assert (lead if not mine else None) == (expected[0] if expected else None)
            if mine:
                assert contended(lead) == bool(there)
                there.append(lead)
                known.append(lead)
        elif known:
            lead = known[number % len(known)]
            if step == "land":
                flights.landed(lead, keep, 0)
            elif step == "fail":
                flights.ended(lead, Fate.GONE, keep)
            else:
                flights.forget(lead)
            there = [other for other in there if other is not lead]
        assert chained(flights) == ({KEY: there} if there else {})


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that change as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_threads_never_lead_the_same_key_of_a_home_at_once() -> None:
    """Eight threads of two homes come and go; of a home there is one lead at any time, and none is left."""
    flights, running, twice = Flights(), Counter[str](), list[str]()
    check, led = threading.Lock(), Counter[str]()

    def work(home: str) -> None:
        for _ in range(500):
            lead, mine = enter(flights, Caller(home))
            if not mine:
                continue
            with check:
                running[home] += 1
                led[home] += 1
                if running[home] > 1:
                    twice.append(home)
            with check:
                running[home] -= 1
            flights.landed(lead, keep, 1)

    threads = [threading.Thread(target=work, args=("ab"[place % 2],), daemon=True) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    assert (twice, flights._leads, flights.landings) == ([], {}, led.total())
    assert set(led) == {"a", "b"}


class Body:
    """A body that is told who will join."""

    def __init__(self) -> None:
        self.expected: list[object] = []

    def expect(self, followers: Iterable[object]) -> None:
        self.expected += followers

    def arrived(self, follower: object) -> None:
        self.expected = [other for other in self.expected if other is not follower]


def test_who_waits_is_expected_and_woken() -> None:
    """The head comes after them."""
    flights, body, callers = Flights(), Body(), [Caller("a"), Caller("a")]
    lead, _ = enter(flights, Caller("a"))
    waiters = [flights.wait(lead, caller) for caller in callers]  # type: ignore[arg-type]
    flights.answered(lead, body)
    assert [caller.woken for caller in callers] == [[waiter] for waiter in waiters]
    assert (body.expected, waiting(lead), lead.outcome) == (callers, None, body)


class Seen(Lead):
    """A lead at whose head something happens: just before it is there, or just after."""

    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None
    kept: Any = None

    @property
    def outcome(self) -> Any:
        """What became of it."""
        return self.kept

    @outcome.setter
    def outcome(self, outcome: Any) -> None:
        if self.before is not None:
            self.before()
        self.kept = outcome
        if self.after is not None:
            self.after()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_nobody_waits_for_a_head_that_has_come(moment: str) -> None:
    """The head is told without the lock: who comes to wait just before is woken, who comes just after finds it."""
    flights, body, late = Flights(), Body(), Caller("a")
    lead, got = Seen(), list[object]()
    assert flights.enter(lead, KEY, Caller("a")) is lead  # type: ignore[arg-type]
    setattr(lead, moment, lambda: got.append(flights.wait(lead, late)))  # type: ignore[arg-type]
    flights.answered(lead, body)
    (waiter,) = got
    assert lead.outcome is body
    assert not waiting(lead)
    if moment == "before":
        assert (late.woken, body.expected) == ([waiter], [late])
    else:
        assert (waiter, late.woken, body.expected) == (None, [], [])


def test_a_head_that_comes_while_somebody_takes_its_place_is_found() -> None:
    """Who stands in line looks once more: the head was told to those who stood there before."""
    flights, body, late = Flights(), Body(), Caller("a")
    lead, _ = enter(flights, Caller("a"))

    def waiter() -> object:
        flights.answered(lead, body)
        return object()

    late.waiter = waiter  # type: ignore[method-assign]
    assert flights.wait(lead, late) is None  # type: ignore[arg-type]
    assert (lead.outcome, waiting(lead), body.expected) == (body, {}, [])


def test_who_leaves_as_the_head_comes_is_not_expected() -> None:
    """Its wait is over between the head and the look at those who wait."""
    flights, body, late = Flights(), Body(), Caller("a")
    lead = Seen()
    assert flights.enter(lead, KEY, Caller("a")) is lead  # type: ignore[arg-type]
    assert flights.wait(lead, late) is not None  # type: ignore[arg-type]
    lead.after = lambda: flights.leave(lead, late)  # type: ignore[arg-type]
    flights.answered(lead, body)
    assert (late.woken, body.expected) == ([], [])


@pytest.mark.usefixtures("restless")
def test_threads_that_wait_for_a_head_are_all_woken_or_find_it() -> None:
    """Eight come as it does, five hundred times: nobody is forgotten, and as many are expected as were woken."""
    flights, bodies, callers = Flights(), list[Body](), list[Caller]()
    waited = Counter[bool]()
    gate, check = threading.Barrier(9), threading.Lock()
    leads = [enter(flights, Caller("a"))[0]]

    def follow() -> None:
        for _ in range(500):
            gate.wait(PATIENCE)
            caller = Caller("a")
            waiter = flights.wait(leads[-1], caller)  # type: ignore[arg-type]
            with check:
                waited[waiter is not None] += 1
                if waiter is not None:
                    callers.append(caller)
            gate.wait(PATIENCE)

    threads = [threading.Thread(target=follow, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(500):
        body = Body()
        gate.wait(PATIENCE)
        flights.answered(leads[-1], body)
        gate.wait(PATIENCE)  # whoever waits has been woken: nothing else comes
        with check:
            bodies.append(body)
        flights.landed(leads[-1], keep, 1)
        leads.append(enter(flights, Caller("a"))[0])
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    assert [len(caller.woken) for caller in callers] == [1] * len(callers)
    assert {caller for body in bodies for caller in body.expected} == set(callers)
    assert len(callers) == waited[True]
    assert waited.total() == 4000
