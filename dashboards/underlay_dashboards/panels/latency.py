"""Latency: how long calls take, what the cache makes of it, and whether batches are quicker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import BatchMode, CacheResult
from underlay_dashboards import signals as s
from underlay_dashboards.panels.first import ANSWERED
from underlay_dashboards.panels.windows import MODE_COLORS
from underlay_dashboards.style import Query, graph

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.timeseries import Panel as Graph

    from underlay_dashboards.signals import Dialect

__all__ = ["batch_against_individual", "before_against_after", "percentiles", "streams"]

PROVIDER_ANSWERED = s.Is(a.CACHE_RESULT, (CacheResult.MISS, CacheResult.BYPASS))
_HITS = s.Is(a.CACHE_RESULT, (CacheResult.HIT,))
_PERCENTILES = ((0.5, "P50"), (0.95, "P95"), (0.99, "P99"))


def percentiles(dialect: Dialect) -> Graph:
    """P50, P95 and P99 per model of what providers answered."""
    return graph(
        "Latency per model",
        "P50, P95 and P99 of the calls that a provider answered (the cache left out), per model. Each "
        "dot is one call: click it to open its trace. Classic histograms are exact to their bucket only.",
        [
            Query(
                s.quantile(
                    q,
                    m.CALL_DURATION,
                    PROVIDER_ANSWERED,
                    by=(a.REQUEST_MODEL,),
                    window=s.RATE,
                    dialect=dialect,
                ),
                s.legend(a.REQUEST_MODEL, text=name),
                exemplar=q == 0.95,
            )
            for q, name in _PERCENTILES
        ],
        s.unit(m.CALL_DURATION),
        legend="right",
    )


def before_against_after(dialect: Dialect) -> Graph:
    """Mean and P95 with the provider alone, and as the app sees it."""
    rows = ((PROVIDER_ANSWERED, "before"), (ANSWERED, "after"))
    queries = [
        Query(s.histogram_mean(m.CALL_DURATION, where, dialect=dialect), f"mean {name}")
        for where, name in rows
    ]
    queries += [
        Query(
            s.quantile(0.95, m.CALL_DURATION, where, dialect=dialect), f"P95 {name}", exemplar=name == "after"
        )
        for where, name in rows
    ]
    queries.append(Query(s.quantile(0.95, m.CALL_DURATION, _HITS, dialect=dialect), "P95 of hits"))
    return graph(
        "Before and after the cache",
        "Before: calls that a provider answered, which is what all calls would take without the cache. "
        "After: all answered calls, hits included, as the app sees them. Refused calls are left out of "
        "both.",
        queries,
        s.unit(m.CALL_DURATION),
        legend="right",
        colors={
            "mean before": "blue", "mean after": "green", "P95 before": "dark-blue",
            "P95 after": "dark-green", "P95 of hits": "super-light-green",
        },
    )  # fmt: skip


def batch_against_individual(dialect: Dialect) -> Graph:
    """P95 of calls sent alone, and of those sent together."""
    together = (BatchMode.MERGED, BatchMode.RELEASED)
    return graph(
        "Batch and individual",
        "P95 of the calls that a provider answered, sent alone against sent in a batch (merged into one "
        "request, or released together), their wait in the window included. A line is missing where no call "
        "was sent that way.",
        [
            Query(
                s.quantile(
                    0.95, m.CALL_DURATION, PROVIDER_ANSWERED, s.Is(a.BATCH_MODE, (BatchMode.ALONE,)),
                    dialect=dialect,
                ),
                "individual",
            ),
            Query(
                s.quantile(
                    0.95, m.CALL_DURATION, PROVIDER_ANSWERED, s.Is(a.BATCH_MODE, together),
                    by=(a.BATCH_MODE,), bursts=True, dialect=dialect,
                ),
                s.legend(a.BATCH_MODE),
            ),
        ],
        s.unit(m.CALL_DURATION),
        colors={"individual": MODE_COLORS[BatchMode.ALONE], **{mode: MODE_COLORS[mode] for mode in together}},
    )  # fmt: skip


def streams(dialect: Dialect) -> Graph:
    """Time to the first chunk of streams, and between chunks."""
    return graph(
        "Streams",
        "P95 of the time to the first chunk of a stream that a provider answered, and of the mean time "
        "between its chunks.",
        [
            Query(
                s.quantile(0.95, m.FIRST_CHUNK, PROVIDER_ANSWERED, by=(a.REQUEST_MODEL,), dialect=dialect),
                s.legend(a.REQUEST_MODEL, text="first chunk"),
                exemplar=True,
            ),
            Query(
                s.quantile(0.95, m.OUTPUT_CHUNK, PROVIDER_ANSWERED, by=(a.REQUEST_MODEL,), dialect=dialect),
                s.legend(a.REQUEST_MODEL, text="between chunks"),
            ),
        ],
        s.unit(m.FIRST_CHUNK),
    )
