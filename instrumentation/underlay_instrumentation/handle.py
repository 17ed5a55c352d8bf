"""A handle: the events of one call as attributes, links and histogram points, in one order for every kind of
call.

What differs between the kinds is in `calls`. Nothing here is attached to the context except inside
`attempt()`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from time import time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry import context as context_api
from opentelemetry.trace import Link, SpanKind, get_current_span

from underlay.telemetry import attributes as a
from underlay.telemetry import events, spans
from underlay.telemetry.attributes import CacheResult, TokenType
from underlay_instrumentation import describe, origin
from underlay_instrumentation.faults import fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from underlay.telemetry.events import (
        AttemptEnded,
        Batched,
        CacheLooked,
        CallEnded,
        CallEvent,
        CallStarted,
        CircuitRefused,
        Coalesced,
        Paced,
    )
    from underlay_instrumentation.series import Series
    from underlay_instrumentation.sink import Points

__all__ = [
    "DISPATCH", "GENERATED", "INERT", "LEADER", "NOTHING", "Attached", "CallHandle", "InertHandle",
]  # fmt: skip

NOTHING: AbstractContextManager[object] = nullcontext()
"""Shared by every attempt that attaches nothing."""

GENERATED = {a.LINK_ROLE.key: "generated"}
"""Attributes of the link from a hit to the span that generated the answer."""

LEADER = {a.LINK_ROLE.key: "leader"}
"""Attributes of the link from a coalesced call to the one whose answer it reads."""

DISPATCH = {a.LINK_ROLE.key: "dispatch"}
"""Attributes of the link from a call to the dispatch that it left its window with."""

_RUNTIME = getattr(context_api, "_RUNTIME_CONTEXT", None)


class InertHandle:
    """The handle of a call that nobody watches: no SDK is configured, or instrumentation is suppressed."""

    __slots__ = ()

    def attempt(self) -> AbstractContextManager[object]:
        """Nothing."""
        return NOTHING

    def origin(self) -> bytes:
        """Nothing to link to."""
        return b""

    def trace_id(self) -> str:
        """In no trace."""
        return ""

    def event(self, event: CallEvent) -> None:
        """Nothing."""


INERT = InertHandle()


class Attached:
    """Makes a context current for the length of a `with`. Leaving it in another context, as a
    garbage-collected coroutine does, is silent."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        self._token = context_api.attach(self._context)

    def __exit__(self, *_exc: object) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        if _RUNTIME is None:
            context_api.detach(token)
            return
        try:
            _RUNTIME.detach(token)
        except (ValueError, RuntimeError):
            # The token belongs to a context that is gone: there is nothing to restore, and `detach` would log
            # an error.
            return


