"""The dashboards: which panels stand where, and what stands above them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import dashboard as db
from grafana_foundation_sdk.models import dashboard as dm

from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import CircuitState
from underlay_dashboards import signals as s
from underlay_dashboards import variables as v
from underlay_dashboards.layout import Cell, Section, place
from underlay_dashboards.panels import cache, calls, cost, first, latency, reliability, throughput, windows
from underlay_dashboards.panels.reliability import STATE_COLORS
from underlay_dashboards.style import PROMETHEUS

if TYPE_CHECKING:
    from collections.abc import Callable

    from grafana_foundation_sdk.cog.builder import Builder

    from underlay_dashboards.signals import Dialect

__all__ = ["BOARDS", "CALLS", "EMPTY_BY_DESIGN", "OVERVIEW", "Board", "build"]

EMPTY_BY_DESIGN: dict[str, str] = {
    "faults_by_stage.A": "empty, and says so, until underlay has a fault of its own",
}
"""Panels (by key) and single queries of panels (key and refId) that may show nothing, with the reason."""


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard: its address, what it is for, and its rows."""

    uid: str
    title: str
    description: str
    sections: tuple[Section, ...]
    variables: tuple[Callable[[], Builder[dm.VariableModel]], ...]
    annotated: bool
    other: tuple[str, str]


OVERVIEW = Board(
    uid="underlay-overview",
    title="underlay: overview",
    description="Is it well, what did it save, what is wrong: the calls that pass through underlay.",
    sections=(
        Section(
            "",
            0,
            (
                Cell(1, first.calls, 4, 4),
                Cell(2, first.failed_share, 4, 4),
                Cell(3, first.p95, 4, 4),
                Cell(4, first.circuits_not_closed, 4, 4),
                Cell(5, first.refused, 4, 4),
                Cell(6, first.faults, 4, 4),
                Cell(7, first.hit_rate, 4, 4),
                Cell(8, first.api_call_reduction, 4, 4),
                Cell(9, first.cost_saved, 4, 4),
                Cell(10, first.cost_spent, 4, 4),
                Cell(11, first.tokens_saved, 4, 4),
                Cell(12, first.time_saved, 4, 4),
                Cell(13, first.calls_by_answer, 12, 8),
                Cell(14, first.errors_by_kind, 12, 8),
            ),
        ),
        Section(
            "Cache",
            100,
            (
                Cell(101, cache.hit_rate_over_time, 12, 8),
                Cell(102, cache.lookups, 12, 8),
                Cell(103, cache.size_in_entries, 8, 8),
                Cell(104, cache.size_in_bytes, 8, 8),
                Cell(105, cache.evictions, 8, 8),
            ),
        ),
        Section(
            "Latency",
            200,
            (
                Cell(201, latency.percentiles, 16, 10),
                Cell(204, latency.streams, 8, 10),
                Cell(202, latency.before_against_after, 14, 9),
                Cell(203, latency.batch_against_individual, 10, 9),
            ),
        ),
        Section(
            "Throughput",
            300,
            (
                Cell(301, throughput.calls_and_requests, 8, 8),
                Cell(302, throughput.requests_per_model, 8, 8),
                Cell(303, throughput.upstream, 8, 8),
                Cell(304, throughput.batches, 12, 3),
                Cell(305, throughput.average_batch_size, 12, 3),
            ),
        ),
        Section(
            "Flights and windows",
            600,
            (
                Cell(601, windows.coalesced_share, 6, 4),
                Cell(602, windows.saved_by_coalescing, 6, 4),
                Cell(603, windows.saved_by_merging, 6, 4),
                Cell(604, windows.queued_now, 6, 4),
                Cell(605, windows.coalesced_calls, 8, 8),
                Cell(606, windows.coalesce_wait, 8, 8),
                Cell(607, windows.requests_saved, 8, 8),
                Cell(608, windows.dispatches, 8, 8),
                Cell(609, windows.mean_batch_size, 8, 8),
                Cell(610, windows.window_wait, 8, 8),
            ),
        ),
        Section(
            "Reliability",
            400,
            (
                Cell(401, reliability.circuit_states, 12, 8),
                Cell(402, reliability.error_rate_by_kind, 12, 8),
                Cell(403, reliability.trips_and_recoveries, 8, 8),
                Cell(404, reliability.refusals, 8, 8),
                Cell(405, reliability.errors_per_model, 8, 8),
                Cell(406, reliability.recoveries, 6, 6),
                Cell(407, reliability.mean_time_open, 6, 6),
                Cell(408, reliability.faults_by_stage, 12, 6),
            ),
        ),
        Section(
            "Cost",
            500,
            (
                Cell(501, cost.tokens_per_model, 12, 8),
                Cell(502, cost.tokens_per_second, 12, 8),
                Cell(503, cost.cost_per_model, 8, 8),
                Cell(504, cost.savings, 8, 8),
                Cell(505, cost.reduction_over_time, 8, 8),
                Cell(506, cost.call_size, 16, 8),
                Cell(507, cost.unpriced, 8, 8),
            ),
        ),
    ),
    variables=(v.prometheus_source, v.services, v.provider, v.model),
    annotated=True,
    other=("Single calls", "underlay-calls"),
)

