"""Counts what exporters could not deliver, so that a dead Collector is told in one line at the end and not in
many on the way."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from underlay_instrumentation.file_exporters import points_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["CountedLogs", "CountedMetrics", "CountedSpans", "Tally", "fold_exporter_logs"]

_SPANS: Final = "spans"
_POINTS: Final = "metric points"
_RECORDS: Final = "log records"
_KINDS: Final = (_SPANS, _POINTS, _RECORDS)

_EXPORTER_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
)


class Tally:
    """What was not delivered, by kind. Safe between threads; starts anew in a fork child."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.reset()

    def reset(self) -> None:
        """Forget everything: a fork child answers for its own telemetry alone."""
        self._lock = threading.Lock()
        self._lost: dict[str, int] = {}
        self._pending: dict[str, int] = {}

    def began(self, kind: str, count: int) -> None:
        """An exporter was handed `count` items."""
        with self._lock:
            self._pending[kind] = self._pending.get(kind, 0) + count

    def ended(self, kind: str, count: int, *, delivered: bool) -> None:
        """The exporter is done with them. Points of a metric come again with the next collection, so only the
        last loss of them counts."""
        with self._lock:
            self._pending[kind] -= count
            before = 0 if kind == _POINTS else self._lost.get(kind, 0)
            if not delivered:
                self._lost[kind] = before + count
            elif kind == _POINTS:
                self._lost.pop(kind, None)

    def line(self) -> str:
        """What was lost, in one line; "" when nothing was. What an exporter still holds counts as lost: the
        process is ending."""
        with self._lock:
            counts = {kind: self._count(kind) for kind in _KINDS}
        told = ", ".join(
            f"{count} {kind if count > 1 else kind[:-1]}" for kind, count in counts.items() if count
        )
        return f"underlay: {self.where} did not take {told}" if told else ""

    def _count(self, kind: str) -> int:
        lost, pending = self._lost.get(kind, 0), self._pending.get(kind, 0)
        # The collection at exit stands for the lost ones before it.
        return max(lost, pending) if kind == _POINTS else lost + pending


class CountedSpans(SpanExporter):
    """Counts around a span exporter."""

    def __init__(self, inner: SpanExporter, tally: Tally) -> None:
        self._inner, self._tally = inner, tally

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export, and count."""
        self._tally.began(_SPANS, len(spans))
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            self._tally.ended(_SPANS, len(spans), delivered=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return self._inner.force_flush(timeout_millis)


class CountedMetrics(MetricExporter):
    """Counts around a metric exporter."""

    def __init__(self, inner: MetricExporter, tally: Tally) -> None:
        super().__init__(
            preferred_temporality=inner._preferred_temporality,
            preferred_aggregation=inner._preferred_aggregation,
        )
        self._inner, self._tally = inner, tally

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Export, and count."""
        points = points_of(metrics_data)
        self._tally.began(_POINTS, points)
        result = MetricExportResult.FAILURE
        try:
            result = self._inner.export(metrics_data, timeout_millis, **kwargs)
        finally:
            self._tally.ended(_POINTS, points, delivered=result is MetricExportResult.SUCCESS)
        return result

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Shut the exporter down."""
        self._inner.shutdown(timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Flush the exporter."""
        return self._inner.force_flush(timeout_millis)


class CountedLogs(LogRecordExporter):
    """Counts around a log exporter."""

    def __init__(self, inner: LogRecordExporter, tally: Tally) -> None:
        # Its `shutdown` has no annotations.
        self._inner: Any = inner
        self._tally = tally

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Export, and count."""
        self._tally.began(_RECORDS, len(batch))
        result: LogRecordExportResult = LogRecordExportResult.FAILURE
        try:
            result = self._inner.export(batch)
        finally:
            self._tally.ended(_RECORDS, len(batch), delivered=result is LogRecordExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter."""
        return bool(self._inner.force_flush(timeout_millis))


def fold_exporter_logs() -> None:
    """Silence what OTLP exporters log about each failed batch: the line at the end says it once.
    `UNDERLAY_DEBUG` keeps it."""
    if os.environ.get("UNDERLAY_DEBUG", "").strip().lower() not in ("", "0", "false", "no", "off"):
        return
    for name in _EXPORTER_LOGGERS:
        logging.getLogger(name).addFilter(_drop)


def _drop(_record: logging.LogRecord) -> bool:
    return False
