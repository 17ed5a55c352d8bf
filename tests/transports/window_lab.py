"""A bench for windows: calls that run at the same time, each in its own thread or task, told from outside when
to go on. The clock stands still, and `settle` waits until every call, and every pull that is made for several of them,
waits for something or has ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import trio
from transport_lab import KEY, Lab
from window_loops import PATIENCE, AsyncioLoop, Loop, TrioLoop
from window_provider import EMBEDDINGS_URL, Held, Provider

from underlay import Runtime
from underlay.telemetry.events import AttemptEnded
from underlay.transports.homes import AsyncioHome, Threads, TrioHome

__all__ = ["Running", "WindowLab", "embedding"]

_running: ContextVar[Running | None] = ContextVar("running", default=None)


def embedding(inputs: object, **fields: object) -> dict[str, Any]:
    """A body for embeddings, of two dimensions."""
    return {"model": "text-embedding-3-small", "input": inputs, "dimensions": 2, **fields}


class Running:
    """A call under way. `value` is what it returned, `error` what it raised."""

    def __init__(self, name: object) -> None:
        self.name = name
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.cancel: Callable[[], object] = lambda: None
        self.interrupted = False

    def result(self) -> Any:
        """What it returned. Raises what it raised."""
        assert self.done, f"{self!r} has not ended"
        if self.error is not None:
            raise self.error
        return self.value

    def __repr__(self) -> str:
        state = f"{self.error or self.value!r}" if self.done else "under way"
        return f"<call {self.name}: {state}>"


class WindowLab(Lab):
    """One way in, with calls at the same time and a provider that answers when it is told to."""

    def __init__(self, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(way)
        self.provider = Provider(self)
        self.calls: list[Running] = []
        self._pulls: list[Running] = []
        self.changed = threading.Condition()
        self._blocked: dict[int, tuple[object, Running | None]] = {}
        self._woken: dict[int, object] = {}
        self._loop: Loop | None = None
        self._threads: list[threading.Thread] = []
        for home in (Threads, AsyncioHome, TrioHome):
            self._watch(home, monkeypatch)
        for home in (AsyncioHome, TrioHome):  # a thread pulls in its own call
            self._watch_pulls(home, monkeypatch)

    def setup(self, replies: Any = (), **settings: Any) -> WindowLab:
        """A runtime with other settings."""
        self.runtime = Runtime(settings, clock=self.clock, listeners=[self.recorder])
        return self

    def windows(self, **batch: Any) -> WindowLab:
        """A runtime whose windows are set like this, with no cache and no coalescing."""
        return self.setup(llm_batch=batch, llm_cache={"mode": "off"}, coalesce={"mode": "off"})

    def client(self, inner: Any = None, **options: Any) -> Any:
        """A client over underlay over the provider."""
        return super().client(
            self.provider.transport(self.family, self.kind) if inner is None else inner, **options
        )

    @contextmanager
    def running(self) -> Iterator[WindowLab]:
        """While inside, calls can be made. At the end all must have ended, and nothing may be left."""
        if self.kind == "async":
            self._loop = (AsyncioLoop if self.mode == "asyncio" else TrioLoop)()
        try:
            yield self
            self.settle()
            assert all(call.done for call in self.calls), f"not ended: {self.calls}"
            self.clean()
        finally:
            self._stop()

    def clean(self) -> None:
        """Nothing is left of calls that have ended: no queue, no lane in flight, no open body."""
        windows = self.runtime.engine.state.windows
        assert sum(count for _, count in windows.queued()) == 0
        assert [lane for lane in windows._lanes.values() if not lane.idle] == []
        assert self.provider.opened == self.provider.closed

    def _stop(self) -> None:
        for held in self.provider.held:
            held.fail(self.module.ConnectError("the test is over"))
        for call in self.calls:
            if not call.done:
                self.interrupt(call)
        if self._loop is not None:
            self._loop.stop(self._clients if self.kind == "async" else ())
        for client in self._clients if self.kind == "sync" else ():
            client.close()
        self._clients.clear()
        for thread in self._threads:
            thread.join(PATIENCE)

    # Calls

    def start(
        self, scenario: Callable[[], Awaitable[Any]], *, name: object = None, settle: bool = True
    ) -> Running:
        """Run this beside what runs; it has come to where it waits when this returns."""
        call = Running(len(self.calls) if name is None else name)
        self.calls.append(call)

        async def whole() -> None:
            _running.set(call)
            try:
                call.value = await scenario()
            except BaseException as error:
                call.error = error
                if isinstance(error, trio.Cancelled):
                    raise
            finally:
                with self.changed:
                    call.done = True
                    self.changed.notify_all()

        if self._loop is not None:
            self._loop.start(call, whole)
        else:
            thread = threading.Thread(target=lambda: _by_hand(whole()), daemon=True)
            self._threads.append(thread)
            thread.start()
        if settle:
            self.settle()
        return call

    def ask(
        self, client: Any, body: Any, url: str = EMBEDDINGS_URL, *, settle: bool = True, **options: Any
    ) -> Running:
        """One request beside those that run."""
        return self.start(lambda: self.post(client, url, body, **options), settle=settle)

    def ask_all(self, client: Any, bodies: Iterable[Any], **options: Any) -> list[Running]:
        """Several requests, each of which has come to where it waits before the next one starts."""
        return [self.ask(client, body, **options) for body in bodies]

    def cancel(self, call: Running, *, settle: bool = True) -> None:
        """End a call from outside: cancel its task, or interrupt its thread."""
        if self.kind == "sync":
            self.interrupt(call, settle=settle)
            return
        with self.changed:
            self._forget(call)
        assert self._loop is not None
        self._loop.soon(call.cancel)
        if settle:
            self.settle()

    def interrupt(self, call: Running, *, settle: bool = True) -> None:
        """Raise a KeyboardInterrupt where the call waits."""
        with self.changed:
            waiters = [waiter for waiter, owner in self._blocked.values() if owner is call]
            self._forget(call)
            call.interrupted = True
        for waiter in waiters:
            if self._loop is None:
                waiter.set()  # type: ignore[attr-defined]
            else:
                self._loop.soon(lambda waiter=waiter: _resolve(waiter))
        if settle:
            self.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass, and who waited for it go on."""
        self.clock.advance(seconds)
        self.settle()

    def settle(self) -> None:
        """Return when every call has ended or waits for something. Fails after some time that is only
        reached when calls hang."""

        def still() -> bool:
            waiting = [owner for _, owner in self._blocked.values()]
            return all(call.done or call in waiting for call in [*self.calls, *self._pulls])

        with self.changed:
            if not self.changed.wait_for(still, PATIENCE):
                raise AssertionError(f"neither ended nor waiting: {[c for c in self.calls if not c.done]}")

    def join(self) -> None:
        """Return when every call has ended: where the clock is the system's, time goes on by itself."""
        with self.changed:
            if not self.changed.wait_for(lambda: all(call.done for call in self.calls), PATIENCE):
                raise AssertionError(f"not ended: {[call for call in self.calls if not call.done]}")

    # What calls wait for

    def _watch(self, home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Know who waits in this kind of home."""
        wait, wake = home.wait, home.wake

        async def waited(self_: Any, waiter: Any, seconds: float | None) -> None:
            call = _running.get()
            with self.changed:
                if id(waiter) not in self._woken and not (call is not None and call.interrupted):
                    self._blocked[id(waiter)] = (waiter, call)
                    self.changed.notify_all()
            try:
                if call is None or not call.interrupted:
                    await wait(self_, waiter, seconds)
            finally:
                with self.changed:
                    self._blocked.pop(id(waiter), None)
                    self._woken.pop(id(waiter), None)
            if call is not None and call.interrupted:
                call.interrupted = False
                raise KeyboardInterrupt

        def woken(self_: Any, waiter: Any) -> None:
            with self.changed:
                self._blocked.pop(id(waiter), None)
                self._woken[id(waiter)] = waiter
            wake(self_, waiter)

        monkeypatch.setattr(home, "wait", waited)
        monkeypatch.setattr(home, "wake", woken)

    def _watch_pulls(self, home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Know of the work that no caller's cancellation reaches."""
        spawn = home.spawn

        def spawned(self_: Any, work: Any) -> Any:
            pull = Running("pull")
            with self.changed:
                self._pulls.append(pull)

            async def told() -> None:
                _running.set(pull)
                try:
                    await work
                finally:
                    with self.changed:
                        self._pulls.remove(pull)
                        self.changed.notify_all()

            return spawn(self_, told())

        monkeypatch.setattr(home, "spawn", spawned)

    def _forget(self, call: Running) -> None:
        for key in [key for key, (_, owner) in self._blocked.items() if owner is call]:
            del self._blocked[key]

    # What came of it

    @property
    def sent(self) -> list[Held]:
        """Every request that left, in order."""
        return self.provider.seen

    def attempts(self) -> list[AttemptEnded]:
        """How attempts ended, in the order of the calls."""
        return [event for call in self.recorder.calls for event in call.of(AttemptEnded)]

    async def post(self, client: Any, url: str = EMBEDDINGS_URL, body: Any = None, **options: Any) -> Any:
        """A whole answer to a body, or to the bytes of one."""
        headers = {**KEY, **options.pop("headers", {})}
        if isinstance(body, bytes):
            headers["content-type"] = "application/json"
            return await self._await(client.post(url, content=body, headers=headers, **options))
        return await super().post(client, url, body, headers=headers, **options)


def _resolve(waiter: Any) -> None:
    if isinstance(waiter, asyncio.Future):
        if not waiter.done():
            waiter.set_result(None)
    else:
        waiter.set()


def _by_hand(work: Any) -> None:
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("a synchronous call suspended")
