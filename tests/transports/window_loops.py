"""Event loops in threads of their own, for calls that are told from outside when to go on."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from queue import SimpleQueue
from typing import Any

import trio

__all__ = ["PATIENCE", "AsyncioLoop", "Loop", "TrioLoop"]

PATIENCE = 10.0  # seconds until a test that hangs fails


class Loop(ABC):
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        ready: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.get(timeout=PATIENCE)

    @abstractmethod
    def _run(self, ready: SimpleQueue[None]) -> None: ...

    @abstractmethod
    def soon(self, work: Callable[[], object]) -> None: ...

    @abstractmethod
    def start(self, call: Any, work: Callable[[], Coroutine[Any, Any, None]]) -> None: ...

    def stop(self, clients: Iterable[Any]) -> None:
        self._clients = list(clients)
        self.soon(lambda: self._end())
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the event loop does not end"

    @abstractmethod
    def _end(self) -> None: ...


class AsyncioLoop(Loop):
    def _run(self, ready: SimpleQueue[None]) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._over = asyncio.Event()
            self._tasks: set[asyncio.Task[None]] = set()
            ready.put(None)
            await self._over.wait()
            for client in self._clients:
                await client.aclose()

        asyncio.run(main())

    def soon(self, work: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(work)

    def start(self, call: Any, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        def begin() -> None:
            task = self._loop.create_task(work())
            call.cancel = task.cancel
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self.soon(begin)

    def _end(self) -> None:
        self._over.set()


class TrioLoop(Loop):
    def _run(self, ready: SimpleQueue[None]) -> None:
        async def main() -> None:
            self._token = trio.lowlevel.current_trio_token()
            self._over = trio.Event()
            async with trio.open_nursery() as self._nursery:
                ready.put(None)
                await self._over.wait()
                for client in self._clients:
                    await client.aclose()
                self._nursery.cancel_scope.cancel()

        trio.run(main)

    def soon(self, work: Callable[[], object]) -> None:
        self._token.run_sync_soon(work)

    def start(self, call: Any, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        scope = trio.CancelScope()
        call.cancel = scope.cancel

        async def scoped() -> None:
            with scope:
                await work()

        self.soon(lambda: self._nursery.start_soon(scoped))

    def _end(self) -> None:
        self._over.set()
