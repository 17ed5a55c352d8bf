"""The workers of one host over one SQLite store: real processes, the official SDK, the simulator."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from underlay.simulator import Latency, Simulator, SimulatorOptions

PROGRAM = Path(__file__).with_name("shared_program.py")


class Workers:
    """Processes that ask when they are told to."""

    def __init__(self, stack: ExitStack, url: str, store: Path, modes: list[str]) -> None:
        self._processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, PROGRAM, mode, url, f"sqlite:///{store}"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for mode in modes
        ]
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def ask(self) -> list[Any]:
        """Have all ask at once: what each got."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in self._processes if process.stdout]

    def kill(self, number: int) -> None:
        """End one in the middle of what it does."""
        self._processes[number].kill()
        self._processes[number].wait(10)
        del self._processes[number]

    def start(self, number: int) -> None:
        """Have one ask, and do not wait for it."""
        stdin = self._processes[number].stdin
        assert stdin is not None
        stdin.write("\n")
        stdin.flush()

    def close(self) -> None:
        """Let them end."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A provider that takes its time, so that the workers meet."""
    with Simulator(SimulatorOptions(latency=Latency(first_token=1.0))) as running:
        yield running


def test_workers_make_one_request(simulator: Simulator, tmp_path: Path) -> None:
    """Four workers, two of them with event loops, ask the same at once: one request, four equal answers; then
    each has a hit."""
    with ExitStack() as stack:
        workers = Workers(stack, simulator.url, tmp_path / "answers.db", ["sync", "sync", "async", "async"])
        answers = workers.ask()
        assert Counter(answer[2] for answer in answers) == {"miss": 1, "coalesced": 3}
        assert len({answer[0] for answer in answers}) == 1
        assert simulator.counts().total.requests == 1
        assert [answer[2:] for answer in workers.ask()] == [["hit", {}]] * 4
        workers.close()
    assert simulator.counts().total.requests == 1


def test_a_worker_that_dies_holds_up_nobody(simulator: Simulator, tmp_path: Path) -> None:
    """The lead is killed while its request is under way: another asks in its place, long before the wait is
    over."""
    with ExitStack() as stack:
        workers = Workers(stack, simulator.url, tmp_path / "answers.db", ["sync", "sync", "async"])
        workers.start(0)
        while simulator.counts().total.requests < 1:
            continue
        workers.kill(0)
        answers = workers.ask()
        assert Counter(answer[2] for answer in answers) == {"miss": 1, "coalesced": 1}
        assert [answer[3] for answer in answers] == [{}, {}]
        assert simulator.counts().total.requests == 2
        workers.close()
