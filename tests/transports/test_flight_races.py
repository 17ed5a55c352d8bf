"""Races at the end of a shared body, readers that were expected and never came, a read timeout that nobody was blamed
for."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flight_lab import Bench, bench_for
from flight_provider import PATIENCE, Gate, Provider, stream_answer
from transport_lab import CHAT_FRAMES

from underlay import Runtime
from underlay.pipeline import reader as reader_module
from underlay.pipeline.attempt import Attempt
from underlay.pipeline.reader import Body
from underlay.stores.store import Lease
from underlay.testing import FakeClock
from underlay.transports.homes import AsyncioHome

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

ALL = list(CHAT_FRAMES)
LOOPS = ["asyncio-httpx2", "trio-httpx2"]


class Hooked(FakeClock):
    """A clock that does something the first time a certain function of this thread asks for the time."""

    def __init__(self) -> None:
        super().__init__()
        self.hook: Callable[[], None] | None = None
        self.caller = ""

    def now(self) -> float:
        here = threading.current_thread() is threading.main_thread()
        if here and self.hook is not None and sys._getframe(1).f_code.co_name == self.caller:
            hook, self.hook = self.hook, None
            hook()
        return super().now()


def hooked(monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, Hooked]:
    """A synchronous bench over such a clock."""
    bench, clock = bench_for("sync-httpx2", monkeypatch), Hooked()
    bench.clock = clock
    return bench, clock


@pytest.mark.parametrize("caller", ["pull", "_renew"])
def test_another_thread_brings_the_end_while_a_frame_is_handled(
    caller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that pulled alone is overtaken as it looks whether to renew its lease: it has every frame, and no
    lease is taken for an answer that has landed."""
    bench, clock = hooked(monkeypatch)
    client = bench.serve([stream_answer(*ALL)])
    flights, store = bench.runtime.engine.state.flights, bench.runtime.engine.state.store

    async def scenario() -> None:
        response = await bench.open(client)
        lead = bench.leads[0]
        lease = store.lease(lead.key, clock.now(), 60)
        assert isinstance(lease, Lease)
        assert flights.lend(lead, lease.token, clock.now() + 30)
        clock.advance(40)
        frames, others = bench.frames(response), []

        def other() -> None:
            thread = threading.Thread(target=lambda: others.append(bench.run(follow)), daemon=True)
            thread.start()
            thread.join(0.5 if caller == "pull" else PATIENCE)

        async def follow() -> list[bytes]:
            got: list[bytes] = await bench.frames(await bench.open(client)).rest()
            return got

        clock.hook, clock.caller = other, caller
        assert await frames.rest() == ALL

    bench.run(scenario)
    bench.provider.opened = bench.provider.closed
    assert (flights._leads, store._leases) == ({}, {})  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", LOOPS)
