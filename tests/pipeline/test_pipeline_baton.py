"""The baton that threads hand on: one has it at a time, and nobody waits for one who does not work."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import pytest

from underlay.pipeline.baton import Baton, connecting
from underlay.testing import FakeClock

PATIENCE = 15.0  # seconds of real time after which a test that hangs fails
PAUSE = 1.0
TICK = 1 / 1024  # what is added up of it is exact


def give(lock: threading.Lock | None) -> None:
    """Give it back as a caller does."""
    assert lock is not None
    with suppress(RuntimeError):
        lock.release()


def idle() -> float:
    """The processor time of a process that waits."""
    return 0.0


def steady() -> float:
    """A clock that stands still."""
    return 0.0


def unasked() -> float:
    """The processor time that nobody has a reason to look at."""
    raise AssertionError("somebody looked")


def nowhere(_: int) -> bool:
    """No thread opens a connection."""
    return False


def at(thread: int) -> list[FrameType]:
    """Where that thread is, innermost first."""
    frame, found = sys._current_frames().get(thread), []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def working() -> Callable[[], float]:
    """The processor time of a process that works."""
    return itertools.count().__next__


class Line:
    """Threads that wait for a baton, on a process that works until it is told to rest."""

    def __init__(self, baton: Baton, size: int) -> None:
        self.baton = baton
        self.got: list[threading.Lock | None] = []
        self.there = threading.Event()
        self.rests = threading.Event()
        self._asked: set[int] = set()
        self._used = itertools.count()
        self._size = size
        baton._busy = self._busy
        self._threads = [threading.Thread(target=self._wait, daemon=True) for _ in range(size)]
        for thread in self._threads:
            thread.start()
        assert self.there.wait(PATIENCE)

    def _busy(self) -> float:
        self._asked.add(threading.get_ident())
        if len(self._asked) == self._size:
            self.there.set()
        return 0.0 if self.rests.is_set() else float(next(self._used))

    def _wait(self) -> None:
        self.got.append(self.baton.wait())

    def join(self) -> None:
        """Everybody has gone."""
        for thread in self._threads:
            thread.join(PATIENCE)
        assert [thread for thread in self._threads if thread.is_alive()] == []


def test_it_is_taken_by_one_and_given_back() -> None:
    """Who comes first has it, who comes next has not, and once it is given back it can be taken again."""
    baton = Baton(PAUSE)
    held = baton.take()
    assert held is not None
    assert baton.take() is None
    give(held)
    assert baton.take() is held


def test_who_waits_has_it_when_it_is_given() -> None:
    """A thread that waits is handed the baton by the one that had it, and then nobody else can take it."""
    baton = Baton(PAUSE, steady)
    held = baton.take()
    line = Line(baton, 1)
    assert line.got == []
    give(held)
    line.join()
    assert line.got == [held]
    assert baton.take() is None
    assert baton._waiting == {}


def test_never_two_at_a_time_have_it() -> None:
    """Of twenty threads that take fifty turns each, none is sent away and none meets another."""
    baton = Baton(PAUSE, steady, working())
    inside: list[int] = []
    most, refused = [0], []

    def turns() -> None:
        for _ in range(50):
            lock = baton.take() or baton.wait()
            if lock is None:
                refused.append(threading.get_ident())
                continue
            inside.append(threading.get_ident())
            os.sched_yield()
            most[0] = max(most[0], len(inside))
            inside.pop()
            give(lock)

    threads = [threading.Thread(target=turns, daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert [thread for thread in threads if thread.is_alive()] == []
    assert (most, refused, inside) == ([1], [], [])
    assert baton._waiting == {}
    assert baton.take() is not None


def test_in_an_idle_process_nobody_waits_for_the_one_ahead() -> None:
    """Where no thread works the holder waits for something else: who waits goes on without the baton."""
    baton = Baton(PAUSE, steady, idle)
    baton.take()
    assert baton.wait() is None
    assert baton._waiting == {}


def test_the_whole_line_goes_with_the_first_who_loses_patience() -> None:
    """All who wait go without the baton once the process is idle, and none of them keeps it from those who come."""
    baton = Baton(PAUSE, steady)
    held = baton.take()
    line = Line(baton, 5)
    assert line.got == []
    line.rests.set()
    line.join()
    assert line.got == [None] * 5
    assert baton._waiting == {}
    assert baton.take() not in (None, held)


def test_for_a_while_after_the_line_went_nobody_waits() -> None:
    """Until the pause is over who finds it taken goes on at once, without a look at the process."""
    clock = FakeClock()
    asked: list[float] = []

    def busy() -> float:
        asked.append(clock.now())
        return 0.0

    baton = Baton(PAUSE, clock.now, busy)
    baton.take()
    assert baton.wait() is None
    assert baton.take() is not None
    asked.clear()
    for _ in range(4):
        assert baton.wait() is None
        clock.advance(PAUSE / 4)
        assert asked == []
    assert baton.wait() is None
    assert asked != []


def test_after_that_while_it_is_as_before() -> None:
    """Once the pause is over who finds it taken waits again, and has it when it is given."""
    clock = FakeClock()
    baton = Baton(PAUSE, clock.now, idle)
    baton.take()
    assert baton.wait() is None
    clock.advance(PAUSE)
    held = baton.take()
    line = Line(baton, 1)
    assert line.got == []
    give(held)
    line.join()
    assert line.got == [held]


@pytest.mark.parametrize(("others", "limit"), [(0, 0.005), (3, 0.02)], ids=["alone", "in a line"])
def test_a_holder_that_does_not_get_on_is_waited_for_so_long(others: int, limit: float) -> None:
    """In a process that works, the wait ends at the first look after five milliseconds for each who waits, and not
    before."""
    clock = FakeClock(0.0)
    used = itertools.count()

    def busy() -> float:
        clock.advance(TICK)  # at most two looks are taken each time that patience runs out
        return float(next(used))

    baton = Baton(PAUSE, clock.now, busy, nowhere)
    baton.take()
    baton._waiting.update(dict.fromkeys(range(-others, 0)))
    assert baton.wait() is None
    assert limit < clock.now() <= limit + 2 * TICK
    assert len(baton._waiting) == others


def test_a_line_that_moves_is_not_let_go() -> None:
    """However long it takes, and however little is worked: who sees others move up waits until it is given."""
    clock = FakeClock()
    looks = itertools.count(1)

    def busy() -> float:
        clock.advance(10 * PAUSE)
        baton._since = clock.now()
        if next(looks) == 10:
            give(held)
        return 0.0

    baton = Baton(PAUSE, clock.now, busy, nowhere)
    held = baton.take()
    assert baton.wait() is held
    assert next(looks) == 11


def test_to_take_it_and_to_be_handed_it_are_moves() -> None:
    """Whoever gets the baton has moved the line: those behind see it by the time and by who has it."""
    clock = FakeClock()
    baton = Baton(PAUSE, clock.now, working(), nowhere)
    held = baton.take()
    assert (baton._since, baton._holder) == (clock.now(), threading.get_ident())
    line = Line(baton, 1)
    clock.advance(TICK)
    give(held)
    line.join()
    assert baton._since == clock.now()
    assert baton._holder != threading.get_ident()


def test_who_comes_takes_it_from_one_that_connects() -> None:
    """The holder opens a connection: who comes has a baton at once, without a look at the processor, and what the other
    hands on later is none."""
    clock, asked = FakeClock(), list[int]()

    def connects(thread: int) -> bool:
        asked.append(thread)
        return True

    baton = Baton(PAUSE, clock.now, unasked, connects)
    held = baton.take()
    clock.advance(6 * TICK)
    got = baton.wait()
    assert got not in (None, held)
    assert asked == [threading.get_ident()]
    give(held)
    assert baton.take() is None
    give(got)
    assert baton.take() is got


def test_who_waits_takes_it_from_one_that_connects() -> None:
    """The holder begins to open a connection after another has come to wait: that one has a baton at its next look."""
    clock, asked = FakeClock(), list[int]()
    used = itertools.count()

    def busy() -> float:
        clock.advance(2 * TICK)
        return float(next(used))

    def connects(thread: int) -> bool:
        asked.append(thread)
        return True

    baton = Baton(PAUSE, clock.now, busy, connects)
    held = baton.take()
    assert baton.wait() not in (None, held)
    assert asked == [threading.get_ident()]
    assert baton._waiting == {}


def test_a_line_hears_that_its_baton_was_taken_away() -> None:
    """Who waits for a baton that was replaced has the new one in turn, and nobody has two."""
    clock, test = FakeClock(), threading.get_ident()
    baton = Baton(PAUSE, clock.now, working(), lambda _: threading.get_ident() == test)
    held = baton.take()
    line = Line(baton, 1)
    clock.advance(6 * TICK)
    got = baton.wait()
    assert got not in (None, held)
    give(held)
    assert line.got == []
    give(got)
    line.join()
    assert line.got == [got]


@pytest.mark.parametrize("name", ["getaddrinfo", "create_connection", "do_handshake", "work"])
def test_a_thread_connects_where_it_is_in_one_of_these(name: str) -> None:
    """A thread that has come to a function of this name, and to nothing further, opens a connection; one that is in
    any other does not, nor does one that is gone."""
    inside, gate = threading.Event(), threading.Lock()
    scope: dict[str, Callable[[], None]] = {}
    exec(f"def {name}(told, blocks):\n    told()\n    blocks(True, {PATIENCE})", scope)
    gate.acquire()
    thread = threading.Thread(target=scope[name], args=(inside.set, gate.acquire), daemon=True)
    thread.start()
    try:
        assert inside.wait(PATIENCE)
        assert thread.ident is not None
        while any(frame.f_code.co_name in ("set", "notify_all") for frame in at(thread.ident)):
            os.sched_yield()
        assert connecting(thread.ident) is (name != "work")
    finally:
        gate.release()
        thread.join(PATIENCE)
    assert not connecting(thread.ident)


def test_giving_it_back_twice_is_harmless() -> None:
    """The second time nobody has it, and it can be taken once as before."""
    baton = Baton(PAUSE)
    held = baton.take()
    give(held)
    give(held)
    assert baton.take() is held
    assert baton.take() is None


def test_a_late_holder_hands_nothing_out() -> None:
    """Whose line has gone gives back what nobody waits for any more: the baton of those who came after stays theirs."""
    baton = Baton(PAUSE, steady, idle)
    late = baton.take()
    assert baton.wait() is None
    held = baton.take()
    assert held is not None
    give(late)
    give(late)
    assert baton.take() is None
    give(held)
    assert baton.take() is held


def test_one_that_is_never_given_back_heals() -> None:
    """Its holder's thread has ended: one waits in vain, in a process that works for some time, and after the pause it
    is taken, waited for and given like any other."""
    clock = FakeClock()
    used = itertools.count()

    def busy() -> float:
        clock.advance(PAUSE)
        return float(next(used))

    baton = Baton(PAUSE, clock.now, busy)
    gone = threading.Thread(target=baton.take)
    gone.start()
    gone.join(PATIENCE)
    assert baton.take() is None
    assert baton.wait() is None
    clock.advance(PAUSE)
    held = baton.take()
    line = Line(baton, 1)
    assert line.got == []
    give(held)
    line.join()
    assert line.got == [held]
    assert baton._waiting == {}


def test_who_is_interrupted_as_it_waits_leaves_the_line() -> None:
    """An exception out of the wait is the caller's, and neither its place nor the baton is lost by it."""

    def interrupted() -> float:
        raise KeyboardInterrupt

    baton = Baton(PAUSE, steady, interrupted)
    held = baton.take()
    with pytest.raises(KeyboardInterrupt):
        baton.wait()
    assert baton._waiting == {}
    give(held)
    assert baton.take() is held
