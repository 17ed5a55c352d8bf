"""Who makes the calls of a map: threads for a synchronous caller, tasks of one event loop for a coroutine.

A crew runs at most `size` jobs at once, in the order in which they were added, and keeps what came of them
until it is asked. Each job sees a copy of the context that the crew was made in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

__all__ = ["Crew", "Died"]

JobT_contra = TypeVar("JobT_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Died:
    """A job that ended with what is no `Exception`: a cancellation, an exit."""

    error: BaseException


class Crew(Protocol[JobT_contra, T_co]):
    """What both kinds of crew do. A result for which `halts` holds sets `stopped` at once: of the jobs added
    after its own, those that have not begun never do."""

    stopped: bool

    def add(self, job: JobT_contra) -> None:
        """Do this as soon as one of the crew is free."""
        ...

    def poll(self) -> T_co | Died | None:
        """The result that came first of those not asked for yet, or None."""
        ...

    async def wait(self) -> T_co | Died:
        """The next result, as soon as it is there."""
        ...

    async def end(self) -> None:
        """Begin nothing more, and return when nothing runs any more."""
        ...
