"""The bench of the flights' tests: callers that run beside each other, threads or tasks of asyncio or trio. A scenario
is a coroutine function; in the synchronous bench it never suspends."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import trio
from flight_provider import EVENTS, PATIENCE, Provider, held, local, run_now
from transport_lab import CHAT_ASK, CHAT_URL, KEY, Lab

from underlay.pipeline.flights import _chain
from underlay.pipeline.reader import Body
from underlay.telemetry.events import AttemptEnded, CallEnded, Coalesced
from underlay.transports import homes

HEADERS = {**KEY, "accept-encoding": "gzip"}  # else the families differ by what is installed
STREAM_ASK = {**CHAT_ASK, "stream": True}


class Caller:
    """One call beside the others: what it got so far, and how it ended."""

    def __init__(self, finished: Any) -> None:
        self.finished = finished
        self.frames: list[bytes] = []
        self.status: int | None = None
        self.headers: Any = None
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.interrupted = False
        self.held: threading.Event | None = None  # what its thread waits on
        self.stop: Callable[[], object] = lambda: None

    @property
    def body(self) -> bytes:
        """What it got."""
        return b"".join(self.frames)

    @property
    def outcome(self) -> str:
        """`ok`, or the name of the error it was given."""
        return "ok" if self.error is None else type(self.error).__name__


class Bench(Lab):
    """A lab whose callers run beside each other."""

    def __init__(self, way: str) -> None:
        super().__init__(way)
        self.provider = Provider(self, [])
        self.callers: list[Caller] = []
        self._nursery: Any = None
        self._tasks: set[Any] = set()

    def serve(self, answers: Any, **settings: Any) -> Any:
        """A provider, a runtime with these settings, and a client over both."""
        self.setup([], **settings)
        self.provider = Provider(self, answers)
        return self.client(self.provider.transport())

    def home(self) -> object:
        """Where this runs: the threads, or one loop."""
        if self.kind == "sync":
            return "threads"
        if self.mode == "asyncio":
            return asyncio.get_running_loop()
        return trio.lowlevel.current_trio_token()

    def run(self, scenario: Callable[[], Awaitable[Any]]) -> Any:
        """Run a scenario, bounded; callers that are left over are cancelled."""
        if self.mode == "sync":
            return super().run(scenario)
        return super().run(lambda: self._bounded(scenario))

    async def _bounded(self, scenario: Callable[[], Awaitable[Any]]) -> Any:
        if self.mode == "asyncio":
            try:
                async with asyncio.timeout(3 * PATIENCE):
                    return await scenario()
            finally:
                for task in list(self._tasks):
                    task.cancel()
        failed: BaseException | None = None
        with trio.fail_after(3 * PATIENCE):
            async with trio.open_nursery() as self._nursery:
                try:
                    return await scenario()
                except (Exception, KeyboardInterrupt, SystemExit) as error:
                    failed = error
                finally:
                    self._nursery.cancel_scope.cancel()
        assert failed is not None
        raise failed

    async def start(self, work: Callable[[Caller], Awaitable[Any]]) -> Caller:
        """Run beside the others: `work(caller)` in a thread or a task of its own."""
        caller = Caller(EVENTS[self.mode]())
        self.callers.append(caller)
        if self.mode == "sync":
            thread = threading.Thread(target=self._in_thread, args=(caller, work), daemon=True)
            thread.start()
        elif self.mode == "asyncio":
            task = asyncio.ensure_future(_led(caller, work))
            self._tasks.add(task)
            task.add_done_callback(partial(self._gone, caller))
            caller.stop = task.cancel
        else:
            scope = trio.CancelScope()
            caller.stop = scope.cancel
            self._nursery.start_soon(_scoped, scope, caller, work)
        return caller

    def _gone(self, caller: Caller, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not caller.done:  # cancelled before its first step
            caller.error, caller.done = asyncio.CancelledError(), True
            caller.finished.set()

    def _in_thread(self, caller: Caller, work: Callable[[Caller], Awaitable[Any]]) -> None:
        local.caller = caller
        with suppress(BaseException):
            run_now(_led(caller, work))

    async def until(self, reached: Callable[[], object]) -> None:
        """Let the others run until this is so."""
        end = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < end, "it never came to that"
            await self.yield_()

    async def yield_(self) -> None:
        """Let the others run for a moment."""
        if self.mode == "sync":
            os.sched_yield()
        elif self.mode == "asyncio":
            await asyncio.sleep(0)
        else:
            await trio.lowlevel.checkpoint()

    async def settle(self) -> None:
        """In a loop: let everybody run until all of them wait. Threads: nothing to be sure of."""
        if self.mode != "sync":
            for _ in range(50):
                await self.yield_()

    async def ended(self, *callers: Caller) -> None:
        """Wait until these have ended; all where none is named."""
        for caller in callers or list(self.callers):
            if self.mode == "sync":
                caller.finished.wait(PATIENCE)
            else:
                await caller.finished.wait()
            assert caller.done, "a caller hangs"

    async def cancel(self, caller: Caller) -> None:
        """Cancel a task; a thread gets KeyboardInterrupt where it waits, now or next."""
        if self.mode == "sync":
            caller.interrupted = True
            event = caller.held
            if event is not None:
                event.set()
        else:
            caller.stop()

    @property
    def leads(self) -> list[Any]:
        """The calls that fetch an answer now."""
        leads = list(self.runtime.engine.state.flights._leads.values())
        return [lead for first in leads for lead in _chain(first)]

    @property
    def followers(self) -> int:
        """How many calls wait for the head of another's."""
        return sum(len(lead.company.waiting or ()) if lead.company else 0 for lead in self.leads)

    @property
    def bodies(self) -> list[Body]:
        """Those that can be joined."""
        return [lead.outcome for lead in self.leads if isinstance(lead.outcome, Body)]

    @property
    def readers(self) -> int:
        """How many readers the bodies in the air have."""
        return sum(body.flight.readers for body in self.bodies)

    @property
    def enlisted(self) -> int:
        """How many readers wait for another's pull."""
        return sum(len(body._waiting) for body in self.bodies)

    async def open(self, client: Any, url: str = CHAT_URL, body: Any = None, **options: Any) -> Any:
        """A response to the stream that all ask for, its body not read yet."""
        ask = STREAM_ASK if body is None else body
        return await super().open(client, url, ask, **{"headers": HEADERS, **options})

    def calling(
        self, client: Any, *, stream: bool = True, **options: Any
    ) -> Callable[[Caller], Awaitable[Any]]:
        """A whole call as the work of a caller: frame by frame to the end, closed whatever happens."""

        async def work(caller: Caller) -> None:
            await self.consume(client, caller, stream=stream, **options)

        return work

    async def consume(
        self, client: Any, caller: Caller, *, stream: bool = True, frames: int | None = None, **options: Any
    ) -> Any:
        """Open, read (all, or so many frames), close."""
        response = await self.open(client, body=STREAM_ASK if stream else CHAT_ASK, **options)
        caller.status, caller.headers = response.status_code, response.headers
        try:
            reading = self.frames(response)
            while frames is None or len(caller.frames) < frames:
                frame = await reading.next()
                if frame is None:
                    break
                caller.frames.append(frame)
        finally:
            await self.close(response)

    def reading(self, response: Any, *, bare: bool = False) -> Any:
        """The frames of a response one at a time. `bare`: off underlay's own stream, without the client's
        generators, which have finalisers of their own."""
        if not bare:
            return self.frames(response)
        stream = response.stream
        while hasattr(stream, "_stream"):
            stream = stream._stream
        return _Bare(self, stream)

    def ends(self) -> list[tuple[str, str, str]]:
        """How each call ended, in the order of their starts: result, ending, error."""
        return [
            (str(event.result.value), str(event.ending.value), event.error_type)
            for call in self.recorder.calls
            for event in call.of(CallEnded)
        ]

    def coalesced(self) -> list[tuple[bytes, float]]:
        """Origin and wait of each call that read another's answer."""
        return [(e.origin, e.wait) for call in self.recorder.calls for e in call.of(Coalesced)]

    def attempts(self) -> list[Any]:
        """Every attempt's end."""
        return [event for call in self.recorder.calls for event in call.of(AttemptEnded)]

    def stored(self) -> list[tuple[bytes, ...]]:
        """The frames of every entry in the store."""
        entries: Any = self.runtime.engine.state.store
        return [entry.frames for entry in entries._entries.values()]

    def check(self, *, upstream: int, left_open: int = 0, attempts: int | None = None) -> None:
        """Nothing is left behind: bodies, leads, waiters, leases, books; and nobody broke the provider."""
        engine = self.runtime.engine
        engine.settle_dropped()
        provider, flights, store = self.provider, engine.state.flights, engine.state.store
        assert provider.requests == upstream
        assert provider.broken == []
        assert provider.opened - provider.closed == left_open
        assert (flights._leads, flights._elsewhere) == ({}, {})
        assert getattr(store, "_leases", {}) == {}
        assert self.faults == {}
        assert [len(call.of(CallEnded)) for call in self.recorder.calls] == [1] * len(self.recorder.calls)
        assert len(self.attempts()) == (upstream if attempts is None else attempts)


class _Bare:
    def __init__(self, bench: Bench, stream: Any) -> None:
        self._bench, self._stream = bench, stream

    async def next(self) -> bytes | None:
        try:
            frame: bytes = (
                next(self._stream) if self._bench.kind == "sync" else await self._stream.__anext__()
            )
        except (StopIteration, StopAsyncIteration):
            return None
        return frame

    async def close(self) -> None:
        """Nothing of its own is open."""


async def _led(caller: Caller, work: Callable[[Caller], Awaitable[Any]]) -> None:
    try:
        caller.value = await work(caller)
    except BaseException as error:
        caller.error = error
        if not isinstance(error, Exception) and not isinstance(error, KeyboardInterrupt):
            raise
    finally:
        caller.done = True
        caller.finished.set()


async def _scoped(scope: Any, caller: Caller, work: Callable[[Caller], Awaitable[Any]]) -> None:
    with scope:
        await _led(caller, work)


def bench_for(way: str, monkeypatch: Any) -> Bench:
    """A bench whose threads can be interrupted while they wait."""

    async def wait(_: Any, waiter: threading.Event, seconds: float | None) -> None:
        held(waiter, seconds)

    monkeypatch.setattr(homes.Threads, "wait", wait)
    return Bench(way)
