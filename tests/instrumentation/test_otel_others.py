"""Calls under other instrumentations: suppression, util-genai, native spans, spans that only hold calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.util.genai.handler import TelemetryHandler
from otel_scenarios import (
    ANSWERED_LABELS,
    CALL_LABELS,
    HIT_LABELS,
    KEY,
    MISS_LABELS,
    MODEL_LABELS,
    OURS_AT_END,
    OURS_ON_HIT,
    OURS_ON_MISS,
    Telemetry,
    hit,
    miss,
    started,
)

from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import CacheResult, CircuitState, Ending
from underlay.telemetry.events import CacheLooked, CallEnded, CircuitChanged, CircuitRefused
from underlay_instrumentation import foreign, origin
from underlay_instrumentation.handle import INERT

OUTER = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
}


def genai(telemetry: Telemetry) -> TelemetryHandler:
    """The real util-genai on the same providers."""
    return TelemetryHandler(
        tracer_provider=telemetry.tracers,
        meter_provider=telemetry.meters,
        logger_provider=telemetry.loggers,
    )


def ours(points: dict[str, list[tuple[dict[str, Any], float]]]) -> dict[str, list[dict[str, Any]]]:
    """The labels of the points, without values that a clock made."""
    return {name: [labels for labels, _ in several] for name, several in points.items()}


def test_suppression_silences_everything(telemetry: Telemetry) -> None:
    """Under suppress_instrumentation a call and a transition leave nothing at all."""
    listener = telemetry.listener()
    with suppress_instrumentation():
        handle = listener.start(started())
        listener.event(CircuitChanged("p", "m", CircuitState.CLOSED, CircuitState.OPEN, "failures", 1.0))
    miss(handle)
    assert handle is INERT
    assert (telemetry.spans(), telemetry.logs(), telemetry.points()) == ([], [], {})


def test_a_miss_enriches_util_genai(telemetry: Telemetry) -> None:
    """Under util-genai's call there is one span, with our attributes, and its points carry our labels; none
    is ours."""
    listener = telemetry.listener()
    with genai(telemetry).inference("openai", request_model="gpt-4o"):
        outer = trace.get_current_span()
        handle = listener.start(started())
        with handle.attempt():
            assert trace.get_current_span() is outer
        miss(handle)
    assert handle.origin() == origin.pack(outer.get_span_context())
    (span,) = telemetry.spans()
    assert span["attributes"] == {**OUTER, **OURS_ON_MISS}
    assert ours(telemetry.points()) == {m.CALL_DURATION.name: [{**OUTER, **MISS_LABELS}]}


def test_a_hit_under_util_genai_is_a_small_span_with_the_link(telemetry: Telemetry) -> None:
    """A hit adds an INTERNAL span that links to what generated the answer, and marks the outer points as a
    hit."""
    listener = telemetry.listener()
    with genai(telemetry).inference("openai", request_model="gpt-4o"):
        first = listener.start(started())
        miss(first)
    telemetry.exporter.clear()
    telemetry.points()
    with genai(telemetry).inference("openai", request_model="gpt-4o") as call:
        hit(listener.start(started()), first.origin())
        call.input_tokens = 100
    inner, outer = telemetry.spans()
    assert inner == {
        "name": "cache hit",
        "kind": "INTERNAL",
        "parent": "chat gpt-4o",
        "status": "UNSET",
        "attributes": OURS_ON_HIT,
        "links": [("generated", "?")],
        "events": 0,
    }
    assert origin.pack(telemetry.finished[0].links[0].context) == first.origin()
    assert outer["attributes"] == {
        **OUTER, **OURS_ON_HIT, **OURS_AT_END, "gen_ai.usage.input_tokens": 100,
    }  # fmt: skip


def test_points_of_a_hit_under_util_genai(telemetry: Telemetry) -> None:
    """The tokens that the outer instrumentation reads from a replay are told apart by our label; the time
    saved is ours."""
    with genai(telemetry).inference("openai", request_model="gpt-4o") as call:
        hit(telemetry.listener().start(started()), b"")
        call.input_tokens = 100
    points = telemetry.points()
    assert points.pop(m.TIME_SAVED.name) == [(MODEL_LABELS, 1.0)]
    assert ours(points) == {
        m.CALL_DURATION.name: [{**OUTER, **HIT_LABELS}],
        m.TOKEN_USAGE.name: [{**OUTER, **HIT_LABELS, "gen_ai.token.type": "input"}],
    }


def test_a_refusal_enriches_util_genai_before_the_end(telemetry: Telemetry) -> None:
    """What is decided is told at once: an outer call that ends before ours has the result all the same."""
    listener = telemetry.listener()
    with genai(telemetry).inference("openai", request_model="gpt-4o"):
        handle = listener.start(started())
        handle.event(CacheLooked(CacheResult.MISS, KEY))
        handle.event(CircuitRefused(CircuitState.OPEN, 5.0))
    handle.event(CallEnded(CacheResult.REFUSED, Ending.COMPLETE, 0.1, 503, "circuit_open"))
    (span,) = telemetry.spans()
    assert span["attributes"]["underlay.cache.result"] == "refused"
    labels = {**OUTER, "underlay.cache.result": "refused", "underlay.batch.mode": "alone"}
    assert ours(telemetry.points()) == {m.CALL_DURATION.name: [labels]}


def test_embeddings_enrich_the_embeddings_call_alone(telemetry: Telemetry) -> None:
    """An embeddings call enriches util-genai's embeddings, and is a call of its own inside a chat."""
    listener = telemetry.listener()
    embeddings = started(operation="embeddings", model="text-embedding-3-small", parameters={})
    with genai(telemetry).embedding("openai", request_model="text-embedding-3-small"):
        miss(listener.start(embeddings))
    (span,) = telemetry.spans()
    assert span["attributes"]["underlay.cache.result"] == "miss"
    telemetry.exporter.clear()
    with genai(telemetry).inference("openai", request_model="gpt-4o"):
        assert foreign.outer_call(context_api.get_current(), "embeddings") is None


