"""A process that is one world, and makes a burst of calls when it is told to: `python -m benchmarks.worker
WORLD`.

One JSON object a line comes in on standard input, one goes out on standard output.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import Any, TextIO

from benchmarks.cells import Cell, Operation, prepare
from benchmarks.worlds import WORLDS, enter

__all__ = ["main"]

_WARM = 3  # calls before the clock starts: what other processes did to the caches of this core


class Worker:
    """The cells of one world, each bare and with what the world put in."""

    def __init__(self, world: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._touch, self._between = enter(WORLDS[world])
        self._operations: dict[tuple[str, bool], Operation] = {}

    def prepare(self, names: list[str]) -> None:
        """Make every client, make its first calls, and set aside what lives now from garbage collection."""
        for name in names:
            client, traffic, frames = name.split("/")
            cell = Cell(client, traffic, int(frames))
            for bare in (True, False):
                operation = prepare(cell, bare=bare, loop=self._loop, touch=self._touch)
                operation(20)
                self._operations[name, bare] = operation
        gc.collect()
        gc.freeze()

    def burst(self, name: str, calls: int, *, bare: bool) -> dict[str, float]:
        """Seconds per call: CPU of this thread, wall, and CPU of the whole process."""
        operation = self._operations[name, bare]
        gc.collect()
        operation(_WARM)
        process, wall, cpu = time.process_time(), time.perf_counter(), time.thread_time()
        operation(calls)
        spent = {
            "cpu": time.thread_time() - cpu,
            "wall": time.perf_counter() - wall,
            "process": time.process_time() - process,
        }
        self._between()
        return {key: value / calls for key, value in spent.items()}


def _answer(worker: Worker, order: dict[str, Any]) -> dict[str, Any]:
    if "prepare" in order:
        worker.prepare(order["prepare"])
        return {"ready": True}
    return worker.burst(order["cell"], order["calls"], bare=order["bare"])


def main(world: str, orders: TextIO, answers: TextIO) -> None:
    """Obey until the orders end."""
    worker = Worker(world)
    for line in orders:
        answers.write(json.dumps(_answer(worker, json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin, sys.stdout)
