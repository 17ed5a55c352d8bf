"""The lanes that a process remembers."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import httpx
import pytest

from underlay import Runtime
from underlay.core.batching import Rule
from underlay.pipeline.call import Call
from underlay.pipeline.circuits import Name
from underlay.pipeline.windows import Apart, Place, Windows
from underlay.testing import FakeClock

REMEMBERED = 512
RULE = Rule("adaptive", 0.05, 10, 10, 10)


class Ports:
    """Time, and nothing else."""

    def __init__(self, time: float) -> None:
        self.time = time

    def now(self) -> float:
        """The time."""
        return self.time


def alone() -> Call:
    """A call of which nobody is told."""
    return Call(None, 0.0)  # type: ignore[arg-type]


def enter(windows: Windows, key: int, now: float) -> Call:
    """A call in a lane where nobody is."""
    place = Place(alone(), None, Ports(now))  # type: ignore[arg-type]
    lone: Any = windows.enter(place, key, RULE, Name("openai", "model"))
    assert isinstance(lone, Call)
    return lone


def test_of_the_idle_lanes_those_used_longest_ago_are_forgotten() -> None:
    """A lane that is used again is kept, and so is one with a call in flight, however old it is."""
    windows = Windows()
    for key in range(REMEMBERED):
        lone = enter(windows, key, key)
        if key != 1:
            windows.landed(lone, key, 0.0)
    again = alone()
    assert windows.go_alone(again, 0)
    windows.landed(again, REMEMBERED, 0.0)
    enter(windows, REMEMBERED, REMEMBERED)
    forgotten = range(2, 2 + REMEMBERED // 8)
    assert list(windows._lanes) == [key for key in range(REMEMBERED + 1) if key not in forgotten]
    assert list(windows._names) == list(windows._lanes)


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
    assert [lane.idle for lane in windows._lanes.values()] == [True]


def test_a_lane_that_is_not_known_lets_nobody_go_unseen() -> None:
    """Its bounds are not known either: the call has to enter."""
    windows, lone = Windows(), alone()
    assert not windows.go_alone(lone, 0)
    assert lone.lane is None
    entered = enter(windows, 0, 0.0)
    assert not windows.go_alone(lone, 0)
    assert lone.lane is None
    windows.landed(entered, 1.0, None)
    assert windows.go_alone(lone, 0)
    windows.leave(lone, 2.0, fault=False)
    windows.leave(lone, 2.0, fault=False)
    assert windows.go_alone(alone(), 0)


def test_many_lanes_in_use_are_not_looked_through_for_each_newcomer(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more keys in flight than are remembered, idle lanes are looked for when there are twice as many; once
    they are idle, the surplus is forgotten."""
    windows, looked = Windows(), []
    forget = windows._forget
    monkeypatch.setattr(windows, "_forget", lambda: (looked.append(len(windows._lanes)), forget()))
    lones = [enter(windows, key, key) for key in range(8 * REMEMBERED)]
    assert looked == [REMEMBERED, 2 * REMEMBERED, 4 * REMEMBERED]
    for key, lone in enumerate(lones):
        windows.landed(lone, key, 0.0)
    windows._most = 0
    enter(windows, -1, 9 * REMEMBERED)
    assert len(windows._lanes) == REMEMBERED * 7 // 8 + 1


class Struck(Place):
    """A member whom an interrupt befalls as it is told where it belongs."""

    @property
    def departure(self) -> Any:  # type: ignore[override]
        """None as yet."""
        return None

    @departure.setter
    def departure(self, value: Any) -> None:
        if value is not None:
            raise KeyboardInterrupt


def test_a_sender_that_is_interrupted_as_the_window_leaves_is_followed_by_its_heir() -> None:
    """It knows its departure before the others do: when it leaves, the next living member sends for all."""
    windows, ports = Windows(), Ports(0.0)
    rule = Rule("fixed", 0.05, 3, 10, 10)
    heir, struck, sender = (kind(*[None] * 2, ports) for kind in (Place, Struck, Place))  # type: ignore[arg-type,call-arg]
    windows.enter(heir, 0, rule, Name("openai", "model"))
    windows.enter(struck, 0, rule, Name("openai", "model"))
    with pytest.raises(KeyboardInterrupt):
        windows.enter(sender, 0, rule, Name("openai", "model"))
    departure = sender.departure
    assert departure is not None
    windows.leave(sender, 0.0, fault=False)
    assert departure.sender is heir


def test_a_sender_that_is_interrupted_before_it_could_wake_the_others_does_so_as_it_leaves() -> None:
    """The outcome is known, and nobody was told."""
    woken: list[object] = []

    class Waking(Ports):
        def waiter(self) -> object:
            return object()

        def wake(self, waiter: object) -> None:
            woken.append(waiter)

    windows, ports = Windows(), Waking(0.0)
    rule = Rule("fixed", 0.05, 2, 10, 10)
    other, sender = Place(*[None] * 2, ports), Place(*[None] * 2, ports)  # type: ignore[arg-type,call-arg]
    for place in (other, sender):
        windows.enter(place, 0, rule, Name("openai", "model"))
    waiting: Any = windows.look(other, 0.0)
    departure = sender.departure
    assert departure is not None
    departure.outcome = Apart()
    windows.leave(sender, 0.0, fault=False)
    assert woken == [waiting.waiter]


def test_lanes_keep_no_event_loop_alive() -> None:
    """A process that makes a loop for each piece of work does not collect them, with their file descriptors."""
    runtime, loops = Runtime(clock=FakeClock(autojump=True)), []
    reply = {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
    }

    async def call(number: int) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        transport = runtime.async_httpx_transport(
            httpx.MockTransport(lambda _: httpx.Response(200, json=reply))
        )
        async with httpx.AsyncClient(transport=transport) as client:
            body = {"model": "text-embedding-3-small", "input": f"text {number}"}
            assert (await client.post("https://api.openai.com/v1/embeddings", json=body)).status_code == 200

    for number in range(3):
        asyncio.run(call(number))
    gc.collect()
    assert len(runtime.engine.state.windows._lanes) == 3
    assert [loop() for loop in loops] == [None] * 3


def test_a_deadline_that_cannot_be_read_is_told_also_of_a_lone_call(caplog: pytest.LogCaptureFixture) -> None:
    """A call that meets no window needs no deadline: what is wrong with it is said all the same, each time."""
    runtime = Runtime(clock=FakeClock(autojump=True))
    reply = {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
    }
    transport = runtime.httpx_transport(httpx.MockTransport(lambda _: httpx.Response(200, json=reply)))
    with httpx.Client(transport=transport) as client:
        for number in range(3):
            client.post(
                "https://api.openai.com/v1/embeddings",
                json={"model": "text-embedding-3-small", "input": f"text {number}"},
                headers={"underlay-deadline": "soon"},
            )
    told = "underlay: header underlay-deadline = 'soon': allowed is a number of seconds above 0; ignored"
    assert [record.getMessage() for record in caplog.records] == [told] * 3
