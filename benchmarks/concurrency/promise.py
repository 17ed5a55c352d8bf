"""A row of the table of promises, and how much is made to measure it."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.stats import Spread

__all__ = ["Effort", "Promise"]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is made: callers of a workload, rounds of it, hits that are timed, calls in an outage."""

    callers: int = 100
    batched: int = 50
    rounds: int = 3
    hits: int = 2000
    outage: int = 1000


@dataclass(frozen=True, slots=True)
class Promise:
    """A row. `promised` is the classic text; `value` is in `unit`, over the rounds. `least` and `most` bound
    what keeps it; None where nothing is promised."""

    name: str
    promised: str
    value: Spread
    unit: str
    baseline: str
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the median keeps what is promised: more than the most of a range keeps it too."""
        if self.least is None and self.most is None:
            return None
        above = self.least is None or self.value.median >= self.least
        return above and (self.most is None or self.value.median <= self.most)
