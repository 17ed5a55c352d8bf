"""Cost: tokens and money, spent and saved, and requests that were not needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m
from underlay_dashboards import signals as s
from underlay_dashboards.panels.first import reduction_query
from underlay_dashboards.style import GOOD, WARNING, Query, graph, tile

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.stat import Panel as Stat
    from grafana_foundation_sdk.builders.timeseries import Panel as Graph

    from underlay_dashboards.signals import Dialect

__all__ = [
    "call_size", "cost_per_model", "reduction_over_time", "savings", "tokens_per_model", "tokens_per_second",
    "unpriced",
]  # fmt: skip

_AN_HOUR = 3600


def tokens_per_second(dialect: Dialect) -> Graph:
    """Tokens per second, paid and saved."""
    paid = s.per_second(m.TOKENS, by=(a.TOKEN_TYPE,), dialect=dialect)
    saved = s.per_second(m.TOKENS_SAVED, by=(a.TOKEN_TYPE,), dialect=dialect)
    return graph(
        "Tokens paid and saved",
        "Tokens per second that providers answered with, against those that came from the cache or were "
        "shared with an identical call.",
        [
            Query(paid, s.legend(a.TOKEN_TYPE, text="paid")),
            Query(saved, s.legend(a.TOKEN_TYPE, text="saved")),
        ],
        s.unit_per_second(m.TOKENS),
    )


def tokens_per_model(dialect: Dialect) -> Graph:
    """Tokens per second per model and type."""
    by = (a.REQUEST_MODEL, a.TOKEN_TYPE)
    return graph(
        "Tokens per model",
        "Input and output tokens per second that providers answered with, per model. Cached input is "
        "part of the input, reasoning part of the output.",
        [Query(s.per_second(m.TOKENS, by=by, dialect=dialect), s.legend(*by))],
        s.unit_per_second(m.TOKENS),
        stacked=True,
    )


def cost_per_model(dialect: Dialect) -> Graph:
    """Dollars per hour per model."""
    return graph(
        "Cost per hour and model",
        "What the calls that providers answered cost at this pace, in US dollars per hour, per model.",
        [
            Query(
                s.per_second(m.COST_TOTAL, by=(a.REQUEST_MODEL,), scale=_AN_HOUR, dialect=dialect),
                s.legend(a.REQUEST_MODEL),
            )
        ],
        s.unit(m.COST_TOTAL),
        stacked=True,
    )


def savings(dialect: Dialect) -> Graph:
    """Dollars per hour, spent and saved."""
    return graph(
        "Spent and saved per hour",
        "US dollars per hour at this pace: what providers charge, and what the answers from the cache and "
        "those shared with an identical call would have cost. Both together are the bill without underlay.",
        [
            Query(s.per_second(m.COST_TOTAL, scale=_AN_HOUR, dialect=dialect), "spent"),
            Query(s.per_second(m.COST_SAVED, scale=_AN_HOUR, dialect=dialect), "saved"),
        ],
        s.unit(m.COST_TOTAL),
        stacked=True,
        colors={"spent": "blue", "saved": "green"},
    )


def reduction_over_time(dialect: Dialect) -> Graph:
    """API call reduction over time."""
    return graph(
        "API call reduction",
        "How many fewer requests left for a provider than the app made calls (refused calls left out).",
        [Query(reduction_query(dialect, s.RATE), "fewer requests")],
        "percentunit",
        colors={"fewer requests": "green"},
    ).max(1)


def call_size(dialect: Dialect) -> Graph:
    """P95 of the tokens of one call."""
    by = (a.REQUEST_MODEL, a.TOKEN_TYPE)
    return graph(
        "Tokens of one call (P95)",
        "95 % of the calls that a provider answered had no more tokens than this, per model. Buckets "
        "grow by a factor of four: with classic histograms this is a coarse figure.",
        [Query(s.quantile(0.95, m.TOKEN_USAGE, by=by, dialect=dialect), s.legend(*by))],
        s.unit(m.TOKEN_USAGE),
    )


def unpriced(dialect: Dialect) -> Stat:
    """Answered calls without a cost."""
    return tile(
        "Calls without a price",
        "Answered calls that are missing from the cost: the model has no price in the table, or the "
        "provider did not say how many tokens it used.",
        s.or_zero(s.total(m.UNPRICED, dialect=dialect), s.total(m.CALLS, dialect=dialect)),
        s.unit_of_count(m.UNPRICED),
        ((None, GOOD), (1, WARNING)),
        decimals=0,
    )
