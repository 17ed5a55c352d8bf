"""The rendered dashboards as the list of what they ask, and the asking."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from e2e.answers import Labels

__all__ = ["Prometheus", "Question", "dashboards", "jaeger_search", "questions", "substituted"]


@dataclass(frozen=True)
class Question:
    """One target of one panel: `path` is "section / panel title / refId"."""

    dashboard: str
    path: str
    expr: str
    target: Mapping[str, Any]

    @property
    def over_range(self) -> bool:
        """Whether the panel asks over time (its window is `$__rate_interval`) or for one value
        (`$__range`)."""
        return bool(self.target.get("range"))


def dashboards(folder: Path) -> dict[str, dict[str, Any]]:
    """Every rendered dashboard by uid."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {dashboard["uid"]: dashboard for dashboard in found}


def questions(dashboard: Mapping[str, Any]) -> Iterator[Question]:
    """Every target of every panel, panels inside rows included."""
    row = ""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        for one in [panel, *panel.get("panels", ())]:
            for target in one.get("targets", ()):
                path = f"{row} / {one['title']} / {target['refId']}"
                yield Question(dashboard["uid"], path, target.get("expr", ""), target)


def substituted(expr: str, seconds: float, variables: Mapping[str, str]) -> str:
    """The expression as Grafana would send it: windows are the whole window, variables what they stand
    for."""
    window = f"{round(seconds * 1000)}ms"
    expr = expr.replace("${__rate_interval_ms}", f"{seconds * 1000:.0f}")
    for name in ("$__rate_interval", "$__range", "$__interval"):
        expr = expr.replace(name, window)
    for name, value in variables.items():
        expr = re.sub(rf"\$\{{{name}(:\w+)?\}}|\${name}\b", lambda _, value=value: value, expr)
    return expr


class Prometheus:
    """The few questions that are put to Prometheus."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30.0)

    def instant(self, expr: str, at: float) -> dict[Labels, float]:
        """An instant query: value by labels, the metric's name aside. Raises ValueError with Prometheus' own
        message."""
        return {labels: float(value) for labels, value in self._vector(expr, at)}

    def samples(self, selector: str, at: float, seconds: float) -> dict[Labels, list[tuple[float, float]]]:
        """The raw samples of a selector in a window: (time, value) by labels."""
        found = self._get("/api/v1/query", query=f"{selector}[{round(seconds * 1000)}ms]", time=f"{at:.3f}")
        return {
            _labels(series["metric"]): [(float(when), float(value)) for when, value in series["values"]]
            for series in found["result"]
        }

    def label_values(self, label: str, match: str, start: float, end: float) -> set[str]:
        """Values of a label."""
        data = self._get(
            f"/api/v1/label/{label}/values", **{"match[]": match, "start": f"{start}", "end": f"{end}"}
        )
        return set(data)

    def exemplars(self, expr: str, start: float, end: float) -> list[dict[str, Any]]:
        """Exemplars of the series in an expression."""
        found = self._get("/api/v1/query_exemplars", query=expr, start=f"{start}", end=f"{end}")
        return [exemplar for series in found for exemplar in series["exemplars"]]

    def _vector(self, expr: str, at: float) -> list[tuple[Labels, str]]:
        found = self._get("/api/v1/query", query=expr, time=f"{at:.3f}")
        return [(_labels(series["metric"]), series["value"][1]) for series in found["result"]]

    def _get(self, path: str, **params: str) -> Any:
        answer = self._client.get(path, params=params).json()
        if answer["status"] != "success":
            raise ValueError(f"{answer.get('errorType')}: {answer.get('error')}")
        return answer["data"]


def _labels(metric: Mapping[str, str]) -> Labels:
    return frozenset((name, value) for name, value in metric.items() if name != "__name__")


def jaeger_search(
    client: httpx.Client, target: Mapping[str, Any], variables: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What Grafana's Jaeger data source asks for a search target: logfmt tags become the JSON that Jaeger's
    API wants."""

    def value(name: str) -> str:
        return substituted(str(target.get(name) or ""), 0, variables)

    tags = dict(tag.split("=", 1) for tag in value("tags").split() if "=" in tag)
    params = {
        "service": value("service"),
        "tags": json.dumps(tags),
        "limit": str(target.get("limit", 20)),
        "lookback": "1h",
    }
    if value("minDuration"):
        params["minDuration"] = value("minDuration")
    if value("operation"):
        params["operation"] = value("operation")
    found: list[dict[str, Any]] = client.get("/api/traces", params=params).raise_for_status().json()["data"]
    return found
