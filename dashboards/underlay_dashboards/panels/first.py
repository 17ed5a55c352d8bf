"""The first screen of the overview: is it well, what did it save, what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import CacheResult, CircuitState
from underlay_dashboards import signals as s
from underlay_dashboards.style import BAD, GOOD, NEUTRAL, WARNING, Query, graph, statuses_in_red, tile

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.stat import Panel as Stat
    from grafana_foundation_sdk.builders.timeseries import Panel as Graph

    from underlay_dashboards.signals import Dialect

__all__ = [
    "ANSWERED", "HIT_RATE_TARGET", "RESULT_COLORS", "api_call_reduction", "calls", "calls_by_answer",
    "circuits_not_closed", "cost_saved", "cost_spent", "errors_by_kind", "failed_share", "faults", "hit_rate",
    "hit_rate_query", "p95", "reduction_query", "refused", "time_saved", "tokens_saved",
]  # fmt: skip

HIT_RATE_TARGET = 0.5
RESULT_COLORS: dict[str, str] = {
    CacheResult.HIT: "green",
    CacheResult.MISS: "blue",
    CacheResult.COALESCED: "super-light-green",
    CacheResult.STALE: "yellow",
    CacheResult.BYPASS: "gray",
    CacheResult.REFUSED: "orange",
}
"""The colour of each way of being answered, the same on every panel."""

ANSWERED = s.Is(a.CACHE_RESULT, (CacheResult.REFUSED,), negated=True)


def calls(dialect: Dialect) -> Stat:
    """Calls of the app."""
    return tile(
        "Calls",
        "Calls that the app made in the time range, however they were answered.",
        s.total(m.CALLS, dialect=dialect),
        s.unit_of_count(m.CALLS),
        decimals=0,
    )


def failed_share(dialect: Dialect) -> Stat:
    """Share of the calls that failed."""
    traffic = s.total(m.CALLS, dialect=dialect)
    return tile(
        "Failed calls",
        "Share of the calls that ended with an error for the app: the provider's errors, the app's own "
        "faults (4xx) and refusals by an open circuit.",
        s.share(s.or_zero(s.total(m.ERRORS, dialect=dialect), traffic), traffic),
        "percentunit",
        ((None, GOOD), (0.01, WARNING), (0.05, BAD)),
        decimals=1,
    )


def p95(dialect: Dialect) -> Stat:
    """P95 of answered calls."""
    return tile(
        "P95 latency",
        "95 % of the calls that got an answer (hits included; refusals left out, because they are quick and "
        "would flatter it) took no longer than this. With classic histograms exact to the bucket only.",
        s.quantile(0.95, m.CALL_DURATION, ANSWERED, window=s.RANGE, dialect=dialect),
        s.unit(m.CALL_DURATION),
        decimals=2,
    )


def circuits_not_closed(dialect: Dialect) -> Stat:
    """Circuits that are open or half-open now."""
    known = (a.PROVIDER, a.REQUEST_MODEL)
    closed = s.level(m.CIRCUIT, s.Is(a.CIRCUIT_STATE, (CircuitState.CLOSED,)), by=known, how="max")
    off = s.level(
        m.CIRCUIT, s.Is(a.CIRCUIT_STATE, (CircuitState.OPEN, CircuitState.HALF_OPEN)), by=known, how="max"
    )
    return tile(
        "Circuits not closed",
        "Circuits (one per provider and model) that are open or half-open now, in any process. An open "
        "circuit refuses its calls at once.",
        f"sum ({off}) or 0 * sum ({closed})",
        s.unit_of_count(m.CIRCUIT),
        ((None, GOOD), (1, BAD)),
        decimals=0,
    )


def refused(dialect: Dialect) -> Stat:
    """Calls refused by an open circuit."""
    return tile(
        "Refused",
        "Calls that an open circuit refused at once: they did not reach the provider.",
        s.or_zero(s.total(m.REFUSALS, dialect=dialect), s.total(m.CALLS, dialect=dialect)),
        s.unit_of_count(m.REFUSALS),
        ((None, GOOD), (1, WARNING)),
        decimals=0,
    )


def faults(dialect: Dialect) -> Stat:
    """Faults of underlay itself."""
    return tile(
        "Faults of underlay",
        "Faults of underlay itself. The calls went on without the stage that failed; anything but 0 is a "
        "bug to report.",
        # faults belong to no model: the variables provider and model leave them alone
        s.or_zero(s.total(m.FAULTS, dialect=dialect), s.total(m.CALLS, dialect=dialect)),
        s.unit_of_count(m.FAULTS),
        ((None, GOOD), (1, BAD)),
        decimals=0,
    )


def hit_rate_query(dialect: Dialect, window: str) -> str:
    """Hits per lookup that the cache answered with a hit or a miss."""
    hits = s.Is(a.CACHE_RESULT, (CacheResult.HIT,))
    asked = s.Is(a.CACHE_RESULT, (CacheResult.HIT, CacheResult.MISS))
    if window == s.RATE:
        part, whole = (s.per_second(m.LOOKUPS, one, dialect=dialect) for one in (hits, asked))
    else:
        part, whole = (s.total(m.LOOKUPS, one, window=window, dialect=dialect) for one in (hits, asked))
    return s.share(s.or_zero(part, whole), whole)


def hit_rate(dialect: Dialect) -> Stat:
    """Hit rate over the time range."""
    return tile(
        "Cache hit rate",
        "Lookups that found an answer, of those that found one or missed. Calls that passed the cache by "
        "are not counted. Target: more than half.",
        hit_rate_query(dialect, s.RANGE),
        "percentunit",
        ((None, WARNING), (HIT_RATE_TARGET, GOOD)),
        decimals=1,
    )


def reduction_query(dialect: Dialect, window: str) -> str:
    """Share of the app's answered calls that needed no request of their own to a provider."""
    if window == s.RATE:
        upstream = s.per_second(m.UPSTREAM, dialect=dialect)
        answered = s.per_second(m.CALLS, ANSWERED, dialect=dialect)
    else:
        upstream = s.total(m.UPSTREAM, window=window, dialect=dialect)
        answered = s.total(m.CALLS, ANSWERED, window=window, dialect=dialect)
    return f"1 - {s.share(s.or_zero(upstream, answered), answered)}"


