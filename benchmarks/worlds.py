"""The worlds that are compared: what a process has put under its clients, and who receives its telemetry.

Providers are global to a process and cannot be taken back, so each world is a process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["TELEMETRY", "WORLDS", "World", "enter"]

TELEMETRY: dict[str, str] = {
    "off": "no OpenTelemetry SDK",
    "on": "SDK with spans and metrics, exporters that do nothing",
    "full": "batch span processor, metric reader of 5 s, both into memory, and OpenTelemetry's httpx spans",
}


@dataclass(frozen=True, slots=True)
class World:
    """`product` is what is measured: underlay, genai (opentelemetry-instrumentation-genai-openai), http (the
    HTTP instrumentation alone), nothing (the noise of the method)."""

    product: str
    telemetry: str
    sdk_only: bool = False

    @property
    def name(self) -> str:
        """For the command line and the results."""
        return f"{self.product}-{self.telemetry}"


WORLDS: dict[str, World] = {
    world.name: world
    for world in (
        World("nothing", "off"),
        *(World("underlay", telemetry) for telemetry in TELEMETRY),
        *(World("genai", telemetry, sdk_only=True) for telemetry in TELEMETRY),
        World("http", "full"),
    )
}


def enter(world: World) -> tuple[Callable[[Any], None], Callable[[], None]]:
    """Set this process up. Returns what to do with an HTTP client that is not bare, and what to do between
    bursts so that exporters in memory stay small."""
    between = _providers(full=world.telemetry == "full") if world.telemetry != "off" else _nothing
    if world.product == "underlay":
        import underlay

        underlay.instrument()
    elif world.product == "genai":
        from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

        OpenAIInstrumentor().instrument()
    return (_trace_http if world.telemetry == "full" else _untouched), between


def _untouched(client: Any) -> None:
    """Nothing is put into a single client."""


def _nothing() -> None:
    """Nothing is kept between bursts."""


def _trace_http(client: Any) -> None:
    from opentelemetry.instrumentation import httpx as instrumentation

    family = type(client).__module__.partition(".")[0]
    name = "HTTPX2ClientInstrumentor" if family == "httpx2" else "HTTPXClientInstrumentor"
    getattr(instrumentation, name).instrument_client(client)


def _providers(*, full: bool) -> Callable[[], None]:
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        MetricExporter,
        MetricExportResult,
        MetricsData,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Spans(SpanExporter):
        def __init__(self) -> None:
            self.kept: list[ReadableSpan] = []

        def export(self, spans: Any) -> SpanExportResult:
            if full:
                self.kept.extend(spans)
            return SpanExportResult.SUCCESS

    class Metrics(MetricExporter):
        def __init__(self) -> None:
            super().__init__()
            self.kept: MetricsData | None = None

        def export(
            self, metrics_data: MetricsData, timeout_millis: float = 0, **_: Any
        ) -> MetricExportResult:
            if full:
                self.kept = metrics_data
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 0) -> bool:
            return True

        def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
            self.kept = None

    spans = Spans()
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(spans))
    trace.set_tracer_provider(tracers)
    every = 5_000 if full else 60_000  # milliseconds; the first is what `underlay run` uses
    metrics.set_meter_provider(
        MeterProvider([PeriodicExportingMetricReader(Metrics(), export_interval_millis=every)])
    )
    return spans.kept.clear