@pytest.mark.parametrize(
    "data", [object(), SimpleNamespace(attributes={}), SimpleNamespace(attributes=(), metric_attributes={})]
)
def test_an_unknown_shape_of_util_genai_is_left_alone(data: Any) -> None:
    """A release of util-genai with another shape is treated as absent, not half enriched."""
    from opentelemetry.util.genai.invocation import CLIENT_INFERENCE_CONTEXT_KEY

    context = context_api.set_value(CLIENT_INFERENCE_CONTEXT_KEY, data)
    assert foreign.outer_call(context, "chat") is None


@pytest.mark.parametrize(
    ("scope", "attributes"),
    [
        ("com.anthropic.sdk.python", {}),
        ("anything", {"gen_ai.operation.name": "chat"}),
        ("openinference.instrumentation.openai", {"openinference.span.kind": "LLM"}),
    ],
)
def test_a_native_span_takes_our_attributes(
    telemetry: Telemetry, scope: str, attributes: dict[str, Any]
) -> None:
    """Under a span that is the call already there is no second one: our attributes go there, the points are
    ours."""
    listener = telemetry.listener()
    with telemetry.tracers.get_tracer(scope).start_as_current_span("native", attributes=attributes) as native:
        handle = listener.start(started())
        with handle.attempt():
            assert trace.get_current_span() is native
        miss(handle)
        assert handle.origin() == origin.pack(native.get_span_context())
    (span,) = telemetry.spans()
    assert span["attributes"] == {**attributes, **OURS_ON_MISS}
    assert span["status"] == "UNSET"
    assert ours(telemetry.points()) == {
        m.CALL_DURATION.name: [{**ANSWERED_LABELS, **MISS_LABELS}],
        m.TOKEN_USAGE.name: [
            {**ANSWERED_LABELS, "gen_ai.token.type": "input"},
            {**ANSWERED_LABELS, "gen_ai.token.type": "output"},
        ],
    }


def test_a_hit_under_a_native_span(telemetry: Telemetry) -> None:
    """A hit under a native span marks it, adds the small span with the link, and counts no token."""
    listener = telemetry.listener()
    tracer = telemetry.tracers.get_tracer("com.anthropic.sdk.python")
    with tracer.start_as_current_span("messages"):
        first = listener.start(started())
        miss(first)
    telemetry.points()
    with tracer.start_as_current_span("messages"):
        hit(listener.start(started()), first.origin())
    _, inner, outer = telemetry.spans()
    assert (inner["name"], inner["links"]) == ("cache hit", [("generated", "messages")])
    assert outer["attributes"] == {**OURS_ON_HIT, **OURS_AT_END}
    points = telemetry.points()
    del points[m.TOKEN_USAGE.name]
    assert {**CALL_LABELS, **HIT_LABELS} in ours(points)[m.CALL_DURATION.name]


def test_a_native_span_that_ended_is_left_alone(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """A native span may end before the body does: late attributes are dropped without a warning."""
    listener = telemetry.listener()
    with telemetry.tracers.get_tracer("com.anthropic.sdk.python").start_as_current_span("messages"):
        handle = listener.start(started())
        handle.event(CacheLooked(CacheResult.MISS, KEY))
    handle.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.0, 200))
    assert telemetry.spans()[0]["attributes"] == {
        "underlay.cache.result": "miss", "underlay.cache.key": KEY[:16],
    }  # fmt: skip
    assert caplog.records == []


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"gen_ai.operation.name": "invoke_agent"},
        {"gen_ai.operation.name": "execute_tool"},
        {"openinference.span.kind": "CHAIN"},
    ],
)
def test_a_span_that_only_holds_calls_is_a_parent(telemetry: Telemetry, attributes: dict[str, Any]) -> None:
    """Under an agent, a tool, a chain or the app's own span a call has a span of its own."""
    listener = telemetry.listener()
    with telemetry.tracers.get_tracer("app").start_as_current_span("outer", attributes=attributes):
        miss(listener.start(started()))
    call, outer = telemetry.spans()
    assert (call["name"], call["parent"], outer["attributes"]) == ("chat gpt-4o", "outer", attributes)
