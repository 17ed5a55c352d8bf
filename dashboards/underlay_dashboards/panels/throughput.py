"""Throughput: what the app asks for, what leaves for the providers, and what batching makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import Verdict
from underlay_dashboards import signals as s
from underlay_dashboards.style import Query, graph, tile

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.stat import Panel as Stat
    from grafana_foundation_sdk.builders.timeseries import Panel as Graph

    from underlay_dashboards.signals import Dialect

__all__ = [
    "VERDICT_COLORS",
    "average_batch_size",
    "batches",
    "calls_and_requests",
    "requests_per_model",
    "upstream",
]

VERDICT_COLORS: dict[str, str] = {
    Verdict.SUCCESS: "green",
    Verdict.FAILURE: "red",
    Verdict.NOTHING: "gray",
}


def calls_and_requests(dialect: Dialect) -> Graph:
    """Calls of the app against requests that left."""
    return graph(
        "Calls and upstream requests",
        "Calls per second that the app makes against requests per second that leave for a provider. The "
        "distance is what cache, coalescing, batches and open circuits keep at home.",
        [
            Query(s.per_second(m.CALLS, dialect=dialect), "calls of the app"),
            Query(s.per_second(m.UPSTREAM, dialect=dialect), "upstream requests"),
        ],
        s.unit_per_second(m.UPSTREAM),
        colors={"calls of the app": "green", "upstream requests": "blue"},
    )


def requests_per_model(dialect: Dialect) -> Graph:
    """Calls per second per model."""
    return graph(
        "Calls per model",
        "Calls per second that the app makes, per model.",
        [Query(s.per_second(m.CALLS, by=(a.REQUEST_MODEL,), dialect=dialect), s.legend(a.REQUEST_MODEL))],
        s.unit_per_second(m.CALLS),
        stacked=True,
    )


def upstream(dialect: Dialect) -> Graph:
    """Upstream requests by what they said about the provider."""
    return graph(
        "Upstream requests by verdict",
        "Requests per second that left for a provider, by what they said about it. Only failures count "
        "towards opening a circuit; `nothing`: cancelled, or the app's own fault.",
        [Query(s.per_second(m.UPSTREAM, by=(a.VERDICT,), dialect=dialect), s.legend(a.VERDICT))],
        s.unit_per_second(m.UPSTREAM),
        stacked=True,
        colors=VERDICT_COLORS,
    )


def batches(dialect: Dialect) -> Stat:
    """Batches over the time range."""
    sent = s.histogram_count(m.BATCH_SIZE, dialect=dialect)
    return tile(
        "Batches processed",
        "How often calls left a window together in the time range, merged into one request or released side "
        "by side. The row `Flights and windows` has the details.",
        s.or_zero(sent, s.total(m.CALLS, dialect=dialect)),
        s.unit_of_count(m.BATCH_SIZE),
        decimals=0,
    )


def average_batch_size(dialect: Dialect) -> Stat:
    """Mean size of the batches over the time range."""
    return tile(
        "Average batch size",
        "Calls that left a window together, on average over the time range. Calls that did not wait for "
        "others are in no batch.",
        s.histogram_mean(m.BATCH_SIZE, window=s.RANGE, dialect=dialect),
        s.unit(m.BATCH_SIZE),
        decimals=1,
        empty="nothing batched",
    )
