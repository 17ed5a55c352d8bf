"""An origin: 25 bytes that name one span (trace id, span id, trace flags), so that a later hit or transition
can link to it."""

from __future__ import annotations

from opentelemetry.trace import SpanContext, TraceFlags

__all__ = ["SIZE", "pack", "trace_id", "unpack"]

SIZE = 25
"""Bytes of an origin: 16 of trace id, 8 of span id, 1 of trace flags, big-endian as in W3C Trace Context."""


def pack(context: SpanContext) -> bytes:
    """Return the origin of a span, or `b""` when its context is not valid (no SDK, nothing to link to)."""
    if not context.is_valid:
        return b""
    return (
        context.trace_id.to_bytes(16, "big")
        + context.span_id.to_bytes(8, "big")
        + bytes((int(context.trace_flags) & 0xFF,))
    )


def unpack(origin: bytes) -> SpanContext | None:
    """Return the span context that `pack` wrote, or None for anything else: origins come back from stores
    that others share."""
    if len(origin) != SIZE:
        return None
    # The bytes may have been written by another process, which is what `is_remote` says.
    context = SpanContext(
        trace_id=int.from_bytes(origin[:16], "big"),
        span_id=int.from_bytes(origin[16:24], "big"),
        is_remote=True,
        trace_flags=TraceFlags(origin[24]),
    )
    return context if context.is_valid else None


def trace_id(context: SpanContext) -> str:
    """Return the trace of a span as 32 hexadecimal digits, or "" when its context is not valid."""
    return format(context.trace_id, "032x") if context.is_valid else ""
