"""Nobody waits for what only they can drive: a loop of the caller's own thread, a stream that the caller has half read,
a loop that is gone."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from flight_lab import Bench, bench_for
from flight_provider import JSON_FRAMES, PATIENCE, Gate, Provider, json_answer, stream_answer
from transport_lab import CHAT_ASK, CHAT_FRAMES

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

ALL = list(CHAT_FRAMES)
WHOLE = b"".join(JSON_FRAMES)
LOOPS = ["asyncio-httpx", "trio-httpx2"]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_synchronous_call_in_a_loop_does_not_wait_for_that_loop(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop stands still while the call lasts: what the loop fetches can only come afterwards."""
    inside, outside = bench_for(loop, monkeypatch), Bench("sync-httpx")
    head = Gate()

    async def scenario() -> None:
        client = inside.serve([json_answer(before=[head])])
        outside.runtime, outside.recorder, outside.clock = inside.runtime, inside.recorder, inside.clock
        outside.provider = Provider(outside, [json_answer()])
        await inside.start(inside.calling(client, stream=False))
        await inside.until(lambda: head.reached == 1)
        blocking = outside.client(outside.provider.transport())
        response = await outside.open(blocking, body=CHAT_ASK)
        assert await outside.read(response) == WHOLE
        blocking.close()
        head.open()
        await inside.ended()

    inside.run(scenario)
    inside.check(upstream=1, attempts=2)
    assert outside.provider.requests == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_a_thread_does_not_wait_for_a_stream_that_it_has_half_read(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script reads half of a stream, then runs a loop in the same thread that asks the same: nobody but the script
    would read on, so the loop's call does not wait for it."""
    outside, inside = bench_for("sync-httpx", monkeypatch), Bench(loop)
    client = outside.serve([stream_answer(*ALL)])
    inside.runtime, inside.recorder, inside.clock = outside.runtime, outside.recorder, outside.clock
    inside.provider = Provider(inside, [stream_answer(*ALL)])

    async def scenario() -> None:
        other = inside.client(inside.provider.transport())
        response = await inside.open(other)
        assert await inside.frames(response).rest() == ALL

    async def script() -> None:
        response = await outside.open(client)
        frames = outside.frames(response)
        assert await frames.next() == ALL[0]
        inside.run(scenario)
        assert await frames.rest() == ALL[1:]

    outside.run(script)
    assert (outside.provider.requests, inside.provider.requests) == (1, 1)
    outside.check(upstream=1, attempts=2)


def test_a_loop_that_is_gone_leaves_no_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that was opened in a loop and left there is forgotten with its response; until then a call of another
    home waits for it no longer than it may."""
    bench, other = bench_for("asyncio-httpx", monkeypatch), Bench("sync-httpx")
    kept: list[Any] = []

    async def scenario() -> None:
        client = bench.serve([stream_answer(*ALL)])
        kept.append(await bench.open(client))

    async def ask() -> None:
        client = other.client(other.provider.transport())
        caller = await other.start(other.calling(client))
        await other.until(lambda: caller.done or other.clock.waiting == 1)
        assert not caller.done
        other.clock.advance(5)
        await other.ended()
        assert caller.frames == ALL

    bench.run(scenario)
    other.runtime, other.recorder, other.clock = bench.runtime, bench.recorder, bench.clock
    other.provider = Provider(other, [stream_answer(*ALL)])
    thread = threading.Thread(target=other.run, args=(ask,))
    thread.start()
    thread.join(PATIENCE)
    assert other.provider.requests == 1
    kept.clear()
    gc.collect()
    assert bench.runtime.engine.state.dropped
    bench.check(upstream=1, attempts=2, left_open=1)


def test_two_loops_of_one_thread_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that is not running drives nothing."""
    bench = bench_for("asyncio-httpx", monkeypatch)
    client = bench.serve([stream_answer(*ALL)])
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def half() -> Any:
        response = await bench.open(client)
        frames = bench.frames(response)
        assert await frames.next() == ALL[0]
        return frames

    async def whole() -> None:
        own = bench.client(bench.provider.transport())
        response = await bench.open(own)
        assert await bench.frames(response).rest() == ALL

    try:
        frames = first.run_until_complete(half())
        second.run_until_complete(asyncio.wait_for(whole(), PATIENCE))
        assert first.run_until_complete(frames.rest()) == ALL[1:]
    finally:
        first.close()
        second.close()
    bench.check(upstream=2)
