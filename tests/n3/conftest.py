"""N3's names over a fresh runtime, a clock that stands still, and simulated providers on loopback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any

import pytest

from underlay import n3
from underlay.runtime import Runtime
from underlay.simulator import Simulator
from underlay.testing import FakeClock, Recorder


@dataclass
class House:
    """What an N3 test has to hand."""

    runtime: Runtime
    clock: FakeClock
    recorder: Recorder
    simulator: Simulator

    @property
    def upstream(self) -> int:
        """Requests that reached a provider."""
        return self.simulator.counts().total.requests

    def together(self, count: int, work: Callable[[int], Any]) -> list[Any]:
        """`together` while time stands still: windows leave when they are full, so `count` fills them. When
        a call fails time goes on, so that the others do not wait for it, and the test says why."""
        self.clock.autojump = False

        def careful(number: int) -> Any:
            try:
                return work(number)
            except BaseException:
                self.clock.autojump = True
                self.clock.advance(1)
                raise

        try:
            return together(count, careful)
        finally:
            self.clock.autojump = True


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Call `work(0)` to `work(count - 1)` at the same time, and return the results in that order."""
    start = Barrier(count)

    def run(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


@pytest.fixture(scope="module")
def running() -> Iterator[Simulator]:
    """One simulator for a module."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(running: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """Simulated providers that nobody has called, where the environment says they are; no runtime yet."""
    running.reset()
    for name in [name for name in os.environ if name.startswith(("UNDERLAY_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{running.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    n3.reset()
    yield running
    n3.reset()


@pytest.fixture
def house(simulator: Simulator) -> House:
    """The classic settings, untouched. A window whose time is all it waits for leaves at once."""
    clock, recorder = FakeClock(autojump=True), Recorder()
    runtime = n3.configure(clock=clock)
    runtime.listen(recorder)
    return House(runtime, clock, recorder, simulator)
