"""One map under way: what is pulled, what is held, what is handed out. Written once; a synchronous caller
drives it, and then nothing in it suspends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from underlay.mapping.crew import Died
from underlay.mapping.progress import Bar

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable

    from underlay.mapping.crew import Crew
    from underlay.mapping.item import Item, Prompt
    from underlay.mapping.progress import Progress

__all__ = ["Plan", "Run", "Window", "asource", "source"]

_END: Final[Any] = object()


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. `limit` is how many prompts may be held at once, `total` how many there are, None
    where nobody knows."""

    ordered: bool
    limit: int
    raises: bool
    report: Progress | None
    total: int | None

    def halts(self, item: Item) -> bool:
        """Whether this item ends the map."""
        return self.raises and item.error is not None


class Window:
    """What one map holds: prompts that were pulled, and items that were not handed out yet."""

    __slots__ = ("_plan", "_ready", "done", "given", "pulled")

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._ready: dict[int, Item] = {}  # by place among the prompts, or by place of arrival
        self.pulled = self.done = self.given = 0

    @property
    def held(self) -> int:
        """Prompts pulled whose items were not handed out."""
        return self.pulled - self.given

    def has_room(self) -> bool:
        """Whether one more may be pulled."""
        return self.held < self._plan.limit

    def put(self, item: Item) -> None:
        """An item has finished."""
        self._ready[item.index if self._plan.ordered else self.done] = item
        self.done += 1

    def take(self) -> Item | None:
        """The item whose turn it is, where it has finished."""
        item = self._ready.pop(self.given, None)
        if item is not None:
            self.given += 1
        return item

    def clear(self) -> None:
        """Forget the items."""
        self._ready.clear()


class Run:
    """One map under way, whichever its home: for threads each of its coroutines is driven, and never
    suspends."""

    def __init__(
        self,
        source: Callable[[], Awaitable[Any]],
        crew: Crew[Any, Item],
        ask: Callable[..., Any],
        plan: Plan,
    ) -> None:
        self.closed = False
        self._source = source
        self._drained = False
        self._fault: Exception | None = None
        self._crew = crew
        self._ask = ask
        self._plan = plan
        self._window = Window(plan)
        self._busy = False

    async def step(self) -> Item | None:
        """The next item; None when there is none any more."""
        self._enter()
        try:
            item = None if self.closed else await self._advance()
            if item is None:
                await self.finish()
            elif self._plan.halts(item):
                error, item = item.error, None
                assert error is not None  # noqa: S101 that is why it halts
                try:
                    raise error
                finally:
                    del error  # its traceback would hold it
        except BaseException:
            await self.finish()
            raise
        finally:
            self._busy = False
        return item

    async def close(self) -> None:
        """`finish`, for a caller who may be another one than who waits for the next item."""
        self._enter()
        try:
            await self.finish()
        finally:
            self._busy = False

    async def finish(self) -> None:
        """Hand out nothing more and end the crew."""
        if self.closed:
            return
        try:
            await self._crew.end()
        finally:
            self.release()

    def release(self) -> None:
        """Let go of everything that needs no waiting."""
        self.closed = True
        self._window.clear()
        if isinstance(self._plan.report, Bar):
            self._plan.report.stop()

    def _enter(self) -> None:
        if self._busy:
            raise RuntimeError(
                "the items of a map are for one thread or task: another one waits for the next"
            )
        self._busy = True

    async def _advance(self) -> Item | None:
        window, crew = self._window, self._crew
        pulled = False
        while True:
            while (result := crew.poll()) is not None:
                self._collect(result)
            room = window.has_room() and not self._drained and not crew.stopped
            # One prompt in for each item out, so that the crew never starves; more only while there is
            # nothing to hand out, so that a slow source holds up no more than it must.
            if (pulled or not room) and (item := window.take()) is not None:
                return item
            if room:
                await self._pull()
                pulled = True
            elif window.held:
                self._collect(await crew.wait())
            elif self._fault is not None:
                raise self._fault
            else:
                return None

    async def _pull(self) -> None:
        try:
            prompt = await self._source()
        except Exception as error:  # noqa: BLE001 raised when what it gave before was handed out
            self._drained, self._fault = True, error
            return
        if prompt is _END:
            self._drained = True
            return
        index = self._window.pulled
        self._window.pulled += 1
        self._crew.add(partial(self._ask, index, prompt))

    def _collect(self, result: Item | Died) -> None:
        if isinstance(result, Died):
            raise result.error
        self._window.put(result)
        if self._plan.report is not None:
            self._plan.report(self._window.done, self._plan.total)


def source(prompts: Iterable[Prompt]) -> Callable[[], Awaitable[Any]]:
    """What gives the next prompt at each call, and at the end a mark of its own."""
    iterator = iter(prompts)

    async def pull() -> Any:
        return next(iterator, _END)

    return pull


def asource(prompts: AsyncIterable[Prompt]) -> Callable[[], Awaitable[Any]]:
    """The same over an asynchronous iterable."""
    iterator = aiter(prompts)

    async def pull() -> Any:
        return await anext(iterator, _END)

    return pull
