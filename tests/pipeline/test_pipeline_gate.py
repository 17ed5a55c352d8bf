"""The gate of threads that send: so many are inside at a time, and nobody waits for ever."""

from __future__ import annotations

import threading
from queue import Empty
from typing import Any

import pytest

from underlay.pipeline.gate import Gate

PATIENCE = 15.0  # seconds of real time after which a test that hangs fails


class Waiting(threading.Thread):
    """Waits at a gate beside the test."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(daemon=True)
        self._gate = gate
        self.inside = threading.Event()
        self.start()

    def run(self) -> None:
        """Wait."""
        self._gate.wait()
        self.inside.set()


@pytest.mark.parametrize("places", [1, 3])
def test_so_many_go_in_at_once(places: int) -> None:
    """Who comes then does not, until one has left."""
    gate = Gate(places, PATIENCE)
    assert [gate.enter() for _ in range(places + 1)] == [True] * places + [False]
    gate.leave()
    assert [gate.enter() for _ in range(2)] == [True, False]


def test_who_waits_goes_in_when_one_leaves() -> None:
    """And then there is no place again."""
    gate = Gate(1, PATIENCE)
    assert gate.enter()
    waiting = Waiting(gate)
    assert not waiting.inside.wait(0.01)
    gate.leave()
    assert waiting.inside.wait(PATIENCE)
    assert not gate.enter()


def test_never_more_are_inside_than_there_are_places() -> None:
    """Twenty threads, fifty times each."""
    gate, inside, most, done = Gate(3, PATIENCE), list[int](), [0], list[int]()

    def work() -> None:
        for _ in range(50):
            if not gate.enter():
                gate.wait()
            inside.append(1)
            most[0] = max(most[0], len(inside))
            inside.pop()
            gate.leave()
        done.append(1)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (len(done), inside) == (20, [])
    assert 1 <= most[0] <= 3
    assert gate._entered == 20 * 50
    assert [gate.enter() for _ in range(4)] == [True] * 3 + [False]


class Line:
    """Places that are not to be had in time, while others go in."""

    def __init__(self, gate: Gate, times: int) -> None:
        self._gate = gate
        self._times = times
        self._free = gate._free
        self.asked = 0

    def get(self, timeout: float) -> Any:
        """Too late, so many times."""
        assert timeout == PATIENCE
        self.asked += 1
        if self.asked <= self._times:
            self._gate._entered += 1
        raise Empty

    def __getattr__(self, name: str) -> Any:
        return getattr(self._free, name)


def test_who_waits_while_nobody_moves_goes_in_without_a_place() -> None:
    """Who is inside is lost: what who went in without leaves is its place, and another late one's is none."""
    gate = Gate(1, 0.01)
    assert gate.enter()
    gate.wait()
    gate.leave()
    gate.leave()
    assert [gate.enter() for _ in range(2)] == [True, False]


def test_a_long_line_is_no_lost_place() -> None:
    """As long as somebody goes in, who waits for longer than the longest time waits on."""
    gate = Gate(1, PATIENCE)
    gate._free = line = Line(gate, 3)  # type: ignore[assignment]
    gate.wait()
    assert line.asked == 4
    assert gate._entered == 4
