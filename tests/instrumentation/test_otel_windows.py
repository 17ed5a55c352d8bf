"""Windows: the whole telemetry of calls that leave together and of their dispatch, from hand-made events."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.util.genai.handler import TelemetryHandler
from otel_scenarios import ANSWER, KEY, OURS_ON_MISS, START, Telemetry, miss, started
from otel_windows import (
    EMBEDDER,
    EMBEDDING,
    EMBEDDING_CALL,
    IN_WINDOW,
    MERGED,
    RELEASED,
    answer,
    batched,
    dispatch_of,
    left,
    looked,
    merged,
    named,
)  # fmt: skip

from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import BatchMode, BatchTrigger, CacheResult, Ending
from underlay.telemetry.events import BatchEnded, CallEnded, Usage


def test_three_calls_that_are_merged(telemetry: Telemetry) -> None:
    """Three calls in one request leave three call spans and one dispatch, linked both ways; the HTTP span
    lies under the dispatch and that under its sender; each has its part of tokens and cost."""
    listener = telemetry.listener()
    handles = looked(listener, 3)
    dispatch = merged(listener, handles, BatchEnded(0.5, 200), tracer=telemetry.tracers.get_tracer("http"))
    for number, handle in enumerate(handles):
        answer(handle, Usage(number + 1, 0), 0.25 * (number + 1), sent=number == 0)
    post, sent, *calls = telemetry.spans(**named(handles), dispatch=dispatch)
    assert (post["name"], post["parent"]) == ("POST", "dispatch")
    assert sent == dispatch_of(
        MERGED,
        3,
        "call0",
        attributes={**dispatch_of(MERGED, 3, None)["attributes"], "http.response.status_code": 200},
    )
    assert calls == [
        {
            "name": f"embeddings {EMBEDDER}",
            "kind": "CLIENT",
            "parent": None,
            "status": "UNSET",
            "attributes": {
                **EMBEDDING_CALL,
                **IN_WINDOW,
                "underlay.batch.mode": "merged",
                "underlay.batch.size": 3,
                "underlay.cache.result": "miss",
                "underlay.cache.key": KEY[:16],
                "underlay.attempt.verdict": "success",
                "underlay.call.ending": "complete",
                "underlay.cost.amount": 0.25 * (number + 1),
                "gen_ai.usage.input_tokens": number + 1,
                "gen_ai.usage.output_tokens": 0,
                "gen_ai.response.model": EMBEDDER,
                "http.response.status_code": 200,
            },
            "links": [("dispatch", "dispatch")],
            "events": 0,
        }
        for number in range(3)
    ]


def test_points_of_three_calls_that_are_merged(telemetry: Telemetry) -> None:
    """One point of the size, and for each call its duration, its wait and its own tokens."""
    listener = telemetry.listener()
    handles = looked(listener, 3)
    merged(listener, handles, BatchEnded(0.5, 200), tracer=telemetry.tracers.get_tracer("http"))
    for number, handle in enumerate(handles):
        answer(handle, Usage(number + 1, None), 0.25, sent=number == 0)
    window = {**EMBEDDING, "underlay.batch.mode": "merged", "underlay.batch.trigger": "time"}
    known = {**EMBEDDING_CALL, "gen_ai.response.model": EMBEDDER}
    assert telemetry.recorded() == {
        m.BATCH_SIZE.name: [(window, 1, 3)],
        m.BATCH_WAIT.name: [(window, 3, 1.5)],
        m.CALL_DURATION.name: [
            ({**known, "underlay.cache.result": "miss", "underlay.batch.mode": "merged"}, 3, 6.0)
        ],
        m.TOKEN_USAGE.name: [({**known, "gen_ai.token.type": "input"}, 3, 6)],
    }


def test_ten_calls_that_are_released(telemetry: Telemetry) -> None:
    """Ten chat calls that leave together have one dispatch under the one that closed the window, and each its
    own attempt."""
    listener = telemetry.listener()
    handles = [listener.start(started()) for _ in range(10)]
    with handles[9].attempt():
        dispatch = listener.dispatch(left(handles, RELEASED, trigger=BatchTrigger.SIZE))
        assert dispatch is not None
        dispatch.event(BatchEnded(0.0))
    end = CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.5, 200, batch_mode=RELEASED)
    for handle in handles:
        handle.event(batched(RELEASED, 10, dispatch.origin(), trigger=BatchTrigger.SIZE))
        miss(handle, end=end)
    released, *calls = telemetry.spans(**named(handles), dispatch=dispatch)
    expected = dispatch_of(RELEASED, 10, "call9")
    assert released == {
        **expected, "attributes": {**expected["attributes"], "underlay.batch.trigger": "size"},
    }  # fmt: skip
    assert calls == [
        {
            "name": "chat gpt-4o",
            "kind": "CLIENT",
            "parent": None,
            "status": "UNSET",
            "attributes": {
                **START, **OURS_ON_MISS, **ANSWER, **IN_WINDOW, "underlay.batch.mode": "released",
                "underlay.batch.trigger": "size", "underlay.batch.size": 10,
            },
            "links": [("dispatch", "dispatch")],
            "events": 0,
        }
    ] * 10  # fmt: skip
    model = {"gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
    window = {**model, "underlay.batch.mode": "released", "underlay.batch.trigger": "size"}
    points = telemetry.recorded()
    assert points[m.BATCH_SIZE.name] == [(window, 1, 10)]
    assert points[m.BATCH_WAIT.name] == [(window, 10, 5.0)]
    assert [count for _, count, _ in points[m.CALL_DURATION.name]] == [10]


def test_a_window_of_one_that_is_told(telemetry: Telemetry) -> None:
    """A lone call of a fixed window has its dispatch as well."""
    listener = telemetry.listener()
    handle = listener.start(started())
    with handle.attempt():
        dispatch = listener.dispatch(left([handle], BatchMode.ALONE))
        assert dispatch is not None
        dispatch.event(BatchEnded(0.0))
    assert telemetry.spans(call0=handle) == [dispatch_of(BatchMode.ALONE, 1, "call0")]


@pytest.mark.parametrize("kind", ["native", "util-genai"])
def test_a_window_under_another_instrumentations_span(telemetry: Telemetry, kind: str) -> None:
    """Each member's story is told on the span that is its call already: attributes, link and label."""
    listener = telemetry.listener()
    genai = TelemetryHandler(
        tracer_provider=telemetry.tracers, meter_provider=telemetry.meters, logger_provider=telemetry.loggers
    )
    tracer = telemetry.tracers.get_tracer("com.anthropic.sdk.python")
    outer: Any = (
        tracer.start_as_current_span("native", attributes=EMBEDDING)
        if kind == "native"
        else genai.embedding("openai", request_model=EMBEDDER)
    )
    with outer:
        current = trace.get_current_span()
        (handle,) = looked(listener, 1)
        dispatch = merged(listener, [handle], BatchEnded(0.5, 200), tracer=tracer)
        answer(handle, Usage(1, 0), 0.25, sent=True)
    post, sent, call = telemetry.spans(call0=handle, dispatch=dispatch)
    assert (post["parent"], sent["parent"], sent["links"]) == ("dispatch", "call0", [("member", "call0")])
    assert call["links"] == [("dispatch", "dispatch")]
    assert call["attributes"] == {
        **EMBEDDING,
        **({} if kind == "native" else {"gen_ai.operation.name": "embeddings"}),
        **IN_WINDOW,
        "underlay.batch.mode": "merged",
        "underlay.batch.size": 1,
        "underlay.cache.result": "miss",
        "underlay.cache.key": KEY[:16],
        "underlay.attempt.verdict": "success",
        "underlay.call.ending": "complete",
        "underlay.cost.amount": 0.25,
    }
    points = telemetry.recorded()
    ((labels, _, _),) = points[m.CALL_DURATION.name]
    assert labels["underlay.batch.mode"] == "merged"
    assert (m.TOKEN_USAGE.name in points) == (kind == "native")
    window = {**EMBEDDING, "underlay.batch.mode": "merged", "underlay.batch.trigger": "time"}
    assert points[m.BATCH_WAIT.name] == [(window, 1, 0.5)]
    assert not current.is_recording()


def test_members_under_one_foreign_span_have_one_link(telemetry: Telemetry) -> None:
    """Calls whose story is told on the same span are one link of the dispatch, and all of them count."""
    listener = telemetry.listener()
    with telemetry.tracers.get_tracer("com.anthropic.sdk.python").start_as_current_span("native"):
        handles = looked(listener, 5)
        dispatch = listener.dispatch(left(handles, MERGED))
        assert dispatch is not None
        dispatch.event(BatchEnded(0.5, 200))
    span = telemetry.spans()[0]
    assert (span["links"], span["attributes"]["underlay.batch.size"]) == ([("member", "native")], 5)


def test_an_observed_window_changes_nothing_but_one_attribute(telemetry: Telemetry) -> None:
    """A call that a watching window would have merged is sent alone and says what would have been."""
    handle = telemetry.listener().start(started())
    handle.event(batched(MERGED, 4, b"", observed=True))
    miss(handle)
    (span,) = telemetry.spans()
    assert span["attributes"] == {**START, **OURS_ON_MISS, **ANSWER, "underlay.batch.observed": "merged"}
    assert span["links"] == []
    assert set(telemetry.points()) == {m.CALL_DURATION.name, m.TOKEN_USAGE.name}
