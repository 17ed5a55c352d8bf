"""The iterators that `Runtime.map` and `Runtime.amap` return."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.pipeline.driver import drive

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from underlay.mapping.item import Item
    from underlay.mapping.run import Run
    from underlay.mapping.tasks import Tasks

__all__ = ["AsyncItems", "Items"]


class Items:
    """The items of one `map`; an iterator for one thread.

    It is over when the last item was taken, an error was raised, the loop was left, or at `close`: then no
    call begins any more, those under way have ended, and so have the threads.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        item = drive(self._run.step())
        if item is None:
            raise StopIteration
        return item

    def close(self) -> None:
        """End it now. Waits for the calls under way: a synchronous call cannot be cancelled."""
        drive(self._run.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A `for` that is left by `break` or an error lets go of it.
        drive(self._run.finish())


class AsyncItems:
    """The items of one `amap`; an asynchronous iterator for one task, on asyncio and trio.

    It is over when the last item was taken, an error was raised, the caller was cancelled in it, or at
    `aclose` or the end of its `async with`: then no call begins any more, those under way were cancelled, and
    their tasks have ended. A bare `async for` that is left early cancels them as well, but cannot wait: they
    end in the loop's next turns.
    """

    def __init__(self, run: Run, tasks: Tasks[Item]) -> None:
        self._run = run
        self._tasks = tasks

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        item = await self._run.step()
        if item is None:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """End it now: cancel the calls under way and wait until their tasks have ended."""
        await self._run.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._run.closed:
            self._tasks.abandon()
            self._run.release()
