"""Where telemetry goes, as a table over the environment."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from underlay_instrumentation.autostart import service_name
from underlay_instrumentation.destinations import Target, describe, listening, plan

HTTP = Target("otlp", "http/protobuf", "localhost:4318")
FOUND = Target("otlp", "http/protobuf", "localhost:4318", found=True)
GRPC = Target("otlp", "grpc", "localhost:4317")
FILE = Target("file")
COLLECTOR = Target("otlp", "http/protobuf", "collector:4318")
BASE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environ", "listens", "file", "expected"),
    [
        ({}, False, "auto", (FILE,)),
        ({}, True, "auto", (FOUND,)),
        ({}, True, "always", (FOUND, FILE)),
        ({}, False, "always", (FILE,)),
        ({}, False, "never", ()),
        (BASE, False, "auto", (COLLECTOR,)),
        (BASE, False, "always", (COLLECTOR, FILE)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/v1/traces"}, False, "auto",
         (Target("otlp", "http/protobuf", "t"),)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, False, "auto", (HTTP,)),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False, "auto", (GRPC,)),
        ({"OTEL_TRACES_EXPORTER": "otlp_proto_grpc"}, False, "auto", (GRPC,)),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc", **BASE}, False, "auto",
         (Target("otlp", "grpc", "collector:4318"),)),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "nonsense"}, True, "auto", (FOUND,)),
        ({"OTEL_TRACES_EXPORTER": "none"}, True, "always", ()),
        ({"OTEL_TRACES_EXPORTER": " none , "}, True, "auto", ()),
        ({"OTEL_TRACES_EXPORTER": "console,otlp_proto_http", **BASE}, False, "auto",
         (Target("console"), COLLECTOR)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://user:secret@c:8443/x"}, False, "auto",
         (Target("otlp", "http/protobuf", "c:8443"),)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, False, "auto",
         (Target("otlp", "http/protobuf", "collector:4317"),)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1"}, False, "auto",
         (Target("otlp", "http/protobuf", "an endpoint that cannot be read"),)),
    ],
)  # fmt: skip
def test_traces_go_where_the_environment_says(
    environ: dict[str, str], listens: bool, file: Any, expected: tuple[Target, ...]
) -> None:
    """The exporter variable wins, then an endpoint, then a Collector that listens, then the file."""
    assert plan(environ, file, lambda _port: listens)["traces"] == expected


def test_signals_are_decided_apart_and_asked_once() -> None:
    """Each signal has its own variables, and the probe runs at most once a port."""
    asked: list[int] = []

    def listens(port: int) -> bool:
        asked.append(port)
        return True

    targets = plan(
        {"OTEL_LOGS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m:1"}, "auto", listens
    )
    assert targets == {
        "traces": (FOUND,),
        "metrics": (Target("otlp", "http/protobuf", "m:1"),),
        "logs": (),
    }
    assert asked == [4318]


def test_nothing_is_probed_when_something_is_named() -> None:
    """A named endpoint opens no connection at the start."""

    def never(_port: int) -> bool:
        raise AssertionError("probed")

    assert plan(BASE, "auto", never)["logs"] == (COLLECTOR,)


def test_the_place_is_said_in_one_line() -> None:
    """One place is one phrase; several name their signals; nothing is said to go nowhere."""
    same: Any = {"traces": (FOUND,), "metrics": (FOUND,), "logs": (FOUND,)}
    assert describe(same, ".underlay") == "OTLP http/protobuf to localhost:4318"
    mixed: Any = {"traces": (FILE, Target("console")), "metrics": (FILE,), "logs": ()}
    assert describe(mixed, ".u") == ("traces, metrics: files in .u; traces: console; logs: nowhere")


def test_the_probe_finds_what_listens() -> None:
    """Something that listens is found, and a closed port is not."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert not listening(port)
        server.listen()
        assert listening(port)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python", "app.py"], "app"),
        (["python", "-u", "/srv/shop/app.py", "--x"], "app"),
        (["python", "-m", "shop.worker"], "shop.worker"),
        (["python", "-X", "dev", "-W", "error", "-m", "shop"], "shop"),
        (["python", "/srv/shop/__main__.py"], "shop"),
        (["python", "/usr/bin/gunicorn", "-m", "007"], "gunicorn"),
        (["python", "-c", "pass"], "python"),
        (["python", "-"], "python"),
        (["python"], "python"),
    ],
)
def test_the_service_is_named_by_its_script(command: list[str], name: str) -> None:
    """Without a name of the user's the service is called as the script or module that runs."""
    assert service_name(command) == name
