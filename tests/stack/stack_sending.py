"""Send telemetry with the real OpenTelemetry SDK, and ask the real servers what arrived."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.trace import SpanContext

T = TypeVar("T")
NEVER_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class App:
    """The three providers of a pretended application; nothing leaves before `flush`."""

    name: str
    traces: TracerProvider
    metrics: MeterProvider
    logs: LoggerProvider

    def flush(self) -> None:
        """Export everything now; each exporter must report success."""
        assert self.traces.force_flush()
        assert self.metrics.force_flush()
        assert self.logs.force_flush()


@contextmanager
def app(endpoint: str, name: str, **resource: str) -> Iterator[App]:
    """Make an application that exports over OTLP/HTTP to `endpoint`.

    Instruments whose name ends in `.exponential` record exponential histograms.
    """
    about = Resource.create({"service.name": name, "service.instance.id": f"{name}-1", **resource})
    traces = TracerProvider(resource=about)
    traces.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces"), schedule_delay_millis=NEVER_MS)
    )
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(f"{endpoint}/v1/metrics"), export_interval_millis=NEVER_MS
    )
    exponential = View(
        instrument_type=Histogram,
        instrument_name="*.exponential",
        aggregation=ExponentialBucketHistogramAggregation(),
    )
    metrics = MeterProvider([reader], about, views=[exponential])
    logs = LoggerProvider(about)
    logs.add_log_record_processor(
        BatchLogRecordProcessor(OTLPLogExporter(f"{endpoint}/v1/logs"), schedule_delay_millis=NEVER_MS)
    )
    try:
        yield App(name, traces, metrics, logs)
    finally:
        traces.shutdown()
        metrics.shutdown()
        logs.shutdown()


def get(url: str, **query: str) -> Any:
    """GET a JSON document."""
    full = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(full, timeout=10) as answer:
        return json.load(answer)


def post(url: str, document: dict[str, Any]) -> None:
    """POST an OTLP document as JSON; the answer must be 200 with nothing refused."""
    request = urllib.request.Request(
        url, json.dumps(document).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        assert json.load(answer) in ({}, {"partialSuccess": {}})


def eventually(ask: Callable[[], T | None], what: str, deadline_s: float = 40.0) -> T:
    """Ask a server until it has an answer that is not None; servers need a moment to store what they took."""
    until = time.monotonic() + deadline_s
    while True:
        try:
            answer = ask()
        except OSError:
            answer = None
        if answer is not None:
            return answer
        assert time.monotonic() < until, f"never seen: {what}"
        time.sleep(0.1)


def instant(prometheus: str, expression: str) -> dict[str, float]:
    """Ask an instant query; return values by their labels, written as JSON without the metric's name."""
    document = get(f"{prometheus}/api/v1/query", query=expression)
    return {
        json.dumps({k: v for k, v in row["metric"].items() if k != "__name__"}, sort_keys=True): float(
            row["value"][1]
        )
        for row in document["data"]["result"]
    }


def value(prometheus: str, expression: str, expected: float) -> float:
    """Wait until a query has one value that equals `expected`, and return it."""

    def ask() -> float | None:
        found = instant(prometheus, expression)
        assert len(found) <= 1, found
        return next((number for number in found.values() if number == expected), None)

    return eventually(ask, f"{expression} = {expected}")


def trace(jaeger: str, trace_id: int, spans: int) -> list[dict[str, Any]]:
    """Wait until Jaeger has this many spans of a trace; return all of them."""

    def ask() -> list[dict[str, Any]] | None:
        found = get(f"{jaeger}/api/traces/{trace_id:032x}")["data"]
        return found[0]["spans"] if found and len(found[0]["spans"]) >= spans else None

    return eventually(ask, f"{spans} spans of trace {trace_id:032x}")


def tags(span: dict[str, Any]) -> dict[str, Any]:
    """Return a Jaeger span's attributes."""
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def called(app: App, name: str, **attributes: Any) -> SpanContext:
    """Make one span and return its context."""
    with app.traces.get_tracer("test").start_as_current_span(name, attributes=attributes) as span:
        return span.get_span_context()
