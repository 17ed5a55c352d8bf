"""Builds OTLP/JSON lines as an exporter would write them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underlay.telemetry import attributes as a
from underlay.telemetry.attributes import CacheResult, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROOT = Path(__file__).resolve().parents[2]
SOURCES = os.pathsep.join(str(_ROOT / name) for name in ("runtime", "instrumentation"))
"""PYTHONPATH of a process that runs this tree."""

BASE_NS = 1_795_536_000_000_000_000
"""2026-11-24T16:00:00Z: where the tests' clock starts."""
MS = 1_000_000


def identifier(word: str, digits: int) -> str:
    """A hexadecimal id that depends on `word` only."""
    return hashlib.sha256(word.encode()).hexdigest()[:digits]


@dataclass(frozen=True)
class Made:
    """One span to write. `at` and `took` are milliseconds; ids are made from words."""

    name: str
    trace: str
    span: str
    at: float
    took: float
    parent: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    links: Sequence[tuple[str, str, str]] = ()
    """(trace word, span word, role)"""
    error: bool = False
    kind: int = 1

    def raw(self) -> dict[str, Any]:
        """The span in OTLP/JSON."""
        start = BASE_NS + int(self.at * MS)
        raw: dict[str, Any] = {
            "traceId": identifier(self.trace, 32),
            "spanId": identifier(self.span, 16),
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + int(self.took * MS)),
            "attributes": pairs(self.attributes),
            "status": {"code": 2, "message": "the prompt was: secret"} if self.error else {},
        }
        if self.parent:
            raw["parentSpanId"] = identifier(self.parent, 16)
        if self.links:
            raw["links"] = [
                {
                    "traceId": identifier(trace, 32),
                    "spanId": identifier(span, 16),
                    "attributes": pairs({a.LINK_ROLE.key: role}),
                }
                for trace, span, role in self.links
            ]
        return raw


def pairs(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Attributes as typed values."""
    return [{"key": key, "value": _typed(value)} for key, value in attributes.items()]


def _typed(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, (list, tuple)):
        return {"arrayValue": {"values": [_typed(item) for item in value]}}
    return {"stringValue": str(value)}


def line(*spans: Made, service: str = "chat_app") -> bytes:
    """One export request with these spans, newline included."""
    document = {
        "resourceSpans": [
            {
                "resource": {"attributes": pairs({"service.name": service})},
                "scopeSpans": [{"scope": {"name": "underlay"}, "spans": [span.raw() for span in spans]}],
            }
        ]
    }
    return json.dumps(document).encode() + b"\n"


METRICS_LINE = (
    json.dumps(
        {
            "resourceMetrics": [
                {
                    "scopeMetrics": [
                        {"metrics": [{"name": "x", "sum": {"dataPoints": []}, "unit": a.CACHE_RESULT.key}]}
                    ]
                }
            ]
        }
    ).encode()
    + b"\n"
)
"""A line of metrics that mentions an attribute of calls."""


def call(
    word: str,
    *,
    at: float = 0,
    took: float = 800,
    result: str = CacheResult.MISS,
    model: str = "gpt-4o-mini",
    trace: str = "",
    parent: str = "",
    sent: bool = True,
    error: str = "",
    links: Sequence[tuple[str, str, str]] = (),
    **more: Any,
) -> Made:
    """The span of one call; `more` are attributes by their names in the vocabulary, such as COST=0.1."""
    attributes: dict[str, Any] = {
        a.OPERATION.key: "chat",
        a.PROVIDER.key: "openai",
        a.REQUEST_MODEL.key: model,
        a.CACHE_RESULT.key: str(result),
    }
    if sent and result == CacheResult.MISS:
        attributes[a.VERDICT.key] = str(Verdict.FAILURE if error else Verdict.SUCCESS)
    if error:
        attributes[a.ERROR_TYPE.key] = error
    attributes.update({getattr(a, name).key: value for name, value in more.items()})
    return Made(
        f"chat {model}", trace or f"trace-{word}", word, at, took, parent, attributes, links, bool(error), 3
    )


def http(word: str, parent: str, trace: str, *, at: float, took: float, status: int = 200) -> Made:
    """The span of the HTTP client below a call."""
    attributes = {
        "http.request.method": "POST",
        "url.full": "https://api.example/v1/chat?key=secret",
        a.HTTP_STATUS.key: status,
    }
    return Made("POST", trace, word, at, took, parent, attributes, kind=3, error=status >= 400)
