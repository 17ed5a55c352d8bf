"""Coalesced calls: the whole telemetry of a call that reads another one's answer, from hand-made events."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.util.genai.handler import TelemetryHandler
from otel_scenarios import (
    ANSWER,
    CALL_LABELS,
    KEY,
    MODEL_LABELS,
    OURS_AT_END,
    OURS_ON_MISS,
    START,
    Telemetry,
    miss,
    started,
)
from otel_windows import follow

from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import CacheResult, Ending
from underlay.telemetry.events import CacheLooked, CallEnded, Coalesced
from underlay.telemetry.listener import Handle
from underlay_instrumentation.handle import INERT

OUTER = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
OURS_ON_FOLLOWER = {
    "underlay.cache.result": "coalesced",
    "underlay.cache.key": KEY[:16],
    "underlay.coalesce.wait": 0.25,
    "underlay.cost.saved": 0.25,
    **OURS_AT_END,
}
FOLLOWER_LABELS = {"underlay.cache.result": "coalesced", "underlay.batch.mode": "alone"}
COALESCE_SPAN = {
    "name": "coalesce",
    "kind": "INTERNAL",
    "status": "UNSET",
    "attributes": {"underlay.cache.result": "coalesced", "underlay.coalesce.wait": 0.25},
    "links": [("leader", "leading")],
    "events": 0,
}


@pytest.fixture
def leader(telemetry: Telemetry) -> Handle:
    """The call whose answer is read; its own telemetry is put aside."""
    handle = telemetry.listener().start(started())
    miss(handle)
    telemetry.exporter.clear()
    telemetry.points()
    return handle


def points_of_the_followers(telemetry: Telemetry) -> dict[str, Any]:
    """What was recorded beside the leader's points."""
    return {
        name: [point for point in points if point[0].get("underlay.cache.result") != "miss"]
        for name, points in telemetry.recorded().items()
        if name != m.TOKEN_USAGE.name
    }


def test_a_follower_is_one_span_with_a_link_to_its_leader(telemetry: Telemetry, leader: Handle) -> None:
    """A coalesced call says how long it waited and what it saved, reports no token, and links to the call
    whose answer it read."""
    follow(telemetry.listener().start(started()), leader.origin())
    assert telemetry.spans(leading=leader) == [
        {
            "name": "chat gpt-4o",
            "kind": "CLIENT",
            "parent": None,
            "status": "UNSET",
            "attributes": {**START, **OURS_ON_FOLLOWER, "http.response.status_code": 200},
            "links": [("leader", "leading")],
            "events": 0,
        }
    ]
    assert points_of_the_followers(telemetry) == {
        m.CALL_DURATION.name: [({**CALL_LABELS, **FOLLOWER_LABELS}, 1, 0.5)],
        m.COALESCE_WAIT.name: [(MODEL_LABELS, 1, 0.25)],
    }


def test_a_follower_under_a_native_span(telemetry: Telemetry, leader: Handle) -> None:
    """Under another instrumentation's span a follower marks it and adds the small span with the link, from
    the call's start until then; the points are ours."""
    with telemetry.tracers.get_tracer("com.anthropic.sdk.python").start_as_current_span("messages"):
        follow(telemetry.listener().start(started()), leader.origin())
    inner, outer = telemetry.spans(leading=leader)
    assert inner == {**COALESCE_SPAN, "parent": "messages"}
    assert (outer["attributes"], outer["links"]) == (OURS_ON_FOLLOWER, [])
    small, native = telemetry.finished
    assert native.start_time is not None
    assert small.start_time is not None
    assert small.start_time >= native.start_time
    assert points_of_the_followers(telemetry) == {
        m.CALL_DURATION.name: [({**CALL_LABELS, **FOLLOWER_LABELS}, 1, 0.5)],
        m.COALESCE_WAIT.name: [(MODEL_LABELS, 1, 0.25)],
    }


