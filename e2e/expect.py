"""What every query of every dashboard must answer, computed from what the script did.

A key is "section / panel title / refId" as on the dashboard; sections of the overview's first screen are "".
An expectation is a function of an `Asked` and returns the checks by label set. Every target has one, or a
reason in `EMPTY`.
"""

from __future__ import annotations

from e2e.answers import (
    MODEL,
    NONE,
    Answer,
    Asked,
    Check,
    Expectation,
    Labels,
    by,
    exactly,
    labels,
    mean,
    near,
    of,
    per_model,
    quantile,
    quantile_by_model,
    quantile_check,
    rate,
    rate_by,
    total,
)  # fmt: skip
from e2e.facts import Window
from e2e.script import EMBED, OWN
from e2e.together import LARGE
from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import BatchMode

__all__ = ["EMPTY", "EXPECTED", "Asked", "Check", "Labels"]


def _results(window: Window) -> dict[str, float]:
    failed = sum(window.errors.values()) - window.refused
    return {
        "miss": window.all("misses") + failed,
        "hit": window.all("hits"),
        "coalesced": window.all("coalesced"),
        "refused": window.refused,
    }


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
    return {"success": window.answered, "failure": failures, "nothing": nothing}


def _tokens(window: Window, model: str | None, prefix: str = "") -> dict[str, float]:
    names = [model] if model is not None else list(window.models)
    kinds = {"input": f"{prefix}input_tokens", "output": f"{prefix}output_tokens"}
    return {kind: sum(window.sum(name, what) for name in names) for kind, what in kinds.items()}


def _tokens_per_model(asked: Asked) -> Answer:
    return {
        labels(**{of(MODEL): model, of(a.TOKEN_TYPE): kind}): near(count / asked.seconds)
        for model in asked.window.models
        for kind, count in _tokens(asked.window, model).items()
    }


def _tokens_p95(asked: Asked) -> Answer:
    return {
        labels(**{of(MODEL): model, of(a.TOKEN_TYPE): kind}): quantile_check(
            0.95, (f"{kind}_tokens",), m.TOKEN_BUCKETS, asked, model
        )
        for model in asked.window.models
        for kind in ("input", "output")
        if kind == "input" or model not in (EMBED, LARGE)  # embeddings have no output, and so no point
    }


def _transitions(asked: Asked) -> Answer:
    return {by(a.CIRCUIT_STATE, state): near(1) for state in ("open", "half_open", "closed")}


def _circuits(asked: Asked) -> Answer:
    return {
        labels(**{of(a.PROVIDER): asked.window.provider(model), of(MODEL): model}): exactly(0)
        for model in asked.window.models
    }


def _together(asked: Asked) -> Answer:
    return {
        by(a.BATCH_MODE, mode): quantile_check(0.95, (f"{mode}_durations",), m.DURATION_BUCKETS, asked, None)
        for mode in (BatchMode.MERGED, BatchMode.RELEASED)
    }


def _mean_sizes(asked: Asked) -> Answer:
    return {
        by(a.BATCH_MODE, mode): near(calls / dispatches)
        for mode, (dispatches, calls) in asked.window.dispatches(0).items()
    }


def _dispatches(window: Window) -> float:
    return sum(dispatches for dispatches, _ in window.windows().values())


def _mean_size(window: Window) -> float:
    return sum(calls for _, calls in window.windows().values()) / _dispatches(window)


def _coalesced(window: Window) -> float:
    return window.all("coalesced")


