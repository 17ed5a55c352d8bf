"""Exporters that are made when they have something to send: who sends nothing pays for nothing.

OTLP over HTTP brings requests, urllib3 and protobuf, which take longer to import than all of underlay.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION,
    OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE,
)
from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    MetricExporter,
    MetricExportResult,
    Sum,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from underlay_instrumentation.faults import fault
from underlay_instrumentation.sink import SCOPE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.metrics.export import Metric, MetricsData
    from opentelemetry.sdk.metrics.view import Aggregation
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["LateLogs", "LateMetrics", "LateSpans", "aggregation", "idle", "temporality"]

E = TypeVar("E")

_DELTAS: Final[dict[str, tuple[type, ...]]] = {
    "delta": (Counter, Histogram, ObservableCounter),
    "lowmemory": (Counter, Histogram),
}


class _Late(Generic[E]):
    """An exporter that `make` makes at its first use; exporters are used by one thread at a time."""

    def __init__(self, what: str, make: Callable[[], E]) -> None:
        self._what = what
        self._make = make
        self.made: E | None = None

    def get(self) -> E | None:
        """The exporter, or None where it cannot be made, which is told once."""
        if self.made is None:
            try:
                self.made = self._make()
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the program goes on
                fault(self._what, error)
        return self.made


class LateSpans(SpanExporter):
    """A span exporter that `make` makes with the first batch. `what` names it where it cannot be made."""

    def __init__(self, what: str, make: Callable[[], SpanExporter]) -> None:
        self._late = _Late(what, make)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export; a failure where there is no exporter."""
        exporter = self._late.get()
        return SpanExportResult.FAILURE if exporter is None else exporter.export(spans)

    def shutdown(self) -> None:
        """Shut the exporter down, if there is one."""
        if self._late.made is not None:
            self._late.made.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter, if there is one."""
        return self._late.made is None or self._late.made.force_flush(timeout_millis)


class LateMetrics(MetricExporter):
    """A metric exporter that `make` makes with the first collection that is not `idle`, or with the second.

    The first idle one is not sent: it is the only one of a short program that made no call.
    """

    def __init__(self, what: str, make: Callable[[], MetricExporter]) -> None:
        # The reader asks for these before there is an exporter.
        super().__init__(preferred_temporality=temporality(), preferred_aggregation=aggregation())
        self._late = _Late(what, make)
        self._idled = False

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Export; a failure where there is no exporter."""
        if not self._idled and self._late.made is None and idle(metrics_data):
            self._idled = True
            return MetricExportResult.SUCCESS
        exporter = self._late.get()
        if exporter is None:
            return MetricExportResult.FAILURE
        return exporter.export(metrics_data, timeout_millis, **kwargs)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Shut the exporter down, if there is one."""
        if self._late.made is not None:
            self._late.made.shutdown(timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Flush the exporter, if there is one."""
        return self._late.made is None or self._late.made.force_flush(timeout_millis)


class LateLogs(LogRecordExporter):
    """A log exporter that `make` makes with the first batch."""

    def __init__(self, what: str, make: Callable[[], Any]) -> None:
        # Its `shutdown` has no annotations.
        self._late: _Late[Any] = _Late(what, make)

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Export; a failure where there is no exporter."""
        exporter = self._late.get()
        if exporter is None:
            return LogRecordExportResult.FAILURE
        result: LogRecordExportResult = exporter.export(batch)
        return result

    def shutdown(self) -> None:
        """Shut the exporter down, if there is one."""
        if self._late.made is not None:
            self._late.made.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter, if there is one."""
        return self._late.made is None or bool(self._late.made.force_flush(timeout_millis))


def temporality() -> dict[type, AggregationTemporality] | None:
    """What the usual variable asks of OTLP metric exporters, by instrument; None for the default, cumulative.

    Values are the specification's; of an unknown one the exporter warns when it is made.
    """
    wanted = os.environ.get(OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, "").strip().lower()
    deltas = _DELTAS.get(wanted)
    return dict.fromkeys(deltas, AggregationTemporality.DELTA) if deltas else None


def aggregation() -> dict[type, Aggregation] | None:
    """Exponential histograms where the usual variable asks for them, else None."""
    wanted = os.environ.get(OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION, "").strip().lower()
    exponential = wanted == "base2_exponential_bucket_histogram"
    return {Histogram: ExponentialBucketHistogramAggregation()} if exponential else None


def idle(data: MetricsData) -> bool:
    """Whether a collection holds only gauges of underlay and counters of it that stand at zero: the program
    has made no call."""
    return all(
        scope.scope.name == SCOPE and all(_untouched(metric) for metric in scope.metrics)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
    )


def _untouched(metric: Metric) -> bool:
    if isinstance(metric.data, Sum):
        return not any(point.value for point in metric.data.data_points)
    return isinstance(metric.data, Gauge)
