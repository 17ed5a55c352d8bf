"""Turns belong to a loop: they go with it, nobody else shares them, and a fork child has none."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any
from weakref import ref

import pytest
import trio
from pacing_lab import COST, FIRST, LOOPS, Call, PacingLab, ask

from underlay import Runtime
from underlay.pipeline.pacing import Pacing
from underlay.settings import Settings


@pytest.fixture(params=LOOPS)
def lab(request: pytest.FixtureRequest) -> PacingLab:
    """One loop and family."""
    return PacingLab(request.param)


@pytest.mark.parametrize("at", [FIRST, FIRST + 2], ids=["when its turn is over", "while others wait"])
@pytest.mark.parametrize("other", ["asyncio", "trio"])
def test_loops_do_not_share_turns(lab: PacingLab, at: int, other: str) -> None:
    """In the middle of a loop's burst a call in another thread's loop goes at once."""
    client = lab.paced()

    def elsewhere() -> None:
        made = lab.module.AsyncClient(transport=lab.wrap(lab.transport(lab._handle)))

        async def one() -> None:
            async with made:
                await lab.post(made, body=ask("elsewhere"))

        asyncio.run(one()) if other == "asyncio" else trio.run(one)

    known = []

    def on_send(_: object) -> None:
        if len(lab.sends) == at:
            known.append(len(lab.recorder.calls))
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()

    lab.on_send = on_send
    # Its answer waits for a round of its own loop, whose kind the bench must know.
    lab.pause = _pause  # type: ignore[method-assign]
    lab.run(lambda: lab.burst(client, range(9)))
    assert lab.sends[at] == "elsewhere"
    assert lab.waits().pop(known[0]) == []
    assert len([each for each in lab.waits() if each]) == 9 - FIRST
    assert len(lab.turns) == 2
    assert lab.faults == {}


async def _pause() -> None:
    await (trio.lowlevel.checkpoint() if trio.lowlevel.in_trio_run() else asyncio.sleep(0))


def test_a_loop_that_is_over_leaves_nothing(lab: PacingLab) -> None:
    """Turns keep no loop alive, and those of loops that are over are forgotten when another comes."""
    loops = []
    for number in range(20):
        client = lab.paced() if number == 0 else lab.client(lab.transport(lab._handle))

        async def one(client: Any = client, number: int = number) -> None:
            loops.append(ref(_identity(lab)))
            await lab.burst(client, [number])

        lab.run(one)
    gc.collect()
    assert [loop for loop in loops if loop() is not None] == []
    client = lab.client(lab.transport(lab._handle))
    lab.run(lambda: lab.burst(client, ["last"]))
    assert len(lab.turns) == 1
    lab.right()


def test_a_loop_that_follows_another_starts_afresh(lab: PacingLab) -> None:
    """A loop that ended in the middle of a burst, its calls cancelled, holds nobody of the next one."""
    client = lab.paced()

    async def cut() -> None:
        lab.start(client, range(12))
        await lab.until(lambda: len(lab.arrived) == 12)
        for call in lab.calls:
            call.stop()
        await lab.all_done()

    lab.run(cut)
    client = lab.client(lab.transport(lab._handle))
    lab.run(lambda: lab.burst(client, ["next"]))
    assert lab.calls[-1].answer == "to next"
    assert lab.waits()[-1] == []
    lab.clean()


def _identity(lab: PacingLab) -> Any:
    return asyncio.get_running_loop() if lab.mode == "asyncio" else trio.lowlevel.current_trio_token()


class Clock:
    """A clock that wakes nobody: who waits does so on its loop's own timer, as by the system's."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        """Seconds."""
        return self.time

    def wall(self) -> float:
        """Seconds since 1970."""
        return 1_750_000_000.0 + self.time


@pytest.fixture
def quiet() -> Iterator[None]:
    """The loop's complaints of tasks that were abandoned are no news."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
@pytest.mark.usefixtures("quiet")
def test_a_loop_that_is_closed_over_calls_that_wait_is_garbage(family: str) -> None:
    """An app that closes its loop and cancels nobody loses those calls, but they keep neither the loop nor a client
    alive, once another loop comes."""
    lab = PacingLab(f"asyncio-{family}")
    clock = Clock()
    runtime = lab.runtime = Runtime({"pacing": {"turn_ms": 250, "at_once": 2}}, clock=clock)

    async def handle(_: Any) -> None:
        clock.time += COST
        await asyncio.Event().wait()

    def abandoned() -> list[ref[Any]]:
        loop = asyncio.new_event_loop()
        client = lab.client(lab.transport(handle))
        lab._clients.clear()

        async def main() -> None:
            calls = [asyncio.ensure_future(lab.post(client, body=ask(str(number)))) for number in range(9)]
            await asyncio.sleep(0)
            assert [turns.waiting for turns in runtime.engine.state.pacing._turns.values()][-1] == 9 - FIRST
            assert not any(call.done() for call in calls)
            loop.stop()

        task = loop.create_task(main())
        loop.run_forever()
        loop.close()
        del task
        return [ref(loop), ref(client)]

    left = [kept for _ in range(3) for kept in abandoned()]

    async def next_one() -> None:
        await lab.post(lab.client(lab.transport(lab._handle)), body=ask("next"))

    asyncio.run(next_one())
    lab._clients.clear()
    gc.collect()
    assert [kept for kept in left if kept() is not None] == []


def test_loops_that_come_and_go_in_threads_do_not_meet() -> None:
    """Each loop is its thread's own, but all are remembered in one place: many threads that start loops at the same
    time, and forget those that are gone, do not trip each other."""

    class Loop:
        """Something to refer to."""

    class Ports:
        """The ports of a call in a loop."""

        def __init__(self, loop: Loop) -> None:
            self.home = ref(loop)

        def soon(self, work: object) -> None:
            """Never comes round."""

        def now(self) -> float:
            """Time stands still."""
            return 0.0

    turns = Pacing(Settings())
    failed: list[BaseException] = []

    def many() -> None:
        try:
            for _ in range(3000):
                loop = Loop()
                assert turns.holds(Ports(loop)) is False  # type: ignore[arg-type]
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=many) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failed == []


def test_a_fork_child_has_no_turns(lab: PacingLab) -> None:
    """What a fork child starts with knows no loop and no line; the calls that wait go on by what they waited in."""
    client = lab.paced()
    seen: list[tuple[int, int]] = []

    def on_call(_: Call) -> None:
        if len(lab.arrived) == 12:
            state = lab.runtime.engine.state
            waiting = sum(turns.waiting for turns in lab.turns.values())
            lab.runtime.engine.forked()
            assert lab.runtime.engine.state.pacing is not state.pacing
            seen.append((waiting, len(lab.turns)))

    lab.on_call = on_call
    lab.run(lambda: lab.burst(client, range(12)))
    assert seen == [(8, 0)]
    assert lab.waits()[-1] == []  # the last one came after the fork
    lab.right()
