"""Spans of an OTLP/JSON line as frozen data, and the tolerant decoder that makes them. Reads no file.

The format is the JSON encoding of the OpenTelemetry protocol (opentelemetry.io/docs/specs/otlp, "JSON
Protobuf Encoding"): lowerCamelCase fields, hexadecimal ids, 64-bit integers as text or number, enums as
numbers. Unknown fields are passed by. Spans may come from anybody's exporter, so every field is checked
before it is believed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from underlay.telemetry import attributes as a

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Event", "Link", "Span", "decode_line", "is_call"]

_KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUS: Final = ("unset", "ok", "error")
_HEX: Final = frozenset("0123456789abcdef")
_NANOSECONDS_END: Final = 2**63
_DAMAGE: Final = (ValueError, TypeError, KeyError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Link:
    """A span's pointer to another span; ids are lower-case hexadecimal."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """Something at one moment of a span; `time_ns` is nanoseconds since 1970 (UTC)."""

    name: str
    time_ns: int
    attributes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """One span.

    Ids are lower-case hexadecimal, times are nanoseconds since 1970 (UTC), `parent_id` is empty at a root.

    `kind` and `status` are the protocol's words in lower case (`client`, `error`); `service` is the
    resource's `service.name`. Status messages are not kept: they may quote a prompt or an answer.
    """

    trace_id: str
    span_id: str
    name: str
    start_ns: int
    end_ns: int
    parent_id: str = ""
    kind: str = "internal"
    status: str = "unset"
    service: str = ""
    attributes: Mapping[str, object] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    events: tuple[Event, ...] = ()

    @property
    def seconds(self) -> float:
        """Duration in seconds; 0 where the clock was set back in between."""
        return max(0, self.end_ns - self.start_ns) / 1e9

    def text(self, attribute: a.Attribute) -> str:
        """The attribute's text, or the empty text when it is absent or of another type."""
        value = self.attributes.get(attribute.key)
        return value if isinstance(value, str) else ""

    def number(self, attribute: a.Attribute) -> float | None:
        """The attribute as a finite number, or None when it is absent or no number."""
        value = self.attributes.get(attribute.key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return None
        return value

    def whole(self, attribute: a.Attribute) -> int | None:
        """The attribute as a whole number, or None when it is absent or no number."""
        value = self.number(attribute)
        return None if value is None else int(value)


def is_call(span: Span) -> bool:
    """Whether this is the span of one call to a model that underlay saw."""
    return a.CACHE_RESULT.key in span.attributes and a.OPERATION.key in span.attributes


def decode_line(line: bytes) -> tuple[list[Span], bool]:
    """Decode one line: its spans, and whether all of it was understood.

    A line of metrics or logs is understood and has no spans. Never raises for what a line may hold.
    """
    try:
        document = json.loads(line)
    except _DAMAGE:
        return [], False
    if not isinstance(document, dict):
        return [], False
    fields = cast("dict[str, Any]", document)
    if "resourceSpans" not in fields:
        return [], "resourceMetrics" in fields or "resourceLogs" in fields
    spans: list[Span] = []
    whole = True
    for raw, service in _raw_spans(fields["resourceSpans"]):
        try:
            spans.append(_span(raw, service))
        except _DAMAGE:
            whole = False
    return spans, whole


def _raw_spans(resources: object) -> Iterator[tuple[dict[str, Any], str]]:
    for resource in _tables(resources):
        described = resource.get("resource")
        attributes = _attributes(described.get("attributes")) if isinstance(described, dict) else {}
        service = attributes.get("service.name")
        for scope in _tables(resource.get("scopeSpans")):
            for raw in _tables(scope.get("spans")):
                yield raw, service if isinstance(service, str) else ""


def _span(raw: dict[str, Any], service: str) -> Span:
    status = raw.get("status")
    return Span(
        trace_id=_identifier(raw["traceId"], 32),
        span_id=_identifier(raw["spanId"], 16),
        parent_id=_identifier(raw["parentSpanId"], 16) if raw.get("parentSpanId") else "",
        name=str(raw.get("name", "")),
        kind=_word(raw.get("kind", 0), _KINDS, "SPAN_KIND_"),
        start_ns=_nanoseconds(raw["startTimeUnixNano"]),
        end_ns=_nanoseconds(raw["endTimeUnixNano"]),
        status=_word(status.get("code", 0), _STATUS, "STATUS_CODE_") if isinstance(status, dict) else "unset",
        service=service,
        attributes=_attributes(raw.get("attributes")),
        links=tuple(
            Link(
                _identifier(link["traceId"], 32),
                _identifier(link["spanId"], 16),
                _attributes(link.get("attributes")),
            )
            for link in _tables(raw.get("links"))
        ),
        events=tuple(
            Event(
                str(event.get("name", "")),
                _nanoseconds(event.get("timeUnixNano", 0)),
                _attributes(event.get("attributes")),
            )
            for event in _tables(raw.get("events"))
        ),
    )


def _tables(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return []
    return [cast("dict[str, Any]", item) for item in cast("list[object]", value) if isinstance(item, dict)]


def _attributes(value: object) -> dict[str, object]:
    pairs: dict[str, object] = {}
    for item in _tables(value):
        key = item.get("key")
        if isinstance(key, str):
            pairs[key] = _value(item.get("value"))
    return pairs


def _value(value: object) -> object:
    """Decode an `AnyValue`; what it may not be becomes None, and the rest of the span stays."""
    if not isinstance(value, dict) or not value:
        return None
    kind, inner = next(iter(cast("dict[str, Any]", value).items()))
    try:
        if kind == "intValue":
            return int(inner)
        if kind == "doubleValue":
            return float(inner)
        if kind == "arrayValue":
            return [_value(item) for item in _tables(inner.get("values"))]
        if kind == "kvlistValue":
            return _attributes(inner.get("values"))
    except (ValueError, TypeError, OverflowError, AttributeError):
        return None
    return inner if isinstance(inner, (str, bool)) else None


def _identifier(value: object, digits: int) -> str:
    text = value.lower() if isinstance(value, str) else ""
    if len(text) != digits or not _HEX.issuperset(text):
        raise ValueError(f"an id of {digits} hexadecimal digits is needed")
    return text


def _nanoseconds(value: object) -> int:
    number = int(cast("str", value))
    if not 0 <= number < _NANOSECONDS_END:
        raise ValueError("a time in nanoseconds since 1970 is needed")
    return number


def _word(value: object, words: tuple[str, ...], prefix: str) -> str:
    """Turn an enum into its word; some exporters write the protocol's name where the number belongs."""
    if isinstance(value, int) and 0 <= value < len(words):
        return words[value]
    word = value.removeprefix(prefix).lower() if isinstance(value, str) else ""
    return word if word in words else words[0]
