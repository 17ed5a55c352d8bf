"""Runs the script against the stack: the simulator, `underlay run`, and the facts that come back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from e2e.facts import Facts
from e2e.script import CHAT, CLAUDE, RECOVERY
from underlay.cli.telemetry_file import is_call, locate, read_spans
from underlay.simulator import Latency, Simulator, SimulatorOptions
from underlay.telemetry import attributes as a

__all__ = ["MAXSIZE", "play", "wait_for"]

MAXSIZE = 100  # entries: fewer than the script's answers, so that some are pushed out
T = TypeVar("T")


def play(service: str, endpoint: str, folder: Path, extra: Mapping[str, str] | None = None) -> Facts:
    """One run of the script whose telemetry goes to `endpoint` under the name `service`."""
    facts = folder / f"{service}.json"
    pace = Latency(first_token=0.12, jitter=0.6)
    options = SimulatorOptions(
        seed=3, latency=pace, latency_by_model={CLAUDE: Latency(first_token=0.7), CHAT: pace}
    )
    with Simulator(options) as simulator:
        environment = (
            os.environ
            | {
                "OPENAI_BASE_URL": f"{simulator.url}/v1",
                "OPENAI_API_KEY": "any",
                "ANTHROPIC_BASE_URL": simulator.url,
                "ANTHROPIC_API_KEY": "any",
                "OTEL_SERVICE_NAME": service,
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "UNDERLAY_TELEMETRY__FILE": "always",
                "UNDERLAY_TELEMETRY__EXIT_TIMEOUT": "10",  # what is counted here must not be lost to a busy machine
                "UNDERLAY_TELEMETRY__DIRECTORY": str(folder / service),
                "UNDERLAY_LLM_CACHE__MAXSIZE": str(MAXSIZE),
                "UNDERLAY_CIRCUIT_BREAKER__RECOVERY_TIMEOUT": str(RECOVERY),
                # Off by default in the SDK: Anthropic's own span would be the call's, and its search tags another
                # library's.
                "ANTHROPIC_OPEN_TELEMETRY": "false",
            }
        )
        command = [
            str(Path(sys.executable).with_name("underlay")),
            "run",
            "--",
            sys.executable,
            "-m",
            "e2e.script",
        ]
        subprocess.run([*command, str(facts)], env=environment | dict(extra or {}), check=True)
        read = Facts.read(facts)
        sent = simulator.counts().total.requests
    everything = read.window("birth", "main")
    if sent != everything.upstream:
        raise SystemExit(
            f"the script counted {everything.upstream:g} upstream requests, the simulator {sent}"
        )
    _measured(read, folder / service)
    stored = int(everything.all("misses"))
    read.raw["cache"] = {
        "entries": min(stored, MAXSIZE),
        "evicted": max(0, stored - MAXSIZE),
        "maxsize": MAXSIZE,
        "bytes": read.raw["cache_bytes"],
        "max_bytes": 256 * 2**20,
    }
    return read


def _measured(facts: Facts, telemetry: Path) -> None:
    """Replace the script's own clock by the spans of its local file: the reference that a histogram's percentiles are held against.

    The script's clock stands around the SDK, which takes longer than 2 % of a short call. Each call of the script must have its span.
    """
    spans = [span for span in read_spans(locate(telemetry)) if is_call(span)]
    main = facts.raw["phases"]["main"]["began"] * 1e9
    for name, phase in facts.raw["phases"].items():
        for model, totals in phase["models"].items():
            ours = [
                s
                for s in spans
                if s.text(a.REQUEST_MODEL) == model and (s.start_ns >= main) == (name == "main")
            ]
            by_result = {
                result: [s for s in ours if s.text(a.CACHE_RESULT) == result] for result in ("hit", "miss")
            }
            answered = [s for s in by_result["miss"] if not s.text(a.ERROR_TYPE)]
            failed = [s for s in by_result["miss"] if s.text(a.ERROR_TYPE)]
            for kind, found in (
                ("durations", answered),
                ("hit_durations", by_result["hit"]),
                ("failed_durations", failed),
            ):
                if len(found) != len(totals[kind]):
                    raise SystemExit(
                        f"{model}, {name}: the script counted {len(totals[kind])} {kind}, its file {len(found)}"
                    )
                totals[kind] = [span.seconds for span in found]
            streams = [span.number(a.TIME_TO_FIRST_CHUNK) for span in answered]
            totals["first_chunks"] = [first for first in streams if first is not None]
            totals["chunk_intervals"] = [
                (span.seconds - first) / (chunks - 1)
                for span in answered
                if (first := span.number(a.TIME_TO_FIRST_CHUNK)) is not None
                and (chunks := span.whole(a.CHUNKS) or 0) > 1
            ]


def wait_for(ask: Callable[[], T | None], what: str, seconds: float = 30.0) -> T:
    """Ask until there is an answer. Raises TimeoutError naming what did not come."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer is not None:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(0.2)
