"""The stack without containers: native servers with the same configuration files, on loopback."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from underlay.stack import processes, ready
from underlay.stack.errors import NotReadyError, PortTakenError, StackError
from underlay.stack.ports import HOST, PORTS, choose_ports, port_is_free
from underlay.stack.report import Status, Stopped, last_lines, status_of
from underlay.stack.state import Server, State, read_state, write_state

if TYPE_CHECKING:
    from pathlib import Path

    from underlay.stack.binaries import Program

# The Collector goes first, so that it can still pass on or put on disk what it has; its exporters give up at
# once.
STOP_ORDER = ("collector", "jaeger", "prometheus")
STOP_GRACE_S = 30.0
# A log that has grown beyond this is set aside at the next start; a running server keeps its file.
LOG_LIMIT_BYTES = 5_000_000
FOLLOW_POLL_S = 0.25
SYSTEM = ("PATH", "HOME", "TMPDIR", "TZ", "GOMAXPROCS")
PASSED_ON = (*SYSTEM, "UNDERLAY_COLLECTOR_LOGS", "UNDERLAY_TRACES_RETENTION")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Launch:
    """How one server is started: its command and its whole environment."""

    command: tuple[str, ...]
    env: Mapping[str, str]


def launches(
    programs: Mapping[str, Path],
    ports: Mapping[str, int],
    config: Path,
    data: Path,
    environ: Mapping[str, str],
) -> dict[str, Launch]:
    """Return how each service is started with the bundled configuration.

    Of `environ` the servers get a few system variables and the stack's own settings: no OTEL_* variable of
    the user's shell reconfigures them, and no credential reaches them.
    """
    base = {name: environ[name] for name in PASSED_ON if environ.get(name)}
    own = {port.variable: str(ports[port.name]) for port in PORTS if port.name in ports}
    arguments = {
        "prometheus": _prometheus_flags(ports["prometheus"], config, data, environ),
        "jaeger": (f"--config={config / 'jaeger' / 'config.yaml'}",),
        "collector": (f"--config={config / 'collector' / 'config.yaml'}",),
    }
    extra: dict[str, dict[str, str]] = {
        "prometheus": {},
        "jaeger": {
            "OTEL_TRACES_SAMPLER": "always_off",
            "UNDERLAY_JAEGER_HOST": HOST,
            "UNDERLAY_JAEGER_DATA_DIR": str(data / "jaeger"),
        },
        "collector": {
            "GOMEMLIMIT": "205MiB",
            "UNDERLAY_COLLECTOR_HOST": HOST,
            "UNDERLAY_COLLECTOR_QUEUE_DIR": str(data / "collector"),
            "UNDERLAY_PROMETHEUS_OTLP_ENDPOINT": f"http://{HOST}:{ports['prometheus']}/api/v1/otlp",
            "UNDERLAY_JAEGER_OTLP_ENDPOINT": f"http://{HOST}:{ports['jaeger_otlp']}",
        },
    }
    return {
        service: Launch((str(path), *arguments[service]), {**base, **own, **extra[service]})
        for service, path in programs.items()
    }


def _prometheus_flags(port: int, config: Path, data: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the flags of Prometheus: those of the compose file, and the address to listen on."""
    retention = environ.get("UNDERLAY_METRICS_RETENTION") or "15d"
    size = environ.get("UNDERLAY_METRICS_RETENTION_SIZE") or "2GB"
    return (
        f"--config.file={config / 'prometheus' / 'prometheus.yml'}",
        f"--storage.tsdb.path={data / 'prometheus'}",
        f"--storage.tsdb.retention.time={retention}",
        f"--storage.tsdb.retention.size={size}",
        "--web.enable-otlp-receiver",
        "--enable-feature=exemplar-storage",
        f"--web.listen-address={HOST}:{port}",
    )


def running_services(state: State) -> tuple[str, ...]:
    """Return the services whose very processes live, whether they answer or not."""
    return tuple(name for name, server in state.servers.items() if processes.is_running(server.process))


def up(
    home: Path,
    programs: Sequence[Program],
    config: Path,
    environ: Mapping[str, str],
    *,
    any_ports: bool,
    timeout_s: float,
    say: Say,
) -> Status:
    """Start what does not run yet and wait until everything is ready.

    While part of the stack runs, its ports stay. On failure what this call started is stopped again. Raises
    `PortTakenError`, `NotReadyError`.
    """
    before = read_state(home) or State()
    alive = running_services(before)
    ports = _ports(before, alive, environ, any_ports=any_ports)
    missing = [program for program in programs if program.service not in alive]
    state = State("native", ports, {name: before.servers[name] for name in alive})
    started: list[str] = []
    try:
        plan = launches({p.service: p.path for p in missing}, ports, config, home / "data", environ)
        for program in missing:
            state = _start(home, program, plan[program.service], state)
            started.append(program.service)
            say(f"started {program.service} {program.version}")
        _wait(home, state, timeout_s, say)
    except BaseException:
        _stop(home, state, started)
        raise
    notes = [note for program in missing if (note := program.note)]
    notes.append("Grafana runs in containers only; Prometheus and Jaeger answer on their own pages")
    return status_of("native", ports, tuple(state.servers), *notes)