BEFORE = ("durations", "failed_durations")
AFTER = (*BEFORE, "hit_durations", "coalesced_durations")

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
        by(a.EVICTION_REASON, "entries"): near(asked.facts.raw["cache"]["evicted"] / asked.seconds),
        by(a.EVICTION_REASON, "bytes"): exactly(0),
    },
    "Cache / Evictions / B": rate(lambda w: 0),
    "Latency / Latency per model / A": quantile_by_model(0.5, *BEFORE),
    "Latency / Latency per model / B": quantile_by_model(0.95, *BEFORE),
    "Latency / Latency per model / C": quantile_by_model(0.99, *BEFORE),
    "Latency / Before and after the cache / A": mean(*BEFORE),
    "Latency / Before and after the cache / B": mean(*AFTER),
    "Latency / Before and after the cache / C": quantile(0.95, *BEFORE),
    "Latency / Before and after the cache / D": quantile(0.95, *AFTER),
    "Latency / Before and after the cache / E": quantile(0.95, "hit_durations"),
    "Latency / Batch and individual / A": quantile(0.95, "alone_durations", "failed_durations"),
    "Latency / Batch and individual / B": _together,
    "Latency / Streams / A": quantile_by_model(0.95, "first_chunks"),
    "Latency / Streams / B": quantile_by_model(0.95, "chunk_intervals"),
    "Throughput / Calls and upstream requests / A": rate(lambda w: w.calls),
    "Throughput / Calls and upstream requests / B": rate(lambda w: w.upstream),
    "Throughput / Calls per model / A": rate_by(MODEL, per_model(lambda w, model: w.calls_of(model))),
    "Throughput / Upstream requests by verdict / A": rate_by(a.VERDICT, _verdicts),
    "Throughput / Batches processed / A": total(_dispatches),
    "Throughput / Average batch size / A": total(_mean_size),
    "Flights and windows / Coalesced calls / A": total(lambda w: _coalesced(w) / (w.calls - w.refused)),
    "Flights and windows / Requests saved by coalescing / A": total(_coalesced),
    "Flights and windows / Requests saved by merging / A": total(lambda w: w.merged_away),
    "Flights and windows / Waiting now / A": lambda asked: {NONE: exactly(0)},
    "Flights and windows / Coalesced calls per model / A": rate_by(
        MODEL, per_model(lambda w, model: w.sum(model, "coalesced") or None)
    ),
    "Flights and windows / Wait of coalesced calls / A": quantile(0.5, "coalesce_waits"),
    "Flights and windows / Wait of coalesced calls / B": quantile(0.95, "coalesce_waits"),
    "Flights and windows / Requests saved / A": rate(_coalesced),
    "Flights and windows / Requests saved / B": rate(lambda w: w.merged_away),
    "Flights and windows / Dispatches by trigger / A": rate_by(
        a.BATCH_TRIGGER,
        lambda w: {trigger: dispatches for trigger, (dispatches, _) in w.dispatches(1).items()},
    ),
    "Flights and windows / Mean size of dispatches / A": _mean_sizes,
    "Flights and windows / Wait in windows / A": quantile(0.5, "batch_waits", bounds=m.WAIT_BUCKETS),
    "Flights and windows / Wait in windows / B": quantile(0.95, "batch_waits", bounds=m.WAIT_BUCKETS),
    "Flights and windows / Wait in windows / C": quantile(0.99, "batch_waits", bounds=m.WAIT_BUCKETS),
    "Reliability / Circuits / A": _circuits,
    "Reliability / Error rate by kind / A": lambda asked: {
        by(a.ERROR_TYPE, kind): near(count / asked.window.calls)
        for kind, count in asked.window.errors.items()
    },
    "Reliability / Trips and recoveries / A": _transitions,
    "Reliability / Refusals / A": rate_by(MODEL, per_model(lambda w, model: w.sum(model, "refused"))),
    "Reliability / Errors per model / A": rate_by(
        MODEL, per_model(lambda w, model: sum(w.errors_of(model).values()) or None)
    ),
    "Reliability / Recoveries / A": lambda asked: {NONE: near(1)},
    "Reliability / Mean time open / A": lambda asked: {NONE: near(asked.facts.raw["open_for"])},
    "Cost / Tokens per model / A": _tokens_per_model,
    "Cost / Tokens paid and saved / A": rate_by(a.TOKEN_TYPE, lambda w: _tokens(w, None)),
    "Cost / Tokens paid and saved / B": rate_by(a.TOKEN_TYPE, lambda w: _tokens(w, None, "saved_")),
    "Cost / Cost per hour and model / A": rate_by(
        MODEL, per_model(lambda w, model: w.cost(model) or 0.0), 3600
    ),
    "Cost / Spent and saved per hour / A": rate(lambda w: w.spent, 3600),
    "Cost / Spent and saved per hour / B": rate(lambda w: w.saved, 3600),
    "Cost / API call reduction / A": total(_reduction),
    "Cost / Tokens of one call (P95) / A": _tokens_p95,
    "Cost / Calls without a price / A": total(lambda w: w.sum(OWN, "misses")),
}
"""Every target that has numbers."""

EMPTY: dict[str, str] = {
    "Reliability / Faults of underlay by stage / A": "underlay had no fault: the panel is there for when it has",
}
"""Targets that are empty by design, with the reason."""
