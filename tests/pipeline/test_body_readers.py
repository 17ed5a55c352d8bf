"""Two readers of one body: in threads, in asyncio, in trio. The pipeline's own classes, without a client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio

from underlay import Runtime
from underlay.core.flight import Flight
from underlay.pipeline.call import Call
from underlay.pipeline.driver import drive
from underlay.pipeline.ports import Mishap, Upstream
from underlay.pipeline.reader import Body, Reader
from underlay.pipeline.watch import Watched
from underlay.telemetry.attributes import Ending, Verdict
from underlay.testing import FakeClock
from underlay.transports.common import BasePorts
from underlay.transports.homes import THREADS, current_home

FRAMES = [b"%d" % number for number in range(200)]


class Source:
    """An upstream body: frames in order, then the end or an error. Notices two pulls at once."""

    def __init__(
        self, frames: list[bytes], pause: Callable[[], Awaitable[None]], error: BaseException | None = None
    ) -> None:
        self._frames = iter(frames)
        self._pause = pause
        self._error = error
        self.pulling = 0
        self.overlaps = 0
        self.closed = 0

    async def pull(self) -> bytes | None:
        """The next frame."""
        self.pulling += 1
        self.overlaps += self.pulling > 1
        try:
            await self._pause()
            frame = next(self._frames, None)
            if frame is None and self._error is not None:
                raise self._error
            return frame
        finally:
            self.pulling -= 1


class SourcePorts(BasePorts):
    """Ports over a source."""

    source: Source

    def describe(self, error: BaseException) -> Mishap:
        """As the function adapter does."""
        common = self.describe_common(error)
        return (
            common
            if common.ending is Ending.CANCELLED
            else Mishap(Ending.FAILED, Verdict.FAILURE, common.name)
        )

    async def send(self, request: Any) -> Upstream:
        """Nothing is sent here."""
        raise AssertionError

    async def pull(self, upstream: Upstream) -> bytes | None:
        """Ask the source."""
        return await self.source.pull()

    async def close(self, upstream: Upstream) -> None:
        """Count."""
        self.source.closed += 1


def shared(source: Source, home: Any, cap: int = 10**6) -> tuple[Body, Callable[[], Reader]]:
    """A body over a source, and a maker of readers of it."""
    runtime = Runtime({}, clock=FakeClock())
    ports = SourcePorts(runtime.engine, home)
    ports.source = source
    body = Body(runtime.engine, Flight(cap), Upstream(200, [], None))

    def reader() -> Reader:
        call = Call(Watched([], [], runtime.engine.faults), 0.0)
        call.stream = True
        return Reader(body, call, ports)

    return body, reader


async def drained(reader: Reader) -> list[bytes]:
    """Everything that this reader is given."""
    got = []
    while (frame := await reader.read()) is not None:
        got.append(frame)
    return got


async def _nothing() -> None:
    return


@pytest.mark.parametrize("count", [2, 8])
def test_threads_share_a_body(count: int) -> None:
    """Threads that read one body each get every frame in order, one pull runs at a time, and upstream is closed
    once."""
    source = Source(FRAMES, _nothing)
    body, make = shared(source, THREADS)
    readers = [make() for _ in range(count)]
    barrier = threading.Barrier(count)

    def work(reader: Reader) -> list[bytes]:
        barrier.wait(10)
        got = []
        while (frame := drive(reader.read())) is not None:
            got.append(frame)
        drive(reader.close())
        return got

    with ThreadPoolExecutor(count) as pool:
        assert list(pool.map(work, readers)) == [FRAMES] * count
    assert (source.overlaps, source.closed, body.flight.readers) == (0, 1, 0)


def test_two_readers_in_one_thread_take_turns() -> None:
    """A follower in the same thread as a half-read body does not hang: it pulls for itself."""
    source = Source(FRAMES[:4], _nothing)
    _, make = shared(source, THREADS)
    one, two = make(), make()
    assert [drive(one.read()), drive(one.read())] == FRAMES[:2]
    assert [drive(two.read()) for _ in range(5)] == [*FRAMES[:4], None]
    assert [drive(one.read()) for _ in range(3)] == [*FRAMES[2:4], None]


@pytest.mark.parametrize("error", [OSError("cut"), ValueError("x")])
def test_an_error_reaches_every_reader_of_a_body(error: Exception) -> None:
    """Each thread gets the frames before the error, then the error as an object of its own, also when asked again."""
    source = Source(FRAMES[:3], _nothing, error)
    _, make = shared(source, THREADS)
    for reader in (make(), make()):
        assert [drive(reader.read()) for _ in range(3)] == FRAMES[:3]
        for _ in range(2):
            with pytest.raises(type(error)) as caught:
                drive(reader.read())
            assert caught.value.args == error.args
        drive(reader.close())
    assert source.closed == 1


def in_loop(loop: str, scenario: Callable[[], Awaitable[None]]) -> None:
    """Run in one of the loops."""
    if loop == "asyncio":
        asyncio.run(scenario())  # type: ignore[arg-type]
    else:
        trio.run(scenario)


def pause(loop: str) -> Callable[[], Awaitable[None]]:
    """Let others run."""
    return (lambda: asyncio.sleep(0)) if loop == "asyncio" else trio.lowlevel.checkpoint


async def together(loop: str, *works: Callable[[], Awaitable[None]]) -> None:
    """Run all at once until the last has ended."""
    if loop == "asyncio":
        await asyncio.gather(*(work() for work in works))
    else:
        async with trio.open_nursery() as nursery:
            for work in works:
                nursery.start_soon(work)


LOOPS = pytest.mark.parametrize("loop", ["asyncio", "trio"])


@LOOPS
def test_tasks_share_a_body(loop: str) -> None:
    """Tasks of one loop that read one body each get every frame, and no two pulls overlap."""

    async def scenario() -> None:
        source = Source(FRAMES, pause(loop))
        body, make = shared(source, current_home())
        got: list[list[bytes]] = []

        async def read(reader: Reader) -> None:
            got.append(await drained(reader))
            await reader.close()

        readers = [make() for _ in range(5)]
        await together(loop, *(lambda reader=reader: read(reader) for reader in readers))  # type: ignore[misc]
        assert got == [FRAMES] * 5
        assert (source.overlaps, source.closed, body.flight.readers) == (0, 1, 0)

    in_loop(loop, scenario)


@LOOPS
@pytest.mark.parametrize("leave_after", [1, 2, 3, 7])
def test_a_cancelled_reader_hurts_nobody_else(loop: str, leave_after: int) -> None:
    """One of three tasks is cancelled while the body is being pulled: the others get every frame."""

    async def scenario() -> None:
        source = Source(FRAMES[:20], pause(loop))
        body, make = shared(source, current_home())
        got: list[list[bytes]] = []
        first, others = make(), [make(), make()]

        async def read(reader: Reader) -> None:
            got.append(await drained(reader))
            await reader.close()

        async def leaving() -> None:
            for _ in range(leave_after):
                await first.read()
            if loop == "asyncio":
                task = asyncio.ensure_future(first.read())
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            else:
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await first.read()
            await first.close()

        await together(loop, leaving, *(lambda reader=reader: read(reader) for reader in others))  # type: ignore[misc]
        assert got == [FRAMES[:20]] * 2
        assert (source.overlaps, source.closed, body.flight.readers) == (0, 1, 0)

    in_loop(loop, scenario)


@LOOPS
def test_the_last_reader_to_leave_closes_upstream(loop: str) -> None:
    """While anybody reads, upstream stays open; the last to leave closes it once."""

    async def scenario() -> None:
        source = Source(FRAMES, pause(loop))
        _, make = shared(source, current_home())
        one, two = make(), make()
        await one.read()
        await one.close()
        await one.close()
        assert source.closed == 0
        assert await two.read() == FRAMES[0]
        await two.close()
        assert source.closed == 1

    in_loop(loop, scenario)


@LOOPS
def test_an_error_reaches_every_task(loop: str) -> None:
    """A shared body that is cut gives each reader the frames, then the error."""

    async def scenario() -> None:
        error = OSError("cut")
        source = Source(FRAMES[:5], pause(loop), error)
        _, make = shared(source, current_home())
        seen: list[Any] = []

        async def read(reader: Reader) -> None:
            try:
                await drained(reader)
            except OSError as caught:
                seen.append(caught)
            await reader.close()

        await together(loop, lambda: read(make()), lambda: read(make()))
        assert [caught.args for caught in seen] == [error.args] * 2
        assert source.closed == 1

    in_loop(loop, scenario)


def test_a_body_larger_than_its_cap_still_reaches_a_reader_that_keeps_up() -> None:
    """Beyond the cap frames are dropped once everybody has them, and nobody may join."""
    source = Source(FRAMES, _nothing)
    body, make = shared(source, THREADS, cap=10)
    one, two = make(), make()
    for frame in FRAMES:
        assert (drive(one.read()), drive(two.read())) == (frame, frame)
    assert (drive(one.read()), drive(two.read())) == (None, None)
    assert not body.flight.joinable
    with pytest.raises(ValueError, match="cannot be joined"):
        make()
