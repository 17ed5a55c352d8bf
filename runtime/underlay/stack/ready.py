"""Are the servers ready? Asked of their health endpoints until they say so, never guessed by sleeping."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from underlay.stack.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROBE_TIMEOUT_S = 2.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Probe:
    """A health question to one service: GET `path` on the port of that name must answer 200."""

    service: str
    port: str
    path: str


PROBES = (
    Probe("prometheus", "prometheus", "/-/ready"),
    Probe("jaeger", "jaeger_health", "/status"),
    Probe("jaeger", "jaeger", "/api/services"),
    Probe("collector", "collector_health", "/"),
    Probe("grafana", "grafana", "/api/health"),
)


def answers(port: int, path: str, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Say whether GET `path` on a loopback port answers 200. Proxies of the environment play no part."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def is_ready(service: str, ports: Mapping[str, int], ask: Callable[[int, str], bool] | None = None) -> bool:
    """Say whether every probe of a service whose port is known answers."""
    question = ask or answers
    return all(
        question(ports[probe.port], probe.path)
        for probe in PROBES
        if probe.service == service and probe.port in ports
    )


def wait_for(
    services: list[str],
    ready: Callable[[str], bool],
    alive: Callable[[str], bool],
    deadline_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[str, str] | None:
    """Poll until all services are ready; return None then.

    Returns `(service, "died")` as soon as one that is not ready is no longer alive, and `(service, "late")`
    when `deadline_s` seconds have passed.
    """
    until = clock() + deadline_s
    waiting = list(services)
    while waiting:
        waiting = [service for service in waiting if not ready(service)]
        dead = next((service for service in waiting if not alive(service)), None)
        if dead is not None:
            return dead, "died"
        if waiting and clock() >= until:
            return waiting[0], "late"
        if waiting:
            sleep(POLL_S)
    return None
