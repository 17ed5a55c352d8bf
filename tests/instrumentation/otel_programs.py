"""Programs in processes of their own that start telemetry as `underlay run` does, and what they left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

START = """
import sys
from underlay.settings import Settings, TelemetrySettings
from underlay_instrumentation import autostart, destinations
destinations.listening = lambda port: LISTENS
from opentelemetry import trace, metrics, _logs
shutdown = autostart.configure(Settings(telemetry=TelemetrySettings(directory="t", exit_timeout=TIMEOUT)))
def work(name="work"):
    with trace.get_tracer("app").start_as_current_span(name):
        metrics.get_meter("app").create_counter("n").add(1)
        _logs.get_logger("app").emit(_logs.LogRecord(event_name="e"))
"""


def script(tmp_path: Path, code: str, *, listens: bool = False, timeout: float = 10.0) -> Path:
    """A program that starts telemetry and then runs `code`."""
    path = tmp_path / "shop.py"
    path.write_text(START.replace("LISTENS", str(listens)).replace("TIMEOUT", str(timeout)) + code)
    return path


def environ(**extra: str) -> dict[str, str]:
    """The environment without OpenTelemetry's and underlay's variables, and with a proxy that leads nowhere."""
    plain = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OTEL_", "UNDERLAY_")) and "proxy" not in key.lower()
    }
    return {**plain, **extra}


def run(path: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a program in its folder, to its end."""
    return subprocess.run(
        [sys.executable, str(path)],
        cwd=path.parent, env=environ(**extra), capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    """All lines of all local files."""
    return [
        json.loads(line)
        for path in sorted(tmp_path.glob("t/telemetry-*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def names(tmp_path: Path) -> list[str]:
    """The names of the spans in the local files."""
    return [
        span["name"]
        for line in lines(tmp_path)
        for resource in line.get("resourceSpans", ())
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
