"""Where `underlay run` sends telemetry, decided from the environment: data in, data out.

For each signal, in order: `OTEL_<SIGNAL>_EXPORTER` where set; the endpoint of the usual variables where set;
a Collector that listens on this machine; the local file.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["SIGNALS", "FileMode", "Signal", "Target", "describe", "listening", "plan"]

Signal = Literal["traces", "metrics", "logs"]
FileMode = Literal["auto", "always", "never"]

SIGNALS: Final[tuple[Signal, ...]] = ("traces", "metrics", "logs")

_LOCAL: Final = "localhost"
_PORTS: Final = {"http/protobuf": 4318, "grpc": 4317}
_PROBE_SECONDS: Final = 0.04
"""Per address of localhost (IPv6 and IPv4), so that the probe stays below 100 ms."""


@dataclass(frozen=True, slots=True)
class Target:
    """One exporter of one signal. `name` is an exporter's name of OpenTelemetry (`otlp`, `console`, ...), or
    `file` for ours.

    `protocol` and `endpoint` (host and port, never a path or credentials) belong to `otlp`. `found` marks the
    Collector that was found listening, as against one that the environment names.
    """

    name: str
    protocol: str = ""
    endpoint: str = ""
    found: bool = False


def plan(
    environ: Mapping[str, str], file: FileMode, listens: Callable[[int], bool]
) -> dict[Signal, tuple[Target, ...]]:
    """Return the targets of each signal. `listens(port)` is asked only when nothing is named."""
    answers: dict[int, bool] = {}

    def asked(port: int) -> bool:
        if port not in answers:
            answers[port] = listens(port)
        return answers[port]

    return {signal: _targets(signal, environ, file, asked) for signal in SIGNALS}


def _targets(
    signal: Signal, environ: Mapping[str, str], file: FileMode, listens: Callable[[int], bool]
) -> tuple[Target, ...]:
    names = [name.strip() for name in environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").split(",")]
    names = [name for name in names if name]
    targets: list[Target] = []
    if names:
        chosen = [name for name in names if name.lower() != "none"]
        if not chosen:
            return ()
        targets = [_named(name, signal, environ) for name in chosen]
    elif _endpoint(signal, environ):
        targets = [_otlp(signal, environ)]
    elif listens(_PORTS[_protocol(signal, environ)]):
        targets = [_otlp(signal, environ, found=True)]
    elif file != "never":
        targets = [Target("file")]
    if file == "always" and Target("file") not in targets:
        targets.append(Target("file"))
    return tuple(targets)


def _named(name: str, signal: Signal, environ: Mapping[str, str]) -> Target:
    if name == "otlp":
        return _otlp(signal, environ)
    if name == "otlp_proto_http":
        return _otlp(signal, environ, protocol="http/protobuf")
    if name == "otlp_proto_grpc":
        return _otlp(signal, environ, protocol="grpc")
    return Target(name)


def _otlp(signal: Signal, environ: Mapping[str, str], *, protocol: str = "", found: bool = False) -> Target:
    protocol = protocol or _protocol(signal, environ)
    endpoint = _endpoint(signal, environ)
    shown = _host_and_port(endpoint) if endpoint else f"{_LOCAL}:{_PORTS[protocol]}"
    return Target("otlp", protocol, shown, found)


def _endpoint(signal: Signal, environ: Mapping[str, str]) -> str:
    return environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT") or environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT", ""
    )


def _protocol(signal: Signal, environ: Mapping[str, str]) -> str:
    """`grpc` where the environment asks for it; else the specification's default, which needs no binary
    package."""
    asked = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", ""
    )
    return "grpc" if asked.strip().lower() == "grpc" else "http/protobuf"


def _host_and_port(endpoint: str) -> str:
    """The part of an endpoint that may be shown."""
    try:
        parts = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    except ValueError:
        return "an endpoint that cannot be read"


def listening(port: int) -> bool:
    """Whether something accepts connections on `port` of this machine now; takes less than 100 ms."""
    try:
        with socket.create_connection((_LOCAL, port), timeout=_PROBE_SECONDS):
            return True
    except OSError:
        return False


def describe(targets: Mapping[Signal, tuple[Target, ...]], directory: str) -> str:
    """Say where telemetry goes, in one line."""
    places: dict[str, list[str]] = {}
    for signal, several in targets.items():
        for target in several or (Target("nowhere"),):
            place = {"otlp": f"OTLP {target.protocol} to {target.endpoint}", "file": f"files in {directory}"}
            places.setdefault(place.get(target.name, target.name), []).append(signal)
    if len(places) == 1:
        return next(iter(places))
    return "; ".join(f"{', '.join(signals)}: {place}" for place, signals in places.items())
