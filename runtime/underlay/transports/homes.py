"""Where a call lives: the threads of synchronous callers, or one event loop. Named once a call, by the
adapter; nothing below sniffs."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from contextvars import copy_context
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import ref

from underlay.pipeline.driver import drive

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Hashable

__all__ = ["THREADS", "AsyncioHome", "Home", "TrioHome", "current_home"]


R = TypeVar("R")


class Home(Protocol):
    """Waiting and waking in one home. `identity` is its event loop; `key` tells homes apart and keeps no loop
    alive. `wake` may be called from anywhere."""

    @property
    def identity(self) -> Hashable: ...
    @property
    def key(self) -> Hashable: ...
    @property
    def soon(self) -> Callable[[Callable[[], object]], object] | None:
        """Has the loop run a function when it comes round; None where there is no loop."""
        ...

    def waiter(self) -> Any: ...
    async def wait(self, waiter: Any, seconds: float | None) -> None: ...
    def wake(self, waiter: Any) -> None: ...
    def spawn(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]: ...
    async def blocking(self, work: Callable[[], R]) -> R:
        """Run what may block on I/O where it holds up no event loop."""
        ...

    def patient(self) -> bool:
        """Whether a call of this home may wait for one of another."""
        ...

    def remaining(self) -> float:
        """Seconds until the caller is cancelled, where the home knows; else infinite."""
        ...

    def cancelled(self, error: BaseException) -> bool:
        """Whether this exception is the loop's own cancellation."""
        ...


class Threads:
    """All synchronous callers of the process: any thread may pull a body, and one event wakes one waiter."""

    identity = key = "threads"
    soon = None

    def waiter(self) -> Event:
        return Event()

    async def wait(self, waiter: Event, seconds: float | None) -> None:
        waiter.wait(seconds)

    def wake(self, waiter: Event) -> None:
        waiter.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        # A synchronous pull runs in the thread of whoever needs the frame: there is no cancellation to hide
        # from, and none to hand out.
        drive(work)
        return _nothing

    async def blocking(self, work: Callable[[], R]) -> R:
        return work()

    def patient(self) -> bool:
        return not _loop_runs_here()

    def remaining(self) -> float:
        return math.inf

    def cancelled(self, error: BaseException) -> bool:
        return isinstance(error, KeyboardInterrupt)


THREADS = Threads()


class AsyncioHome:
    """One asyncio event loop."""

    __slots__ = ("identity", "key")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.identity = loop
        self.key = _key_of(loop)

    @property
    def soon(self) -> Callable[[Callable[[], object]], object]:
        return self.identity.call_soon

    def waiter(self) -> asyncio.Future[None]:
        return self.identity.create_future()

    async def wait(self, waiter: asyncio.Future[None], seconds: float | None) -> None:
        if seconds is None:
            await waiter
            return
        alarm = self.identity.call_later(seconds, _resolve, waiter)
        try:
            await waiter
        finally:
            alarm.cancel()

    def wake(self, waiter: asyncio.Future[None]) -> None:
        import asyncio

        if asyncio._get_running_loop() is self.identity:
            _resolve(waiter)
            return
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            self.identity.call_soon_threadsafe(_resolve, waiter)

    async def blocking(self, work: Callable[[], R]) -> R:
        import asyncio

        return await asyncio.to_thread(work)

    def patient(self) -> bool:
        return True

    def remaining(self) -> float:
        return math.inf  # asyncio keeps no record of a task's timeouts

    def spawn(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        task = self.identity.create_task(work)
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        # Not at once: a task that is cancelled before its first step never enters what it was to run.
        return lambda: self.identity.call_soon(task.cancel)

    def cancelled(self, error: BaseException) -> bool:
        import asyncio

        return isinstance(error, asyncio.CancelledError)


_tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class TrioHome:
    """One trio run."""

    __slots__ = ("_trio", "identity", "key")

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self.identity = trio.lowlevel.current_trio_token()
        self.key = _key_of(self.identity)

    @property
    def soon(self) -> Callable[[Callable[[], object]], object]:
        return self.identity.run_sync_soon  # type: ignore[no-any-return]

    def waiter(self) -> Any:
        return self._trio.Event()

    async def wait(self, waiter: Any, seconds: float | None) -> None:
        with self._trio.move_on_after(math.inf if seconds is None else seconds):
            await waiter.wait()

    def wake(self, waiter: Any) -> None:
        lowlevel = self._trio.lowlevel
        if lowlevel.in_trio_run() and lowlevel.current_trio_token() is self.identity:
            waiter.set()
            return
        with suppress(self._trio.RunFinishedError):
            self.identity.run_sync_soon(waiter.set)

    async def blocking(self, work: Callable[[], R]) -> R:
        done: R = await self._trio.to_thread.run_sync(work)
        return done

    def patient(self) -> bool:
        return True

    def remaining(self) -> float:
        seconds: float = self._trio.current_effective_deadline() - self._trio.current_time()
        return seconds

    def spawn(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        scope = self._trio.CancelScope()
        # In the caller's context, as a task of asyncio would be: the app's transport may look there.
        self._trio.lowlevel.spawn_system_task(_awaited, work, scope, context=copy_context())
        return scope.cancel  # type: ignore[no-any-return]

    def cancelled(self, error: BaseException) -> bool:
        return isinstance(error, self._trio.Cancelled)


async def _awaited(work: Coroutine[Any, Any, None], scope: Any) -> None:
    with scope:
        await work


def _key_of(loop: Hashable) -> Hashable:
    """A reference that equals every other one to this loop, and none to a later loop. What is remembered by
    home (a window's lane) outlives loops, and would keep their file descriptors open."""
    try:
        return ref(loop)
    except TypeError:  # a loop in C that has no room for references
        return loop


def _nothing() -> None:
    """There is nothing to cancel."""


def _loop_runs_here() -> bool:
    """Whether an event loop is running in this thread, further up its stack."""
    asyncio_, trio = sys.modules.get("asyncio"), sys.modules.get("trio")
    if asyncio_ is not None and asyncio_._get_running_loop() is not None:
        return True
    return trio is not None and bool(trio.lowlevel.in_trio_run())


def current_home() -> Home:
    """The home of the running task. trio is asked only where the app has imported it."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return TrioHome(trio)
    # Who runs in a loop has it loaded: imported, it would cost every synchronous program 20 ms at its start.
    return AsyncioHome(sys.modules["asyncio"].get_running_loop())
