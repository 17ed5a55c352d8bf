"""The parts that expectations are made of: bounds for a value, and the usual shapes of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from e2e.facts import Facts, Window, bucket_of
from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m

__all__ = [
    "MODEL", "NONE", "Answer", "Asked", "Check", "Expectation", "Labels", "by", "exactly", "labels", "mean",
    "near", "of", "per_model", "quantile", "quantile_by_model", "quantile_check", "rate", "rate_by", "total",
]  # fmt: skip

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Check:
    """Bounds that a value must lie in, and how they came about."""

    low: float
    high: float
    how: str

    def holds(self, value: float) -> bool:
        """Whether the value lies within."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return (
            f"{self.low:.6g}" if self.low == self.high else f"{self.low:.6g} .. {self.high:.6g} ({self.how})"
        )


@dataclass(frozen=True)
class Asked:
    """The window that a query was asked over: what the script did in it, its length in seconds, and all
    facts.

    `entries` and `bytes` is what the cache held at the end, by the bounds that the script ran under.
    """

    window: Window
    seconds: float
    facts: Facts
    native: bool = False


Answer = Mapping[Labels, Check]
Expectation = Callable[[Asked], Answer]


def near(value: float, tolerance: float = 0.02) -> Check:
    """Within a share of the value: what extrapolation at a window's ends may do."""
    slack = abs(value) * tolerance + 1e-12
    return Check(value - slack, value + slack, f"{tolerance:.0%}")


def exactly(value: float) -> Check:
    """This value."""
    return Check(value, value, "exact")


def labels(**named: str) -> Labels:
    """A label set by the labels' names in Prometheus."""
    return frozenset(named.items())


def of(attribute: a.Attribute) -> str:
    """The name of an attribute's label in Prometheus."""
    return attribute.key.replace(".", "_")


def by(attribute: a.Attribute, value: str) -> Labels:
    """The label set of one attribute."""
    return frozenset({(of(attribute), value)})


NONE: Labels = frozenset()
MODEL = a.REQUEST_MODEL


def total(value: Callable[[Window], float], tolerance: float = 0.02) -> Expectation:
    """A total over the window, without labels."""
    return lambda asked: {NONE: near(value(asked.window), tolerance)}


def rate(value: Callable[[Window], float], scale: float = 1.0) -> Expectation:
    """The same per second."""
    return lambda asked: {NONE: near(scale * value(asked.window) / asked.seconds)}


def rate_by(
    attribute: a.Attribute, values: Callable[[Window], Mapping[str, float]], scale: float = 1.0
) -> Expectation:
    """Per second, by a label. What is 0 has to be there as 0 only if `values` says it."""
    return lambda asked: {
        by(attribute, name): near(scale * value / asked.seconds)
        for name, value in values(asked.window).items()
    }


def per_model(value: Callable[[Window, str], float | None]) -> Callable[[Window], dict[str, float]]:
    """A number of each model that has one."""

    def read(window: Window) -> dict[str, float]:
        found = {model: value(window, model) for model in window.models}
        return {model: amount for model, amount in found.items() if amount is not None}

    return read


def quantile_check(
    share: float, lists: tuple[str, ...], bounds: tuple[float, ...], asked: Asked, model: str | None
) -> Check:
    """Bounds of a percentile over these lists, of one model or all."""
    items = sorted(item for name in lists for item in asked.window.list(name, model))
    place = (len(items) - 1) * share
    # A histogram's rank and the exact percentile's differ by less than one item: with few items that is the larger part.
    low, high = items[max(0, int(place) - 1)], items[min(len(items) - 1, int(place) + 2)]
    if asked.native:
        # The span's clock and the point's are read a few microseconds apart: seen in calls of some milliseconds.
        slack = 0.0002 if bounds is m.DURATION_BUCKETS else 0.0
        return Check(low * 0.98 - slack, high * 1.02 + slack, "2 %")
    return Check(bucket_of(low, bounds)[0], bucket_of(high, bounds)[1], "its bucket")


def quantile(share: float, *lists: str, bounds: tuple[float, ...] = m.DURATION_BUCKETS) -> Expectation:
    """A percentile over these lists: within the bucket of the exact one (native histograms: within 2 %)."""
    return lambda asked: {NONE: quantile_check(share, lists, bounds, asked, None)}


def quantile_by_model(
    share: float, *lists: str, bounds: tuple[float, ...] = m.DURATION_BUCKETS
) -> Expectation:
    """The same per model that has any."""
    return lambda asked: {
        by(MODEL, model): quantile_check(share, lists, bounds, asked, model)
        for model in asked.window.models
        if any(asked.window.list(name, model) for name in lists)
    }


def mean(*lists: str) -> Expectation:
    """The mean over these lists together."""

    def read(asked: Asked) -> Answer:
        items = [item for name in lists for item in asked.window.list(name)]
        return {NONE: near(sum(items) / len(items))}

    return read