@pytest.mark.parametrize("leaves", ["cancelled", "timed out", "woken, then cancelled"])
def test_who_gave_up_is_not_expected(way: str, leaves: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower that gave up before it joined is counted as coming no more: its leader pulls in its own call."""
    bench = bench_for(way, monkeypatch)
    head = Gate()
    client = bench.serve([stream_answer(*ALL, before=[head])])
    tasks, quietly = [], reader_module._quietly

    def counted(body: Any, ports: Any) -> Any:
        tasks.append(body)
        return quietly(body, ports)

    monkeypatch.setattr(reader_module, "_quietly", counted)

    async def scenario() -> None:
        leader = await bench.start(bench.calling(client, timeout=None))
        await bench.until(lambda: head.reached)
        lead = bench.leads[0]
        timeout = bench.module.Timeout(None, read=5 if leaves == "timed out" else None)
        follower = await bench.start(bench.calling(client, timeout=timeout))
        await bench.until(lambda: bench.followers == 1)
        await bench.settle()
        if leaves == "timed out":
            bench.clock.advance(5)
            await bench.ended(follower)
        elif leaves == "cancelled":
            await bench.cancel(follower)
            await bench.ended(follower)
        head.open()
        if leaves == "woken, then cancelled":
            await bench.until(lambda: isinstance(lead.outcome, Body))
            await bench.cancel(follower)
        await bench.ended()
        assert leader.frames == ALL
        assert not lead.outcome.flight._coming
        assert tasks == [] or leaves == "woken, then cancelled"

    bench.run(scenario)


@pytest.mark.parametrize("way", LOOPS)
@pytest.mark.parametrize("had", [0, 1, 3])
def test_a_read_timeout_of_a_pull_for_all_is_the_providers(
    way: str, had: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that stops to send is a failure to the breaker, whether one call reads or two."""
    bench = bench_for(way, monkeypatch)
    head, more = Gate(), Gate()
    client = bench.serve([stream_answer(*ALL[:had], more, before=[head])])

    async def scenario() -> None:
        timeout = bench.module.Timeout(None, read=5)
        for _ in range(2):
            await bench.start(bench.calling(client, timeout=timeout))
        await bench.until(lambda: bench.followers == 1)
        head.open()
        await bench.until(lambda: more.reached and bench.readers == 2)
        await bench.settle()
        bench.clock.advance(5)
        await bench.ended()
        assert [caller.outcome for caller in bench.callers] == ["ReadTimeout"] * 2
        await bench.until(bench.attempts)
        [attempt] = bench.attempts()
        assert (attempt.verdict, attempt.error_type) == ("failure", "ReadTimeout")

    bench.run(scenario)


def test_a_read_that_is_cancelled_as_it_renews_loses_no_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a store that others share, a lone reader waits while its lease is renewed: cancelled there, it has the frame
    with its next read."""
    bench = bench_for("asyncio-httpx2", monkeypatch)
    client = bench.serve([stream_answer(*ALL)], llm_cache={"store": f"sqlite:///{tmp_path}/s.db"})
    blocking = AsyncioHome.blocking

    async def scenario() -> None:
        frames = bench.reading(await bench.open(client), bare=True)
        got = [await frames.next()]
        bench.clock.advance(10_000)
        held = asyncio.Event()

        async def wait(_: AsyncioHome, __: Callable[[], Any]) -> Any:
            held.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(AsyncioHome, "blocking", wait)
        read = asyncio.ensure_future(frames.next())
        await held.wait()
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)
        monkeypatch.setattr(AsyncioHome, "blocking", blocking)
        while (frame := await frames.next()) is not None:
            got.append(frame)
        assert got == ALL

    bench.run(scenario)


def test_a_thread_that_is_interrupted_as_it_reads_a_frame_ends_the_pull(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C may come while the frame is read for the books. Who waits on that pull asks anew, and so does the next
    call of the same key."""
    bench = bench_for("sync-httpx2", monkeypatch)
    client = bench.serve([stream_answer(*ALL)])
    feed, first = Attempt.feed, [True]

    def interrupted(attempt: Attempt, frame: bytes) -> None:
        feed(attempt, frame)
        if first.pop() if first else False:
            raise KeyboardInterrupt

    monkeypatch.setattr(Attempt, "feed", interrupted)

    async def scenario() -> None:
        response = await bench.open(client)
        with pytest.raises(KeyboardInterrupt):
            await bench.frames(response).next()
        await bench.close(response)
        caller = await bench.start(bench.calling(client))
        await bench.ended(caller)
        assert caller.frames == ALL

    bench.run(scenario)
    bench.check(upstream=2)


def test_a_lead_without_a_sign_of_life_holds_up_no_other_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that was opened an hour ago and stands still: a call of an event loop is sent at once, as if that one
    had taken its lease when it came."""
    first, second = bench_for("sync-httpx2", monkeypatch), Bench("asyncio-httpx2")
    client = first.serve([stream_answer(*ALL)], coalesce={"wait_timeout": 20})
    second.runtime, second.clock = first.runtime, first.clock
    second.provider = Provider(second, [stream_answer(*ALL)])

    async def wait() -> None:
        async def scenario() -> None:
            caller = await second.start(second.calling(second.client(second.provider.transport())))
            await second.until(lambda: caller.done or second.clock.waiting)
            assert second.clock.waiting == 0
            await second.ended()
            assert caller.frames == ALL

        failed: list[BaseException] = []

        def live() -> None:
            try:
                second.run(scenario)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=live, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        for error in failed:
            raise error

    async def scenario() -> None:
        frames = first.frames(await first.open(client))
        assert await frames.next() == ALL[0]
        first.clock.advance(3600)
        await wait()
        assert await frames.rest() == ALL[1:]

    first.run(scenario)
    assert isinstance(first.runtime, Runtime)
