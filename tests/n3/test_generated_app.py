"""An unchanged N3 back end against simulated providers, over real HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from underlay import n3
from underlay.errors import ProviderError
from underlay.simulator import Simulator

from . import generated_backend
from .conftest import House

APP = Path(generated_backend.__file__)


@pytest.mark.parametrize("command", [[sys.executable], ["underlay", "run", "--", sys.executable]])
def test_a_generated_program_runs(simulator: Simulator, tmp_path: Path, command: list[str]) -> None:
    """By itself or under `underlay run`: 80 calls, 40 of them hits, every question sent once, all circuits
    closed."""
    program = Path(sys.executable).with_name(command[0]) if command[0] == "underlay" else command[0]
    quiet = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    done = subprocess.run(
        [str(program), *command[1:], str(APP)],
        env=os.environ | quiet,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    health = said["health"]
    assert (said["same"], said["answers"], health["total_calls"]) == (True, 40, 80)
    assert health["cache"] == {"size": 40, "hits": 40, "misses": 40, "hit_rate": 0.5, "evictions": 0}
    assert simulator.counts().of("chat", "gpt-4o").requests == simulator.counts().total.requests == 40
    assert health["p95_ms"]["gpt-4o"] > 0
    assert {circuit["state"] for circuit in health["circuits"].values()} == {"closed"}
    assert health["circuits"]["gpt-4o"]["successful_calls"] == 40


def test_it_fails_over_and_comes_back(house: House) -> None:
    """An outage opens the primary's circuit, the other provider answers at once, and after recovery the primary
    does again."""
    with house.simulator.outage("gpt-4o"):
        for number in range(5):
            with pytest.raises(ProviderError):
                generated_backend.answer(f"Down {number}?")
        sent = house.simulator.counts().of(model="gpt-4o").requests
        answers = generated_backend.answer_all([f"Outage {number}?" for number in range(8)])
        assert {answer["model"] for answer in answers} == {generated_backend.FALLBACK}
        assert house.simulator.counts().of(model="gpt-4o").requests == sent == 5
        assert house.simulator.counts().of("messages").requests == 8
    circuit = generated_backend.health()["circuits"]["gpt-4o"]
    assert (circuit["state"], circuit["rejected_calls"]) == ("open", 8)
    house.clock.advance(60)
    assert generated_backend.health()["circuits"]["gpt-4o"]["state"] == "half_open"
    for number in range(2):
        assert generated_backend.answer(f"Back {number}?")["model"] == generated_backend.PRIMARY
    circuit = generated_backend.health()["circuits"]["gpt-4o"]
    assert (circuit["state"], circuit["state_changes"]) == ("closed", 3)


def test_the_operator_closes_the_circuit(house: House) -> None:
    """The button lets the primary be asked before the recovery time is over."""
    with house.simulator.outage("gpt-4o"):
        for number in range(5):
            with pytest.raises(ProviderError):
                generated_backend.answer(f"Down {number}?")
    generated_backend.repair()
    assert generated_backend.answer("Up?")["model"] == generated_backend.PRIMARY
    assert n3._get_circuit_breaker_stats("gpt-4o")["state_changes"] == 2
