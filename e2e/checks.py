"""The comparisons: each asks the real servers and hands the answers to the report."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from e2e.answers import Asked, exactly, near
from e2e.board import Prometheus, jaeger_search, questions, substituted
from e2e.expect import EMPTY, EXPECTED
from e2e.facts import Facts
from e2e.report import Report
from e2e.run import wait_for
from e2e.script import MINI
from e2e.together import QUEUED, RELEASED
from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import CircuitState
from underlay_dashboards.signals import SERVICE_LABEL, label, prometheus_name

__all__ = ["Windows", "annotations", "calls", "demo", "overview", "settle", "variables"]

_SLACK = 0.1  # seconds around the samples at a window's ends, so that there is nothing to extrapolate over


@dataclass(frozen=True)
class Windows:
    """When to ask. `at` is just after the last export; the main phase began `main` seconds before, all of it
    `everything`."""

    at: float
    main: float
    everything: float
    tripped: float
    queued: float


def settle(prometheus: Prometheus, facts: Facts, service: str) -> Windows:
    """Wait until the last export has arrived, and find the exports at the ends of the phases."""
    calls = prometheus_name(m.CALLS)
    wanted = facts.window("birth", "main").calls
    now = facts.raw["ended"] + 30

    def arrived() -> float | None:
        found = prometheus.instant(f'sum(last_over_time({calls}{{{SERVICE_LABEL}="{service}"}}[10m]))', now)
        return 1.0 if sum(found.values()) == wanted else None

    wait_for(arrived, "the last export")
    selector = f'{prometheus_name(m.ENTRIES)}{{{SERVICE_LABEL}="{service}"}}'
    (samples,) = prometheus.samples(selector, now, 600).values()
    times = [when for when, _ in samples]
    began = facts.raw["phases"]["main"]["began"]
    at = times[-1] + _SLACK
    start = max(when for when in times if when < began) - _SLACK
    return Windows(
        at, at - start, at - (times[0] - _SLACK), facts.raw["open_seen"] - 0.2, facts.raw["queued_seen"]
    )


def demo(
    report: Report, prometheus: Prometheus, board: Mapping[str, Any], told: Mapping[str, Any], service: str
) -> None:
    """The tiles say of the demo what the demo's own table says."""
    calls = prometheus_name(m.CALLS)
    now = time.time() + 30
    expr = f'sum(last_over_time({calls}{{{SERVICE_LABEL}="{service}"}}[10m]))'
    wait_for(
        lambda: True if sum(prometheus.instant(expr, now).values()) == told["calls"] else None,
        "the demo's last export",
    )
    answered = told["calls"] - told["refused"]
    wanted = {
        "Calls": exactly(told["calls"]),
        "Refused": exactly(told["refused"]),
        "Failed calls": near((told["failed"] + told["refused"]) / told["calls"], 1e-6),
        "Cache hit rate": near(told["hits"] / told["calls"], 1e-6),
        "API call reduction": near(1 - told["upstream_calls"] / answered, 1e-6),
        "Cost spent": near(told["cost_usd"], 1e-6),
        "Cost saved": near(told["saved_usd"] or 0.0, 1e-6),
        "Coalesced calls": near(told["coalesced"] / answered, 1e-6),
        "Requests saved by coalescing": exactly(told["coalesced"]),
        "Requests saved by merging": exactly(told["merged"] - told["merged_requests"]),
        "Batches processed": exactly(told["merged_requests"]),
    }
    if not told["hits"]:  # the cache was off: there is nothing to take a share of
        del wanted["Cache hit rate"]
    for question in questions(board):
        title = question.path.split(" / ")[1]
        if title in wanted and not question.over_range:
            seen = prometheus.instant(substituted(question.expr, 600, _variables(service)), now)
            report.compare(f"{service}: {title}", {frozenset(): wanted[title]}, seen)


def _variables(service: str) -> dict[str, str]:
    return {"service": service, "provider": ".+", "model": ".+", "datasource": "", "traces": ""}


def overview(
    report: Report,
    prometheus: Prometheus,
    board: Mapping[str, Any],
    facts: Facts,
    windows: Windows,
    service: str,
    *,
    native: bool = False,
) -> None:
    """Every target of the overview over the main phase; totals over everything as well."""
    for question in questions(board):
        expectation = EXPECTED.get(question.path)
        spans = [("", windows.main, facts.window("main"))]
        if not question.over_range:
            spans.append((" (from the start)", windows.everything, facts.window("birth", "main")))
        for note, seconds, window in spans:
            asked = Asked(window, seconds, facts, native)
            seen = prometheus.instant(substituted(question.expr, seconds, _variables(service)), windows.at)
            where = f"{question.path.removeprefix(' / ')}{note}{' native' if native else ''}"
            if expectation is not None:
                report.compare(where, expectation(asked), seen)
            else:
                report.check(
                    where, EMPTY.get(question.path, "an expectation or a reason is missing"), {}, seen
                )
    if not native:
        _meanwhile(report, prometheus, board, windows, service)
        _raw(report, prometheus, facts, windows, service)


