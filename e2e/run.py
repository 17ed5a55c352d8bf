"""Runs the script against the stack: the simulator, `underlay run`, and the facts that come back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from e2e.facts import Facts
from e2e.script import CHAT, CLAUDE, RECOVERY
from e2e.together import ADAPTIVE, KINDS, LARGE, RELEASED, Windows
from underlay.cli.telemetry_file import Span, is_call, locate, read_spans
from underlay.simulator import Latency, Simulator, SimulatorOptions
from underlay.telemetry import attributes as a
from underlay.telemetry.attributes import BatchMode, CacheResult

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
                **ADAPTIVE,
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
    held_back = int(sum(everything.sum(model, "misses") for model in (RELEASED, LARGE)))
    stored = int(everything.all("misses")) - held_back
    read.raw["cache"] = {
        "entries": min(stored, MAXSIZE) + held_back,
        "evicted": max(0, stored - MAXSIZE),
        "maxsize": sum(read.raw["cache_maxsize"]),
        "bytes": read.raw["cache_bytes"],
        "max_bytes": read.raw["cache_max_bytes"],
    }
    return read


def _measured(facts: Facts, telemetry: Path) -> None:
    """Replace the script's own clock by the spans of its local file: the reference that a histogram's percentiles are held against.

    The script's clock stands around the SDK, which takes longer than 2 % of a short call. Each call of the script must have its span.
    """
    spans = [span for span in read_spans(locate(telemetry)) if is_call(span)]
    main = facts.raw["phases"]["main"]["began"] * 1e9
    for name, phase in facts.raw["phases"].items():
        of_phase = [span for span in spans if (span.start_ns >= main) == (name == "main")]
        for model, totals in phase["models"].items():
            ours = [span for span in of_phase if span.text(a.REQUEST_MODEL) == model]
            totals |= _times(f"{model}, {name}", totals, ours)
        _windows(name, phase["windows"], of_phase)


def _times(where: str, totals: Mapping[str, Any], spans: Sequence[Span]) -> dict[str, list[float]]:
    """The durations and waits of one model's calls, by how they were answered and sent."""

    def of(result: CacheResult, *, failed: bool = False, mode: str = "") -> list[Span]:
        return [
            span
            for span in spans
            if span.text(a.CACHE_RESULT) == result
            and bool(span.text(a.ERROR_TYPE)) == failed
            and (not mode or span.text(a.BATCH_MODE) == mode)
        ]

    answered = of(CacheResult.MISS)
    found = {
        "durations": answered,
        "hit_durations": of(CacheResult.HIT),
        "coalesced_durations": of(CacheResult.COALESCED),
        "failed_durations": of(CacheResult.MISS, failed=True),
    }
    counted = {
        "durations": totals["misses"],
        "hit_durations": totals["hits"],
        "coalesced_durations": totals["coalesced"],
        "failed_durations": sum(totals["errors"].values()) - totals["refused"],
    }
    for kind, ours in found.items():
        if len(ours) != counted[kind]:
            raise SystemExit(f"{where}: the script counted {counted[kind]} {kind}, its file {len(ours)}")
    found |= {f"{mode}_durations": of(CacheResult.MISS, mode=mode) for mode in BatchMode}
    times = {kind: [span.seconds for span in ours] for kind, ours in found.items()}
    streams = [
        (span, first) for span in answered if (first := span.number(a.TIME_TO_FIRST_CHUNK)) is not None
    ]
    times["first_chunks"] = [first for _, first in streams]
    times["chunk_intervals"] = [
        (span.seconds - first) / (chunks - 1)
        for span, first in streams
        if (chunks := span.whole(a.CHUNKS) or 0) > 1
    ]
    for kind, attribute in (("coalesce_waits", a.COALESCE_WAIT), ("batch_waits", a.BATCH_WAIT)):
        times[kind] = [wait for span in spans if (wait := span.number(attribute)) is not None]
    return times


def _windows(name: str, windows: Windows, spans: Sequence[Span]) -> None:
    """Every call that the runtimes counted in a window says so on its span, and each kind of window came."""
    counted = {(model, kind): calls for model, kinds in windows.items() for kind, (_, calls) in kinds.items()}
    seen = Counter(
        (span.text(a.REQUEST_MODEL), f"{span.text(a.BATCH_MODE)}/{span.text(a.BATCH_TRIGGER)}")
        for span in spans
        if span.text(a.BATCH_TRIGGER)
    )
    if counted != seen:
        raise SystemExit(
            f"{name}: the runtimes counted calls in windows {counted}, the file has {dict(seen)}"
        )
    missing = KINDS - {kind for _, kind in counted}
    if missing:
        raise SystemExit(f"{name}: no window of {sorted(missing)}: the machine is too slow for the script")


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
