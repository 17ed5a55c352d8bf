"""Exporters that are made when they have something to send."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExporter, MetricExportResult
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otel_collector import Collector
from otel_scenarios import Telemetry, View, miss, started

from underlay_instrumentation import faults
from underlay_instrumentation.file_exporters import FileMetricExporter
from underlay_instrumentation.late import LateLogs, LateMetrics, LateSpans, idle
from underlay_instrumentation.local_file import LocalFile

UNUSED = View(
    {"calls": [(("openai", "gpt-4o", "hit"), 0.0)], "entries": [((), 0.0)], "entries_limit": [((), 9.0)]}
)
USED = View({"calls": [(("openai", "gpt-4o", "hit"), 1.0)]})


def fail() -> Any:
    """An exporter that cannot be made."""
    raise OSError("no such certificate")


class Points(MetricExporter):
    """Counts collections."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def export(self, metrics_data: Any, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Count it."""
        self.calls.append("export")
        return MetricExportResult.SUCCESS

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Count it."""
        self.calls.append("shutdown")

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Count it."""
        self.calls.append("flush")
        return False


def test_spans_make_their_exporter_once() -> None:
    """Until the first batch there is nothing to flush or to shut down; then one exporter takes all of them."""
    made: list[InMemorySpanExporter] = []

    def make() -> InMemorySpanExporter:
        made.append(InMemorySpanExporter())
        return made[-1]

    late = LateSpans("spans", make)
    late.shutdown()
    assert (late.force_flush(), made) == (True, [])
    results = [late.export([]), late.export([])]
    late.shutdown()
    assert results == [SpanExportResult.SUCCESS] * 2
    assert len(made) == 1
    assert made[0].export([]) is SpanExportResult.FAILURE


def test_logs_make_their_exporter_once() -> None:
    """The same for log records."""
    made: list[InMemoryLogRecordExporter] = []

    def make() -> InMemoryLogRecordExporter:
        made.append(InMemoryLogRecordExporter())
        return made[-1]

    late = LateLogs("logs", make)
    late.shutdown()
    assert (late.force_flush(), made) == (True, [])
    results = [late.export([]), late.export([])]
    late.shutdown()
    assert results == [LogRecordExportResult.SUCCESS] * 2
    assert len(made) == 1


def test_metrics_make_their_exporter_with_the_first_call(telemetry: Telemetry) -> None:
    """A program that made a call has its collection sent at once; flush and shutdown reach the exporter."""
    exporter = Points()
    late = LateMetrics("metrics", lambda: exporter)
    listener = telemetry.listener(USED)
    late.shutdown()
    assert late.force_flush()
    assert exporter.calls == []
    data = telemetry.reader.get_metrics_data()
    assert data is not None
    assert late.export(data) is MetricExportResult.SUCCESS
    assert not late.force_flush()
    late.shutdown()
    assert exporter.calls == ["export", "flush", "shutdown"]
    listener.close()


def test_an_idle_program_is_sent_from_its_second_collection_on(telemetry: Telemetry) -> None:
    """A short program without calls loads no exporter; a long one is seen all the same."""
    exporter = Points()
    late = LateMetrics("metrics", lambda: exporter)
    listener = telemetry.listener(UNUSED)
    counted = []
    for _ in range(3):
        data = telemetry.reader.get_metrics_data()
        assert data is not None
        assert late.export(data) is MetricExportResult.SUCCESS
        counted.append(len(exporter.calls))
    assert counted == [0, 1, 2]
    listener.close()


