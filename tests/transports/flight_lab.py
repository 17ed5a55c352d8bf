"""The bench of the flights' tests: callers that run beside each other (threads, or tasks of asyncio or trio), and
a provider that waits at gates. A scenario is a coroutine function; in the synchronous bench it never suspends."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio
from transport_lab import CHAT, CHAT_ASK, CHAT_URL, JSON_TYPE, KEY, SSE_TYPE, Lab, dumped

from underlay.telemetry.events import AttemptEnded, CallEnded, Coalesced
from underlay.transports import homes

HEADERS = {**KEY, "accept-encoding": "gzip"}  # else the families differ by what is installed
PATIENCE = 15.0  # seconds of real time after which a wait is a hang, and the test fails
STREAM_ASK = {**CHAT_ASK, "stream": True}
JSON_FRAMES = [dumped(CHAT)[:10], dumped(CHAT)[10:]]
EVENTS: dict[str, Any] = {"sync": threading.Event, "asyncio": asyncio.Event, "trio": trio.Event}
_local = threading.local()


class Gate:
    """A point where the provider waits until the scenario lets it pass. `reached` counts who came. May be opened
    from any thread."""

    def __init__(self, *, opened: bool = False) -> None:
        self.opened = opened
        self.reached = 0
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], object]] = []

    def open(self) -> None:
        """Let everybody pass, now and later."""
        with self._lock:
            self.opened = True
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    async def wait(self, bench: Bench) -> None:
        """Wait here. In a thread that is interrupted meanwhile, raises KeyboardInterrupt."""
        event: Any
        with self._lock:
            self.reached += 1
            if self.opened:
                return
            event = EVENTS[bench.mode]()
            if bench.mode == "sync":
                self._waiting.append(event.set)
            elif bench.mode == "asyncio":
                self._waiting.append(
                    partial(_soon, asyncio.get_running_loop().call_soon_threadsafe, event.set)
                )
            else:
                soon = trio.lowlevel.current_trio_token().run_sync_soon
                self._waiting.append(partial(_soon, soon, event.set))
        if bench.mode == "sync":
            held(event, PATIENCE)
        else:
            await event.wait()


def _soon(soon: Callable[[Callable[[], object]], object], wake: Callable[[], object]) -> None:
    with suppress(RuntimeError, trio.RunFinishedError):  # who waited there is gone with its loop
        soon(wake)


def held(event: threading.Event, seconds: float | None) -> None:
    """Wait in a thread, where an interrupt of its caller reaches it."""
    caller = getattr(_local, "caller", None)
    if caller is not None:
        caller.held = event
        if caller.interrupted:
            caller.interrupted = False
            raise KeyboardInterrupt
    woken = event.wait(PATIENCE if seconds is None else min(seconds, PATIENCE))
    if caller is not None:
        caller.held = None
        if caller.interrupted:
            caller.interrupted = False
            raise KeyboardInterrupt
    if not woken and (seconds is None or seconds >= PATIENCE):
        raise AssertionError("a thread waited for ever")


@dataclass(frozen=True)
class Fail:
    """The client family's exception of this name, raised in the place of a frame or of a head."""

    name: str

    def made(self, module: Any, request: Any) -> BaseException:
        """The exception."""
        error: BaseException = getattr(module, self.name)("scripted", request=request)
        return error


Step = bytes | Gate | Fail | BaseException


@dataclass
class Answer:
    """What the provider does with one request: steps before the head, the head, steps of the body."""

    frames: Sequence[Step] = ()
    before: Sequence[Step] = ()
    status: int = 200
    headers: Any = field(default_factory=lambda: dict(JSON_TYPE))


def stream_answer(*frames: Step, before: Sequence[Step] = ()) -> Answer:
    """A stream of events."""
    return Answer(frames, before, 200, dict(SSE_TYPE))


def json_answer(*frames: Step, before: Sequence[Step] = (), status: int = 200) -> Answer:
    """A JSON answer."""
    return Answer(frames or JSON_FRAMES, before, status)


