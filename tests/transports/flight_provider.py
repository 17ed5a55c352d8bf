"""The provider of the flights' tests: it waits at gates, and its bodies are as strict as those of a network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import trio
from transport_lab import CHAT, JSON_TYPE, SSE_TYPE, dumped

PATIENCE = 15.0  # seconds of real time after which a wait is a hang, and the test fails
JSON_FRAMES = [dumped(CHAT)[:10], dumped(CHAT)[10:]]
EVENTS: dict[str, Any] = {"sync": threading.Event, "asyncio": asyncio.Event, "trio": trio.Event}
local = threading.local()
"""Whose call this thread makes: `local.caller`."""


class Home(Protocol):
    """What the provider must know of the bench that it serves."""

    mode: str
    kind: str
    module: Any

    def home(self) -> object:
        """Where this runs."""
        ...


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

    async def wait(self, bench: Home) -> None:
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
    caller = getattr(local, "caller", None)
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

    def __init__(self, bench: Home, answers: Sequence[Answer] | Callable[[int], Answer]) -> None:
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
