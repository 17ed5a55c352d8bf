"""Narrow windows: between the last reader and the end, between a task's making and its first step, and interrupts that
come out of a pull."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from flight_lab import Bench, bench_for
from flight_provider import Gate, json_answer, stream_answer
from transport_lab import CHAT_FRAMES, WAYS

from underlay.pipeline.reader import Body

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

ALL = list(CHAT_FRAMES)


@pytest.fixture(params=WAYS)
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One way in, with callers beside each other."""
    return bench_for(request.param, monkeypatch)


def test_nobody_joins_an_answer_that_is_being_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last reader has left and is about to close upstream when another thread asks the same: it leads anew and has
    its whole answer, instead of joining one that is cut off under it."""
    bench = bench_for("sync-httpx", monkeypatch)
    leaving, desert = Gate(), Body.desert

    async def slowly(body: Body, ports: Any) -> None:
        await leaving.wait(bench)
        await desert(body, ports)

    monkeypatch.setattr(Body, "desert", slowly)

    async def scenario() -> None:
        client = bench.serve([stream_answer(*ALL)])
        first = await bench.start(lambda caller: bench.consume(client, caller, frames=1))
        await bench.until(lambda: leaving.reached == 1)
        second = await bench.start(bench.calling(client))
        flights = bench.runtime.engine.state.flights
        await bench.until(lambda: second.done or flights._elsewhere)
        leaving.open()
        await bench.ended()
        assert (first.frames, second.frames) == (ALL[:1], ALL)
        assert second.outcome == "ok"

    bench.run(scenario)
    bench.check(upstream=2)
    assert bench.stored() == [tuple(ALL)]


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_a_pull_for_all_that_is_stopped_before_its_first_step(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both readers close in the very turn of the loop in which one of them has asked for a frame: the pull's task,
    made and not yet begun, still lets go of upstream."""
    bench = bench_for(f"asyncio-{family}", monkeypatch)
    slow = Gate()

    async def scenario() -> None:
        client = bench.serve([stream_answer(ALL[0], slow, *ALL[1:])])
        one, two = await bench.open(client), await bench.open(client)
        reading = bench.reading(one, bare=True), bench.reading(two, bare=True)
        assert [await frames.next() for frames in reading] == [ALL[0]] * 2

        async def close() -> None:
            await bench.close(one)
            await bench.close(two)

        asking = asyncio.ensure_future(reading[0].next())
        closing = asyncio.ensure_future(close())
        await asyncio.gather(asking, closing, return_exceptions=True)
        assert isinstance(asking.exception(), bench.module.ReadError)
        await bench.until(lambda: bench.provider.closed == 1)
        assert slow.reached == 1

    bench.run(scenario)
    bench.check(upstream=1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["send", "pull"])
def test_an_interrupt_out_of_the_transport_reaches_its_caller(
    bench: Bench, where: str, error: type[BaseException]
) -> None:
    """It passes as it is; the flight is gone, nothing is kept, and the provider is not blamed."""

    async def scenario() -> None:
        answer = (
            json_answer(before=[error()]) if where == "send" else stream_answer(ALL[0], error(), *ALL[1:])
        )
        client = bench.serve([answer])
        response = await bench.open(client)
        try:
            frames = bench.frames(response)
            while await frames.next() is not None:
                continue
        finally:
            await bench.close(response)

    with pytest.raises(error):
        bench.run(scenario)
    bench.check(upstream=1)
    assert bench.stored() == []
    assert bench.attempts()[0].verdict == "nothing"
    assert bench.runtime.circuit("gpt-4o", "openai").view().counts.failures == 0


@pytest.mark.parametrize("where", ["send", "first pull", "next pull"])
def test_a_thread_that_exits_leaves_the_others_to_ask_anew(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SystemExit out of a signal handler is the leader's own end, as an interrupt is: followers without a byte lead
    anew."""
    bench = bench_for("sync-httpx2", monkeypatch)
    gate = Gate()
    steps = {
        "send": stream_answer(*ALL, before=[gate, SystemExit()]),
        "first pull": stream_answer(gate, SystemExit()),
        "next pull": stream_answer(ALL[0], gate, SystemExit()),
    }

    async def scenario() -> None:
        client = bench.serve([steps[where], stream_answer(*ALL)])
        leader = await bench.start(bench.calling(client))
        await bench.until(lambda: gate.reached == 1)
        for _ in range(3):
            await bench.start(bench.calling(client))
        await bench.until(lambda: bench.followers == 3 if where == "send" else bench.enlisted == 3)
        gate.open()
        await bench.ended()
        assert leader.outcome == "SystemExit"

    bench.run(scenario)
    assert [caller.frames for caller in bench.callers[1:]] == [ALL] * 3
    bench.check(upstream=2)
