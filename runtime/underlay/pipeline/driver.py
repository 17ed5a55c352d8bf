"""Runs the pipeline for a synchronous caller: the same coroutine, driven by hand and never suspended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from underlay.errors import WouldSuspendError

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["drive", "passing"]

T = TypeVar("T")


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that has nothing to wait for, and return its result.

    A `StopIteration` that the app's own transport raises becomes a RuntimeError inside a coroutine (PEP 479);
    here it is given back as what it was. Raises WouldSuspendError when the coroutine suspends, after closing
    it.
    """
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    except RuntimeError as error:
        cause = error.__cause__
        if isinstance(cause, StopIteration) and str(error) == "coroutine raised StopIteration":
            raise cause from cause.__cause__
        raise
    work.close()
    raise WouldSuspendError("a synchronous call would have to wait for an event loop")


def passing(work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """The asynchronous twin of `drive`: hands the coroutine on to be awaited."""
    return work
