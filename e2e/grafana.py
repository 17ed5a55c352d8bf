"""The same table through a running Grafana: `python -m e2e.grafana` with the compose stack up.

    underlay stack up && python -m e2e.grafana [--grafana http://127.0.0.1:3000]

Asks Grafana for its health, its data sources' health and its provisioned dashboards, runs the script, and puts every query of the
overview to `/api/ds/query`, Grafana's own way to the data. The password is read from the stack's secret file or GRAFANA_ADMIN_PASSWORD.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from e2e import checks
from e2e.answers import Labels
from e2e.board import Prometheus, dashboards
from e2e.report import Report
from e2e.run import play
from underlay.stack import bundle_root, stack_home, status

__all__ = ["ThroughGrafana", "values_of"]

PROMETHEUS_UID = "underlay-prometheus"


def values_of(answer: Mapping[str, Any]) -> dict[Labels, float]:
    """The values of an instant query in an answer of `/api/ds/query`: the last one of each frame's value field, by its labels.

    Raises ValueError with Grafana's own message when a query failed.
    """
    found: dict[Labels, float] = {}
    for result in answer["results"].values():
        if result.get("error"):
            raise ValueError(result["error"])
        for frame in result.get("frames", ()):
            for field, values in zip(frame["schema"]["fields"], frame["data"]["values"], strict=True):
                if field["type"] == "number" and values:
                    labels = {
                        name: value for name, value in field.get("labels", {}).items() if name != "__name__"
                    }
                    found[frozenset(labels.items())] = float(values[-1])
    return found


class ThroughGrafana(Prometheus):
    """Prometheus behind Grafana: instant queries go through `/api/ds/query`, what only checks read goes straight."""

    def __init__(self, grafana: httpx.Client, prometheus: str) -> None:
        super().__init__(prometheus)
        self._grafana = grafana

    def instant(self, expr: str, at: float) -> dict[Labels, float]:
        """An instant query at `at`, as a panel sends it."""
        query = {
            "refId": "A",
            "datasource": {"uid": PROMETHEUS_UID},
            "expr": expr,
            "instant": True,
            "range": False,
            "format": "time_series",
        }
        body = {"queries": [query], "from": f"{(at - 60) * 1000:.0f}", "to": f"{at * 1000:.0f}"}
        return values_of(self._grafana.post("/api/ds/query", json=body).json())


def _password() -> str:
    given = os.environ.get("GRAFANA_ADMIN_PASSWORD")
    return given or (stack_home() / "grafana-admin-password").read_text().strip()


def main() -> int:
    """Ask, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grafana", default=status().endpoints["grafana"])
    address = parser.parse_args().grafana
    if not address:
        print("e2e.grafana: no Grafana runs here: underlay stack up needs a container engine for it")
        return 3
    endpoints = status().endpoints
    report = Report()
    boards = dashboards(bundle_root() / "dashboards" / "rendered")
    with httpx.Client(base_url=address, auth=("admin", _password()), timeout=30.0) as grafana:
        report.check("Grafana", "health", "ok", grafana.get("/api/health").json().get("database"))
        for uid in (PROMETHEUS_UID, "underlay-jaeger"):
            seen = grafana.get(f"/api/datasources/uid/{uid}/health").json().get("status")
            report.check("Grafana", f"data source {uid}", "OK", seen)
        for uid in boards:
            meta = grafana.get(f"/api/dashboards/uid/{uid}").json().get("meta", {})
            report.check("Grafana", f"dashboard {uid} is provisioned", True, meta.get("provisioned"))
        through = ThroughGrafana(grafana, str(endpoints["prometheus"]))
        with tempfile.TemporaryDirectory() as scratch, report.step("run the script"):
            facts = play("e2e-grafana", str(endpoints["otlp_http"]), Path(scratch))
        windows = checks.settle(through, facts, "e2e-grafana")
        checks.overview(report, through, boards["underlay-overview"], facts, windows, "e2e-grafana")
        checks.annotations(report, through, boards["underlay-overview"], windows, "e2e-grafana")
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
