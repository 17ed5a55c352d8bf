"""Fixtures of the command line's tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_builder import SOURCES
from cli_snapshots import write_sample
from click.testing import CliRunner, Result

from underlay.cli.group import cli

Invoke = Callable[..., Result]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """UTC, 80 columns, no colour wishes, none of our variables, and a folder of its own."""
    for name in list(os.environ):
        if name.startswith(("UNDERLAY_", "OTEL_")) or name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.chdir(tmp_path)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def invoke() -> Invoke:
    """Run a command in this process; the result has stdout, stderr and exit_code."""

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def command() -> Command:
    """Run `underlay …` as a process of its own, with `env` on top of this environment."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        code = "from underlay.cli import main; main()"
        path = os.pathsep.join(filter(None, (SOURCES, env.pop("PYTHONPATH", ""))))
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": path, **env},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """The folder of the snapshots' telemetry."""
    folder = tmp_path / ".underlay"
    folder.mkdir()
    write_sample(folder)
    return folder