def down(home: Path, state: State, *, delete_data: bool) -> Stopped:
    """Stop the servers; keep the data unless told otherwise."""
    stopped = _stop(home, state, [name for name in STOP_ORDER if name in state.servers])
    kept = [home / name for name in ("data", "logs") if (home / name).exists()]
    if not delete_data:
        return Stopped(stopped, tuple(map(str, kept)))
    for folder in kept:
        shutil.rmtree(folder)
    return Stopped(stopped, (), tuple(map(str, kept)))


def status(state: State) -> Status:
    """Ask which of the servers run and answer."""
    serving = [name for name in running_services(state) if ready.is_ready(name, state.ports)]
    late = [f"{name} runs but does not answer" for name in running_services(state) if name not in serving]
    gone = [f"{name} is not running" for name in state.servers if name not in running_services(state)]
    return status_of("native", state.ports, serving, *late, *gone)


def logs(home: Path, service: str, *, lines: int, follow: bool) -> Iterator[str]:
    """Yield the last lines of a server's log, then with `follow` new ones as they come, until the caller
    stops.
    """
    path = log_path(home, service)
    end = path.stat().st_size if path.exists() else 0
    yield from last_lines(path, lines)
    while follow:
        if path.exists() and path.stat().st_size > end:
            with path.open("rb") as file:
                file.seek(end)
                fresh = file.read()
            whole = fresh[: fresh.rfind(b"\n") + 1]
            end += len(whole)
            yield from whole.decode("utf-8", errors="replace").splitlines()
        time.sleep(FOLLOW_POLL_S)


def log_path(home: Path, service: str) -> Path:
    """Return where a server's output goes."""
    return home / "logs" / f"{service}.log"


def _ports(
    before: State, alive: Sequence[str], environ: Mapping[str, str], *, any_ports: bool
) -> Mapping[str, int]:
    """Choose the ports, or keep those of a stack that partly runs."""
    if not alive:
        return choose_ports("native", environ, any_ports=any_ports, previous=before.ports)
    for port in PORTS:
        number = before.ports.get(port.name)
        if number is not None and port.service not in alive and not port_is_free(number):
            raise PortTakenError(
                f"port {number} for {port.name} is in use by another program, while the rest of the stack "
                f"runs: free it, or stop the stack and set {port.variable}"
            )
    return before.ports


def _start(home: Path, program: Program, launch: Launch, state: State) -> State:
    """Start one server and remember it before anything else can go wrong."""
    log = log_path(home, program.service)
    for folder in (log.parent, home / "data" / program.service):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
    process = processes.start(launch.command, launch.env, log)
    fresh = replace(state, servers={**state.servers, program.service: Server(process, program.version)})
    write_state(home, fresh)
    return fresh


def _wait(home: Path, state: State, timeout_s: float, say: Say) -> None:
    """Wait until all servers are ready; raise `NotReadyError` with the log's end when one is not to be."""

    def alive(service: str) -> bool:
        return processes.is_running(state.servers[service].process)

    def is_ready(service: str) -> bool:
        # alive first: another program that took the port may answer in its place
        return alive(service) and ready.is_ready(service, state.ports)

    failure = ready.wait_for(list(state.servers), is_ready, alive, timeout_s)
    if failure is None:
        say("all servers are ready")
        return
    service, how = failure
    log = log_path(home, service)
    what = "ended at once" if how == "died" else f"was not ready after {timeout_s:.0f} s"
    words = "\n".join(f"  {line}" for line in last_lines(log, 5))
    raise NotReadyError(f"{service} {what}; the end of {log}:\n{words}")


def _stop(home: Path, state: State, services: Sequence[str]) -> tuple[str, ...]:
    """Stop some of the servers and forget them; return those that were running.

    One that resists hinders no other: its fault is raised at the end, and it stays remembered.
    """
    stopped: list[str] = []
    faults: list[str] = []
    remaining = dict(state.servers)
    for name in sorted(services, key=STOP_ORDER.index):
        try:
            if processes.stop(remaining[name].process, STOP_GRACE_S):
                stopped.append(name)
            del remaining[name]
        except StackError as error:
            faults.append(f"{name}: {error}")
    write_state(home, replace(state, servers=remaining))
    if faults:
        raise StackError("; ".join(faults))
    return tuple(stopped)
