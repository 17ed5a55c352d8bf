"""Exporters that write spans, metrics and log records to the local file, in the official OTLP-JSON
encoding."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.json.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.json.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.json.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION
from opentelemetry.sdk.metrics import Histogram
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.trace import ReadableSpan

    from underlay_instrumentation.local_file import LocalFile

__all__ = ["FileLogExporter", "FileMetricExporter", "FileSpanExporter"]


class FileSpanExporter(SpanExporter):
    """One line per batch of spans."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write one line."""
        written = self._file.write(encode_spans(spans).to_json(), len(spans))
        return SpanExportResult.SUCCESS if written else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Nothing: the file is shared, and closed by who made it."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Every line is written as it comes."""
        return True


class FileMetricExporter(MetricExporter):
    """One line per collection. Honours the variable that asks OTLP exporters for exponential histograms."""

    def __init__(self, file: LocalFile) -> None:
        wanted = os.environ.get(OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION, "").strip().lower()
        exponential = wanted == "base2_exponential_bucket_histogram"
        super().__init__(
            preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()}
            if exponential
            else None
        )
        self._file = file

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,
        **_kwargs: Any,
    ) -> MetricExportResult:
        """Write one line, or none when there is nothing to tell."""
        points = points_of(metrics_data)
        if not points:
            return MetricExportResult.SUCCESS
        written = self._file.write(encode_metrics(metrics_data).to_json(), points)
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
        written = self._file.write(encode_logs(batch).to_json(), len(batch))
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
