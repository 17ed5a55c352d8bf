"""`underlay simulate`: serves until it is interrupted, and says where."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import Any

import httpx
import pytest
from cli_builder import SOURCES

INVOKE = Any


def test_it_serves_until_ctrl_c() -> None:
    """It says its address as JSON, answers there, and an interrupt ends it with 0."""
    code = "from underlay.cli import main; main(['simulate', '--port', '0', '--json', '--seed', '7'])"
    environ = {**os.environ, "PYTHONPATH": SOURCES}
    child = subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        address = json.loads(child.stdout.readline())
        assert address["schema"] == 1
        assert httpx.get(f"{address['url']}/_sim/counts").status_code == 200
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
    finally:
        child.kill()
        child.communicate()


def test_a_taken_port_is_said(invoke: INVOKE) -> None:
    """An address that cannot be had is exit 2 and one message."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = invoke("simulate", "--port", str(server.getsockname()[1]))
    assert result.exit_code == 2
    assert "address already in use" in result.stderr


def test_an_open_host_is_warned_about(invoke: INVOKE, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything but the loopback is served only with a warning; options reach the simulator."""
    seen: dict[str, Any] = {}

    def serve(options: Any, host: str, port: int, *, as_json: bool) -> None:
        seen.update(options=options, host=host, port=port, as_json=as_json)

    monkeypatch.setattr("underlay.cli.simulate.serve", serve)
    result = invoke(
        "simulate", "--host", "0.0.0.0", "--seed", "3", "--first-token", "0.5",
        "--tokens-per-second", "80",
        "--fault", "429",
    )  # fmt: skip
    assert result.exit_code == 0
    assert "may be reached from other machines" in result.stderr
    assert (seen["host"], seen["port"], seen["as_json"]) == ("0.0.0.0", 8790, False)
    options = seen["options"]
    assert (options.seed, options.latency.first_token, options.latency.tokens_per_second) == (3, 0.5, 80)
    assert [fault.status for fault in options.faults] == [429]
