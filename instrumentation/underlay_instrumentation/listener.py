"""The OpenTelemetry listener: the runtime's events as spans, links, histogram points and log events.

Whose span a call's story is told on is decided once, when the call starts:

1. instrumentation is suppressed in the context: nowhere;
2. util-genai's record of the call is in the context: its span and its points, enriched;
3. the current span is a model call of another instrumentation: that span, points of ours;
4. else: a CLIENT span of ours.
"""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import get_current
from opentelemetry.trace import INVALID_SPAN, Link, SpanKind, get_current_span, set_span_in_context

from underlay.telemetry import attributes as a
from underlay.telemetry import spans
from underlay.telemetry.attributes import CircuitState
from underlay.telemetry.events import CircuitChanged
from underlay_instrumentation import describe, foreign, origin
from underlay_instrumentation.calls import EnrichedCall, NativeCall, OwnCall
from underlay_instrumentation.dispatch import DispatchHandle, start_spans
from underlay_instrumentation.faults import fault
from underlay_instrumentation.handle import INERT
from underlay_instrumentation.series import SeriesTable, batch_labels, model_labels
from underlay_instrumentation.sink import Sink, fixed_sink, global_sink

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from underlay.telemetry.events import BatchStarted, CallStarted, ProcessEvent
    from underlay.telemetry.listener import Handle
    from underlay.telemetry.metrics import Generation
    from underlay_instrumentation.instruments import RuntimeView

__all__ = ["MAX_MODELS", "OpenTelemetryListener"]

MAX_MODELS = 200
"""Model names told apart in labels, unless the settings say otherwise; further ones are `other`."""

_CAUSE = {a.LINK_ROLE.key: "cause"}


class OpenTelemetryListener:
    """Listens for one runtime. Without providers it uses the global ones, also when they are set after it was
    made."""

    def __init__(
        self,
        runtime: RuntimeView | None = None,
        *,
        providers: tuple[TracerProvider, MeterProvider, LoggerProvider] | None = None,
        generation: Generation = "released",
        max_models: int = MAX_MODELS,
    ) -> None:
        self._sink: Sink = (
            global_sink(generation) if providers is None else fixed_sink(*providers, generation)
        )
        self._table = SeriesTable(max_models)
        self._runtime = runtime
        if runtime is not None:
            self._sink.instruments.observe(runtime, generation)

    def close(self) -> None:
        """Stop reading the runtime's statistics. Calls in flight still end their spans."""
        if self._runtime is not None:
            self._sink.instruments.forget(self._runtime)

    def start(self, started: CallStarted) -> Handle:
        """Begin the telemetry of one call; never raises."""
        sink = self._sink
        if sink.tracer is None and not sink.refresh():
            return INERT
        try:
            return self._start(started)
        except Exception as error:  # noqa: BLE001 - telemetry never raises into a call
            fault("telemetry of CallStarted", error)
            return INERT

    def _start(self, started: CallStarted) -> Handle:
        context = get_current()
        if foreign.suppressed(context):
            return INERT
        sink = self._sink
        series = self._table.of(started)
        outer = foreign.outer_call(context, started.operation)
        if outer is not None:
            return EnrichedCall(sink.points, sink.tracer, series, context, outer, started)
        current = get_current_span(context)
        if current is not INVALID_SPAN and current.is_recording() and foreign.is_call(current):
            return NativeCall(sink.points, sink.tracer, series, context, current, started)
        return OwnCall(sink.points, sink.tracer, series, context, started)

    def dispatch(self, started: BatchStarted) -> DispatchHandle | None:
        """Begin the telemetry of one dispatch; never raises. None when nobody receives it."""
        sink = self._sink
        if sink.tracer is None and not sink.refresh():
            return None
        try:
            return self._dispatch(started)
        except Exception as error:  # noqa: BLE001 - telemetry never raises into a call
            fault("telemetry of BatchStarted", error)
            return None

    def _dispatch(self, started: BatchStarted) -> DispatchHandle | None:
        context = get_current()
        if foreign.suppressed(context):
            return None
        sink = self._sink
        parts = start_spans(sink.tracer, context, started) if sink.tracer is not None else ()
        if parts:
            context = set_span_in_context(parts[0], context)
        labels = model_labels(started.provider, started.model, self._table.models)
        if not started.again:
            sink.points.batch_size.record(
                len(started.members), batch_labels(labels, started.mode, started.trigger), context
            )
        return DispatchHandle(parts, context)

    def event(self, event: ProcessEvent) -> None:
        """Tell a transition. Faults and unpriced models are counted by the statistics, whose counters are
        observed."""
        if not isinstance(event, CircuitChanged):
            return
        if self._sink.tracer is None and not self._sink.refresh():
            return
        try:
            self._transition(event)
        except Exception as error:  # noqa: BLE001 - telemetry never raises into a call
            fault("telemetry of CircuitChanged", error)

    def _transition(self, event: CircuitChanged) -> None:
        context = get_current()
        if foreign.suppressed(context):
            return
        sink, now = self._sink, time_ns()
        attributes = describe.changed(event)
        if sink.tracer is not None:
            causes = (origin.unpack(cause) for cause in event.causes)
            span = sink.tracer.start_span(
                spans.TRANSITION(state=event.entered.value),
                context=context,
                kind=SpanKind.INTERNAL,
                attributes=attributes,  # type: ignore[arg-type]  # values of the vocabulary's types
                links=[Link(cause, _CAUSE) for cause in causes if cause is not None],
                start_time=now,
            )
            context = set_span_in_context(span, context)
            span.end(now)
        opened = event.entered is CircuitState.OPEN
        sink.logger.emit(
            LogRecord(
                timestamp=now,
                context=context,
                severity_number=SeverityNumber.WARN if opened else SeverityNumber.INFO,
                attributes=attributes,  # type: ignore[arg-type]
                event_name=spans.TRANSITION_EVENT,
            )
        )
        labels = model_labels(event.provider, event.model, self._table.models)
        sink.points.state_duration.record(
            event.lasted, {**labels, a.CIRCUIT_STATE.key: event.left.value}, context
        )
