"""The three kinds of call: they differ in whose span the story is told on, and in who records the points.

`OwnCall` has a span of its own; `NativeCall` writes on the span of an instrumentation that is current;
`EnrichedCall` gives its attributes to util-genai, which records the `gen_ai.client.*` points itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.trace import INVALID_SPAN, SpanKind, StatusCode, set_span_in_context

from underlay.telemetry import attributes as a
from underlay.telemetry.attributes import BatchMode, Ending
from underlay_instrumentation import describe
from underlay_instrumentation.handle import NOTHING, Attached, CallHandle

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from underlay.telemetry.events import CallEnded, CallStarted
    from underlay_instrumentation.foreign import OuterCall
    from underlay_instrumentation.series import Series
    from underlay_instrumentation.sink import Points

__all__ = ["EnrichedCall", "NativeCall", "OwnCall"]


class OwnCall(CallHandle):
    """A call with a span of its own: the GenAI CLIENT span."""

    __slots__ = ("_span",)

    def __init__(
        self,
        points: Points,
        tracer: Tracer | None,
        series: Series,
        context: Context,
        started: CallStarted,
    ) -> None:
        super().__init__(points, tracer, series, context, started)
        if tracer is None:
            self._span: Span = INVALID_SPAN
            return
        attributes: dict[str, Any] = series.attributes
        if started.stream or started.parameters:
            attributes = {**attributes, **started.parameters}
            if started.stream:
                attributes[a.REQUEST_STREAM.key] = True
        self._span = tracer.start_span(
            series.name,
            context=context,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=self._started_ns,
        )
        self._context = set_span_in_context(self._span, context)

    def attempt(self) -> AbstractContextManager[object]:
        """Make the call's span current."""
        return NOTHING if self._span is INVALID_SPAN else Attached(self._context)

    def _story(self) -> Span:
        return self._span

    def _put(self, ours: describe.Attributes, theirs: describe.Attributes | None = None) -> None:
        if self._span.is_recording():
            if theirs:
                ours.update(theirs)
            self._span.set_attributes(ours)  # type: ignore[arg-type]

    def _answered_by(self, other: bytes, role: dict[str, str], name: str, ours: describe.Attributes) -> None:
        self._link(other, role)

    def _finish(self, event: CallEnded) -> None:
        if self._span.is_recording() and describe.error_of(event):
            self._span.set_status(StatusCode.ERROR)
        if event.ending is Ending.DROPPED:
            # Told late, by the garbage collector: the duration says when it was.
            self._span.end(self._started_ns + int(event.duration * 1e9))
        else:
            self._span.end()


class NativeCall(CallHandle):
    """A call under a GenAI span of another instrumentation: our attributes go there, the points are ours."""

    __slots__ = ("_span",)

    def __init__(
        self,
        points: Points,
        tracer: Tracer | None,
        series: Series,
        context: Context,
        span: Span,
        started: CallStarted,
    ) -> None:
        super().__init__(points, tracer, series, context, started)
        self._span = span

    def _put(self, ours: describe.Attributes, theirs: describe.Attributes | None = None) -> None:
        if self._span.is_recording():
            self._span.set_attributes(ours)  # type: ignore[arg-type]


class EnrichedCall(CallHandle):
    """A call under util-genai's: it puts our attributes on its span and our labels on its points."""

    __slots__ = ("_outer",)

    _counts = False

    def __init__(
        self,
        points: Points,
        tracer: Tracer | None,
        series: Series,
        context: Context,
        outer: OuterCall,
        started: CallStarted,
    ) -> None:
        super().__init__(points, tracer, series, context, started)
        self._outer = outer

    def _put(self, ours: describe.Attributes, theirs: describe.Attributes | None = None) -> None:
        self._outer.attributes.update(ours)
        labels = self._outer.metric_attributes
        if a.CACHE_RESULT.key in ours:
            labels[a.CACHE_RESULT.key] = ours[a.CACHE_RESULT.key]
        # Its points may be recorded before our last event, so the usual value stands from the first.
        labels[a.BATCH_MODE.key] = (
            ours.get(a.BATCH_MODE.key) or labels.get(a.BATCH_MODE.key) or BatchMode.ALONE.value
        )
