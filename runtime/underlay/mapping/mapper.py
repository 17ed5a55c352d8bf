"""`Runtime.map` and `Runtime.amap`: their arguments, checked, and what is made of them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sized
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from underlay.mapping.item import aask, ask
from underlay.mapping.items import AsyncItems, Items
from underlay.mapping.progress import reporter
from underlay.mapping.run import Plan, Run, asource, source
from underlay.mapping.tasks import Tasks
from underlay.mapping.threads import Threads

if TYPE_CHECKING:
    from underlay.library import Library
    from underlay.mapping.item import Item, Prompt
    from underlay.mapping.progress import Progress

__all__ = ["CONCURRENCY", "MOST", "Mapper"]

CONCURRENCY: Final = 16
"""Calls under way at once unless said otherwise: fewer than the 20 idle connections that an httpx client
keeps, so that none is opened twice."""

MOST: Final = 1_000
"""The most calls under way at once that may be asked for."""


class Mapper:
    """`map` and `amap` over one library's calls."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def map(
        self,
        prompts: Iterable[Prompt],
        *,
        model: str,
        ordered: bool = True,
        concurrency: int = CONCURRENCY,
        errors: Literal["keep", "raise"] = "keep",
        progress: bool | Progress = False,
    ) -> Items:
        """Ask a model each of many prompts, `concurrency` at once (1 to 1,000), and iterate over what came of
        them: in the order of the prompts, or with `ordered=False` as they finish.

        `prompts` may be endless: it is read in the caller's thread, at most 2 x `concurrency` ahead of the
        items taken. An error that it raises comes after the items of what it gave. Each prompt goes the way
        of `call`, in a thread, and sees a copy of the context that `map` was called in.

        A call that fails, whatever for, is an item with its `error`, and stops no other; `errors="raise"`
        raises the first one in the order of the items instead, and lets nothing begin that has not begun.
        `progress=True` draws a bar on stderr where that is a terminal; a callable is told `(done, total)`.

        Raises ValueError for arguments that are wrong, all at once.
        """
        plan = _plan("Runtime.map", prompts, (Iterable,), model, ordered, concurrency, errors, progress)
        crew: Threads[Item] = Threads(concurrency, plan.halts)
        return Items(Run(source(prompts), crew, partial(ask, self._library.call, model), plan))

    def amap(
        self,
        prompts: Iterable[Prompt] | AsyncIterable[Prompt],
        *,
        model: str,
        ordered: bool = True,
        concurrency: int = CONCURRENCY,
        errors: Literal["keep", "raise"] = "keep",
        progress: bool | Progress = False,
    ) -> AsyncItems:
        """`map` for a coroutine: same arguments, same errors, an asynchronous iterator. `prompts` may be
        asynchronous; each goes the way of `acall`, in a task."""
        plan = _plan(
            "Runtime.amap", prompts, (Iterable, AsyncIterable), model, ordered, concurrency, errors, progress
        )
        crew: Tasks[Item] = Tasks(concurrency, plan.halts)
        pull = asource(prompts) if isinstance(prompts, AsyncIterable) else source(prompts)
        return AsyncItems(Run(pull, crew, partial(aask, self._library.acall, model), plan), crew)


def _plan(
    where: str,
    prompts: object,
    kinds: tuple[type, ...],
    model: str,
    ordered: bool,
    concurrency: int,
    errors: str,
    progress: bool | Progress,
) -> Plan:
    given = {
        "model": model,
        "ordered": ordered,
        "concurrency": concurrency,
        "errors": errors,
        "progress": progress,
    }
    wrong = [
        f"{where}: {name} = {value!r}: allowed is {_RULES[name][1]}"
        for name, value in given.items()
        if not _RULES[name][0](value)
    ]
    if not isinstance(prompts, kinds) or isinstance(prompts, str | bytes | bytearray | Mapping):
        # Its type alone: prompts are shown nowhere.
        allowed = " or ".join(kind.__name__ for kind in kinds)
        wrong.append(
            f"{where}: prompts = <{type(prompts).__name__}>: allowed is an {allowed} of prompts "
            "(one prompt alone goes to `call`)"
        )
    if wrong:
        raise ValueError("\n".join(wrong))
    length = len(prompts) if isinstance(prompts, Sized) else None
    return Plan(ordered, 2 * concurrency, errors == "raise", reporter(progress, model), length)


_RULES: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "model": (lambda value: isinstance(value, str) and value != "", "the name of a model"),
    "ordered": (lambda value: isinstance(value, bool), "True or False"),
    "concurrency": (lambda value: type(value) is int and 1 <= value <= MOST, f"a whole number, 1 to {MOST}"),
    "errors": (lambda value: value in ("keep", "raise"), "'keep' or 'raise'"),
    "progress": (lambda value: isinstance(value, bool) or callable(value), "True, False or a callable"),
}
