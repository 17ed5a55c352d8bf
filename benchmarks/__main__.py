"""`python -m benchmarks [--rounds N] [--calls N] [--json]`: print every table."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict

from benchmarks.overhead import LABELS, Figure, measure
from benchmarks.start import measure_start
from benchmarks.worker import CHUNKS


def shown(figure: Figure) -> str:
    """A figure with its spread."""
    return f"{figure.added:+.1f} ({figure.low:+.1f} .. {figure.high:+.1f}), x{figure.ratio:.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=50, help="calls in one burst")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(options.rounds, options.calls)
    starts = measure_start(max(3, options.rounds // 4))
    if options.json:
        print(json.dumps({"schema": 1, "overhead": [asdict(row) for row in rows], "start": starts}, indent=2))
        return
    load = os.getloadavg()[0]
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}; {options.rounds} rounds interleaved"
    )
    print(
        "\nAdded to the bare client, microseconds: median of paired differences (middle half), ratio to the bare client\n"
    )
    print("| scenario | variant | bare CPU | added CPU | added wall |\n|---|---|---|---|---|")
    for row in rows:
        unit = " per chunk" if row.scenario.startswith("stream") else ""
        name = row.scenario + unit
        print(
            f"| {name} | {LABELS[row.variant]} | {row.bare_us:.1f} | {shown(row.cpu)} | {shown(row.wall)} |"
        )
    print(f"\nA stream has {CHUNKS} chunks; its call's own cost is spread over them.")
    print("\n| start | median ms (middle half) |\n|---|---|")
    for name, (low, middle, high) in starts.items():
        print(f"| {name} | {middle:.0f} ({low:.0f} .. {high:.0f}) |")


if __name__ == "__main__":
    main()
