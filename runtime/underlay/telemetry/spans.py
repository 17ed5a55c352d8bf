"""Span and log-event names."""

from __future__ import annotations

from typing import Literal

from underlay.records import record

__all__ = ["ALL", "CACHE_HIT", "CALL", "COALESCE", "DISPATCH", "TRANSITION", "TRANSITION_EVENT", "SpanName"]


@record(frozen=True, slots=True)
class SpanName:
    """A span: the pattern of its name and its OpenTelemetry kind."""

    pattern: str
    kind: Literal["client", "internal"]
    brief: str

    def __call__(self, **fields: str) -> str:
        """The name with its fields filled in."""
        return self.pattern.format(**fields)


CALL = SpanName("{operation} {model}", "client", "One call as the app saw it: the GenAI client span")
CACHE_HIT = SpanName(
    "cache hit",
    "internal",
    "A hit under another instrumentation's GenAI span; links to the span that generated the answer",
)
COALESCE = SpanName(
    "coalesce",
    "internal",
    "A call under another instrumentation's GenAI span that read the answer of another call; links to it",
)
DISPATCH = SpanName(
    "batch dispatch {model}",
    "internal",
    "A window's calls leave together, merged into one request or each by itself; linked to and from each",
)
TRANSITION = SpanName(
    "circuit_breaker {state}", "internal", "A circuit changed its state; links to the calls that caused it"
)
TRANSITION_EVENT = "underlay.circuit_breaker.transition"
"""Name of the log event beside a transition's span."""

ALL: tuple[SpanName, ...] = tuple(value for value in list(globals().values()) if isinstance(value, SpanName))
"""Every span of the vocabulary, in the order of this page."""
