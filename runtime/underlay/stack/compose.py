"""The stack in containers: the bundled compose file, run by Docker or Podman."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from underlay.stack import ready
from underlay.stack.bundle import compose_file, dashboards_dir
from underlay.stack.errors import NotReadyError, StackError
from underlay.stack.ports import choose_ports, ports_of
from underlay.stack.report import Status, Stopped, status_of
from underlay.stack.state import State, read_state, write_state

if TYPE_CHECKING:
    from pathlib import Path

    from underlay.stack.engine import Engine
    from underlay.stack.pins import Pins

PROJECT = "underlay"
SERVICES = ("prometheus", "jaeger", "collector", "grafana")
VOLUMES = ("collector-queue", "prometheus-data", "jaeger-data", "grafana-data")
PASSWORD_VARIABLE = "GRAFANA_ADMIN_PASSWORD"  # noqa: S105 - its name
PASSWORD_FILE = "grafana-admin-password"  # noqa: S105 - its name

Say = Callable[[str], None]
Run = Callable[[Sequence[str], Mapping[str, str]], tuple[int, str]]


def up(
    home: Path,
    root: Path,
    engine: Engine,
    pins: Pins,
    environ: Mapping[str, str],
    *,
    any_ports: bool,
    timeout_s: float,
    say: Say,
    run: Run | None = None,
    ask: Callable[[int, str], bool] | None = None,
) -> Status:
    """Start the containers and wait until every service answers on its port.

    Raises `StackError` with the engine's own words when it refuses, `NotReadyError` at the deadline. `run`
    replaces running a command, `ask` asking a health endpoint (tests).
    """
    if not any(dashboards_dir(root).glob("*.json")):
        raise StackError(f"no dashboards in {dashboards_dir(root)}: render them first (`make dashboards`)")
    before = read_state(home) or State("compose")
    execute = run or _run
    running = before.mode == "compose" and running_services(engine, run=execute)
    ports = before.ports
    if not running:
        ports = choose_ports("compose", environ, any_ports=any_ports, previous=before.ports)
    password, note = _password(home, environ)
    write_state(home, State("compose", ports))
    say(f"starting containers with {engine.name}")
    env = _environment(environ, pins, ports, password)
    _check(execute((*_command(engine, root), "up", "--detach"), env), "the containers did not start")
    failure = ready.wait_for(
        list(SERVICES), lambda name: ready.is_ready(name, ports, ask), lambda _name: True, timeout_s
    )
    if failure is not None:
        raise NotReadyError(
            f"{failure[0]} did not answer within {timeout_s:.0f} s: see `underlay stack logs {failure[0]}`"
        )
    say("all services answer")
    return status_of("compose", ports, SERVICES, note)


def down(
    home: Path,
    root: Path,
    engine: Engine,
    pins: Pins,
    environ: Mapping[str, str],
    state: State,
    *,
    delete_data: bool,
    run: Run | None = None,
) -> Stopped:
    """Stop and remove the containers; keep the volumes unless told otherwise."""
    execute = run or _run
    services = running_services(engine, run=execute)
    env = _environment(environ, pins, state.ports, environ.get(PASSWORD_VARIABLE) or "unused")
    _check(
        execute((*_command(engine, root), "down", *(["--volumes"] if delete_data else [])), env),
        "the containers did not stop",
    )
    volumes = tuple(f"volume {PROJECT}_{name}" for name in VOLUMES)
    secret = home / PASSWORD_FILE
    kept = (str(secret),) if secret.exists() else ()
    if not delete_data:
        return Stopped(services, (*volumes, *kept))
    # Grafana keeps its first password in the volume that is gone now
    secret.unlink(missing_ok=True)
    return Stopped(services, (), (*volumes, *kept))


def status(engine: Engine, state: State, run: Run | None = None) -> Status:
    """Ask the engine what runs, and what runs whether it answers."""
    up_now = running_services(engine, run=run or _run)
    serving = [name for name in up_now if ready.is_ready(name, state.ports)]
    late = [f"{name} runs but does not answer" for name in up_now if name not in serving]
    return status_of("compose", state.ports, serving, *late)


def running_services(engine: Engine, run: Run | None = None) -> tuple[str, ...]:
    """Return the services of the stack whose containers run."""
    code, said = (run or _run)(
        (
            engine.client,
            "ps",
            "--filter",
            f"label=com.docker.compose.project={PROJECT}",
            "--format",
            '{{.Label "com.docker.compose.service"}}',
        ),
        os.environ,
    )
    names = set(said.split()) if code == 0 else set()
    return tuple(name for name in SERVICES if name in names)


def logs(
    root: Path,
    engine: Engine,
    pins: Pins,
    environ: Mapping[str, str],
    state: State,
    service: str,
    *,
    lines: int,
    follow: bool,
) -> Iterator[str]:
    """Yield the last lines of a service's log, then with `follow` new ones as they come, until the caller
    stops.
    """
    command = [*_command(engine, root), "logs", "--no-color", "--tail", str(lines)]
    command += ["--follow", service] if follow else [service]
    env = _environment(environ, pins, state.ports, "unused")
    with subprocess.Popen(  # noqa: S603 - fixed words behind a program found on PATH
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            for line in process.stdout or ():
                yield line.rstrip("\n")
        finally:
            process.terminate()


def _command(engine: Engine, root: Path) -> tuple[str, ...]:
    """Return the compose command on the bundled file."""
    return (*engine.compose, "--file", str(compose_file(root)), "--project-name", PROJECT)


def _environment(
    environ: Mapping[str, str], pins: Pins, ports: Mapping[str, int], password: str
) -> dict[str, str]:
    """Return the environment that the compose file interpolates: the pins, the ports, the password."""
    own = {port.variable: str(ports[port.name]) for port in ports_of("compose") if port.name in ports}
    return {**environ, **pins.environment(), **own, PASSWORD_VARIABLE: password}


def _password(home: Path, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return Grafana's admin password and where it is: the user's own, or one made once and kept."""
    if given := environ.get(PASSWORD_VARIABLE):
        return given, f"Grafana: user admin, password from {PASSWORD_VARIABLE}"
    path = home / PASSWORD_FILE
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
    return path.read_text(encoding="ascii").strip(), f"Grafana: user admin, password in {path}"


def _check(result: tuple[int, str], what: str) -> None:
    """Raise `StackError` with the last words of a command that failed."""
    code, said = result
    if code != 0:
        words = "\n".join(f"  {line}" for line in said.strip().splitlines()[-5:])
        raise StackError(f"{what} (exit code {code}):\n{words}")


def _run(command: Sequence[str], env: Mapping[str, str]) -> tuple[int, str]:
    """Run a command to its end; give its return code and all it printed."""
    answer = subprocess.run(  # noqa: S603 - fixed words behind a program found on PATH
        list(command),
        env=dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    return answer.returncode, answer.stdout
