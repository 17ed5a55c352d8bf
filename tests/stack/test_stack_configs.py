"""The servers' configuration files: what must stand in them for telemetry to arrive whole and clean."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from stack_fakes import ROOT

from underlay.stack import stack_bin
from underlay.stack.native import launches
from underlay.stack.ports import choose_ports

CONFIG = ROOT / "observability"


def load(name: str) -> dict[str, Any]:
    """Read one configuration file."""
    document = yaml.safe_load((CONFIG / name).read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def native(programs: dict[str, Path], data: Path) -> Any:
    """How the native runner starts these programs with default ports."""
    ports = choose_ports("native", {}, any_ports=False, previous={}, free=lambda _port: True)
    return launches(programs, ports, CONFIG, data, {})


@pytest.mark.parametrize("service", ["collector", "jaeger"])
def test_every_variable_has_a_default_and_a_giver(service: str) -> None:
    """A configuration works with no variable set, and the native runner gives each one that says where things
    are.
    """
    text = (CONFIG / service / "config.yaml").read_text(encoding="utf-8")
    found = re.findall(r"\$\{env:(\w+)(:-[^}]+)?\}", text)
    assert found
    assert all(default for _, default in found)
    optional = {"UNDERLAY_COLLECTOR_LOGS", "UNDERLAY_TRACES_RETENTION"}
    given = native({service: Path(service)}, Path("data"))[service].env
    assert {name for name, _ in found} - optional <= set(given)


@pytest.mark.parametrize("service", ["collector", "jaeger"])
def test_defaults_listen_on_loopback(service: str) -> None:
    """Whoever starts a server by hand with the shipped file opens no port to the network."""
    text = (CONFIG / service / "config.yaml").read_text(encoding="utf-8")
    assert "0.0.0.0" not in text
    assert re.findall(r"_HOST:-([^}]+)\}", text) == ["127.0.0.1"] * text.count("_HOST:-")


def test_every_signal_is_limited_cleaned_and_passed_on() -> None:
    """Each of the three pipelines limits memory first, then redacts, and ends in its own store."""
    pipelines = load("collector/config.yaml")["service"]["pipelines"]
    assert set(pipelines) == {"traces", "metrics", "logs"}
    ends = {"traces": "otlp_http/jaeger", "metrics": "otlp_http/prometheus", "logs": "debug"}
    for signal, pipeline in pipelines.items():
        assert pipeline["receivers"] == ["otlp"]
        assert pipeline["processors"] == ["memory_limiter", "transform/redact"]
        assert pipeline["exporters"] == [ends[signal]]


@pytest.mark.parametrize("name", ["otlp_http/prometheus", "otlp_http/jaeger"])
def test_what_leaves_waits_on_disk_until_it_is_taken(name: str) -> None:
    """Both exporters queue on disk, bounded in bytes, and never give up on a server that is away."""
    document = load("collector/config.yaml")
    exporter = document["exporters"][name]
    assert exporter["sending_queue"]["storage"] == "file_storage"
    assert exporter["sending_queue"]["sizer"] == "bytes"
    assert exporter["sending_queue"]["queue_size"] == 256 * 1024 * 1024
    assert exporter["sending_queue"]["num_consumers"] == 1
    assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"
    assert "file_storage" in document["service"]["extensions"]


def test_redaction_reaches_every_place_and_fails_closed() -> None:
    """The same statements run on spans, their events, resources, points and log records; a failure refuses
    the data.
    """
    redact = load("collector/config.yaml")["processors"]["transform/redact"]
    assert redact["error_mode"] == "propagate"
    scrub = redact["trace_statements"][0]["statements"]
    reached = {
        (signal, group["context"])
        for signal in ("trace", "metric", "log")
        for group in redact[f"{signal}_statements"]
        if group["statements"] == scrub
    }
    assert reached == {
        ("trace", "span"),
        ("trace", "spanevent"),
        ("trace", "resource"),
        ("metric", "datapoint"),
        ("metric", "resource"),
        ("log", "log"),
        ("log", "resource"),
    }


def test_prometheus_takes_late_samples_and_exemplars_and_names_services() -> None:
    """Prometheus accepts samples up to half an hour out of order, keeps exemplars, and labels by service and
    instance.
    """
    document = load("prometheus/prometheus.yml")
    assert document["storage"]["tsdb"]["out_of_order_time_window"] == "30m"
    assert document["storage"]["exemplars"]["max_exemplars"] > 0
    assert {"service.name", "service.instance.id"} <= set(document["otlp"]["promote_resource_attributes"])
    assert document["otlp"]["translation_strategy"] == "UnderscoreEscapingWithSuffixes"
    assert "convert_histograms_to_nhcb" not in document["otlp"]
    flags = native({"prometheus": Path("prometheus")}, Path("data"))["prometheus"].command
    assert "--web.enable-otlp-receiver" in flags
    assert "--enable-feature=exemplar-storage" in flags


def test_jaeger_keeps_traces_on_disk_for_a_time_and_stays_silent() -> None:
    """Jaeger stores on disk with a time to live, has no queue, and reports nothing about itself."""
    document = load("jaeger/config.yaml")
    badger = document["extensions"]["jaeger_storage"]["backends"]["main"]["badger"]
    assert badger["ephemeral"] is False
    assert badger["ttl"]["spans"] == "${env:UNDERLAY_TRACES_RETENTION:-168h}"
    assert document["exporters"]["jaeger_storage_exporter"] == {"trace_storage": "main"}
    assert document["service"]["telemetry"]["metrics"]["level"] == "none"
    assert (
        native({"jaeger": Path("jaeger")}, Path("data"))["jaeger"].env["OTEL_TRACES_SAMPLER"] == "always_off"
    )


def test_grafana_knows_both_stores_and_opens_traces_from_exemplars() -> None:
    """The data sources have fixed ids and the interval of `underlay run`, and link exemplars to Jaeger."""
    sources = {s["uid"]: s for s in load("grafana/provisioning/datasources/underlay.yaml")["datasources"]}
    assert set(sources) == {"underlay-prometheus", "underlay-jaeger"}
    prometheus = sources["underlay-prometheus"]["jsonData"]
    assert prometheus["timeInterval"] == "5s"
    assert prometheus["exemplarTraceIdDestinations"][0]["datasourceUid"] == "underlay-jaeger"
    provider = load("grafana/provisioning/dashboards/underlay.yaml")["providers"][0]
    compose = yaml.safe_load((ROOT / "docker-compose.observability.yml").read_text(encoding="utf-8"))
    mounts = [m for m in compose["services"]["grafana"]["volumes"] if isinstance(m, dict)]
    assert provider["options"]["path"] in [mount["target"] for mount in mounts]
    assert provider["allowUiUpdates"] is False


@pytest.mark.stack
def test_the_servers_accept_their_files(real_environ: dict[str, str]) -> None:
    """The real Collector and promtool check the shipped files without complaint."""
    folder = stack_bin(real_environ)
    for command in (
        [folder / "otelcol", "validate", f"--config={CONFIG / 'collector' / 'config.yaml'}"],
        [folder / "promtool", "check", "config", str(CONFIG / "prometheus" / "prometheus.yml")],
    ):
        answer = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
