"""A dispatch with more members than a span takes links: several spans, and nobody is lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from otel_scenarios import Telemetry, started
from otel_windows import left

from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import BatchMode
from underlay.telemetry.events import BatchEnded
from underlay.telemetry.listener import Handle
from underlay_instrumentation import dispatch as dispatches
from underlay_instrumentation import origin

VARIABLE = "OTEL_SPAN_LINK_COUNT_LIMIT"


def left_with(telemetry: Telemetry, members: int, end: BatchEnded | None = None) -> list[Handle]:
    """A dispatch of so many calls, ended."""
    listener = telemetry.listener()
    handles = [listener.start(started()) for _ in range(members)]
    with handles[0].attempt():
        dispatch = listener.dispatch(left(handles, BatchMode.MERGED))
        assert dispatch is not None
        with dispatch.attempt(), telemetry.tracers.get_tracer("http").start_as_current_span("POST"):
            pass
        dispatch.event(end or BatchEnded(0.5, 200))
    assert origin.pack(parts_of(telemetry)[0].get_span_context()) == dispatch.origin()
    return handles


def parts_of(telemetry: Telemetry) -> list[ReadableSpan]:
    """The spans of the dispatch, in the order of their parts."""
    found = [span for span in telemetry.finished if span.name.startswith("batch dispatch")]
    return sorted(found, key=lambda span: (span.attributes or {}).get("underlay.batch.part", 0))


def linked(span: ReadableSpan, role: str) -> list[int]:
    """Ids of the spans that a span links to in a role."""
    return [
        link.context.span_id
        for link in span.links
        if (link.attributes or {}).get("underlay.link.role") == role
    ]


def ids(handles: list[Handle]) -> list[int]:
    """Ids of the calls' spans."""
    contexts = [origin.unpack(handle.origin()) for handle in handles]
    return [context.span_id for context in contexts if context is not None]


@pytest.mark.parametrize(
    ("limit", "members", "shares"),
    [
        (None, 128, [128]),
        (None, 129, [128, 1]),
        (None, 300, [128, 127, 45]),
        (10, 25, [10, 9, 6]),
        (2, 4, [2, 1, 1]),
        (1, 3, [1, 1, 1]),
        (SpanLimits.UNSET, 300, [300]),
    ],
)
def test_every_member_is_linked_once(limit: int | None, members: int, shares: list[int]) -> None:
    """Each member has its link in exactly one part, in the members' order, and no part drops a link."""
    telemetry = Telemetry(span_limits=SpanLimits(max_links=limit))
    handles = left_with(telemetry, members)
    parts = parts_of(telemetry)
    assert [len(linked(part, "member")) for part in parts] == shares
    assert [one for part in parts for one in linked(part, "member")] == ids(handles)
    assert [part.dropped_links for part in parts] == [0] * len(parts)


def test_the_parts_of_three_hundred() -> None:
    """Parts are siblings with the same story, numbered from 1; the HTTP span lies under the first, and the
    others link to it."""
    telemetry = Telemetry()
    handles = left_with(telemetry, 300, BatchEnded(0.5, 503, "server_error"))
    first, *further = parts_of(telemetry)
    assert first.context is not None
    expected: dict[str, Any] = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "text-embedding-3-small",
        "underlay.batch.mode": "merged",
        "underlay.batch.trigger": "time",
        "underlay.batch.size": 300,
        "underlay.batch.inputs": 600,
        "underlay.batch.fill": 1.0,
        "underlay.batch.wait": 0.5,
        "http.response.status_code": 503,
        "error.type": "server_error",
    }
    for number, part in enumerate([first, *further], 1):
        assert dict(part.attributes or {}) == {**expected, "underlay.batch.part": number}
        assert (part.kind.name, part.status.status_code.name) == ("INTERNAL", "ERROR")
        assert part.parent is not None
        assert part.parent.span_id == ids(handles)[0]
        assert (part.start_time, len(part.events)) == (first.start_time, 0)
    assert linked(first, "dispatch") == []
    assert [linked(part, "dispatch") for part in further] == [[first.context.span_id]] * 2
    (post,) = [span for span in telemetry.finished if span.name == "POST"]
    assert post.parent is not None
    assert post.parent.span_id == first.context.span_id
    ((_, count, size),) = telemetry.recorded()[m.BATCH_SIZE.name]
    assert (count, size) == (1, 300)


def test_one_span_has_no_part(telemetry: Telemetry) -> None:
    """A dispatch that fits one span is not numbered."""
    left_with(telemetry, 3)
    (part,) = parts_of(telemetry)
    assert "underlay.batch.part" not in (part.attributes or {})


def test_without_links_there_is_one_span() -> None:
    """A limit of none means that nobody wants links: the dispatch is told once, with its size."""
    telemetry = Telemetry(span_limits=SpanLimits(max_links=0))
    left_with(telemetry, 300)
    (part,) = parts_of(telemetry)
    assert (list(part.links), (part.attributes or {})["underlay.batch.size"]) == ([], 300)


def test_the_limit_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that takes its limits from the environment is followed."""
    monkeypatch.setenv(VARIABLE, "5")
    telemetry = Telemetry()
    left_with(telemetry, 9)
    assert [len(linked(part, "member")) for part in parts_of(telemetry)] == [5, 4]


@pytest.mark.parametrize(("value", "limit"), [(None, 128), ("40", 40), ("", 128), ("many", 128)])
def test_a_tracer_that_does_not_tell_its_limits(
    monkeypatch: pytest.MonkeyPatch, value: str | None, limit: int
) -> None:
    """Another SDK, or a later one that keeps its limits elsewhere, is taken to follow the specification."""
    tracer: Any = SimpleNamespace()
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert dispatches.link_limit(tracer) == limit
