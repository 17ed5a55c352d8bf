"""`python -m benchmarks`: what a call costs and what concurrent callers gain, beside the bare client and
beside another instrumentation."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.cells import CLIENTS, cells
from benchmarks.interleave import measure
from benchmarks.parts import CONCURRENT, PARTS, Result
from benchmarks.report import as_json, machine, markdown
from benchmarks.starts import KINDS, Start, starts
from benchmarks.table import Row, rows
from benchmarks.worlds import WORLDS

_PARAMETERS = ("parts", "quick", "rounds", "burst_ms", "runs", "seed", "clients", "worlds")
_QUICK = {"rounds": 5, "burst_ms": 10, "runs": 3, "clients": ["openai", "httpx2"]}
_FULL = {"rounds": 13, "burst_ms": 20, "runs": 7, "clients": list(CLIENTS)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, return 0."""
    options = _options(arguments)
    load = _load()
    console = Console(stderr=True)
    results: dict[str, Result] = {}
    with Progress(console=console, transient=True) if console.is_terminal else nullcontext() as progress:
        table, started = _calls(options, progress)
        for name in (name for name in CONCURRENT if name in options.parts):
            part = CONCURRENT[name]
            step = _stepper(progress, part.title, part.steps(options.quick))
            results[name] = part.run(options.quick, options.seed, step)
    parameters = {name: getattr(options, name) for name in _PARAMETERS}
    where = machine((*load, *_load()))
    if options.json:
        found = as_json(where, parameters, table, started)
        print(json.dumps({**found, **{name: result.rows for name, result in results.items()}}, indent=1))
    else:
        print(markdown(where, parameters, table, started))
        for result in results.values():
            print("\n".join(result.lines))
    return 0


def _calls(options: argparse.Namespace, progress: Any) -> tuple[list[Row], list[Start]]:
    """What a call and a start cost."""
    table: list[Row] = []
    started: list[Start] = []
    if "calls" in options.parts:
        made = cells(options.clients)
        samples = measure(
            made,
            options.worlds,
            rounds=options.rounds,
            burst=options.burst_ms / 1e3,
            seed=options.seed,
            step=_stepper(progress, "calls", options.rounds * len(made)),
        )
        table = rows(samples, options.clients, options.worlds)
    if "starts" in options.parts and options.runs:
        step = _stepper(progress, "starts", options.runs * len(KINDS))
        started = starts(options.runs, seed=options.seed, step=step)
    return table, started


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument(
        "--quick", action="store_true", help="fewer clients, rounds and callers: about two minutes"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--rounds", type=_at_least(1), help=f"rounds of bursts ({_FULL['rounds']})")
    parser.add_argument(
        "--burst-ms", type=_at_least(1), help=f"length of a burst in ms ({_FULL['burst_ms']})"
    )
    parser.add_argument(
        "--runs", type=_at_least(0), help=f"processes per kind of start; 0 for none ({_FULL['runs']})"
    )
    parser.add_argument(
        "--clients", nargs="+", choices=list(CLIENTS), metavar="CLIENT", help=", ".join(CLIENTS)
    )
    parser.add_argument(
        "--worlds",
        nargs="+",
        choices=list(WORLDS),
        default=list(WORLDS),
        metavar="WORLD",
        help=", ".join(WORLDS),
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order of turns (1)")
    options = parser.parse_args(arguments)
    for name, value in (_QUICK if options.quick else _FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _at_least(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value}: allowed is {least} or more")
        return value

    return whole


def _stepper(progress: Any, title: str, total: int) -> Callable[[], None]:
    if progress is None:
        return _silent
    task = progress.add_task(title, total=total)
    return lambda: progress.advance(task)


def _silent() -> None:
    """No bar without a terminal."""


def _load() -> tuple[float, ...]:
    return (os.getloadavg()[0],) if hasattr(os, "getloadavg") else ()


if __name__ == "__main__":
    sys.exit(main())
