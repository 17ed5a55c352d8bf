"""Single LLM calls, found in Jaeger: one row is one trace, and a click on its id opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common as cb
from grafana_foundation_sdk.builders import dashboard as db
from grafana_foundation_sdk.models import dashboard as dm

from underlay.telemetry import attributes as a
from underlay.telemetry.attributes import CacheResult, Verdict
from underlay_dashboards import signals as s
from underlay_dashboards.jaeger import ERROR_TAG, Search, Trace, tag
from underlay_dashboards.style import JAEGER, data_table

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.table import Panel as Table

    from underlay_dashboards.signals import Dialect

__all__ = ["failed_at_provider", "failed_otherwise", "hits", "one_trace", "recent", "refused_calls", "slow"]

ENDING_TAG = f"{a.ENDING.key}=$ending"
# `raw`: a search knows no pattern, so nothing may be escaped or joined
_NARROWED = ("${provider:raw}", "${model:raw}", "$filter")
_WIDTHS = {"Trace ID": 110, "Start time": 135, "Duration": 90}
_UNITS = {"Start time": "time:MMM D HH:mm:ss", "Duration": "µs"}
_CLICK = " Click a trace id to open the trace."


def _table(title: str, description: str, *tags: str, min_duration: str = "", by: str = "Start time") -> Table:
    panel = (
        data_table(title, description + _CLICK, JAEGER, _WIDTHS)
        .with_target(Search("$service", (*tags, *_NARROWED), min_duration=min_duration))
        .sort_by([cb.TableSortByFieldState().display_name(by).desc(True)])  # noqa: FBT003
        .no_value("no such calls")
    )
    for column, unit in _UNITS.items():
        panel = panel.override_by_name(column, [dm.DynamicConfigValue(id_val="unit", value=unit)])
    return panel


def recent(_dialect: Dialect) -> Table:
    """The latest calls."""
    return _table(
        "Recent",
        "Traces with calls that ended as the variable `ended` says, latest first: `complete` for those "
        "whose answer was read to its end, the other values for streams that were cut, closed or "
        "cancelled.",
        ENDING_TAG,
    )


def slow(_dialect: Dialect) -> Table:
    """Calls slower than the variable says."""
    return _table(
        "Slow",
        "The latest traces with a span that took longer than the variable `slower than`, slowest first.",
        ENDING_TAG,
        min_duration="$slower_than",
        by="Duration",
    )


def failed_at_provider(_dialect: Dialect) -> Table:
    """Failures of the provider."""
    return _table(
        "Failed at the provider",
        "Traces with a call whose failure counts against the provider (5xx, 429, timeouts, broken "
        "connections): what opens circuits.",
        tag(s.Is(a.VERDICT, (Verdict.FAILURE,))),
    )


def failed_otherwise(_dialect: Dialect) -> Table:
    """Failures that are no fault of the provider."""
    return _table(
        "Failed for another reason",
        "Traces with a call that failed without a fault of the provider: a request that it did not "
        "accept (4xx), a cancelled call. Refused calls stand in their own table.",
        ERROR_TAG,
        tag(s.Is(a.VERDICT, (Verdict.NOTHING,))),
    )


def hits(_dialect: Dialect) -> Table:
    """Calls that the cache answered."""
    return _table(
        "Answered from the cache",
        "Traces with a call that the cache answered. The call's span links to the one that generated the "
        "answer, and says how old it is and what it saved.",
        tag(s.Is(a.CACHE_RESULT, (CacheResult.HIT,))),
    )


def refused_calls(_dialect: Dialect) -> Table:
    """Calls that an open circuit refused."""
    return _table(
        "Refused by an open circuit",
        "Traces with a call that an open circuit refused at once. The circuit's own trace links to the "
        "calls that opened it.",
        tag(s.Is(a.CACHE_RESULT, (CacheResult.REFUSED,))),
    )


def one_trace(_dialect: Dialect) -> db.Panel:
    """The trace whose id was typed in."""
    return (
        db.Panel()
        .type("traces")
        .title("Trace $trace")
        .description(
            "The trace whose id stands in the variable `trace id`: from a log line, from "
            "`Answer.trace_id`, or from a table above."
        )
        .datasource(JAEGER)
        .with_target(Trace("$trace"))
        .options({})
    )
