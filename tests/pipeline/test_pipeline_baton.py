"""The baton of threads that send: one has it at a time, and nobody waits for ever."""

from __future__ import annotations

import threading
from threading import Lock

import pytest

from underlay.pipeline.baton import Baton

PATIENCE = 15.0  # seconds of real time after which a test that hangs fails


class Waiting(threading.Thread):
    """Waits for a baton beside the test."""

    def __init__(self, baton: Baton) -> None:
        super().__init__(daemon=True)
        self._baton = baton
        self.got: list[Lock | None] = []
        self.start()

    def run(self) -> None:
        """Wait."""
        self.got.append(self._baton.wait())

    def result(self) -> Lock | None:
        """What it got."""
        self.join(PATIENCE)
        return self.got[0]


def taken(baton: Baton) -> Lock:
    """Take what is free."""
    turn = baton.take()
    assert turn is not None
    return turn


def test_it_is_taken_by_one_and_given_back() -> None:
    """Who comes first has it, who comes next has not, and once it is given back it can be taken again."""
    baton = Baton(PATIENCE)
    turn = taken(baton)
    assert baton.take() is None
    turn.release()
    assert baton.take() is not None


def test_who_waits_has_it_when_it_is_given_back() -> None:
    """A thread that waits has the baton after the one that had it, and then nobody else can take it."""
    baton = Baton(PATIENCE)
    turn = taken(baton)
    waiting = Waiting(baton)
    turn.release()
    assert waiting.result() is not None
    assert baton.take() is None


def test_never_two_at_a_time_have_it() -> None:
    """Twenty threads, fifty turns each: a turn that begins before another has ended would be seen."""
    baton, inside, most, done = Baton(PATIENCE), [0], [0], list[int]()

    def work() -> None:
        for _ in range(50):
            turn = baton.take() or baton.wait()
            assert turn is not None
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            inside[0] -= 1
            turn.release()
        done.append(1)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (len(done), most, inside) == (20, [1], [0])
    assert baton._turns == 20 * 50


@pytest.mark.parametrize("waiting", [1, 5])
def test_one_that_is_not_given_back_heals(waiting: int) -> None:
    """Whoever waits goes on without it after the longest time, the next finds a new one, and what a late holder gives
    back is nobody's."""
    baton = Baton(0.25)  # all of them wait by then
    lost = taken(baton)
    assert [each.result() for each in [Waiting(baton) for _ in range(waiting)]] == [None] * waiting
    turn = taken(baton)
    assert turn is not lost
    lost.release()
    assert baton.take() is None
    turn.release()
    assert baton.take() is not None


class Changing:
    """A lock that is not to be had in time, while others have their turns."""

    def __init__(self, baton: Baton, times: int) -> None:
        self._baton = baton
        self._times = times
        self.asked = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Too late, so many times."""
        del blocking, timeout
        self.asked += 1
        self._baton._turns += self.asked <= self._times
        return False


def test_a_long_line_is_no_lost_baton() -> None:
    """As long as it changes hands, who waits for longer than the longest time waits on."""
    baton = Baton(PATIENCE)
    baton._lock = line = Changing(baton, 3)  # type: ignore[assignment]
    assert baton.wait() is None
    assert line.asked == 4
    assert baton.take() is not None


def test_who_waits_for_a_lost_one_goes_on_to_the_new() -> None:
    """Others took it to be lost first: there is a new one, and turns are had."""
    baton = Baton(PATIENCE)

    class Old(Changing):
        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            baton._lock = new
            return super().acquire(blocking, timeout)

    new = Lock()
    baton._lock = Old(baton, 1)  # type: ignore[assignment]
    assert baton.wait() is new
    assert baton.take() is None