class Provider:
    """Answers the requests in order, the last answer for ever. Its bodies are as strict as those of a network:
    one pull at a time, in the loop that opened them, and after an exception they look finished."""

    def __init__(self, bench: Bench, answers: Sequence[Answer] | Callable[[int], Answer]) -> None:
        self.bench = bench
        self.answers = answers
        self.lock = threading.Lock()
        self.requests = 0
        self.opened = 0
        self.closed = 0
        self.pulls = 0
        self.broken: list[str] = []

    def answer(self) -> Answer:
        """What comes next."""
        with self.lock:
            at, self.requests = self.requests, self.requests + 1
        if callable(self.answers):
            return self.answers(at)
        return self.answers[min(at, len(self.answers) - 1)]

    def transport(self, module: Any = None) -> Any:
        """A transport of this family, the bench's own where none is named."""
        module = module or self.bench.module
        return _sync_transport(self, module) if self.bench.kind == "sync" else _async_transport(self, module)

    async def step(self, step: Step, module: Any, request: Any) -> bytes | None:
        """Play one step: the frame where it is one."""
        if isinstance(step, Gate):
            await step.wait(self.bench)
            return None
        if isinstance(step, Fail):
            raise step.made(module, request)
        if isinstance(step, BaseException):
            raise step
        return step

    async def head(self, module: Any, request: Any) -> Answer:
        """Play the steps before the head."""
        answer = self.answer()
        for step in answer.before:
            await self.step(step, module, request)
        with self.lock:
            self.opened += 1
        return answer


class _Source:
    """One body, pulled like a generator: dead after an exception, and never twice at once."""

    def __init__(self, provider: Provider, answer: Answer, module: Any, request: Any) -> None:
        self.provider, self.module, self.request = provider, module, request
        self.left = iter(answer.frames)
        self.home = provider.bench.home()
        self.running = self.dead = self.closed = False

    async def next(self) -> bytes | None:
        """The next frame, None at the end."""
        provider = self.provider
        if self.running:
            provider.broken.append("two pulls at once")
            raise RuntimeError("two pulls at once")
        if provider.bench.home() != self.home:
            provider.broken.append("pulled in another loop")
            raise RuntimeError("pulled in another loop")
        if self.dead:
            return None
        if self.closed:
            raise self.module.StreamClosed
        self.running = True
        try:
            for step in self.left:
                frame = await provider.step(step, self.module, self.request)
                if frame is not None:
                    with provider.lock:
                        provider.pulls += 1
                    return frame
            self.dead = True
            return None
        except BaseException:
            self.dead = True
            raise
        finally:
            self.running = False

    def close(self) -> None:
        """Let go: counted once."""
        if not self.closed:
            self.closed = True
            with self.provider.lock:
                self.provider.closed += 1


def _sync_transport(provider: Provider, module: Any) -> Any:
    class Stream(module.SyncByteStream):  # type: ignore[misc]
        def __init__(self, source: _Source) -> None:
            self.source = source

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> bytes:
            frame: bytes | None = run_now(self.source.next())
            if frame is None:
                raise StopIteration
            return frame

        def close(self) -> None:
            self.source.close()

    class Transport(module.BaseTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            answer = run_now(provider.head(module, request))
            stream = Stream(_Source(provider, answer, module, request))
            return module.Response(answer.status, headers=answer.headers, stream=stream)

    return Transport()


def _async_transport(provider: Provider, module: Any) -> Any:
    class Stream(module.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, source: _Source) -> None:
            self.source = source

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> bytes:
            frame = await self.source.next()
            if frame is None:
                raise StopAsyncIteration
            return frame

        async def aclose(self) -> None:
            self.source.close()

    class Transport(module.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            answer = await provider.head(module, request)
            stream = Stream(_Source(provider, answer, module, request))
            return module.Response(answer.status, headers=answer.headers, stream=stream)

    return Transport()


def run_now(work: Any) -> Any:
    """Run a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    work.close()
    raise AssertionError("suspended")


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
                except Exception as error:
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
        _local.caller = caller
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
        return [lead for leads in list(self.runtime.engine.state.flights._leads.values()) for lead in leads]

    @property
    def followers(self) -> int:
        """How many calls wait for the head of another's."""
        return sum(len(lead.waiting) for lead in self.leads)

    @property
    def readers(self) -> int:
        """How many readers the bodies in the air have."""
        return sum(lead.body.flight.readers for lead in self.leads if lead.body is not None)

    @property
    def enlisted(self) -> int:
        """How many readers wait for another's pull."""
        return sum(len(lead.body._waiting) for lead in self.leads if lead.body is not None)

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
