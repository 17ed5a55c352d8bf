"""What a call costs: CPU and wall added over the bare client, variants interleaved in one run.

Every round makes one burst per (scenario, variant) in random order, in worker processes that live through the run. A figure is the
median over rounds of the *paired* difference to the bare client's burst of the same round; the spread is the middle half (25 % to 75 %)
of those differences.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles

from benchmarks.worker import CHUNKS, SCENARIOS, VARIANTS

LABELS = {
    "off": "underlay, no OpenTelemetry SDK",
    "on": "underlay, spans and metrics",
    "full": "underlay, SDK with batch export, HTTP spans",
    "genai-openai": "opentelemetry-instrumentation-genai-openai alone",
}


@dataclass(frozen=True)
class Figure:
    """Added microseconds per call (or per chunk), with the middle half, and the ratio to the bare client."""

    added: float
    low: float
    high: float
    ratio: float


@dataclass(frozen=True)
class Row:
    """One variant in one scenario."""

    scenario: str
    variant: str
    bare_us: float
    cpu: Figure
    wall: Figure


@contextmanager
def workers() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """One process per variant, ready."""
    started = {
        variant: subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", variant],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for variant in VARIANTS
    }  # fmt: skip
    try:
        for process in started.values():
            assert process.stdout is not None
            process.stdout.readline()
        yield started
    finally:
        for process in started.values():
            process.stdin.close()  # type: ignore[union-attr]
            process.wait(10)
            process.stdout.close()  # type: ignore[union-attr]


def burst(process: subprocess.Popen[str], scenario: str, count: int) -> dict[str, float]:
    """One burst in one worker: seconds per call."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{scenario} {count}\n")
    process.stdin.flush()
    took = json.loads(process.stdout.readline())
    return {name: seconds / count for name, seconds in took.items()}


def _figure(variant: list[float], bare: list[float], per: int) -> Figure:
    added = [(ours - theirs) * 1e6 / per for ours, theirs in zip(variant, bare, strict=True)]
    low, _, high = quantiles(added, n=4)
    return Figure(
        median(added), low, high, median(ours / theirs for ours, theirs in zip(variant, bare, strict=True))
    )


def measure(rounds: int, calls: int) -> list[Row]:
    """The whole table. `calls` is the size of a burst of JSON calls; streams get a fifth."""
    took: dict[tuple[str, str], list[dict[str, float]]] = {(s, v): [] for s in SCENARIOS for v in VARIANTS}
    rng = random.Random(1)
    with workers() as started:
        for number in range(rounds + 1):
            for scenario in SCENARIOS:
                order = list(VARIANTS)
                rng.shuffle(order)
                for variant in order:
                    count = max(2, calls // 5) if scenario.startswith("stream") else calls
                    result = burst(started[variant], scenario, count)
                    if number:  # the first round warms up
                        took[scenario, variant].append(result)
    rows = []
    for scenario in SCENARIOS:
        per = CHUNKS if scenario.startswith("stream") else 1
        for variant in VARIANTS[1:]:
            ours, bare = took[scenario, variant], took[scenario, "bare"]
            figures = {
                kind: _figure([one[kind] for one in ours], [one[kind] for one in bare], per)
                for kind in ("cpu", "wall")
            }
            bare_us = median(one["cpu"] for one in bare) * 1e6 / per
            rows.append(Row(scenario, variant, bare_us, figures["cpu"], figures["wall"]))
    return rows
