"""Which loopback ports the stack uses, which variable moves each, and how free ones are chosen."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from underlay.stack.errors import PortTakenError, StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

HOST = "127.0.0.1"
PROBE_TIMEOUT_S = 0.5
# below what Linux (32768), macOS and Windows (49152) lend to outgoing connections
FREE_RANGE = range(20_000, 32_768)

Mode = Literal["native", "compose"]


@dataclass(frozen=True, slots=True)
class Port:
    """One port on loopback: its name, whose it is, the variable that moves it, and in which modes it is
    opened.
    """

    name: str
    service: str
    variable: str
    default: int
    modes: tuple[Mode, ...] = ("native", "compose")


PORTS = (
    Port("otlp_grpc", "collector", "UNDERLAY_OTLP_GRPC_PORT", 4317),
    Port("otlp_http", "collector", "UNDERLAY_OTLP_HTTP_PORT", 4318),
    Port("collector_health", "collector", "UNDERLAY_COLLECTOR_HEALTH_PORT", 13133),
    Port("prometheus", "prometheus", "UNDERLAY_PROMETHEUS_PORT", 9090),
    Port("jaeger", "jaeger", "UNDERLAY_JAEGER_PORT", 16686),
    Port("jaeger_grpc", "jaeger", "UNDERLAY_JAEGER_GRPC_PORT", 16685, ("native",)),
    Port("jaeger_otlp", "jaeger", "UNDERLAY_JAEGER_OTLP_PORT", 14318, ("native",)),
    Port("jaeger_health", "jaeger", "UNDERLAY_JAEGER_HEALTH_PORT", 13134, ("native",)),
    Port("grafana", "grafana", "UNDERLAY_GRAFANA_PORT", 3000, ("compose",)),
)


def ports_of(mode: Mode) -> tuple[Port, ...]:
    """Return the ports that are opened on the host in a mode."""
    return tuple(port for port in PORTS if mode in port.modes)


def choose_ports(
    mode: Mode,
    environ: Mapping[str, str],
    *,
    any_ports: bool,
    previous: Mapping[str, int],
    free: Callable[[int], bool] | None = None,
) -> dict[str, int]:
    """Choose a port for each name that `mode` opens.

    A variable that is set decides. Else the default is taken; with `any_ports` the one of the last run
    (`previous`), else the default, else any free one. Raises `PortTakenError` naming every taken port with
    its variable, and `StackError` for a variable that holds no port or one that another holds too. `free`
    replaces the check (tests).
    """
    is_free = free or port_is_free
    chosen: dict[str, int] = {}
    taken: list[str] = []
    wishes = {port: _wanted(port, environ) for port in ports_of(mode)}
    # what the user named comes first, lest a default take it
    for port, wanted in sorted(wishes.items(), key=lambda item: item[1] is None):
        options = [wanted] if wanted is not None else [port.default]
        if any_ports and wanted is None and port.name in previous:
            options.insert(0, previous[port.name])
        found = next((n for n in options if n not in chosen.values() and is_free(n)), None)
        if found is None and any_ports and wanted is None:
            found = _any_free(chosen.values(), is_free)
        if found is None:
            taken.append(_complaint(port, options[0], chosen))
        else:
            chosen[port.name] = found
    if taken:
        raise PortTakenError("; ".join(taken) + "; or choose free ones with --any-ports")
    return chosen


def port_is_free(number: int) -> bool:
    """Say whether a server of ours could listen on this loopback port: nobody answers there and it can be
    bound.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        if probe.connect_ex((HOST, number)) == 0:
            return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # as the servers do: without it a port that was closed a moment ago would look taken
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, number))
        except OSError:
            return False
    return True


def _wanted(port: Port, environ: Mapping[str, str]) -> int | None:
    """Return the port that its variable asks for, None when it is not set."""
    text = environ.get(port.variable, "")
    if not text:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise StackError(f"{port.variable}={text!r}: allowed is a port number, 1 to 65535")
    return int(text)


def _any_free(used: Iterable[int], is_free: Callable[[int], bool]) -> int | None:
    """Find a free loopback port that is not among `used`; None when there is none.

    Not one that the system would name: those are lent to outgoing connections, and one that has just been
    closed keeps its port from a server for a minute: one stopped for a moment could not come back.
    """
    taken = set(used)
    numbers = list(FREE_RANGE)
    random.shuffle(numbers)
    return next((number for number in numbers if number not in taken and is_free(number)), None)


def _complaint(port: Port, number: int, chosen: Mapping[str, int]) -> str:
    """Say who wanted which port in vain."""
    rival = next((name for name, other in chosen.items() if other == number), None)
    reason = f"is given to {rival} already" if rival else "is in use by another program"
    return f"port {number} for {port.name} {reason}: free it or set {port.variable}"