def api_call_reduction(dialect: Dialect) -> Stat:
    """API call reduction over the time range."""
    return tile(
        "API call reduction",
        "How many fewer requests left for a provider than the app made calls. Refused calls are left "
        "out: they were not answered.",
        reduction_query(dialect, s.RANGE),
        "percentunit",
        ((None, NEUTRAL), (0.000001, GOOD)),
        decimals=1,
    )


def cost_saved(dialect: Dialect) -> Stat:
    """Cost of what no request was needed for."""
    return tile(
        "Cost saved",
        "What the answers that came from the cache, or were shared with an identical call, would have cost "
        "at the provider, in US dollars.",
        s.or_zero(s.total(m.COST_SAVED, dialect=dialect), s.total(m.CALLS, dialect=dialect)),
        s.unit(m.COST_SAVED),
        ((None, NEUTRAL), (0.000001, GOOD)),
    )


def cost_spent(dialect: Dialect) -> Stat:
    """Cost of what providers answered."""
    return tile(
        "Cost spent",
        "What providers charge for the calls that they answered, by the price table that ships with "
        "underlay, in US dollars. Calls without a known price are counted in the cost section.",
        s.or_zero(s.total(m.COST_TOTAL, dialect=dialect), s.total(m.CALLS, dialect=dialect)),
        s.unit(m.COST_TOTAL),
    )


def time_saved(dialect: Dialect) -> Stat:
    """Waiting time that hits saved."""
    return tile(
        "Waiting saved",
        "Time that callers did not wait: for each hit the duration of the first answer less that of the hit.",
        s.or_zero(s.histogram_total(m.TIME_SAVED, dialect=dialect), s.total(m.CALLS, dialect=dialect)),
        s.unit(m.TIME_SAVED),
        ((None, NEUTRAL), (0.000001, GOOD)),
        decimals=1,
    )


def tokens_saved(dialect: Dialect) -> Stat:
    """Tokens that no request was needed for."""
    return tile(
        "Tokens saved",
        "Input and output tokens of the answers that came from the cache, or were shared with an identical "
        "call.",
        s.or_zero(s.total(m.TOKENS_SAVED, dialect=dialect), s.total(m.CALLS, dialect=dialect)),
        s.unit(m.TOKENS_SAVED),
        ((None, NEUTRAL), (1, GOOD)),
        decimals=1,
    )


def calls_by_answer(dialect: Dialect) -> Graph:
    """Calls per second by how they were answered."""
    return graph(
        "Calls by answer",
        "Calls per second by how they were answered: from the cache (hit), by the provider (miss, "
        "bypass), together with an identical call (coalesced), or refused by an open circuit.",
        [Query(s.per_second(m.CALLS, by=(a.CACHE_RESULT,), dialect=dialect), s.legend(a.CACHE_RESULT))],
        s.unit_per_second(m.CALLS),
        stacked=True,
        colors=RESULT_COLORS,
    )


def errors_by_kind(dialect: Dialect) -> Graph:
    """Failed calls per second by kind."""
    return statuses_in_red(
        graph(
            "Errors by kind",
            "Failed calls per second by kind: an HTTP status, the provider's error type, or an exception's "
            "name. Empty when nothing failed.",
            [Query(s.per_second(m.ERRORS, by=(a.ERROR_TYPE,), dialect=dialect), s.legend(a.ERROR_TYPE))],
            s.unit_per_second(m.ERRORS),
            stacked=True,
            empty="no errors",
        )
    )
