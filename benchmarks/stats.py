"""Medians and their spread, over rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

__all__ = ["Spread", "differences", "quotients", "spread"]

_NORMAL = 0.929  # standard error of a median: 1.2533 sigma / sqrt(n), with sigma = quartile distance / 1.349


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, its quartiles and extremes, and how many rounds they are over."""

    median: float
    low: float
    high: float
    least: float
    most: float
    rounds: int

    @property
    def error(self) -> float:
        """The standard error of the median, as if the values were spread normally between the quartiles."""
        return float(_NORMAL * (self.high - self.low) / self.rounds**0.5)


def spread(values: Sequence[float]) -> Spread:
    """Summarise at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], values[0], values[0], 1)
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Spread(median(values), low, high, min(values), max(values), len(values))


def differences(with_: Sequence[float], bare: Sequence[float]) -> list[float]:
    """What was added, round by round."""
    return [one - other for one, other in zip(with_, bare, strict=True)]


def quotients(with_: Sequence[float], bare: Sequence[float]) -> list[float]:
    """How many times as much, round by round; rounds without a positive base are left out."""
    return [one / other for one, other in zip(with_, bare, strict=True) if other > 0]
