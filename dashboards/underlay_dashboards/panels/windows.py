"""Flights and windows: calls that shared an answer, calls that left together, and what waiting for each other
cost them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import BatchMode, BatchTrigger, CacheResult
from underlay_dashboards import signals as s
from underlay_dashboards.panels.first import ANSWERED, RESULT_COLORS
from underlay_dashboards.style import GOOD, NEUTRAL, Query, graph, tile

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.stat import Panel as Stat
    from grafana_foundation_sdk.builders.timeseries import Panel as Graph

    from underlay_dashboards.signals import Dialect

__all__ = [
    "MODE_COLORS", "TRIGGER_COLORS", "coalesce_wait", "coalesced_calls", "coalesced_share", "dispatches",
    "mean_batch_size", "queued_now", "requests_saved", "saved_by_coalescing", "saved_by_merging",
    "window_wait",
]  # fmt: skip

MODE_COLORS: dict[str, str] = {
    BatchMode.ALONE: "blue",
    BatchMode.MERGED: "purple",
    BatchMode.RELEASED: "yellow",
}
TRIGGER_COLORS: dict[str, str] = {
    BatchTrigger.SIZE: "green",
    BatchTrigger.TIME: "blue",
    BatchTrigger.IDLE: "gray",
    BatchTrigger.DEADLINE: "orange",
}
_COALESCED = s.Is(a.CACHE_RESULT, (CacheResult.COALESCED,))
_MERGED = s.Is(a.BATCH_MODE, (BatchMode.MERGED,))
_SAVED_STEPS = ((None, NEUTRAL), (1, GOOD))
_WAITS = ((0.5, "P50"), (0.95, "P95"), (0.99, "P99"))
_WAIT_COLORS = {"P50": "green", "P95": "blue", "P99": "dark-blue"}


def coalesced_share(dialect: Dialect) -> Stat:
    """Share of the answered calls that read another call's answer."""
    answered = s.total(m.CALLS, ANSWERED, dialect=dialect)
    shared = s.total(m.CALLS, _COALESCED, dialect=dialect)
    return tile(
        "Coalesced calls",
        "Share of the answered calls that were identical to one in flight: they read its answer as it came, "
        "and no request of their own left.",
        s.share(s.or_zero(shared, answered), answered),
        "percentunit",
        ((None, NEUTRAL), (0.000001, GOOD)),
        decimals=1,
    )


def saved_by_coalescing(dialect: Dialect) -> Stat:
    """Requests that coalescing made needless."""
    return tile(
        "Requests saved by coalescing",
        "Requests that did not leave in the time range, because an identical call was in flight already.",
        s.or_zero(s.total(m.CALLS, _COALESCED, dialect=dialect), s.total(m.CALLS, dialect=dialect)),
        s.unit_of_count(m.UPSTREAM),
        _SAVED_STEPS,
        decimals=0,
    )


def saved_by_merging(dialect: Dialect) -> Stat:
    """Requests that merging made needless."""
    return tile(
        "Requests saved by merging",
        "Requests that did not leave in the time range, because several calls went out as one: of ten merged "
        "calls, nine. A merged request that had to be taken apart again is counted as if it had gone well.",
        s.or_zero(_merged_away(dialect, s.RANGE), s.total(m.CALLS, dialect=dialect)),
        s.unit_of_count(m.UPSTREAM),
        _SAVED_STEPS,
        decimals=0,
    )


def queued_now(_dialect: Dialect) -> Stat:
    """Calls in open windows."""
    return tile(
        "Waiting now",
        "Calls that wait in an open window for others to leave with, when the metrics were last collected. "
        "Windows are open for milliseconds: mostly this is 0.",
        s.level(m.QUEUED),
        s.unit_of_count(m.QUEUED),
        decimals=0,
    )


def coalesced_calls(dialect: Dialect) -> Graph:
    """Coalesced calls per second per model."""
    return graph(
        "Coalesced calls per model",
        "Calls per second that read the answer of an identical call in flight, per model. Many of them mean "
        "that the app asks the same thing at the same time, for example when a cold cache meets a crowd.",
        [
            Query(
                s.per_second(m.CALLS, _COALESCED, by=(a.REQUEST_MODEL,), dialect=dialect),
                s.legend(a.REQUEST_MODEL),
            )
        ],
        s.unit_per_second(m.CALLS),
        stacked=True,
        empty="nothing coalesced",
    )


