"""The cache: is it hit, is it full, what does it throw out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common as cb
from grafana_foundation_sdk.models import common as cm

from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m
from underlay_dashboards import signals as s
from underlay_dashboards.panels.first import HIT_RATE_TARGET, RESULT_COLORS, hit_rate_query
from underlay_dashboards.style import GOOD, WARNING, Query, dashed, graph, thresholds

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.timeseries import Panel as Graph

    from underlay.telemetry.metrics import Metric
    from underlay_dashboards.signals import Dialect

__all__ = ["evictions", "hit_rate_over_time", "lookups", "size_in_bytes", "size_in_entries"]

_LIMIT = "most that it keeps"


def hit_rate_over_time(dialect: Dialect) -> Graph:
    """Hit rate against its target."""
    return (
        graph(
            "Hit rate",
            "Lookups that found an answer, of those that found one or missed. The dashed line is the "
            "target: more than half. A low rate with many repeats means that something in the requests "
            "differs each time: see `underlay explain` for what is in the key.",
            [Query(hit_rate_query(dialect, s.RATE), "hit rate")],
            "percentunit",
            colors={"hit rate": RESULT_COLORS["hit"]},
        )
        .max(1)
        .thresholds(thresholds((None, WARNING), (HIT_RATE_TARGET, GOOD)))
        .thresholds_style(cb.GraphThresholdsStyleConfig().mode(cm.GraphThresholdsStyleMode.DASHED))
    )


def lookups(dialect: Dialect) -> Graph:
    """Lookups per second by result."""
    return graph(
        "Lookups",
        "Lookups per second by result. `bypass`: the cache was not asked, because it is off or the call "
        "must not be cached; the trace of such a call says why.",
        [Query(s.per_second(m.LOOKUPS, by=(a.CACHE_RESULT,), dialect=dialect), s.legend(a.CACHE_RESULT))],
        s.unit_per_second(m.LOOKUPS),
        stacked=True,
        colors=RESULT_COLORS,
    )


def _size(title: str, what: str, now: Metric, most: Metric) -> Graph:
    panel = graph(
        title,
        f"{what} against the bound of one process. At the bound, the entry that was used least recently goes "
        "first. The cache belongs to no model: only the variable service narrows this down.",
        [
            Query(s.level(now, how="max"), "in the fullest process"),
            Query(s.level(most, how="max"), _LIMIT),
        ],
        s.unit(now),
    )
    return dashed(panel, _LIMIT, "red")


def size_in_entries(_dialect: Dialect) -> Graph:
    """Entries against maxsize."""
    return _size("Size in entries", "Stored answers", m.ENTRIES, m.ENTRIES_LIMIT)


def size_in_bytes(_dialect: Dialect) -> Graph:
    """Bytes against their bound."""
    return _size("Size in bytes", "Bytes of stored answers", m.BYTES, m.BYTES_LIMIT)


def evictions(dialect: Dialect) -> Graph:
    """Entries that left the cache, by reason."""
    return graph(
        "Evictions",
        "Entries per second that a bound pushed out (by which bound), and entries that outlived their "
        "time to live. Steady evictions with a low hit rate mean that the cache is too small.",
        [
            Query(
                s.per_second(m.EVICTIONS, by=(a.EVICTION_REASON,), dialect=dialect),
                s.legend(a.EVICTION_REASON, text="bound"),
            ),
            Query(s.per_second(m.EXPIRATIONS, dialect=dialect), "expired"),
        ],
        s.unit_per_second(m.EVICTIONS),
    )