def test_a_follower_enriches_util_genai(telemetry: Telemetry, leader: Handle) -> None:
    """Under util-genai's call there is the small span, its own points say `coalesced`, and only the wait is a
    point of ours."""
    genai = TelemetryHandler(
        tracer_provider=telemetry.tracers,
        meter_provider=telemetry.meters,
        logger_provider=telemetry.loggers,
    )
    with genai.inference("openai", request_model="gpt-4o"):
        follow(telemetry.listener().start(started()), leader.origin())
    inner, outer = telemetry.spans(leading=leader)
    assert inner == {**COALESCE_SPAN, "parent": "chat gpt-4o"}
    assert (outer["attributes"], outer["links"]) == ({**OUTER, **OURS_ON_FOLLOWER}, [])
    points = points_of_the_followers(telemetry)
    assert points.pop(m.COALESCE_WAIT.name) == [(MODEL_LABELS, 1, 0.25)]
    ((labels, count, _),) = points.pop(m.CALL_DURATION.name)
    assert (labels, count) == ({**OUTER, **FOLLOWER_LABELS}, 1)
    assert points == {}


@pytest.mark.parametrize("leading", [b"", b"another listener's own"])
def test_a_leader_that_cannot_be_linked_is_told_without_a_link(telemetry: Telemetry, leading: bytes) -> None:
    """What is no origin of ours is no link, and everything else is told."""
    follow(telemetry.listener().start(started()), leading)
    with telemetry.tracers.get_tracer("com.anthropic.sdk.python").start_as_current_span("messages"):
        follow(telemetry.listener().start(started()), leading)
    assert [(span["name"], span["links"]) for span in telemetry.spans()] == [
        ("chat gpt-4o", []),
        ("coalesce", []),
        ("messages", []),
    ]


def test_observed_coalescing_changes_nothing_but_one_attribute(telemetry: Telemetry, leader: Handle) -> None:
    """A call that watching would have coalesced is a miss like any other, and its span says what would have
    been."""
    handle = telemetry.listener().start(started())
    handle.event(Coalesced(leader.origin(), 0.0, observed=True))
    miss(handle)
    (span,) = telemetry.spans()
    assert span["attributes"] == {
        **START, **OURS_ON_MISS, **ANSWER, "underlay.coalesce.observed": "coalesced",
    }  # fmt: skip
    assert span["links"] == []
    assert m.COALESCE_WAIT.name not in telemetry.recorded()


def test_a_follower_of_a_failure_is_a_failure(telemetry: Telemetry, leader: Handle) -> None:
    """A shared error reply fails every reader's span and saves nothing."""
    handle = telemetry.listener().start(started())
    handle.event(CacheLooked(CacheResult.MISS, KEY))
    handle.event(Coalesced(leader.origin(), 0.25))
    handle.event(CallEnded(CacheResult.COALESCED, Ending.COMPLETE, 0.5, 529, "overloaded_error"))
    (span,) = telemetry.spans()
    assert span["status"] == "ERROR"
    assert span["attributes"] == {
        **START, **OURS_AT_END, "underlay.cache.result": "coalesced", "underlay.cache.key": KEY[:16],
        "underlay.coalesce.wait": 0.25, "http.response.status_code": 529, "error.type": "overloaded_error",
    }  # fmt: skip


def test_the_point_of_the_wait_has_the_follower_as_its_exemplar(telemetry: Telemetry, leader: Handle) -> None:
    """A click on the dot of a wait opens the follower's trace."""
    follow(telemetry.listener().start(started()), leader.origin())
    context = telemetry.finished[0].context
    assert telemetry.exemplars()[m.COALESCE_WAIT.name] == [(context.trace_id, context.span_id)]


def test_suppression_silences_a_follower(telemetry: Telemetry, leader: Handle) -> None:
    """Under suppress_instrumentation a follower leaves nothing."""
    before = telemetry.recorded()
    with suppress_instrumentation():
        handle = telemetry.listener().start(started())
        follow(handle, leader.origin())
    assert handle is INERT
    assert (telemetry.spans(), telemetry.recorded()) == ([], before)


def test_a_follower_that_is_sampled_out_still_counts() -> None:
    """Without a recorded span there is no link to make, and the points are the same."""
    telemetry = Telemetry(sampler=ALWAYS_OFF)
    listener = telemetry.listener()
    follow(listener.start(started()), listener.start(started()).origin())
    assert telemetry.spans() == []
    assert telemetry.recorded() == {
        m.CALL_DURATION.name: [({**CALL_LABELS, **FOLLOWER_LABELS}, 1, 0.5)],
        m.COALESCE_WAIT.name: [(MODEL_LABELS, 1, 0.25)],
    }