class CallHandle(ABC):
    """What all calls share: the order of the events, the points, the end."""

    __slots__ = (
        "_context",
        "_ended",
        "_points",
        "_response_model",
        "_saved",
        "_series",
        "_started_ns",
        "_stream",
        "_tracer",
    )

    _counts = True
    """Whether the `gen_ai.client.*` points of this call are ours to record."""

    def __init__(
        self, points: Points, tracer: Tracer | None, series: Series, context: Context, started: CallStarted
    ) -> None:
        self._points = points
        self._tracer = tracer
        self._series = series
        self._context = context
        self._stream = started.stream
        self._started_ns = time_ns()
        self._response_model = ""
        self._saved: float | None = None
        self._ended = False

    def attempt(self) -> AbstractContextManager[object]:
        """Nothing to attach: the span that the HTTP span belongs under is current already."""
        return NOTHING

    def origin(self) -> bytes:
        """The span that tells this call's story, as 25 bytes."""
        return origin.pack(self._story().get_span_context())

    def trace_id(self) -> str:
        """The trace of the span that tells this call's story."""
        return origin.trace_id(self._story().get_span_context())

    def event(self, event: CallEvent) -> None:
        """Take one event; never raises."""
        step = _STEPS.get(type(event))
        if step is None:
            return
        try:
            step(self, event)
        except Exception as error:  # noqa: BLE001 - telemetry never raises into a call
            fault(f"telemetry of {type(event).__name__}", error)

    def _story(self) -> Span:
        """The span that tells this call's story."""
        return get_current_span(self._context)

    @abstractmethod
    def _put(self, ours: describe.Attributes, theirs: describe.Attributes | None = None) -> None:
        """Set attributes where this call's story is told."""

    def _answered_by(self, other: bytes, role: dict[str, str], name: str, ours: describe.Attributes) -> None:
        """Another call's answer, under another instrumentation's span, is a small span of its own, linked to
        that call."""
        if self._tracer is None:
            return
        linked = origin.unpack(other)
        span = self._tracer.start_span(
            name,
            context=self._context,
            kind=SpanKind.INTERNAL,
            attributes=ours,  # type: ignore[arg-type]  # values of the vocabulary's types
            links=[Link(linked, role)] if linked else None,
            start_time=self._started_ns,
        )
        span.end()

    def _link(self, other: bytes, role: dict[str, str]) -> None:
        """Link the span that tells this call's story to another one."""
        span = self._story()
        if span.is_recording() and (linked := origin.unpack(other)) is not None:
            span.add_link(linked, role)

    def _finish(self, event: CallEnded) -> None:  # noqa: B027 only a call with a span of its own has one to end
        """The span's end, where the span is ours."""

    def _looked(self, event: CacheLooked) -> None:
        ours = describe.looked(event)
        self._put(ours)
        if event.result is CacheResult.HIT and not event.observed:
            self._saved = event.saved_seconds
            self._answered_by(event.origin, GENERATED, spans.CACHE_HIT(), ours)

    def _coalesced(self, event: Coalesced) -> None:
        ours = describe.coalesced(event)
        self._put(ours)
        if not event.observed:
            self._answered_by(event.origin, LEADER, spans.COALESCE(), ours)
            self._points.coalesce_wait.record(event.wait, self._series.model, self._context)

    def _batched(self, event: Batched) -> None:
        self._put(describe.batched(event))
        if not event.observed:
            self._link(event.origin, DISPATCH)
            labels = self._series.batch(event.mode, event.trigger)
            self._points.batch_wait.record(event.wait, labels, self._context)

    def _paced(self, event: Paced) -> None:
        self._put(describe.paced(event))

    def _refused(self, event: CircuitRefused) -> None:
        self._put(describe.refused(event))

    def _attempt_ended(self, event: AttemptEnded) -> None:
        self._response_model = event.response_model
        self._put(*describe.attempt(event))
        if self._counts and event.usage is not None:
            for kind, count in (
                (TokenType.INPUT, event.usage.input_tokens),
                (TokenType.OUTPUT, event.usage.output_tokens),
            ):
                if count is not None:
                    labels = self._series.token(event.response_model, kind)
                    self._points.token_usage.record(count, labels, self._context)

    def _call_ended(self, event: CallEnded) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            self._put(*describe.ended(event, stream=self._stream))
            self._record(event)
        finally:
            self._finish(event)

    def _record(self, event: CallEnded) -> None:
        points, context = self._points, self._context
        if self._counts:
            call = (self._response_model, event.result, event.batch_mode)
            labels = self._series.call(*call, describe.error_of(event))
            points.call_duration.record(event.duration, labels, context)
            if self._stream:
                labels = self._series.call(*call)
                if event.first_chunk is not None:
                    points.first_chunk.record(event.first_chunk, labels, context)
                if event.chunk_interval is not None:
                    points.output_chunk.record(event.chunk_interval, labels, context)
        if self._saved is not None and event.result is CacheResult.HIT:
            points.time_saved.record(max(0.0, self._saved - event.duration), self._series.model, context)


_STEPS: dict[type, Callable[[CallHandle, Any], None]] = {
    events.CacheLooked: CallHandle._looked,
    events.Coalesced: CallHandle._coalesced,
    events.CircuitRefused: CallHandle._refused,
    events.Batched: CallHandle._batched,
    events.Paced: CallHandle._paced,
    events.AttemptEnded: CallHandle._attempt_ended,
    events.CallEnded: CallHandle._call_ended,
}
"""What each event does. `AttemptStarted` does nothing: the attempt is the HTTP client's own span."""