def _meanwhile(
    report: Report, prometheus: Prometheus, board: Mapping[str, Any], windows: Windows, service: str
) -> None:
    """While the circuit was open, the timeline and the tile said so, and while calls waited, how many."""
    wanted = {
        "Reliability / Circuits / A": ("while open", windows.tripped, MINI, 2.0),
        " / Circuits not closed / A": ("while open", windows.tripped, MINI, 1.0),
        "Flights and windows / Waiting now / A": ("while they wait", windows.queued, RELEASED, float(QUEUED)),
    }
    for question in questions(board):
        if question.path in wanted:
            when, at, model, value = wanted[question.path]
            names = _variables(service) | {"model": model}
            seen = prometheus.instant(substituted(question.expr, windows.main, names), at)
            where = f"{question.path.removeprefix(' / ')}, {when}"
            report.check(where, model, value, max(seen.values(), default=None))


def _raw(report: Report, prometheus: Prometheus, facts: Facts, windows: Windows, service: str) -> None:
    """Raw differences of counters are exact."""
    name = prometheus_name(m.CALLS)
    expr = f'sum(last_over_time({name}{{{SERVICE_LABEL}="{service}"}}[{round(windows.everything * 1000)}ms]))'
    total = facts.window("birth", "main").calls
    before = facts.window("birth").calls
    report.compare("raw calls, all", {frozenset(): exactly(total)}, prometheus.instant(expr, windows.at))
    seen = prometheus.instant(expr, windows.at - windows.main + 2 * _SLACK)
    report.compare("raw calls, before the main phase", {frozenset(): exactly(before)}, seen)


def variables(
    report: Report,
    prometheus: Prometheus,
    boards: Mapping[str, Any],
    facts: Facts,
    windows: Windows,
    service: str,
) -> None:
    """Every variable that asks Prometheus lists what was called."""
    window = facts.window("birth", "main")
    models = set(window.models)
    wanted = {"service": {service}, "provider": {window.provider(model) for model in models}, "model": models}
    for uid, board in boards.items():
        for variable in board["templating"]["list"]:
            if variable["type"] != "query":
                continue
            name, query = variable["name"], variable["query"]["query"]
            seen = _listed(prometheus, query, windows, {**_variables(service), "provider": ".+"})
            prefix = {"provider": f"{a.PROVIDER.key}=", "model": f"{a.REQUEST_MODEL.key}="}.get(name, "")
            plain = {value.removeprefix(prefix) for value in seen}
            report.check(f"{uid}: variable {name}", "values", sorted(wanted[name]), sorted(plain))


def _listed(prometheus: Prometheus, query: str, windows: Windows, names: Mapping[str, str]) -> set[str]:
    asked = substituted(query, windows.everything, names)
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", asked)
    if found:
        return prometheus.label_values(found[2], found[1], windows.at - windows.everything, windows.at)
    expr = re.fullmatch(r"query_result\((.+)\)", asked, re.DOTALL)
    assert expr is not None, f"a variable asks something else: {asked}"
    return {value for labels in prometheus.instant(expr[1], windows.at) for _, value in labels}


def annotations(
    report: Report, prometheus: Prometheus, board: Mapping[str, Any], windows: Windows, service: str
) -> None:
    """Each annotation marks its one transition."""
    left = {
        CircuitState.OPEN: CircuitState.CLOSED,
        CircuitState.HALF_OPEN: CircuitState.OPEN,
        CircuitState.CLOSED: CircuitState.HALF_OPEN,
    }
    for annotation in board["annotations"]["list"]:
        state = CircuitState(annotation["name"].rpartition(" ")[2])
        labels = frozenset(
            {
                (label(a.PROVIDER), "openai"),
                (label(a.REQUEST_MODEL), MINI),
                (label(a.CIRCUIT_FROM), left[state].value),
                (label(a.CIRCUIT_STATE), state.value),
            }
        )
        seen = prometheus.instant(
            substituted(annotation["expr"], windows.main, _variables(service)), windows.at
        )
        report.compare(f"annotation {annotation['name']}", {labels: exactly(1)}, seen)


def calls(report: Report, jaeger: httpx.Client, board: Mapping[str, Any], facts: Facts, service: str) -> None:
    """Every search of the calls page finds as many traces as the script made."""
    window = facts.window("birth", "main")
    lists = ("durations", "hit_durations", "coalesced_durations", "failed_durations")
    durations = [took for name in lists for took in window.list(name)]
    failures = window.errors["service_unavailable"]
    wanted = {
        "Recent": window.calls,
        "Slow": sum(took > 0.5 for took in durations),
        "Failed at the provider": failures,
        "Failed for another reason": sum(window.errors.values()) - failures - window.refused,
        "Answered from the cache": window.all("hits"),
        "Refused by an open circuit": window.refused,
    }
    names = {
        "service": service,
        "provider": "",
        "model": "",
        "filter": "",
        "ending": "complete",
        "slower_than": "500ms",
        "trace": "",
    }
    for question in questions(board):
        title = question.path.split(" / ")[1]
        if title in wanted:
            limit = int(question.target["limit"])
            expected = int(min(wanted[title], limit))
            last: list[int] = []

            def found(
                target: Any = question.target, expected: int = expected, last: list[int] = last
            ) -> int | None:
                last[:] = [len(jaeger_search(jaeger, target, names))]
                return last[0] if last[0] == expected else None

            with suppress(TimeoutError):  # the report says what came instead
                wait_for(found, title, 10)
            report.check(f"calls: {title}", f"traces, at most {limit}", expected, last[0])
        elif question.path not in EMPTY and question.target.get("queryType") == "search":
            report.check(f"calls: {title}", "an expectation is missing", True, False)
