"""Where a call lives: the threads of synchronous callers, or one event loop. Named once a call, by the
adapter; nothing below sniffs."""

from __future__ import annotations

import sys
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

from underlay.pipeline.driver import drive

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine, Hashable

__all__ = ["THREADS", "AsyncioHome", "Home", "TrioHome", "current_home"]


class Home(Protocol):
    """Waiting and waking in one home. `identity` tells homes apart."""

    @property
    def identity(self) -> Hashable: ...
    def waiter(self) -> Any: ...
    async def wait(self, waiter: Any) -> None: ...
    def wake(self, waiter: Any) -> None: ...
    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...
    def cancelled(self, error: BaseException) -> bool:
        """Whether this exception is the loop's own cancellation."""
        ...


class Threads:
    """All synchronous callers of the process: any thread may pull a body, and one event wakes one waiter."""

    identity = "threads"

    def waiter(self) -> Event:
        return Event()

    async def wait(self, waiter: Event) -> None:
        waiter.wait()

    def wake(self, waiter: Event) -> None:
        waiter.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        # A synchronous pull runs in the thread of whoever needs the frame: there is no cancellation to hide
        # from.
        drive(work)

    def cancelled(self, error: BaseException) -> bool:
        return isinstance(error, KeyboardInterrupt)


THREADS = Threads()


class AsyncioHome:
    """One asyncio event loop."""

    __slots__ = ("_tasks", "identity")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.identity = loop

    def waiter(self) -> asyncio.Future[None]:
        return self.identity.create_future()

    async def wait(self, waiter: asyncio.Future[None]) -> None:
        await waiter

    def wake(self, waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.identity.create_task(work)
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    def cancelled(self, error: BaseException) -> bool:
        import asyncio

        return isinstance(error, asyncio.CancelledError)


_tasks: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly


class TrioHome:
    """One trio run."""

    __slots__ = ("_trio", "identity")

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self.identity = trio.lowlevel.current_trio_token()

    def waiter(self) -> Any:
        return self._trio.Event()

    async def wait(self, waiter: Any) -> None:
        await waiter.wait()

    def wake(self, waiter: Any) -> None:
        waiter.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._trio.lowlevel.spawn_system_task(_awaited, work)

    def cancelled(self, error: BaseException) -> bool:
        return isinstance(error, self._trio.Cancelled)


async def _awaited(work: Coroutine[Any, Any, None]) -> None:
    await work


def current_home() -> Home:
    """The home of the running task. trio is asked only where the app has imported it."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return TrioHome(trio)
    # Who runs in a loop has it loaded: at the top it would cost every synchronous program 20 ms at its start.
    import asyncio

    return AsyncioHome(asyncio.get_running_loop())
