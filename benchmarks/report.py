"""What is printed: Markdown tables, and the same as one JSON object."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.cells import CLIENTS
from benchmarks.starts import Start
from benchmarks.stats import Spread, quotients, spread
from benchmarks.table import Row
from benchmarks.worlds import TELEMETRY

__all__ = ["Machine", "as_json", "line", "machine", "markdown", "number", "spread_text"]

_PACKAGES = (
    "underlay",
    "openai",
    "httpx2",
    "httpx",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation-httpx",
    "opentelemetry-instrumentation-genai-openai",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the numbers come from. `load` is the one-minute load average at the start and at the end, where
    the system has one."""

    system: str
    processor: str
    cores: int
    python: str
    packages: dict[str, str]
    load: tuple[float, ...]


def machine(load: tuple[float, ...]) -> Machine:
    """This machine."""
    return Machine(
        f"{platform.system()} {platform.machine()}",
        _processor(),
        os.cpu_count() or 0,
        f"{platform.python_implementation()} {platform.python_version()}",
        {name: version(name) for name in _PACKAGES},
        load,
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def as_json(
    where: Machine, parameters: dict[str, Any], rows: Sequence[Row], started: Sequence[Start]
) -> dict[str, Any]:
    """Everything that was measured, times in microseconds."""
    return {
        "machine": asdict(where),
        "parameters": parameters,
        "rows": [asdict(row) for row in rows],
        "starts": [asdict(start) for start in started],
    }


def markdown(
    where: Machine, parameters: dict[str, Any], rows: Sequence[Row], started: Sequence[Start]
) -> str:
    """The report as Markdown."""
    lines = _preface(where, parameters)
    if rows:
        lines += _legend(parameters)
    for client in dict.fromkeys(row.client for row in rows):
        lines += _table(client, [row for row in rows if row.client == client])
    if started:
        lines += _starts(started)
    return "\n".join(lines)


def _preface(where: Machine, parameters: dict[str, Any]) -> list[str]:
    packages = ", ".join(f"{name} {number}" for name, number in where.packages.items())
    load = " to ".join(f"{value:.1f}" for value in where.load) or "unknown"
    return [
        f"{where.processor}, {where.cores} cores, {where.system}, {where.python}, load {load}; {packages}. "
        f"Rounds in random order, seed {parameters['seed']}.",
        "",
    ]


def _legend(parameters: dict[str, Any]) -> list[str]:
    lines = [
        "## What a call costs",
        "",
        f"{parameters['rounds']} rounds, bursts of about {parameters['burst_ms']} ms.",
        "",
        "Microseconds added over the bare client of the same process and round: median [quartiles] of the "
        "paired differences; `×` is with / bare, the median of the paired ratios. CPU is of the calling "
        "thread.",
        "",
    ]
    return [*lines, *(f"- telemetry **{name}**: {meaning}" for name, meaning in TELEMETRY.items()), ""]


def _table(client: str, rows: Sequence[Row]) -> list[str]:
    found = {(row.kind, row.world, row.clock): row for row in rows}
    sdk = CLIENTS[client].sdk
    head = ["call", "telemetry", "bare CPU", "underlay: CPU added", "×", "wall added", "× wall"]
    if sdk:
        head += ["genai-openai: CPU added", "×", "underlay / genai-openai"]
    lines = [f"### {CLIENTS[client].title}", "", line(head), line(["---"] * len(head))]
    for kind in dict.fromkeys(row.kind for row in rows):
        for telemetry in TELEMETRY:
            cpu = found.get((kind, f"underlay-{telemetry}", "cpu"))
            wall = found.get((kind, f"underlay-{telemetry}", "wall"))
            if cpu is None or wall is None:
                continue
            cells = [kind, telemetry, number(cpu.bare.median), spread_text(cpu.added), _ratio(cpu.ratio)]
            cells += [spread_text(wall.added), _ratio(wall.ratio)]
            if sdk:
                cells += _genai(cpu, found.get((kind, f"genai-{telemetry}", "cpu")))
            lines.append(line(cells))
    return [*lines, "", *_others(found)]


def _genai(ours: Row, theirs: Row | None) -> list[str]:
    if theirs is None:
        return ["", "", ""]
    shares = quotients(ours.added_by_round, theirs.added_by_round)
    # A share of next to nothing says nothing.
    clear = theirs.added.low > 0.02 * theirs.bare.median
    return [spread_text(theirs.added), _ratio(theirs.ratio), _shares(spread(shares)) if clear else "-"]


def _others(found: dict[tuple[str, str, str], Row]) -> list[str]:
    """The noise of the method, and the HTTP instrumentation that telemetry `full` has under it."""
    lines = []
    for world, meaning in (
        ("nothing-off", "Noise, bare against bare"),
        ("http-full", "OpenTelemetry's httpx spans alone, in `full`"),
    ):
        cells = [
            f"{kind} {spread_text(row.added)}"
            for (kind, of, clock), row in found.items()
            if of == world and clock == "cpu"
        ]
        if cells:
            lines += [f"{meaning} (CPU): {'; '.join(cells)}.", ""]
    return lines


def _starts(started: Sequence[Start]) -> list[str]:
    head = ["start", "wall", "CPU", "added (wall)", "against"]
    lines = ["## Starts and memory", "", line(head), line(["---"] * len(head))]
    for start in started:
        seen = (start.value, start.cpu, start.added)
        times = (f"{spread_text(value)} {start.unit}" if value else "" for value in seen)
        lines += [line([start.title, *times, start.against])]
    return [*lines, "", "Milliseconds: median [quartiles], each sample a fresh process.", ""]


def line(cells: Iterable[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """With three digits or fewer."""
    if math.isnan(value):
        return "-"
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 1 else f"{value:.2f}"


def spread_text(value: Spread) -> str:
    """The median and, over more than one round, the quartiles."""
    if value.rounds == 1:
        return number(value.median)
    return f"{number(value.median)} [{number(value.low)}, {number(value.high)}]"


def _ratio(value: Spread) -> str:
    return "-" if math.isnan(value.median) else f"{value.median:.2f}"


def _shares(value: Spread) -> str:
    return f"{value.median:.2f} [{value.low:.2f}, {value.high:.2f}]"