def coalesce_wait(dialect: Dialect) -> Graph:
    """How long coalesced calls waited for their first bytes."""
    return graph(
        "Wait of coalesced calls",
        "Time until a coalesced call had the first bytes of the answer that it shares. It came later than "
        "the call that was sent, so that it waits no longer than that one. Each dot is one call: click it "
        "to open its trace.",
        [
            Query(s.quantile(q, m.COALESCE_WAIT, bursts=True, dialect=dialect), name, exemplar=q == 0.95)
            for q, name in _WAITS[:2]
        ],
        s.unit(m.COALESCE_WAIT),
        colors=_WAIT_COLORS,
        empty="nothing coalesced",
    )


def requests_saved(dialect: Dialect) -> Graph:
    """Requests per second that were not needed, by what saved them."""
    return graph(
        "Requests saved",
        "Requests per second that did not leave, because calls shared an answer (coalescing) or a request "
        "(merging). What the cache saves comes on top and stands in its own row.",
        [
            Query(s.per_second(m.CALLS, _COALESCED, dialect=dialect), "by coalescing"),
            Query(_merged_away(dialect, s.RATE), "by merging"),
        ],
        s.unit_per_second(m.UPSTREAM),
        stacked=True,
        colors={
            "by coalescing": RESULT_COLORS[CacheResult.COALESCED],
            "by merging": MODE_COLORS[BatchMode.MERGED],
        },
        empty="nothing saved",
    )


def dispatches(dialect: Dialect) -> Graph:
    """Dispatches per second by what closed the window."""
    return graph(
        "Dispatches by trigger",
        "Windows per second that closed and left, by why. size: full. time: open for as long as a window "
        "may be. idle: nothing like it was in flight any more, so there was no reason to wait. deadline: a "
        "call in it could not wait longer.",
        [
            Query(
                s.histogram_count(m.BATCH_SIZE, by=(a.BATCH_TRIGGER,), window=s.RATE, dialect=dialect),
                s.legend(a.BATCH_TRIGGER),
            )
        ],
        s.unit_per_second(m.BATCH_SIZE, points="dispatch"),
        stacked=True,
        colors=TRIGGER_COLORS,
        empty="nothing batched",
    )


def mean_batch_size(dialect: Dialect) -> Graph:
    """Mean size of dispatches by mode."""
    return graph(
        "Mean size of dispatches",
        "Calls that left a window together, on average. merged: they became one request (embeddings, legacy "
        "completions). released: they left side by side, each with its own request. alone: a window that "
        "every call has to wait in (`linger: fixed`), and nobody else came.",
        [Query(s.histogram_mean(m.BATCH_SIZE, by=(a.BATCH_MODE,), dialect=dialect), s.legend(a.BATCH_MODE))],
        s.unit(m.BATCH_SIZE),
        colors=MODE_COLORS,
        empty="nothing batched",
    )


def window_wait(dialect: Dialect) -> Graph:
    """How long calls waited in windows."""
    return graph(
        "Wait in windows",
        "Time that a call waited in a window before it left: the price of leaving together, bounded by "
        "`batch_timeout_ms` or, while several requests are in flight, a small multiple of it. Each dot is "
        "one call: click it to open its trace. Classic histograms are exact to their bucket only, and the "
        "buckets are fine around 50 ms.",
        [
            Query(s.quantile(q, m.BATCH_WAIT, bursts=True, dialect=dialect), name, exemplar=q == 0.95)
            for q, name in _WAITS
        ],
        s.unit(m.BATCH_WAIT),
        colors=_WAIT_COLORS,
        empty="nothing batched",
    )


def _merged_away(dialect: Dialect, window: str) -> str:
    """Calls in merged dispatches, less the requests that they became."""
    calls = s.histogram_total(m.BATCH_SIZE, _MERGED, window=window, dialect=dialect)
    requests = s.histogram_count(m.BATCH_SIZE, _MERGED, window=window, dialect=dialect)
    return f"({calls}) - ({requests})"
