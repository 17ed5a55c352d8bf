"""A crew of tasks in one event loop, on asyncio and on trio."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from underlay.mapping.crew import Died
from underlay.transports.homes import TrioHome, current_home

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from contextvars import Context
    from typing import TypeAlias

    _Work: TypeAlias = "Callable[[_Group, Any], Coroutine[Any, Any, None]]"
    _Tell: TypeAlias = Callable[[BaseException], None]

__all__ = ["Tasks"]

T = TypeVar("T")


class Tasks(Generic[T]):
    """A crew of tasks, one a job, in the loop of the first `add`. `end` cancels what runs."""

    def __init__(self, size: int, halts: Callable[[T], bool]) -> None:
        self.stopped = False
        self._size = size
        self._halts = halts
        self._context = copy_context()
        self._jobs: deque[Callable[[], Coroutine[Any, Any, T]]] = deque()
        self._active = 0
        self._finished: deque[T | Died] = deque()
        self._group: _Group | None = None
        self._asked: Any = None

    def add(self, job: Callable[[], Coroutine[Any, Any, T]]) -> None:
        """Do this next, in a task of its own."""
        if self._group is None:
            home = current_home()
            self._group = _TrioGroup(home) if isinstance(home, TrioHome) else _AsyncioGroup()
        self._jobs.append(job)
        self._begin(self._group)

    def poll(self) -> T | Died | None:
        """The result that came first of those not asked for yet, or None."""
        return self._finished.popleft() if self._finished else None

    async def wait(self) -> T | Died:
        """The next result."""
        while not self._finished:
            assert self._group is not None  # noqa: S101 only who has added waits
            self._asked = self._group.event()
            await self._asked.wait()
        return self._finished.popleft()

    async def end(self) -> None:
        """Cancels what runs first. The wait itself cannot be cancelled, as in a task group."""
        self.stopped = True
        if self._group is not None:
            self._group.cancel()
            await self._group.ended()

    def abandon(self) -> None:
        """`end` for a finaliser, in whatever thread: cancels at the loop's next turn, and waits for
        nothing."""
        self.stopped = True
        if self._group is not None:
            with suppress(RuntimeError):  # the loop is gone, and its tasks with it
                self._group.call_soon(self._group.cancel)

    def _begin(self, group: _Group) -> None:
        while self._jobs and self._active < self._size and not self.stopped:
            self._active += 1
            group.start(self._work, self._jobs.popleft(), self._context.copy(), self._died)

    async def _work(self, group: _Group, job: Callable[[], Coroutine[Any, Any, T]]) -> None:
        try:
            result = await job()
            self.stopped = self.stopped or self._halts(result)
        except GeneratorExit:
            raise  # thrown away with its loop: nobody is left to be told
        except BaseException as error:  # noqa: BLE001 out of here it would end the loop under the caller
            # The caller is told, and raises it. A cancellation ends this task either way.
            self._died(error)
            return
        self._active -= 1
        self._tell(result)
        self._begin(group)

    def _died(self, error: BaseException) -> None:
        self.stopped = True
        self._tell(Died(error))

    def _tell(self, result: T | Died) -> None:
        self._finished.append(result)
        if self._asked is not None:
            self._asked.set()


class _Group(Protocol):
    """The tasks of a crew in one loop. `start` tells `died` of a task that was cancelled before it began.
    `call_soon` may be called in any thread, and in a finaliser."""

    def start(self, work: _Work, job: Any, context: Context, died: _Tell) -> None: ...
    def cancel(self) -> None: ...
    async def ended(self) -> None: ...
    def call_soon(self, function: Callable[[], None]) -> None: ...
    def event(self) -> Any: ...


class _AsyncioGroup:
    def __init__(self) -> None:
        import asyncio  # loaded already by who runs in a loop, and not to be loaded for anybody else

        self._asyncio = asyncio
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: _Work, job: Any, context: Context, died: _Tell) -> None:
        task = self._loop.create_task(work(self, job), context=context)
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, died))

    def _done(self, died: _Tell, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            died(self._asyncio.CancelledError())

    def cancel(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    async def ended(self) -> None:
        cancelled: BaseException | None = None
        while self._tasks:
            try:
                await self._asyncio.wait(self._tasks)
            except self._asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def call_soon(self, function: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(function)

    def event(self) -> Any:
        return self._asyncio.Event()


class _TrioGroup:
    """System tasks, each in a scope of its own: a nursery belongs to one block of one task, and the caller's
    loop over the items is none that this module could open one in."""

    def __init__(self, home: TrioHome) -> None:
        import trio

        self._trio = trio
        self._token = home.identity
        self._scopes: set[Any] = set()
        self._emptied: Any = None

    def start(self, work: _Work, job: Any, context: Context, died: _Tell) -> None:
        # `died` is not needed: a trio task begins even when it is cancelled.
        scope = self._trio.CancelScope()
        self._scopes.add(scope)
        self._trio.lowlevel.spawn_system_task(self._within, scope, work, job, context=context)

    async def _within(self, scope: Any, work: _Work, job: Any) -> None:
        try:
            with scope:
                await work(self, job)
        finally:
            self._scopes.discard(scope)
            if self._emptied is not None and not self._scopes:
                self._emptied.set()

    def cancel(self) -> None:
        for scope in list(self._scopes):
            scope.cancel()

    async def ended(self) -> None:
        with self._trio.CancelScope(shield=True):
            while self._scopes:
                self._emptied = self._trio.Event()
                await self._emptied.wait()

    def call_soon(self, function: Callable[[], None]) -> None:
        self._token.run_sync_soon(function)

    def event(self) -> Any:
        return self._trio.Event()
