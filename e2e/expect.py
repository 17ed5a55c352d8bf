"""What every query of every dashboard must answer, computed from what the script did.

A key is "section / panel title / refId" as on the dashboard; sections of the overview's first screen are "".
An expectation is a function of an `Asked` and returns the checks by label set. Every target has one, or a
reason in `EMPTY`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from e2e.facts import Facts, Window, bucket_of
from e2e.script import EMBED, OWN
from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m

__all__ = ["EMPTY", "EXPECTED", "Asked", "Check", "Labels", "exactly", "near"]

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


def _labels(**named: str) -> Labels:
    return frozenset(named.items())


def _of(attribute: a.Attribute) -> str:
    return attribute.key.replace(".", "_")


def _by(attribute: a.Attribute, value: str) -> Labels:
    return frozenset({(_of(attribute), value)})


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
        _by(attribute, name): near(scale * value / asked.seconds)
        for name, value in values(asked.window).items()
    }


def _results(window: Window) -> dict[str, float]:
    failed = sum(window.errors.values()) - window.refused
    return {"miss": window.all("misses") + failed, "hit": window.all("hits"), "refused": window.refused}


def _lookups(window: Window) -> dict[str, float]:
    # A refused call has asked the cache before it was refused.
    return {"miss": window.calls - window.all("hits"), "hit": window.all("hits")}


def _hit_rate(window: Window) -> float:
    return window.all("hits") / window.calls


def _reduction(window: Window) -> float:
    return 1 - window.upstream / (window.calls - window.refused)


def _verdicts(window: Window) -> dict[str, float]:
    errors = window.errors
    failures = errors["service_unavailable"]
    nothing = sum(errors.values()) - failures - window.refused
    return {"success": window.all("misses"), "failure": failures, "nothing": nothing}


def _per_model(value: Callable[[Window, str], float | None]) -> Callable[[Window], dict[str, float]]:
    def read(window: Window) -> dict[str, float]:
        found = {model: value(window, model) for model in window.models}
        return {model: amount for model, amount in found.items() if amount is not None}

    return read


def _tokens(window: Window, model: str | None, prefix: str = "") -> dict[str, float]:
    names = [model] if model is not None else list(window.models)
    kinds = {"input": f"{prefix}input_tokens", "output": f"{prefix}output_tokens"}
    return {kind: sum(window.sum(name, what) for name in names) for kind, what in kinds.items()}


def _tokens_per_model(asked: Asked) -> Answer:
    return {
        _labels(**{_of(MODEL): model, _of(a.TOKEN_TYPE): kind}): near(count / asked.seconds)
        for model in asked.window.models
        for kind, count in _tokens(asked.window, model).items()
    }


def _quantile(
    share: float, lists: tuple[str, ...], bounds: tuple[float, ...], asked: Asked, model: str | None
) -> Check:
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
    return lambda asked: {NONE: _quantile(share, lists, bounds, asked, None)}


def quantile_by_model(
    share: float, *lists: str, bounds: tuple[float, ...] = m.DURATION_BUCKETS
) -> Expectation:
    """The same per model that has any."""
    return lambda asked: {
        _by(MODEL, model): _quantile(share, lists, bounds, asked, model)
        for model in asked.window.models
        if any(asked.window.list(name, model) for name in lists)
    }


def _tokens_p95(asked: Asked) -> Answer:
    return {
        _labels(**{_of(MODEL): model, _of(a.TOKEN_TYPE): kind}): _quantile(
            0.95, (f"{kind}_tokens",), m.TOKEN_BUCKETS, asked, model
        )
        for model in asked.window.models
        for kind in ("input", "output")
        if kind == "input" or model != EMBED  # embeddings have no output, and so no point
    }


def _mean(*lists: str) -> Expectation:
    def read(asked: Asked) -> Answer:
        items = [item for name in lists for item in asked.window.list(name)]
        return {NONE: near(sum(items) / len(items))}

    return read


def _transitions(asked: Asked) -> Answer:
    return {_by(a.CIRCUIT_STATE, state): near(1) for state in ("open", "half_open", "closed")}


def _circuits(asked: Asked) -> Answer:
    return {
        _labels(**{_of(a.PROVIDER): asked.window.provider(model), _of(MODEL): model}): exactly(0)
        for model in asked.window.models
    }


BEFORE = ("durations", "failed_durations")
AFTER = (*BEFORE, "hit_durations")

EXPECTED: dict[str, Expectation] = {
    " / Calls / A": total(lambda w: w.calls),
    " / Failed calls / A": total(lambda w: sum(w.errors.values()) / w.calls),
    " / P95 latency / A": quantile(0.95, *AFTER),
    " / Circuits not closed / A": lambda asked: {NONE: exactly(0)},
    " / Refused / A": total(lambda w: w.refused),
    " / Faults of underlay / A": lambda asked: {NONE: exactly(0)},
    " / Cache hit rate / A": total(_hit_rate),
    " / API call reduction / A": total(_reduction),
    " / Cost saved / A": total(lambda w: w.saved),
    " / Cost spent / A": total(lambda w: w.spent),
    " / Tokens saved / A": total(lambda w: sum(_tokens(w, None, "saved_").values())),
    " / Waiting saved / A": total(lambda w: w.all("saved_seconds"), 0.05),
    " / Calls by answer / A": rate_by(a.CACHE_RESULT, _results),
    " / Errors by kind / A": rate_by(a.ERROR_TYPE, lambda w: w.errors),
    "Cache / Hit rate / A": total(_hit_rate),
    "Cache / Lookups / A": rate_by(a.CACHE_RESULT, _lookups),
    "Cache / Size in entries / A": lambda asked: {NONE: exactly(asked.facts.raw["cache"]["entries"])},
    "Cache / Size in entries / B": lambda asked: {NONE: exactly(asked.facts.raw["cache"]["maxsize"])},
    "Cache / Size in bytes / A": lambda asked: {NONE: exactly(asked.facts.raw["cache"]["bytes"])},
    "Cache / Size in bytes / B": lambda asked: {NONE: exactly(asked.facts.raw["cache"]["max_bytes"])},
    "Cache / Evictions / A": lambda asked: {
        _by(a.EVICTION_REASON, "entries"): near(asked.facts.raw["cache"]["evicted"] / asked.seconds),
        _by(a.EVICTION_REASON, "bytes"): exactly(0),
    },
    "Cache / Evictions / B": rate(lambda w: 0),
    "Latency / Latency per model / A": quantile_by_model(0.5, *BEFORE),
    "Latency / Latency per model / B": quantile_by_model(0.95, *BEFORE),
    "Latency / Latency per model / C": quantile_by_model(0.99, *BEFORE),
    "Latency / Before and after the cache / A": _mean(*BEFORE),
    "Latency / Before and after the cache / B": _mean(*AFTER),
    "Latency / Before and after the cache / C": quantile(0.95, *BEFORE),
    "Latency / Before and after the cache / D": quantile(0.95, *AFTER),
    "Latency / Before and after the cache / E": quantile(0.95, "hit_durations"),
    "Latency / Batch and individual / A": quantile(0.95, *BEFORE),
    "Latency / Streams / A": quantile_by_model(0.95, "first_chunks"),
    "Latency / Streams / B": quantile_by_model(0.95, "chunk_intervals"),
    "Throughput / Calls and upstream requests / A": rate(lambda w: w.calls),
    "Throughput / Calls and upstream requests / B": rate(lambda w: w.upstream),
    "Throughput / Calls per model / A": rate_by(MODEL, _per_model(lambda w, model: w.calls_of(model))),
    "Throughput / Upstream requests by verdict / A": rate_by(a.VERDICT, _verdicts),
    "Reliability / Circuits / A": _circuits,
    "Reliability / Error rate by kind / A": lambda asked: {
        _by(a.ERROR_TYPE, kind): near(count / asked.window.calls)
        for kind, count in asked.window.errors.items()
    },
    "Reliability / Trips and recoveries / A": _transitions,
    "Reliability / Refusals / A": rate_by(MODEL, _per_model(lambda w, model: w.sum(model, "refused"))),
    "Reliability / Errors per model / A": rate_by(
        MODEL, _per_model(lambda w, model: sum(w.errors_of(model).values()) or None)
    ),
    "Reliability / Recoveries / A": lambda asked: {NONE: near(1)},
    "Reliability / Mean time open / A": lambda asked: {NONE: near(asked.facts.raw["open_for"])},
    "Cost / Tokens per model / A": _tokens_per_model,
    "Cost / Tokens paid and saved / A": rate_by(a.TOKEN_TYPE, lambda w: _tokens(w, None)),
    "Cost / Tokens paid and saved / B": rate_by(a.TOKEN_TYPE, lambda w: _tokens(w, None, "saved_")),
    "Cost / Cost per hour and model / A": rate_by(
        MODEL, _per_model(lambda w, model: w.cost(model) or 0.0), 3600
    ),
    "Cost / Spent and saved per hour / A": rate(lambda w: w.spent, 3600),
    "Cost / Spent and saved per hour / B": rate(lambda w: w.saved, 3600),
    "Cost / API call reduction / A": total(_reduction),
    "Cost / Tokens of one call (P95) / A": _tokens_p95,
    "Cost / Calls without a price / A": total(lambda w: w.sum(OWN, "misses")),
}
"""Every target that has numbers."""

EMPTY: dict[str, str] = {
    "Latency / Batch and individual / B": "calls go out one by one until flights and windows",
    "Reliability / Faults of underlay by stage / A": "underlay had no fault: the panel is there for when it has",
}
"""Targets that are empty by design, with the reason."""
