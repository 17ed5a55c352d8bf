"""An engine counts when it answers; a native server counts when its version fits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from stack_fakes import Machine, program

from underlay.stack import read_pins
from underlay.stack.binaries import Missing, Program, find_programs
from underlay.stack.engine import Engine, NoEngine, find_engine

if TYPE_CHECKING:
    from collections.abc import Sequence


def found(installed: Sequence[str], answers: dict[str, tuple[int, str]]) -> Engine | NoEngine:
    """Look for an engine where these programs are installed; `answers` are keyed by their first two words."""

    def run(command: Sequence[str]) -> tuple[int, str]:
        return answers.get(" ".join(command[:2]), (1, ""))

    return find_engine(run, lambda name: name if name in installed else None)


UP = {"docker info": (0, "28.2.2\n"), "podman info": (0, "5.6.0\n")}


def test_docker_with_its_plugin() -> None:
    """Docker that answers and has the compose plugin is used with it."""
    engine = found(["docker", "docker-compose", "podman"], {**UP, "docker compose": (0, "")})
    assert engine == Engine("docker", "docker", ("docker", "compose"))


def test_docker_with_the_separate_compose() -> None:
    """Without the plugin the separate docker-compose serves."""
    engine = found(["docker", "docker-compose"], {**UP, "docker-compose version": (0, "")})
    assert engine == Engine("docker", "docker", ("docker-compose",))


def test_podman_when_docker_is_only_a_client() -> None:
    """A docker client whose engine does not answer gives way to a Podman that does."""
    engine = found(["docker", "podman"], {"podman info": (0, "5.6.0"), "podman compose": (0, "")})
    assert engine == Engine("podman", "podman", ("podman", "compose"))


def test_podman_with_podman_compose() -> None:
    """Podman whose own compose verb finds no provider is used through podman-compose."""
    engine = found(["podman", "podman-compose"], {**UP, "podman-compose version": (0, "")})
    assert engine == Engine("podman", "podman", ("podman-compose",))


def test_every_reason_is_told() -> None:
    """When nothing can be used, each kind says why."""
    assert found([], {}) == NoEngine(("docker is not installed", "podman is not installed"))
    assert found(["docker", "podman"], UP) == NoEngine(
        ("docker answers, but has no compose command", "podman answers, but has no compose command")
    )
    assert found(["docker"], {"docker info": (0, "\n")}) == NoEngine(
        ("docker is installed, but no engine answers it", "podman is not installed")
    )


def test_a_client_without_an_engine_is_none(machine: Machine) -> None:
    """Real commands: a docker client that prints its version and fails to reach a server is not an engine."""
    program(
        machine.path / "docker",
        "#!/bin/sh\n[ \"$1\" = compose ] && exit 0\necho 'Cannot connect' >&2; exit 1\n",
    )
    assert find_engine() == NoEngine(
        ("docker is installed, but no engine answers it", "podman is not installed")
    )


def test_an_engine_that_answers_is_found_by_running_it(machine: Machine) -> None:
    """Real commands: a client that reports a server version, with a compose verb, is an engine."""
    path = program(machine.path / "docker", "#!/bin/sh\necho 28.2.2\n")
    assert find_engine() == Engine("docker", str(path), (str(path), "compose"))


def test_built_servers_count_when_their_stamp_is_the_pin(machine: Machine) -> None:
    """The cache folder's servers are used with the pinned version, and not after the pin has moved on."""
    machine.install()
    programs = find_programs(read_pins(), machine.bin)
    assert [item.service for item in programs] == ["prometheus", "jaeger", "collector"]
    assert all(isinstance(item, Program) and item.note is None for item in programs)
    (machine.bin / "jaeger.stamp").write_text("2.0.0 recipe\n", encoding="utf-8")
    assert find_programs(read_pins(), machine.bin)[1] == Missing("jaeger", "not found")


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ("prometheus, version {pin} (branch: HEAD)", True),
        ("prometheus, version 3.999.0", True),
        ("prometheus, version 2.42.0+ds", False),
        ("prometheus, version 4.0.0", False),
        ("prometheus of unknown age", False),
    ],
)
def test_servers_on_path_count_when_their_version_fits(machine: Machine, said: str, fits: bool) -> None:
    """A server on PATH is used from the pinned version on, within its major number; else the error says what
    it is.
    """
    pins = read_pins()
    line = said.format(pin=pins.prometheus)
    path = program(machine.path / "prometheus", f"#!/bin/sh\necho '{line}'\n")
    item = find_programs(pins, machine.bin)[0]
    if fits:
        assert isinstance(item, Program)
        assert item.path == path
        assert (item.note is None) is (item.version == pins.prometheus)
    else:
        assert isinstance(item, Missing)
        assert str(path) in item.reason
        assert pins.prometheus in item.reason


def test_a_server_that_cannot_be_asked_is_of_unknown_version(machine: Machine) -> None:
    """A program that fails at both ways to ask is not used."""
    program(machine.path / "jaeger", "#!/bin/sh\nexit 1\n")
    item = find_programs(read_pins(), Path(machine.bin))[1]
    assert isinstance(item, Missing)
    assert "of unknown version" in item.reason
