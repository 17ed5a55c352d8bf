"""The baton that threads hand on: one has it at a time, and nobody waits for ever."""

from __future__ import annotations

import threading

import pytest

from underlay.pipeline.baton import Baton, Turn, hand_on

PATIENCE = 15.0  # seconds of real time after which a test that hangs fails


class Waiting(threading.Thread):
    """Waits for a baton beside the test."""

    def __init__(self, baton: Baton) -> None:
        super().__init__(daemon=True)
        self._baton = baton
        self.got: list[Turn | None] = []
        self.start()

    def run(self) -> None:
        """Wait."""
        self.got.append(self._baton.wait())

    def result(self) -> Turn | None:
        """What it got."""
        self.join(PATIENCE)
        return self.got[0]


class Taking(Waiting):
    """Takes a baton beside the test, where it is free."""

    def run(self) -> None:
        """Take."""
        self.got.append(self._baton.take())


def elsewhere(baton: Baton) -> Turn | None:
    """What another thread gets that does not wait."""
    return Taking(baton).result()


def taken(baton: Baton) -> Turn:
    """Take what is free."""
    turn = baton.take()
    assert turn is not None
    return turn


def test_it_is_taken_by_one_and_handed_on() -> None:
    """Who comes first has it, who comes next has not, and once it is handed on it can be taken again."""
    baton = Baton(PATIENCE)
    turn = taken(baton)
    assert elsewhere(baton) is None
    hand_on(turn)
    assert elsewhere(baton) is not None


def test_who_waits_has_it_when_it_is_handed_on() -> None:
    """A thread that waits has the baton after the one that had it, and then nobody else can take it."""
    baton = Baton(PATIENCE)
    turn = taken(baton)
    waiting = Waiting(baton)
    hand_on(turn)
    assert waiting.result() is not None
    assert baton.take() is None


def test_a_thread_has_it_once() -> None:
    """Who comes again from inside of its turn has the same one, which is over when the first of the two ends it, and
    then it is anybody's. Of another thread's turn nothing is taken away."""
    baton = Baton(PATIENCE)
    turn = taken(baton)
    assert baton.take() is turn
    hand_on(turn)
    next_ = elsewhere(baton)
    assert next_ is not None
    hand_on(turn)
    assert baton.take() is None
    hand_on(next_)
    assert baton.take() not in (None, turn, next_)


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
            hand_on(turn)
        done.append(1)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (len(done), most, inside) == (20, [1], [0])
    assert taken(baton) is not None


@pytest.mark.parametrize("waiting", [1, 5])
def test_one_that_is_not_handed_on_heals(waiting: int) -> None:
    """Whoever waits goes on without it after the longest time, the next finds a new one, and what a late holder hands
    on is nobody's."""
    baton = Baton(0.25)  # all of them wait by then
    lost = taken(baton)
    assert [each.result() for each in [Waiting(baton) for _ in range(waiting)]] == [None] * waiting
    turn = taken(baton)
    assert turn is not lost
    hand_on(lost)
    assert elsewhere(baton) is None
    hand_on(turn)
    assert elsewhere(baton) is not None


class Watched:
    """A lock that says when somebody stands in line for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.asked = threading.Event()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Say so, and stand in line."""
        if blocking:
            self.asked.set()
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """Let the next one have it."""
        self._lock.release()


def test_who_gets_a_lost_one_late_takes_nothing_from_its_holder() -> None:
    """It stood in line for the old one while others went on to a new one: whoever has that still comes again at once."""
    baton = Baton(PATIENCE)
    baton._lock = old = Watched()  # type: ignore[assignment]
    lost = taken(baton)
    late = Waiting(baton)
    assert old.asked.wait(PATIENCE)
    baton._longest = 0.01
    assert Waiting(baton).result() is None
    turn = taken(baton)
    hand_on(lost)
    assert late.result() is not None
    assert baton.take() is turn
