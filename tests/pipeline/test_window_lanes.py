"""The lanes that a process remembers."""

from __future__ import annotations

from typing import Any

from underlay.core.batching import Rule
from underlay.pipeline.circuits import Name
from underlay.pipeline.windows import Apart, Lone, Place, Windows

REMEMBERED = 512
RULE = Rule("adaptive", 0.05, 10, 10, 10)


class Ports:
    """Time, and nothing else."""

    def __init__(self, time: float) -> None:
        self.time = time

    def now(self) -> float:
        """The time."""
        return self.time


def enter(windows: Windows, key: int, now: float) -> Lone:
    """A call in a lane where nobody is."""
    place = Place(*[None] * 2, Ports(now))  # type: ignore[arg-type,call-arg]
    lone: Any = windows.enter(place, key, RULE, Name("openai", "model"))
    assert isinstance(lone, Lone)
    return lone


def test_of_the_idle_lanes_those_used_longest_ago_are_forgotten() -> None:
    """A lane that is used again is kept, and so is one with a call in flight, however old it is."""
    windows = Windows()
    for key in range(REMEMBERED):
        lone = enter(windows, key, key)
        if key != 1:
            windows.landed(lone, key, answered=True)
    again = Lone(REMEMBERED)
    assert windows.go_alone(again, 0)
    windows.landed(again, REMEMBERED, answered=True)
    enter(windows, REMEMBERED, REMEMBERED)
    forgotten = range(2, 2 + REMEMBERED // 8)
    assert list(windows._lanes) == [key for key in range(REMEMBERED + 1) if key not in forgotten]


class Mortal(Place):
    """Counts how often anybody asks whether a member is still there."""

    asked = 0

    @property
    def alive(self) -> bool:  # type: ignore[override]
        """Whether it is."""
        Mortal.asked += 1
        return self._alive  # type: ignore[no-any-return,has-type]

    @alive.setter
    def alive(self, value: bool) -> None:
        self._alive = value


def test_a_crowd_leaves_a_departed_window_in_linear_time() -> None:
    """Two thousand members that are cancelled one after the other, each of which had to send for the rest: no
    heir is looked for among those who are known to be gone."""
    windows, ports, count = Windows(), Ports(0.0), 2000
    rule = Rule("fixed", 0.05, count, count, count)
    crowd = [Mortal(*[None] * 2, ports) for _ in range(count)]  # type: ignore[arg-type,call-arg]
    for place in crowd:
        windows.enter(place, 0, rule, Name("openai", "model"))
    departure = crowd[0].departure
    assert departure is not None
    assert departure.sender is crowd[-1]
    Mortal.asked = 0
    for place in [crowd[-1], *crowd[:-1]]:
        assert departure.sender is place
        windows.leave(place, 1.0, fault=False)
    assert Mortal.asked <= 3 * count
    assert isinstance(departure.outcome, Apart)
    assert [lane.idle for lane, _ in windows._lanes.values()] == [True]


def test_a_lane_that_is_not_known_lets_nobody_go_unseen() -> None:
    """Its bounds are not known either: the call has to enter."""
    windows, lone = Windows(), Lone(0.0)
    assert not windows.go_alone(lone, 0)
    assert lone.lane is None
    entered = enter(windows, 0, 0.0)
    assert not windows.go_alone(lone, 0)
    assert lone.lane is None
    windows.landed(entered, 1.0, answered=False)
    assert windows.go_alone(lone, 0)
    windows.leave(lone, 2.0, fault=False)
    windows.leave(lone, 2.0, fault=False)
    assert windows.go_alone(Lone(3.0), 0)
