"""A dispatch of a window: its span with links to the members, and the point of its size.

A span takes a bounded number of links and drops the oldest beyond it, so that a dispatch with more members
has several spans. The first one is the scope of the send and what the members link to.
"""

from __future__ import annotations

import os
from time import time_ns
from typing import TYPE_CHECKING

from opentelemetry.trace import SpanKind, StatusCode

from underlay.telemetry import attributes as a
from underlay.telemetry import spans
from underlay_instrumentation import describe, origin
from underlay_instrumentation.faults import fault
from underlay_instrumentation.handle import DISPATCH, NOTHING, Attached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext, Tracer

    from underlay.telemetry.events import BatchEnded, BatchStarted

__all__ = ["DispatchHandle", "link_limit", "start_spans"]

_MEMBER = {a.LINK_ROLE.key: "member"}
_LINKS_VARIABLE = "OTEL_SPAN_LINK_COUNT_LIMIT"
_LINKS_DEFAULT = 128


class DispatchHandle:
    """The spans of one dispatch, the first one first; none without an SDK for spans."""

    __slots__ = ("_context", "_ended", "_spans")

    def __init__(self, parts: tuple[Span, ...], context: Context) -> None:
        self._spans = parts
        self._context = context
        self._ended = False

    def attempt(self) -> AbstractContextManager[object]:
        """Make the first span current."""
        return Attached(self._context) if self._spans else NOTHING

    def origin(self) -> bytes:
        """The first span, as 25 bytes."""
        return origin.pack(self._spans[0].get_span_context()) if self._spans else b""

    def event(self, event: BatchEnded) -> None:
        """End the spans; never raises. Only the first end counts."""
        if self._ended:
            return
        self._ended = True
        try:
            try:
                self._put(event)
            finally:
                for span in self._spans:
                    span.end()
        except Exception as error:  # noqa: BLE001 - telemetry never raises into a call
            fault("telemetry of BatchEnded", error)

    def _put(self, event: BatchEnded) -> None:
        attributes = describe.dispatch_ended(event)
        for span in self._spans:
            if span.is_recording():
                span.set_attributes(attributes)  # type: ignore[arg-type]  # values of the vocabulary's types
                if event.error_type:
                    span.set_status(StatusCode.ERROR)


def start_spans(tracer: Tracer, context: Context, event: BatchStarted) -> tuple[Span, ...]:
    """Start as many spans as the members' links need: all under what is current, each with its share."""
    name, now, attributes = spans.DISPATCH(model=event.model), time_ns(), describe.dispatched(event)

    def start() -> Span:
        return tracer.start_span(
            name,
            context=context,
            kind=SpanKind.INTERNAL,
            attributes=attributes,  # type: ignore[arg-type]  # values of the vocabulary's types
            start_time=now,
        )

    parts = [start()]
    try:
        if parts[0].is_recording():  # links are made only for a span that keeps them
            _link(parts, start, event.members, link_limit(tracer))
    except Exception:
        for span in parts:
            span.end()
        raise
    return tuple(parts)


def _link(parts: list[Span], start: Callable[[], Span], members: Iterable[bytes], limit: int | None) -> None:
    # Members under one span of another instrumentation are told on that span: one link says it.
    contexts = [link for member in dict.fromkeys(members) if (link := origin.unpack(member))]
    shares = list(_shares(contexts, limit))
    parts.extend(start() for _ in shares[1:])
    for number, (span, share) in enumerate(zip(parts, shares, strict=True), 1):
        if len(parts) > 1:
            span.set_attribute(a.BATCH_PART.key, number)
        for member in share:
            span.add_link(member, _MEMBER)
        if number > 1 and limit != 1:
            span.add_link(parts[0].get_span_context(), DISPATCH)


def _shares(members: list[SpanContext], limit: int | None) -> Iterator[list[SpanContext]]:
    """The members by span: as many as its links allow, one less in further spans, which link to the first as
    well where that leaves room for a member."""
    if not limit:  # without a bound, or without links
        yield members
        return
    yield members[:limit]
    further = max(1, limit - 1)
    for begin in range(limit, len(members), further):
        yield members[begin : begin + further]


def link_limit(tracer: Tracer) -> int | None:
    """How many links a span of `tracer` keeps, None without a bound: what its provider was given, else what
    the environment says (OpenTelemetry specification, *SDK environment variables*), else 128."""
    limits = getattr(tracer, "_span_limits", None)
    if limits is not None and hasattr(limits, "max_links"):
        found = limits.max_links
        return found if isinstance(found, int) else None
    try:
        return int(os.environ.get(_LINKS_VARIABLE, _LINKS_DEFAULT))
    except ValueError:
        return _LINKS_DEFAULT
