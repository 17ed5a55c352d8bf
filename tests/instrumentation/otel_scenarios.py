"""In-memory providers, the whole telemetry of a scenario as plain data, and hand-made events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from underlay.telemetry.attributes import CacheResult, Ending, Verdict
from underlay.telemetry.events import (
    AttemptEnded,
    AttemptStarted,
    CacheLooked,
    CallEnded,
    CallStarted,
    Usage,
)
from underlay_instrumentation import origin
from underlay_instrumentation.listener import OpenTelemetryListener

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.sdk.trace import ReadableSpan

    from underlay.telemetry.listener import Dispatch, Handle

KEY = "0123456789abcdef" * 4


@dataclass
class View:
    """A runtime's statistics, by hand."""

    values: dict[str, list[tuple[tuple[str | int, ...], float]]] = field(default_factory=dict)

    def collect(self, key: str) -> Iterable[tuple[tuple[str | int, ...], float]]:
        """The values set for that metric."""
        return self.values.get(key, [])


class Telemetry:
    """Providers in memory, and what they received as plain data."""

    def __init__(self, **tracing: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False, **tracing)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.log_exporter = InMemoryLogRecordExporter()
        self.loggers = LoggerProvider(shutdown_on_exit=False)
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self.log_exporter))

    def listener(self, runtime: View | None = None, **options: Any) -> OpenTelemetryListener:
        """A listener on these providers."""
        return OpenTelemetryListener(runtime, providers=(self.tracers, self.meters, self.loggers), **options)

    @property
    def finished(self) -> tuple[ReadableSpan, ...]:
        """Finished spans, in the order of their end."""
        return self.exporter.get_finished_spans()

    def span(self, name: str) -> ReadableSpan:
        """The one finished span of that name."""
        (span,) = [span for span in self.finished if span.name == name]
        return span

    def spans(self, **known: Handle | Dispatch) -> list[dict[str, Any]]:
        """Everything about the finished spans but ids and times; links as (role, name of the linked span).

        In links and parents the spans of `known` go by the names given here.
        """
        names = {span.context.span_id: span.name for span in self.finished}
        for name, handle in known.items():
            context = origin.unpack(handle.origin())
            assert context is not None
            names[context.span_id] = name
        return [
            {
                "name": span.name,
                "kind": span.kind.name,
                "parent": names.get(span.parent.span_id, "?") if span.parent else None,
                "status": span.status.status_code.name,
                "attributes": dict(span.attributes or {}),
                "links": [
                    ((link.attributes or {}).get("underlay.link.role"), names.get(link.context.span_id, "?"))
                    for link in span.links
                ],
                "events": len(span.events),
            }
            for span in self.finished
        ]

    def points(self) -> dict[str, list[tuple[dict[str, Any], float]]]:
        """Metric name -> (labels, sum or value), one entry a point; asserts one recording a histogram point."""
        found: dict[str, list[tuple[dict[str, Any], float]]] = {}
        for metric, point in self._collected():
            value = point.sum if hasattr(point, "sum") else point.value
            assert getattr(point, "count", 1) == 1
            found.setdefault(metric.name, []).append((dict(point.attributes or {}), value))
        return found

    def recorded(self) -> dict[str, list[tuple[dict[str, Any], int, float]]]:
        """Histogram name -> (labels, recordings, sum of what was recorded), one entry a point."""
        found: dict[str, list[tuple[dict[str, Any], int, float]]] = {}
        for metric, point in self._collected():
            found.setdefault(metric.name, []).append((dict(point.attributes or {}), point.count, point.sum))
        return found

    def exemplars(self) -> dict[str, list[tuple[int, int]]]:
        """Metric name -> (trace id, span id) of the exemplars of its points."""
        found: dict[str, list[tuple[int, int]]] = {}
        for metric, point in self._collected():
            several = found.setdefault(metric.name, [])
            several.extend((exemplar.trace_id, exemplar.span_id) for exemplar in point.exemplars)
        return found

    def logs(self) -> list[Any]:
        """The log records."""
        return [entry.log_record for entry in self.log_exporter.get_finished_logs()]

    def _collected(self) -> list[tuple[Any, Any]]:
        data = self.reader.get_metrics_data()
        return [
            (metric, point)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]


def started(**changes: Any) -> CallStarted:
    """A chat call."""
    fields: dict[str, Any] = {
        "provider": "openai",
        "operation": "chat",
        "model": "gpt-4o",
        "stream": False,
        "server_address": "api.openai.com",
        "server_port": 443,
        "parameters": {"gen_ai.request.temperature": 0.5},
    }
    return CallStarted(**{**fields, **changes})


def answered(**changes: Any) -> AttemptEnded:
    """An answer of the provider."""
    fields: dict[str, Any] = {
        "number": 1,
        "duration": 1.0,
        "verdict": Verdict.SUCCESS,
        "status": 200,
        "usage": Usage(100, 20, cache_read_tokens=40, reasoning_tokens=8),
        "cost_usd": 0.25,
        "response_model": "gpt-4o-2024-08-06",
        "response_id": "chatcmpl-1",
        "finish_reasons": ("stop",),
        "stored": True,
    }
    return AttemptEnded(**{**fields, **changes})


def miss(handle: Handle, *, end: CallEnded | None = None, attempt: AttemptEnded | None = None) -> None:
    """The events of a miss, in the runtime's order."""
    handle.event(CacheLooked(CacheResult.MISS, KEY))
    handle.event(AttemptStarted(1))
    with handle.attempt():
        pass
    handle.event(attempt or answered())
    handle.event(end or CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.5, 200))


def hit(handle: Handle, generated: bytes, **changes: Any) -> None:
    """The events of a hit, in the runtime's order."""
    handle.event(
        CacheLooked(
            CacheResult.HIT,
            KEY,
            age=30.0,
            origin=generated,
            saved_seconds=1.5,
            saved_usd=0.25,
            saved_usage=Usage(100, 20),
        )
    )
    handle.event(CallEnded(CacheResult.HIT, Ending.COMPLETE, 0.5, 200, **changes))


CALL_LABELS = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "server.address": "api.openai.com",
    "server.port": 443,
}
MODEL_LABELS = {"gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
ANSWERED_LABELS = {**CALL_LABELS, "gen_ai.response.model": "gpt-4o-2024-08-06"}
START = {**CALL_LABELS, "gen_ai.request.temperature": 0.5}
OURS_ON_MISS = {
    "underlay.cache.result": "miss",
    "underlay.cache.key": "0123456789abcdef",
    "underlay.cache.stored": True,
    "underlay.attempt.verdict": "success",
    "underlay.cost.amount": 0.25,
    "underlay.batch.mode": "alone",
    "underlay.call.ending": "complete",
}
ANSWER = {
    "http.response.status_code": 200,
    "gen_ai.response.model": "gpt-4o-2024-08-06",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.response.finish_reasons": ("stop",),
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 20,
    "gen_ai.usage.cache_read.input_tokens": 40,
    "gen_ai.usage.reasoning.output_tokens": 8,
}
OURS_ON_HIT = {
    "underlay.cache.result": "hit",
    "underlay.cache.key": "0123456789abcdef",
    "underlay.cache.age": 30.0,
    "underlay.cost.saved": 0.25,
}
OURS_AT_END = {"underlay.batch.mode": "alone", "underlay.call.ending": "complete"}
MISS_LABELS = {"underlay.cache.result": "miss", "underlay.batch.mode": "alone"}
HIT_LABELS = {"underlay.cache.result": "hit", "underlay.batch.mode": "alone"}