CALLS = Board(
    uid="underlay-calls",
    title="underlay: calls",
    description="Single calls, searched in Jaeger: recent, slow, failed, from the cache, refused.",
    sections=(
        Section(
            "",
            0,
            (
                Cell(1, calls.recent, 12, 10),
                Cell(2, calls.slow, 12, 10),
                Cell(3, calls.failed_at_provider, 12, 8),
                Cell(4, calls.failed_otherwise, 12, 8),
                Cell(5, calls.hits, 12, 8),
                Cell(6, calls.refused_calls, 12, 8),
            ),
        ),
        # closed at first: without an id there is nothing to ask Jaeger for
        Section("One trace", 100, (Cell(101, calls.one_trace, 24, 14),), collapsed=True),
    ),
    variables=(
        v.prometheus_source,
        v.traces_source,
        v.one_service,
        lambda: v.tag_choice("provider", a.PROVIDER),
        lambda: v.tag_choice("model", a.REQUEST_MODEL),
        v.ending,
        v.slower_than,
        v.extra_tags,
        v.trace_id,
    ),
    annotated=False,
    other=("Overview", "underlay-overview"),
)

BOARDS: tuple[Board, ...] = (OVERVIEW, CALLS)


def build(board: Board, dialect: Dialect) -> dm.Dashboard:
    """The dashboard as the SDK's model."""
    title, uid = board.other
    dashboard = (
        db.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["underlay"])
        .readonly()
        .time("now-15m", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(dm.DashboardCursorSync.CROSSHAIR)
        .link(db.DashboardLink(title).url(f"/d/{uid}").type(dm.DashboardLinkType.LINK).keep_time(True))  # noqa: FBT003
    )
    for variable in board.variables:
        dashboard = dashboard.with_variable(variable())
    if board.annotated:
        for state in CircuitState:
            dashboard = dashboard.annotation(_transitions(state, dialect))
    return place(dashboard, board.sections, dialect).build()


def _transitions(state: CircuitState, dialect: Dialect) -> db.AnnotationQuery:
    """A mark on every graph when a circuit enters `state`."""
    by = (a.PROVIDER, a.REQUEST_MODEL, a.CIRCUIT_FROM, a.CIRCUIT_STATE)
    entered = s.stepped(m.TRANSITIONS, s.Is(a.CIRCUIT_STATE, (state.value,)), by=by, dialect=dialect)
    return (
        db.AnnotationQuery()
        .name(f"circuit {state.value}")
        .datasource(PROMETHEUS)
        .enable(True)  # noqa: FBT003 - the SDK's setter
        .icon_color(STATE_COLORS[state])
        .expr(f"{entered} > 0")
        .step("5s")
        .title_format(f"circuit {state.value}")
        .text_format(s.legend(a.PROVIDER, a.REQUEST_MODEL) + ", from " + s.legend(a.CIRCUIT_FROM))
        .tag_keys(s.label(a.REQUEST_MODEL))
    )
