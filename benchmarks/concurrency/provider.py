"""The simulated provider, in a process of its own: it shares neither the loop nor the interpreter lock with
those that are measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from benchmarks.interleave import environment

__all__ = ["CHAT", "EMBEDDING", "Provider", "provider"]

CHAT, EMBEDDING = "gpt-4o-mini", "text-embedding-3-small"

_SERVE = """
import json, sys
from underlay.simulator import Latency, SimulatorOptions, serve
paces = {name: Latency(**pace) for name, pace in json.loads(sys.argv[1]).items()}
serve(SimulatorOptions(seed=1, latency_by_model=paces, keep_requests=0), as_json=True)
"""


class Provider:
    """A running simulator: its address, its books and its faults."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._admin = httpx2.Client(base_url=url, trust_env=False, timeout=60.0)

    def requests(self) -> int:
        """Requests received since the start."""
        counted: dict[str, Any] = self._admin.get("/_sim/counts").raise_for_status().json()
        return int(counted["total"]["requests"])

    @contextmanager
    def down(self, seconds: float) -> Iterator[None]:
        """While inside, every call is answered with a 503, after so many seconds."""
        faults = [{"fault": "503"}, {"fault": f"slow;seconds={seconds}"}]
        self._admin.post("/_sim/faults", json=faults).raise_for_status()
        try:
            yield
        finally:
            self._admin.delete("/_sim/faults").raise_for_status()

    def close(self) -> None:
        """Let go of the connection to its books."""
        self._admin.close()


@contextmanager
def provider(**paces: dict[str, float]) -> Iterator[Provider]:
    """A provider whose models take the times named: `chat` and `embedding`, each with the fields of
    `underlay.simulator.Latency`; a model that is not named answers at once."""
    by_model = {{"chat": CHAT, "embedding": EMBEDDING}[name]: pace for name, pace in paces.items()}
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, json.dumps(by_model)],
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the simulator did not start: see its message above")
        running = Provider(json.loads(line)["url"])
        try:
            yield running
        finally:
            running.close()
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
