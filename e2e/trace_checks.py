"""What the traces of the script must show in Jaeger: links that lead where they should."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx

from e2e.board import Prometheus
from e2e.checks import Windows
from e2e.facts import Facts
from e2e.report import Report
from e2e.run import wait_for
from e2e.script import CHAT
from e2e.together import EMBED, LARGE, RELEASED
from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m
from underlay.telemetry.spans import DISPATCH
from underlay_dashboards.signals import SERVICE_LABEL, prometheus_name

__all__ = ["together", "traces"]

_Id = tuple[str, str]


def traces(
    report: Report, jaeger: httpx.Client, prometheus: Prometheus, windows: Windows, service: str
) -> None:
    """A hit is found by tag and by id and links to its generator; a transition links to its causes; exemplars
    lead to traces."""
    hits = _search(jaeger, service, {a.CACHE_RESULT.key: "hit", a.REQUEST_MODEL.key: CHAT}, 1)
    span = hits[0]["spans"][0]
    again = jaeger.get(f"/api/traces/{span['traceID']}").json()["data"][0]["spans"]
    (link,) = [
        ref
        for ref in next(s for s in again if s["spanID"] == span["spanID"])["references"]
        if ref["refType"] == "FOLLOWS_FROM"
    ]
    generator = jaeger.get(f"/api/traces/{link['traceID']}").json()["data"][0]["spans"]
    made = next(s for s in generator if s["spanID"] == link["spanID"])
    tags = {tag["key"]: tag["value"] for tag in made["tags"]}
    report.check(
        "trace of a hit",
        "the span that it links to",
        ("miss", CHAT),
        (tags[a.CACHE_RESULT.key], tags[a.REQUEST_MODEL.key]),
    )
    names = Counter(s["operationName"] for s in generator)
    report.check("trace of a miss", "spans", {f"chat {CHAT}": 1, "POST": 1}, dict(names))
    opened = _search(jaeger, service, {a.CIRCUIT_REASON.key: "failures"}, 5)
    causes = [
        s["references"]
        for trace in opened
        for s in trace["spans"]
        if s["operationName"] == "circuit_breaker open"
    ]
    report.check(
        "trace of a trip", "links to the calls that caused it", [5], [len(found) for found in causes]
    )
    for metric in (m.CALL_DURATION, m.COALESCE_WAIT, m.BATCH_WAIT):
        series = f'{prometheus_name(metric)}_bucket{{{SERVICE_LABEL}="{service}"}}'
        exemplars = prometheus.exemplars(series, windows.at - windows.everything, windows.at)
        ids = {exemplar["labels"]["trace_id"] for exemplar in exemplars}
        lost = [trace for trace in sorted(ids)[:5] if not jaeger.get(f"/api/traces/{trace}").json()["data"]]
        report.check(f"exemplars of {metric.name}", "lead to a trace", (True, []), (bool(ids), lost))


def together(report: Report, jaeger: httpx.Client, facts: Facts, service: str) -> None:
    """Every dispatch links to each of its members and they to it; every coalesced call links to the one whose
    answer it read."""
    spans = _Spans(jaeger)
    window = facts.window("birth", "main")
    left = window.windows()
    found = spans.of(
        service, sum(dispatches for dispatches, _ in left.values()), *_operations(EMBED, LARGE, RELEASED)
    )
    dispatches: Counter[str] = Counter()
    to, back = Counter[str](), Counter[str]()
    for dispatch in found:
        tags = _tags(dispatch)
        kind = f"{tags[a.BATCH_MODE.key]}, {tags[a.BATCH_TRIGGER.key]}"
        dispatches[kind] += 1
        members = _links(dispatch)
        to[kind] += len(members)
        back[kind] += sum(_id(dispatch) in _links(spans.one(member)) for member in members)
    wanted = {", ".join(kind): count for kind, (count, _) in left.items()}
    calls = {", ".join(kind): count for kind, (_, count) in left.items()}
    where = "traces of windows"
    report.check(where, "dispatches", _sorted(wanted), _sorted(dispatches))
    report.check(where, "links to the members", _sorted(calls), _sorted(to))
    report.check(where, "members that link back", _sorted(calls), _sorted(back))
    _followers(report, spans, service, int(window.all("coalesced")))


def _followers(report: Report, spans: _Spans, service: str, wanted: int) -> None:
    found = spans.of(service, wanted, {"tags": json.dumps({a.CACHE_RESULT.key: "coalesced"})})
    coalesced = [span for span in found if _tags(span).get(a.CACHE_RESULT.key) == "coalesced"]
    led = Counter[Any]()
    for follower in coalesced:
        tags, leaders = _tags(follower), [_tags(spans.one(link)) for link in _links(follower)]
        alike = [leader.get(a.CACHE_KEY.key) == tags[a.CACHE_KEY.key] for leader in leaders]
        led[tuple(leader.get(a.CACHE_RESULT.key) for leader in leaders), all(alike)] += 1
    report.check(
        "traces of coalesced calls", "each links to its leader", {(("miss",), True): wanted}, dict(led)
    )


class _Spans:
    """Spans by their ids, each trace fetched once."""

    def __init__(self, jaeger: httpx.Client) -> None:
        self._jaeger = jaeger
        self._known: dict[_Id, dict[str, Any]] = {}

    def one(self, wanted: _Id) -> dict[str, Any]:
        """A span; an empty one when Jaeger does not have it."""
        if wanted not in self._known:
            data = self._jaeger.get(f"/api/traces/{wanted[0]}").json()["data"] or []
            self._known |= {_id(span): span for trace in data for span in trace["spans"]}
        return self._known.get(wanted, {})

    def of(self, service: str, count: int, *queries: Mapping[str, str]) -> list[dict[str, Any]]:
        """The spans that these searches mean: all of them, once there are `count`."""
        last: dict[_Id, dict[str, Any]] = {}

        def ask() -> bool | None:
            last.clear()
            for query in queries:
                params = {"service": service, "limit": "200", "lookback": "1h", **query}
                traces = self._jaeger.get("/api/traces", params=params).json()["data"] or []
                for span in (span for trace in traces for span in trace["spans"]):
                    self._known[_id(span)] = span
                    if query.get("operation") in (None, span["operationName"]):
                        last[_id(span)] = span
            return True if len(last) >= count else None

        with suppress(TimeoutError):  # the report says what came instead
            wait_for(ask, f"{count} spans", 10)
        return list(last.values())


def _operations(*models: str) -> Iterator[dict[str, str]]:
    return ({"operation": DISPATCH(model=model)} for model in models)


def _id(span: Mapping[str, Any]) -> _Id:
    return span["traceID"], span["spanID"]


def _links(span: Mapping[str, Any]) -> set[_Id]:
    return {_id(ref) for ref in span.get("references", ()) if ref["refType"] == "FOLLOWS_FROM"}


def _tags(span: Mapping[str, Any]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in span.get("tags", ())}


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _search(jaeger: httpx.Client, service: str, tags: Mapping[str, str], limit: int) -> list[dict[str, Any]]:

    params = {"service": service, "tags": json.dumps(tags), "limit": str(limit), "lookback": "1h"}
    return wait_for(
        lambda: jaeger.get("/api/traces", params=params).json()["data"] or None, f"a trace with {tags}"
    )
