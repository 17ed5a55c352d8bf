"""Exporters that write spans, metrics and log records to the local file, in the official OTLP-JSON
encoding."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from underlay_instrumentation.late import aggregation, idle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.trace import ReadableSpan

    from underlay_instrumentation.local_file import LocalFile

__all__ = ["ENCODERS", "FileLogExporter", "FileMetricExporter", "FileSpanExporter", "points_of"]

_ENCODERS_OF: Final = "opentelemetry.exporter.otlp.json.common"
_LOGS, _METRICS, _SPANS = (
    f"{_ENCODERS_OF}.{name}" for name in ("_log_encoder", "metrics_encoder", "trace_encoder")
)

ENCODERS: Final = (_LOGS, _METRICS, _SPANS)
"""Modules that the exporters import with their first batch: a program without calls does not need them."""


class FileSpanExporter(SpanExporter):
    """One line per batch of spans."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write one line."""
        written = self._file.write(import_module(_SPANS).encode_spans(spans).to_json(), len(spans))
        return SpanExportResult.SUCCESS if written else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Nothing: the file is shared, and closed by who made it."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Every line is written as it comes."""
        return True


class FileMetricExporter(MetricExporter):
    """One line per collection. Honours the variable that asks OTLP exporters for exponential histograms."""

    def __init__(self, file: LocalFile) -> None:
        super().__init__(preferred_aggregation=aggregation())
        self._file = file
        self._began = False

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,
        **_kwargs: Any,
    ) -> MetricExportResult:
        """Write one line; none before there is something to tell, so that a program without calls leaves no
        file."""
        points = points_of(metrics_data)
        if not points or (not self._began and idle(metrics_data)):
            return MetricExportResult.SUCCESS
        self._began = True
        written = self._file.write(import_module(_METRICS).encode_metrics(metrics_data).to_json(), points)
        return MetricExportResult.SUCCESS if written else MetricExportResult.FAILURE

    def shutdown(self, timeout_millis: float = 30_000, **_kwargs: Any) -> None:
        """Nothing, as above."""

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Every line is written as it comes."""
        return True


class FileLogExporter(LogRecordExporter):
    """One line per batch of log records."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Write one line."""
        written = self._file.write(import_module(_LOGS).encode_logs(batch).to_json(), len(batch))
        return LogRecordExportResult.SUCCESS if written else LogRecordExportResult.FAILURE

    def shutdown(self) -> None:
        """Nothing, as above."""

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Every line is written as it comes."""
        return True


def points_of(data: MetricsData) -> int:
    """Number of points in a collection."""
    return sum(
        len(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )
