"""How far a map is, for whoever watches: a callable of the caller's own, or a bar on the terminal."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Progress: TypeAlias = Callable[[int, int | None], object]
    """Told `(done, total)` in the caller's thread or task when an item has finished, failed or not; `total`
    is None where the prompts have no length."""

__all__ = ["Bar", "reporter"]

_DELAY: Final = 0.3
"""Seconds without a bar: what is over by then needs none."""
_PERIOD: Final = 0.1
"""Seconds between two drawings."""


def reporter(progress: bool | Progress, title: str) -> Progress | None:
    """Who is told of each finished item: the callable itself, for True a `Bar` where stderr is a terminal, or
    nobody."""
    if callable(progress):
        return progress
    # pythonw has no stderr.
    return Bar(title) if progress and sys.stderr is not None and sys.stderr.isatty() else None


class Bar:
    """A bar on stderr, drawn by the thread that tells it and by no other. Never raises: a terminal that is
    gone costs the bar alone. The last state stays when it is stopped."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.monotonic()
        self._due = self._began + _DELAY
        self._drawn: Any = None
        self._told: tuple[int, int | None] = (0, None)

    def __call__(self, done: int, total: int | None) -> None:
        """So many of so many are done; None where nobody knows."""
        self._told = (done, total)
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _PERIOD
            with suppress(Exception):
                self._draw()

    def stop(self) -> None:
        """Draw it once more and leave the terminal as it was. Nothing, where none was drawn."""
        if self._drawn is not None:
            with suppress(Exception):
                self._draw()
            with suppress(Exception):
                self._drawn.stop()
            self._drawn = None

    def _draw(self) -> None:
        done, total = self._told
        if self._drawn is None:
            self._drawn = _drawing()
            self._drawn.add_task(self._title, completed=done, total=total)
            self._drawn.tasks[0].start_time = self._began
            self._drawn.start()
        self._drawn.update(self._drawn.task_ids[0], completed=done, total=total, refresh=True)


def _drawing() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # the console's own way is to end the process

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Screen(stderr=True),
        auto_refresh=False,  # it would be a thread of rich's
        # What the loop prints goes above the bar; but never what a file or pipe is to get to the terminal.
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        redirect_stderr=True,
    )
