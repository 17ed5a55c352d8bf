"""A crew of threads."""

from __future__ import annotations

import gc
import math
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from threading import Thread, current_thread, get_ident
from typing import TYPE_CHECKING, Generic, TypeVar

from underlay.mapping.crew import Died

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Threads"]

T = TypeVar("T")


class Threads(Generic[T]):
    """A crew of threads, kept until `end`. What runs cannot be cancelled, so `end` waits for it. All methods
    are for the one thread that asks.

    There is no lock: `SimpleQueue` may be used in a finaliser, which may run anywhere.
    """

    def __init__(self, size: int, halts: Callable[[T], bool]) -> None:
        self.stopped = False
        self._size = size
        self._halts = halts
        self._context = copy_context()
        self._jobs: SimpleQueue[tuple[int, Callable[[], T]] | None] = SimpleQueue()
        self._finished: SimpleQueue[T | Died] = SimpleQueue()
        self._ended = False
        self._added = self._told = 0
        self._bound = math.inf  # jobs from this number on are not begun
        self._threads: list[Thread] = []
        self._collection = _Collection()

    def add(self, job: Callable[[], T]) -> None:
        """Do this next, in a new thread while the crew has fewer than it needs."""
        self._jobs.put((self._added, job))
        self._added += 1
        if len(self._threads) < min(self._added - self._told, self._size):
            if not self._threads:
                gc.callbacks.append(self._collection)
            # Daemons, for who presses Ctrl-C a second time while `end` waits: the process need not wait too.
            thread = Thread(target=self._work, name="underlay-map", daemon=True)
            self._threads.append(thread)
            thread.start()

    def poll(self) -> T | Died | None:
        """The result that came first of those not asked for yet, or None."""
        try:
            result = self._finished.get_nowait()
        except Empty:
            return None
        self._told += 1
        return result

    async def wait(self) -> T | Died:
        """The next result. Blocks."""
        result = self._finished.get()
        self._told += 1
        return result

    async def end(self) -> None:
        """Waits for what runs; but not in a garbage collection: this thread may hold a lock that one of the
        crew needs."""
        self.stopped = self._ended = True
        with suppress(ValueError):
            gc.callbacks.remove(self._collection)
        for _ in self._threads:
            self._jobs.put(None)
        if self._collection.thread == get_ident():
            return
        for thread in self._threads:
            if thread is not current_thread() and thread.is_alive():
                thread.join()

    def _work(self) -> None:
        while (taken := self._jobs.get()) is not None and not self._ended:
            number, job = taken
            if number < self._bound:
                self._finished.put(self._done(number, job))
            del taken, job  # or a thread that has nothing to do would hold the last prompt

    def _done(self, number: int, job: Callable[[], T]) -> T | Died:
        try:
            result = self._context.copy().run(job)
            if self._halts(result):
                # Those before it are taken, and may not have begun: their results are waited for.
                self.stopped, self._bound = True, number
        except BaseException as error:  # noqa: BLE001 the caller waits for this result, and raises it
            self.stopped, self._bound = True, number
            return Died(error)
        return result


class _Collection:
    """Which thread collects garbage now; 0 for none. Called by the collector at its start and its end."""

    __slots__ = ("thread",)

    def __init__(self) -> None:
        self.thread = 0

    def __call__(self, phase: str, _: dict[str, int]) -> None:
        self.thread = get_ident() if phase == "start" else 0
