"""The driver: all worlds take turns, burst by burst, in an order that is drawn anew for every round and
cell."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells import CLIENTS, Cell
from benchmarks.worlds import WORLDS

__all__ = ["ROOT", "Samples", "environment", "measure"]

ROOT = Path(__file__).parent.parent

Samples = dict[str, dict[str, dict[bool, list[dict[str, float]]]]]
"""cell -> world -> bare? -> one record (seconds per call) a round."""

_FEWEST, _MOST = 3, 1000  # calls in a burst


def environment() -> dict[str, str]:
    """The environment of every process that is measured: no settings of this machine's, one hash seed."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "UNDERLAY_", "OPENAI_"))
    }
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}


class _Process:
    def __init__(self, world: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", world],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )
        self._world = world

    def tell(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of world {self._world} ended: see its message above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        self.tell(order)
        return self.hear()

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _fits(cell: Cell, world: str) -> bool:
    return CLIENTS[cell.client].sdk or not WORLDS[world].sdk_only


def measure(
    cells: Sequence[Cell],
    worlds: Sequence[str],
    *,
    rounds: int,
    burst: float,
    seed: int,
    step: Callable[[], None],
) -> Samples:
    """Run `rounds` rounds of bursts of about `burst` seconds. `step` is called after each cell of each
    round."""
    processes = {world: _Process(world) for world in worlds}
    try:
        for world, process in processes.items():
            process.tell({"prepare": [cell.name for cell in cells if _fits(cell, world)]})
        for process in processes.values():
            process.hear()
        calls = _calibrated(cells, processes, burst)
        samples: Samples = defaultdict(lambda: defaultdict(lambda: {True: [], False: []}))
        draw = random.Random(seed)
        for _ in range(rounds):
            for cell in draw.sample(list(cells), len(cells)):
                turns = [(world, bare) for world in worlds if _fits(cell, world) for bare in (True, False)]
                draw.shuffle(turns)
                for world, bare in turns:
                    order = {"cell": cell.name, "calls": calls[cell.name], "bare": bare}
                    samples[cell.name][world][bare].append(processes[world].ask(order))
                step()
        return samples
    finally:
        for process in processes.values():
            process.end()


def _calibrated(cells: Sequence[Cell], processes: dict[str, _Process], burst: float) -> dict[str, int]:
    """How many calls fill a burst: the same number for every world."""
    calls = {}
    for cell in cells:
        process = next(process for world, process in processes.items() if _fits(cell, world))
        one = process.ask({"cell": cell.name, "calls": 5, "bare": True})["wall"]
        calls[cell.name] = max(_FEWEST, min(_MOST, round(burst / one)))
    return calls
