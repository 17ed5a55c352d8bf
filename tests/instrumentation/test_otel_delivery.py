"""What could not be delivered, and the bounded end, inside one process."""

from __future__ import annotations

import io
import logging
import sys
import threading
from typing import Any

import pytest
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from otel_scenarios import Telemetry, miss, started

from underlay_instrumentation import delivery
from underlay_instrumentation.delivery import CountedLogs, CountedMetrics, CountedSpans, Tally
from underlay_instrumentation.shutdown import Shutdown, Stoppable, inert


class Spans(SpanExporter):
    """Answers with what it was given."""

    def __init__(self, *results: SpanExportResult | Exception) -> None:
        self.results = list(results)
        self.calls: list[str] = []

    def export(self, spans: Any) -> SpanExportResult:
        """The next result."""
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    def shutdown(self) -> None:
        """Noted."""
        self.calls.append("shutdown")

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Noted."""
        self.calls.append("flush")
        return True


class Metrics(MetricExporter):
    """The same for metrics."""

    def __init__(self, *results: MetricExportResult) -> None:
        super().__init__()
        self.results = list(results)
        self.calls: list[str] = []

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """The next result."""
        return self.results.pop(0)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Noted."""
        self.calls.append("shutdown")

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Noted."""
        self.calls.append("flush")
        return True


def test_lost_spans_add_up_and_exceptions_count(telemetry: Telemetry) -> None:
    """Every span of a failed batch is counted, also when the exporter raises; delivered ones are not."""
    miss(telemetry.listener().start(started()))
    tally = Tally("collector:4318")
    inner = Spans(SpanExportResult.SUCCESS, SpanExportResult.FAILURE, RuntimeError("boom"))
    counted = CountedSpans(inner, tally)
    assert counted.export(telemetry.finished) is SpanExportResult.SUCCESS
    assert tally.line() == ""
    assert counted.export(telemetry.finished) is SpanExportResult.FAILURE
    with pytest.raises(RuntimeError, match="boom"):
        counted.export(telemetry.finished)
    assert tally.line() == "underlay: collector:4318 did not take 2 spans"
    counted.force_flush()
    counted.shutdown()
    assert inner.calls == ["flush", "shutdown"]
    tally.reset()
    assert tally.line() == ""


def test_points_are_lost_once(telemetry: Telemetry) -> None:
    """Cumulative points come again with the next collection: a later success makes an earlier loss good."""
    miss(telemetry.listener().start(started()))
    data = telemetry.reader.get_metrics_data()
    assert data is not None
    tally = Tally("c")
    failure, success = MetricExportResult.FAILURE, MetricExportResult.SUCCESS
    inner = Metrics(failure, failure, success, failure)
    counted = CountedMetrics(inner, tally)
    told = []
    for _ in range(4):
        counted.export(data)
        told.append(tally.line())
    assert told == [*["underlay: c did not take 3 metric points"] * 2, "", told[0]]
    counted.force_flush()
    counted.shutdown()
    assert inner.calls == ["flush", "shutdown"]


def test_what_is_still_under_way_at_the_end_counts(telemetry: Telemetry) -> None:
    """What an exporter holds when the process ends is lost with it."""
    tally = Tally("c")
    tally.began("log records", 1)
    tally.began("spans", 2)
    assert tally.line() == "underlay: c did not take 2 spans, 1 log record"
    inner = InMemoryLogRecordExporter()
    counted = CountedLogs(inner, tally)
    assert counted.export(()) is LogRecordExportResult.SUCCESS
    assert counted.force_flush()
    counted.shutdown()


def test_exporters_complaints_are_folded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Failed batches are not logged one by one, unless UNDERLAY_DEBUG asks for it."""
    name = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    logger = logging.getLogger(name)
    try:
        monkeypatch.setenv("UNDERLAY_DEBUG", "1")
        delivery.fold_exporter_logs()
        logger.error("first")
        monkeypatch.setenv("UNDERLAY_DEBUG", "0")
        delivery.fold_exporter_logs()
        logger.error("second")
    finally:
        for folded in delivery._EXPORTER_LOGGERS:
            logging.getLogger(folded).removeFilter(delivery._drop)
    assert [record.message for record in caplog.records] == ["first"]


def test_the_end_is_bounded_and_says_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that hangs takes nothing from the others, delays the end by the bound, and is told once."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    release, done, closed = threading.Event(), [], []
    tally = Tally("c")
    tally.began("spans", 1)

    def fail() -> None:
        raise RuntimeError

    providers = [
        Stoppable(fail, lambda: release.wait(30)),
        Stoppable(lambda: done.append("flush"), lambda: done.append("shutdown")),
    ]
    shutdown = Shutdown("c", providers, timeout=0.05, tally=tally, close=lambda: closed.append(True))
    shutdown.flush()
    shutdown()
    shutdown()
    shutdown.flush()
    assert (done, closed) == (["flush", "shutdown"], [])
    assert sys.stderr.getvalue() == "underlay: c did not take 1 span within 0.05 s of the end\n"
    release.set()


def test_an_inert_shutdown_does_nothing() -> None:
    """Where nothing was set up there is a reason, no thread and no effect."""
    before = threading.active_count()
    shutdown = inert("nowhere")
    shutdown.install()
    shutdown.flush()
    shutdown()
    assert (shutdown.destination, threading.active_count()) == ("nowhere", before)
