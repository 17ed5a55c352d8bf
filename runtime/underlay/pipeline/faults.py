"""Faults of underlay itself: said once a kind, counted always, raised never."""

from __future__ import annotations

import logging
from collections import Counter
from traceback import format_tb
from typing import TYPE_CHECKING

from underlay.telemetry.events import Faulted

if TYPE_CHECKING:
    from collections.abc import Callable

    from underlay.telemetry.attributes import Stage

__all__ = ["Faults"]

_log = logging.getLogger("underlay")


class Faults:
    """Counts by stage. `tell` passes the fault to the listeners."""

    def __init__(self, tell: Callable[[Faulted], None]) -> None:
        self._tell = tell
        self._seen: set[tuple[str, str]] = set()
        self.counts: Counter[Stage] = Counter()

    def report(self, stage: Stage, error: BaseException) -> None:
        """Take note of a fault. Only the exception's type is logged: its text may hold what was asked."""
        name = type(error).__name__
        self.counts[stage] += 1
        if (stage, name) not in self._seen:
            self._seen.add((stage, name))
            _log.warning(
                "underlay: %s in stage %s; the call went on without it (more are counted, not logged)",
                name,
                stage,
            )
            if _log.isEnabledFor(logging.DEBUG):
                # Lines of code and never the exception's text, as above.
                _log.debug("underlay: it was raised here:\n%s", "".join(format_tb(error.__traceback__)))
        self._tell(Faulted(stage, name))