def test_what_cannot_be_made_fails_and_is_told_once(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter that cannot be made costs its telemetry and one warning, by type alone; nothing is raised."""
    faults._told.clear()
    miss(telemetry.listener().start(started()))
    data = telemetry.reader.get_metrics_data()
    assert data is not None
    for _ in range(2):
        assert LateSpans("the traces exporter", fail).export([]) is SpanExportResult.FAILURE
        assert LateMetrics("the metrics exporter", fail).export(data) is MetricExportResult.FAILURE
        assert LateLogs("the logs exporter", fail).export([]) is LogRecordExportResult.FAILURE
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        f"underlay: the {signal} exporter failed with OSError; the program goes on without it"
        for signal in ("traces", "metrics", "logs")
    ]


def test_a_program_is_idle_until_something_of_it_counts(telemetry: Telemetry) -> None:
    """Zeros and gauges of ours are nothing to tell; a count, a recorded call or any metric of the app's is."""
    listener = telemetry.listener(UNUSED)
    assert idle(telemetry.reader.get_metrics_data())  # type: ignore[arg-type]
    listener.close()
    second = telemetry.listener(USED)
    assert not idle(telemetry.reader.get_metrics_data())  # type: ignore[arg-type]
    second.close()
    others = (Telemetry(), Telemetry())
    miss(others[0].listener().start(started()))
    others[1].meters.get_meter("app").create_counter("orders").add(0)
    for other in others:
        assert not idle(other.reader.get_metrics_data())  # type: ignore[arg-type]


def test_the_local_file_begins_with_the_first_call(telemetry: Telemetry, tmp_path: Path) -> None:
    """A program without calls leaves no file, however long it runs; later collections are all written."""
    view = View(dict(UNUSED.values))
    listener = telemetry.listener(view)
    file = LocalFile(tmp_path / "t", max_bytes=10**6, keep=1)
    exporter = FileMetricExporter(file)
    written = []
    for calls in (0.0, 0.0, 1.0, 1.0):
        view.values["calls"] = [(("openai", "gpt-4o", "hit"), calls)]
        data = telemetry.reader.get_metrics_data()
        assert data is not None
        assert exporter.export(data) is MetricExportResult.SUCCESS
        written.append(len(file.path.read_text().splitlines()) if file.path else 0)
    assert written == [0, 0, 1, 2]
    file.close()
    listener.close()


@pytest.mark.parametrize("preference", ["", "cumulative", "delta", "Delta ", "lowmemory", "nonsense"])
@pytest.mark.parametrize(
    "histograms", ["", "explicit_bucket_histogram", "base2_exponential_bucket_histogram"]
)
def test_the_reader_is_told_what_the_exporter_would_have_told(
    monkeypatch: pytest.MonkeyPatch, preference: str, histograms: str
) -> None:
    """Temporality and aggregation are those of the official OTLP exporter under the same variables."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", preference)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", histograms)
    official = OTLPMetricExporter()
    late = LateMetrics("metrics", lambda: official)
    told = late._preferred_temporality or {}
    assert official._preferred_temporality == {
        kind: told.get(kind, AggregationTemporality.CUMULATIVE) for kind in official._preferred_temporality
    }
    ours, theirs = late._preferred_aggregation or {}, official._preferred_aggregation or {}
    plain = {"ExplicitBucketHistogramAggregation"}
    assert {type(found).__name__ for found in ours.values()} == {
        type(found).__name__ for found in theirs.values()
    } - plain
    official.shutdown()


LOADED = """
import json, sys
heavy = ("requests", "urllib3", "google.protobuf", "opentelemetry.proto_json", "httpx", "httpx2", "asyncio", "grpc")
def loaded(): return [name for name in heavy if name in sys.modules]
before = loaded()
import httpx
print(json.dumps([before, loaded()]))
"""


def run(tmp_path: Path, code: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """A program under `underlay run`."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "UNDERLAY_"))}
    main = "import sys; sys.argv[0] = 'underlay'; from underlay.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", main, "run", "--", sys.executable, "-c", code],
        cwd=tmp_path, env={**plain, **extra}, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


def test_a_program_without_calls_loads_and_leaves_nothing(tmp_path: Path, collector: Collector) -> None:
    """`underlay run` costs a program that uses no HTTP client no exporter, no request and no file."""
    done = run(tmp_path, "pass", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, UNDERLAY_TELEMETRY__FILE="always")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert (collector.bodies, list(tmp_path.iterdir())) == ({}, [])


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("otlp", {"requests", "urllib3", "google.protobuf"}),
        ("file", {"opentelemetry.proto_json"}),
    ],
)
def test_exporters_come_with_the_http_client(tmp_path: Path, place: str, expected: set[str]) -> None:
    """What the first export needs is loaded when the program imports an HTTP client: not before, and not beside
    the first calls."""
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    none = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    del none["OTEL_TRACES_EXPORTER"]
    extra = {**none, **named} if place == "otlp" else _file_only(tmp_path)
    before, after = json.loads(run(tmp_path, LOADED, **extra).stdout)
    assert set(before) <= {"asyncio"}
    assert expected <= set(after)


def _file_only(tmp_path: Path) -> dict[str, str]:
    """Variables under which the local file is the only destination, whatever listens on this machine."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from underlay_instrumentation import destinations\ndestinations.listening = lambda port: False\n"
    )
    return {"PYTHONPATH": str(folder)}
