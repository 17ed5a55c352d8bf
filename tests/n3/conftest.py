"""N3's names over a fresh runtime, a clock that stands still, and simulated providers on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    """One simulator for a module."""
    with Simulator() as running:
        yield running


@pytest.fixture
def house(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """The classic settings, untouched."""
    simulator.reset()
    monkeypatch.setenv("OPENAI_BASE_URL", f"{simulator.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", simulator.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    clock, recorder = FakeClock(), Recorder()
    runtime = n3.configure(clock=clock)
    runtime.listen(recorder)
    yield House(runtime, clock, recorder, simulator)
    runtime.close()
    monkeypatch.setattr(n3, "_runtime", None)
