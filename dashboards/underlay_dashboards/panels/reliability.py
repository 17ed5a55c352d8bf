"""Reliability: the circuits, what fails and why, and how often things recover."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import CircuitState
from underlay_dashboards import signals as s
from underlay_dashboards.style import Query, graph, states, statuses_in_red, tile

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.stat import Panel as Stat
    from grafana_foundation_sdk.builders.statetimeline import Panel as Timeline
    from grafana_foundation_sdk.builders.timeseries import Panel as Graph

    from underlay_dashboards.signals import Dialect

__all__ = [
    "STATES", "STATE_COLORS", "circuit_states", "error_rate_by_kind", "errors_per_model", "faults_by_stage",
    "mean_time_open", "recoveries", "refusals", "trips_and_recoveries",
]  # fmt: skip

STATE_COLORS: dict[str, str] = {
    CircuitState.CLOSED: "green",
    CircuitState.HALF_OPEN: "yellow",
    CircuitState.OPEN: "red",
}
STATES: dict[int, tuple[str, str]] = {
    number: (state.value, STATE_COLORS[state])
    for number, state in enumerate((CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN))
}
"""Number that the timeline draws -> name and colour of the state."""

_CIRCUIT = (a.PROVIDER, a.REQUEST_MODEL)


def _state_number() -> str:
    half = s.level(m.CIRCUIT, s.Is(a.CIRCUIT_STATE, (CircuitState.HALF_OPEN,)), by=_CIRCUIT, how="max")
    opened = s.level(m.CIRCUIT, s.Is(a.CIRCUIT_STATE, (CircuitState.OPEN,)), by=_CIRCUIT, how="max")
    return s.at_most(f"{half} + 2 * {opened}", 2)


def circuit_states(_dialect: Dialect) -> Timeline:
    """The state of each circuit over time."""
    return states(
        "Circuits",
        "The state of each circuit over time; of several processes the worst. closed: calls pass. open: "
        "they are refused at once. half_open: one probe at a time asks whether the provider is back. A "
        "state shorter than the export interval may not show; the annotations have every transition.",
        Query(_state_number(), s.legend(*_CIRCUIT)),
        STATES,
    )


def error_rate_by_kind(dialect: Dialect) -> Graph:
    """Share of the calls that failed, by kind."""
    traffic = s.per_second(m.CALLS, dialect=dialect)
    errors = s.per_second(m.ERRORS, by=(a.ERROR_TYPE,), dialect=dialect)
    return statuses_in_red(
        graph(
            "Error rate by kind",
            "Share of all calls that failed, by kind. `circuit_open` are refusals: they follow from failures "
            "of the provider and end when it recovers.",
            [Query(f"({errors}) / on () group_left () ({traffic} > 0)", s.legend(a.ERROR_TYPE))],
            "percentunit",
            stacked=True,
            empty="no errors",
        )
    )


def errors_per_model(dialect: Dialect) -> Graph:
    """Failed calls per second per model."""
    return graph(
        "Errors per model",
        "Calls per second that ended with an error, per model, refusals included.",
        [Query(s.per_second(m.ERRORS, by=(a.REQUEST_MODEL,), dialect=dialect), s.legend(a.REQUEST_MODEL))],
        s.unit_per_second(m.ERRORS),
        stacked=True,
        empty="no errors",
    )


def refusals(dialect: Dialect) -> Graph:
    """Calls refused per second per model."""
    return graph(
        "Refusals",
        "Calls per second that an open circuit refused, per model: what the provider was spared, and "
        "what callers did not have to wait for.",
        [Query(s.per_second(m.REFUSALS, by=(a.REQUEST_MODEL,), dialect=dialect), s.legend(a.REQUEST_MODEL))],
        s.unit_per_second(m.REFUSALS),
        stacked=True,
        empty="nothing refused",
    )


def trips_and_recoveries(dialect: Dialect) -> Graph:
    """Transitions by the state that was entered, a bar a step."""
    return (
        graph(
            "Trips and recoveries",
            "Transitions of circuits by the state that they entered, in each step: `open` is a trip, "
            "`closed` a recovery. Many of both mean a provider that flaps.",
            [
                Query(
                    s.stepped(m.TRANSITIONS, by=(a.CIRCUIT_STATE,), dialect=dialect),
                    s.legend(a.CIRCUIT_STATE),
                )
            ],
            s.unit_of_count(m.TRANSITIONS),
            bars=True,
            colors=STATE_COLORS,
            empty="no transitions",
        )
        # bars wide enough to see
        .interval("15s")
        .decimals(0)
    )


def recoveries(dialect: Dialect) -> Stat:
    """Recoveries over the time range."""
    closed = s.total(m.TRANSITIONS, s.Is(a.CIRCUIT_STATE, (CircuitState.CLOSED,)), dialect=dialect)
    return tile(
        "Recoveries",
        "How often a circuit closed again in the time range.",
        s.or_zero(closed, s.total(m.CALLS, dialect=dialect)),
        s.unit_of_count(m.TRANSITIONS),
        decimals=0,
    )


def mean_time_open(dialect: Dialect) -> Stat:
    """Mean time that a circuit stayed open."""
    opened = s.Is(a.CIRCUIT_STATE, (CircuitState.OPEN,))
    return tile(
        "Mean time open",
        "How long a circuit stayed open, on average, before it let a probe through. Stays that have not "
        "ended are not counted.",
        s.histogram_mean(m.STATE_DURATION, opened, window=s.RANGE, dialect=dialect),
        s.unit(m.STATE_DURATION),
        decimals=1,
        empty="never open",
    )


def faults_by_stage(dialect: Dialect) -> Graph:
    """Faults of underlay itself by stage."""
    return graph(
        "Faults of underlay by stage",
        "Faults of underlay itself by the stage of a call's life that they happened in. The calls went "
        "on. Empty when there was none, which is how it should be.",
        [Query(s.per_second(m.FAULTS, by=(a.STAGE,), dialect=dialect), s.legend(a.STAGE))],
        s.unit_per_second(m.FAULTS),
        stacked=True,
        empty="no faults",
    )
