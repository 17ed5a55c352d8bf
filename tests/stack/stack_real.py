"""The real stack that the tests marked `stack` run against: its addresses and its processes."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import stack_sending as sending

from underlay import stack
from underlay.stack import processes
from underlay.stack.state import read_state


@dataclass(frozen=True, slots=True)
class Real:
    """The stack that runs: its addresses and the way to its processes."""

    environ: dict[str, str] = field(repr=False)
    otlp: str
    otlp_grpc: str
    prometheus: str
    jaeger: str

    def process(self, service: str) -> processes.Process:
        """The process of one server."""
        state = read_state(Path(self.environ["UNDERLAY_STACK_HOME"]))
        assert state is not None
        return state.servers[service].process

    def end(self, *services: str) -> None:
        """Stop servers the polite way."""
        for service in services:
            assert processes.stop(self.process(service), 30)

    def kill(self, *services: str) -> None:
        """Kill servers without a chance to write anything."""
        for service in services:
            process = self.process(service)
            os.kill(process.pid, signal.SIGKILL)
            sending.eventually(lambda p=process: None if processes.is_running(p) else True, f"{service} dies")

    def up(self) -> None:
        """Start what is missing."""
        stack.up(any_ports=True, environ=self.environ)
