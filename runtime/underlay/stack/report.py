"""What the stack's commands answer with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from underlay.stack.ports import HOST, Mode

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

SCHEMA = 1
# endpoint -> the service that serves it; each is also the name of its port
ENDPOINTS = {
    "otlp_http": "collector",
    "otlp_grpc": "collector",
    "prometheus": "prometheus",
    "jaeger": "jaeger",
    "grafana": "grafana",
}


@dataclass(frozen=True, slots=True)
class Status:
    """Which mode the stack runs in, the address of each endpoint (None: it does not run), and notes for a
    person.
    """

    mode: Mode
    endpoints: Mapping[str, str | None]
    notes: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        """Whether anything of it runs."""
        return any(self.endpoints.values())

    def document(self) -> dict[str, Any]:
        """Return the document of `--json`: `schema`, `mode`, `endpoints`."""
        return {"schema": SCHEMA, "mode": self.mode, "endpoints": dict(self.endpoints)}


@dataclass(frozen=True, slots=True)
class Stopped:
    """What `down` did: the services it stopped, what it kept and what it deleted (paths or volume names)."""

    services: tuple[str, ...]
    kept: tuple[str, ...]
    deleted: tuple[str, ...] = ()


def status_of(mode: Mode, ports: Mapping[str, int], serving: Collection[str], *notes: str) -> Status:
    """Build the status from the ports and the services that run and answer."""
    endpoints = {
        name: f"http://{HOST}:{ports[name]}" if service in serving and name in ports else None
        for name, service in ENDPOINTS.items()
    }
    return Status(mode, endpoints, notes)


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a log file, none when it does not exist; reads only its end."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            position, tail = file.tell(), b""
            while position > 0 and tail.count(b"\n") <= count:
                step = min(65536, position)
                position -= step
                file.seek(position)
                tail = file.read(step) + tail
    except FileNotFoundError:
        return []
    return tail.decode("utf-8", errors="replace").splitlines()[-count:] if count > 0 else []
