"""A pretended machine for the stack's plain tests, and the real stack for those marked `stack`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from stack_fakes import Machine
from stack_real import Real

from underlay import stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with nothing installed; the process itself sees its PATH, too."""
    path = tmp_path / "path"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    return Machine(tmp_path / "home", tmp_path / "bin", path)


@pytest.fixture(scope="session")
def real_environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of the real stack: this machine's built servers, a home of its own. Skips unless asked
    for.
    """
    if os.environ.get("UNDERLAY_STACK_TESTS") != "1":
        pytest.skip("set UNDERLAY_STACK_TESTS=1 to run against the real servers")
    return {**os.environ, "UNDERLAY_STACK_HOME": str(tmp_path_factory.mktemp("stack home"))}


@pytest.fixture(scope="session")
def real(real_environ: dict[str, str]) -> Iterator[Real]:
    """The native stack on free ports with a home of its own."""
    try:
        status = stack.up(any_ports=True, mode="native", environ=real_environ)
        at = {name: address or "" for name, address in status.endpoints.items()}
        yield Real(real_environ, at["otlp_http"], at["otlp_grpc"], at["prometheus"], at["jaeger"])
    finally:
        stack.down(delete_data=True, environ=real_environ)
