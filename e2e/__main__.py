"""`python -m e2e`: start the stack, run the script, ask every query, compare, and print the table.

Exit code 0 when all holds, 1 when something does not, 3 when the servers cannot be had here.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from e2e import checks, trace_checks
from e2e.board import Prometheus, dashboards
from e2e.report import Report
from e2e.run import play
from underlay.stack import StackError, bundle_root, down, stack_bin, up
from underlay.stack.ports import ports_of

ROOT = Path(__file__).parent.parent
SERVERS = ("otelcol", "prometheus", "jaeger")


def binaries(report: Report) -> bool:
    """Build what is missing. False when there is no Go toolchain to do it with."""
    if all((stack_bin() / name).exists() for name in SERVERS):
        return True
    with report.step("build the servers"):
        built = subprocess.run([sys.executable, str(ROOT / "scripts" / "build_stack.py")], check=False)
    return built.returncode == 0


def own_ports() -> dict[str, str]:
    """Ports that nobody else would send telemetry to: on the usual ones any program under `underlay run` would."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in ports_of("native")]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        numbers = [str(one.getsockname()[1]) for one in sockets]
    return dict(zip((port.variable for port in ports_of("native")), numbers, strict=True))


def main() -> int:
    """Do it all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="leave the stack running and say where its data is"
    )
    options = parser.parse_args()
    report = Report()
    if not binaries(report):
        print(
            "e2e: the native servers are not built and no Go toolchain is here: install Go, or put them on PATH"
        )
        return 3
    with tempfile.TemporaryDirectory(prefix="underlay-e2e-") as scratch:
        environ = dict(os.environ) | own_ports() | {"UNDERLAY_STACK_HOME": str(Path(scratch) / "stack")}
        try:
            with report.step("start the stack"):
                started = up(any_ports=True, mode="native", environ=environ)
            endpoints = {name: url for name, url in started.endpoints.items() if url}
            prove(report, endpoints, Path(scratch))
            report.memory(environ)
        except StackError as error:
            print(f"e2e: {error}")
            return 3
        finally:
            if options.keep:
                print(json.dumps({"home": environ["UNDERLAY_STACK_HOME"]}))
                input("press enter to stop the stack ")
            down(environ=environ)
    return report.close()


def prove(report: Report, endpoints: dict[str, str], scratch: Path) -> None:
    """Both runs of the script, and every question about them."""
    prometheus = Prometheus(endpoints["prometheus"])
    jaeger = httpx.Client(base_url=endpoints["jaeger"], timeout=30.0)
    boards: dict[str, dict[str, Any]] = dashboards(bundle_root() / "dashboards" / "rendered")
    with report.step("run the script"):
        facts = play("e2e", endpoints["otlp_http"], scratch)
    with report.step("ask every query"):
        windows = checks.settle(prometheus, facts, "e2e")
        checks.overview(report, prometheus, boards["underlay-overview"], facts, windows, "e2e")
        checks.variables(report, prometheus, boards, facts, windows, "e2e")
        checks.annotations(report, prometheus, boards["underlay-overview"], windows, "e2e")
        checks.calls(report, jaeger, boards["underlay-calls"], facts, "e2e")
        trace_checks.traces(report, jaeger, prometheus, windows, "e2e")
        trace_checks.together(report, jaeger, facts, "e2e")
    with report.step("run the demo"):
        told = scratch / "demo.json"
        environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoints["otlp_http"]}
        demo = [sys.executable, str(ROOT / "examples" / "demo.py"), "--json", str(told)]
        subprocess.run(demo, env=environment, cwd=scratch, stdout=subprocess.DEVNULL, check=True)
        for name, summary in json.loads(told.read_text()).items():
            checks.demo(report, prometheus, boards["underlay-overview"], summary, f"chat-app-{name}")
    native = {
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram"
    }
    with report.step("run the script with native histograms"):
        facts = play("e2e-native", endpoints["otlp_http"], scratch, native)
    with report.step("ask the native queries"):
        rendered = scratch / "native"
        subprocess.run(
            [
                sys.executable,
                "-m",
                "underlay_dashboards",
                "render",
                "--flavour",
                "native",
                "--out",
                str(rendered),
            ],
            check=True,
        )
        windows = checks.settle(prometheus, facts, "e2e-native")
        board = dashboards(rendered)["underlay-overview"]
        checks.overview(report, prometheus, board, facts, windows, "e2e-native", native=True)


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"e2e took {time.monotonic() - began:.0f} s")
    sys.exit(code)
