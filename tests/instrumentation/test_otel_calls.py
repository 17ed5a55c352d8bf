"""Calls with a span of their own: the whole telemetry of each scenario, from hand-made events."""

from __future__ import annotations

from typing import Any

import pytest
from otel_scenarios import (
    ANSWER,
    ANSWERED_LABELS,
    CALL_LABELS,
    HIT_LABELS,
    KEY,
    MISS_LABELS,
    MODEL_LABELS,
    OURS_AT_END,
    OURS_ON_HIT,
    OURS_ON_MISS,
    START,
    Telemetry,
    answered,
    hit,
    miss,
    started,
)

from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import BatchMode, CacheResult, CircuitState, Ending, Verdict
from underlay.telemetry.events import CacheLooked, CallEnded, CircuitRefused, Usage
from underlay_instrumentation import origin


def span_of(**changes: Any) -> dict[str, Any]:
    """What a call's span looks like, with these differences."""
    return {
        "name": "chat gpt-4o",
        "kind": "CLIENT",
        "parent": None,
        "status": "UNSET",
        "links": [],
        "events": 0,
        **changes,
    }


def test_a_miss_is_one_span_and_three_points(telemetry: Telemetry) -> None:
    """A JSON call that the provider answers leaves one CLIENT span and exactly three points."""
    miss(telemetry.listener().start(started()))
    assert telemetry.spans() == [span_of(attributes={**START, **OURS_ON_MISS, **ANSWER})]
    assert telemetry.points() == {
        m.CALL_DURATION.name: [({**ANSWERED_LABELS, **MISS_LABELS}, 1.5)],
        m.TOKEN_USAGE.name: [
            ({**ANSWERED_LABELS, "gen_ai.token.type": "input"}, 100),
            ({**ANSWERED_LABELS, "gen_ai.token.type": "output"}, 20),
        ],
    }
    assert telemetry.logs() == []


def test_a_streamed_miss_has_five_points(telemetry: Telemetry) -> None:
    """A streamed call adds one time to first chunk and one mean time per chunk, and says so on its span."""
    end = CallEnded(
        CacheResult.MISS, Ending.COMPLETE, 1.5, 200, chunks=12, first_chunk=0.25, chunk_interval=0.05
    )
    miss(telemetry.listener().start(started(stream=True)), end=end)
    assert telemetry.spans() == [
        span_of(
            attributes={
                **START,
                **OURS_ON_MISS,
                **ANSWER,
                "gen_ai.request.stream": True,
                "gen_ai.response.time_to_first_chunk": 0.25,
                "underlay.call.chunks": 12,
            }
        )
    ]
    points = telemetry.points()
    assert points[m.FIRST_CHUNK.name] == [({**ANSWERED_LABELS, **MISS_LABELS}, 0.25)]
    assert points[m.OUTPUT_CHUNK.name] == [({**ANSWERED_LABELS, **MISS_LABELS}, 0.05)]
    assert sum(map(len, points.values())) == 5


def test_a_hit_links_to_the_span_that_generated_it(telemetry: Telemetry) -> None:
    """A hit's span links to the miss's, reports no token, and records what it saved."""
    listener = telemetry.listener()
    first = listener.start(started())
    miss(first)
    telemetry.exporter.clear()
    telemetry.points()
    hit(listener.start(started()), first.origin())
    assert telemetry.spans() == [
        span_of(
            attributes={**START, **OURS_ON_HIT, **OURS_AT_END, "http.response.status_code": 200},
            links=[("generated", "?")],
        )
    ]
    (link,) = telemetry.finished[0].links
    assert origin.pack(link.context) == first.origin()
    assert link.context.is_remote


def test_a_hit_records_two_points(telemetry: Telemetry) -> None:
    """A JSON hit records its duration and the time saved: the first answer's duration less its own."""
    hit(telemetry.listener().start(started()), b"")
    assert telemetry.points() == {
        m.CALL_DURATION.name: [({**CALL_LABELS, **HIT_LABELS}, 0.5)],
        m.TIME_SAVED.name: [(MODEL_LABELS, 1.0)],
    }
    assert telemetry.spans()[0]["links"] == []


def test_a_streamed_hit_has_chunk_points_of_its_own(telemetry: Telemetry) -> None:
    """A replayed stream is a stream: its chunk points say `hit`, so that they can be told from a provider's."""
    handle = telemetry.listener().start(started(stream=True))
    handle.event(CacheLooked(CacheResult.HIT, KEY, age=30.0, saved_seconds=1.5, saved_usd=0.25))
    handle.event(
        CallEnded(
            CacheResult.HIT, Ending.COMPLETE, 0.5, 200, chunks=5, first_chunk=0.25, chunk_interval=0.125
        )
    )
    assert telemetry.spans() == [
        span_of(
            attributes={
                **START, **OURS_ON_HIT, **OURS_AT_END, "gen_ai.request.stream": True,
                "http.response.status_code": 200, "underlay.call.chunks": 5,
                "gen_ai.response.time_to_first_chunk": 0.25,
            }
        )
    ]  # fmt: skip
    labels = {**CALL_LABELS, **HIT_LABELS}
    assert telemetry.points() == {
        m.CALL_DURATION.name: [(labels, 0.5)],
        m.FIRST_CHUNK.name: [(labels, 0.25)],
        m.OUTPUT_CHUNK.name: [(labels, 0.125)],
        m.TIME_SAVED.name: [(MODEL_LABELS, 1.0)],
    }


@pytest.mark.parametrize("ending", [Ending.CANCELLED, Ending.CLOSED])
def test_a_stream_that_is_left_tells_what_it_gave(telemetry: Telemetry, ending: Ending) -> None:
    """A stream that is cancelled or closed early ends its span there, with the chunks it gave and no error."""
    attempt = answered(
        verdict=Verdict.NOTHING, error_type="CancelledError", usage=None, cost_usd=None, stored=False,
        response_model="", response_id="", finish_reasons=(), store_reason="partial",
    )  # fmt: skip
    end = CallEnded(CacheResult.MISS, ending, 0.75, 200, "CancelledError", chunks=2, first_chunk=0.25)
    miss(telemetry.listener().start(started(stream=True)), attempt=attempt, end=end)
    assert telemetry.spans() == [
        span_of(
            attributes={
                **START, "gen_ai.request.stream": True, "underlay.cache.result": "miss",
                "underlay.cache.key": KEY[:16], "underlay.cache.stored": False,
                "underlay.cache.reason": "partial", "underlay.attempt.verdict": "nothing",
                "underlay.batch.mode": "alone", "underlay.call.ending": ending.value,
                "underlay.call.chunks": 2, "gen_ai.response.time_to_first_chunk": 0.25,
                "http.response.status_code": 200,
            }
        )
    ]  # fmt: skip
    labels = {**CALL_LABELS, **MISS_LABELS}
    assert telemetry.points() == {
        m.CALL_DURATION.name: [(labels, 0.75)], m.FIRST_CHUNK.name: [(labels, 0.25)],
    }  # fmt: skip


def test_a_hit_that_took_longer_saved_nothing(telemetry: Telemetry) -> None:
    """The time saved is never negative, however slowly a reader reads."""
    handle = telemetry.listener().start(started(stream=True))
    handle.event(CacheLooked(CacheResult.HIT, KEY, saved_seconds=1.0))
    handle.event(CallEnded(CacheResult.HIT, Ending.COMPLETE, 9.0, 200, chunks=3))
    assert telemetry.points()[m.TIME_SAVED.name] == [(MODEL_LABELS, 0.0)]


def test_an_observed_hit_is_a_miss_that_says_what_it_would_have_been(telemetry: Telemetry) -> None:
    """A watching cache changes no result: the call is a miss, and the span says that a hit was there."""
    handle = telemetry.listener().start(started())
    handle.event(CacheLooked(CacheResult.HIT, KEY, observed=True, age=3.0, saved_seconds=1.0, saved_usd=0.5))
    handle.event(answered())
    handle.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.5, 200))
    (span,) = telemetry.spans()
    assert span["attributes"] == {
        **START, **OURS_ON_MISS, **ANSWER, "underlay.cache.observed": "hit", "underlay.cache.age": 3.0,
    }  # fmt: skip
    assert m.TIME_SAVED.name not in telemetry.points()


def test_a_refusal_is_an_error_of_its_own_kind(telemetry: Telemetry) -> None:
    """A refused call is a failed span with error.type circuit_open, the circuit's state and when to retry."""
    handle = telemetry.listener().start(started())
    handle.event(CacheLooked(CacheResult.MISS, KEY))
    handle.event(CircuitRefused(CircuitState.OPEN, 12.5))
    handle.event(CallEnded(CacheResult.REFUSED, Ending.COMPLETE, 0.5, 503, "circuit_open"))
    assert telemetry.spans() == [
        span_of(
            status="ERROR",
            attributes={
                **START,
                **OURS_AT_END,
                "underlay.cache.result": "refused",
                "underlay.cache.key": KEY[:16],
                "underlay.circuit_breaker.state": "open",
                "underlay.circuit_breaker.retry_after": 12.5,
                "http.response.status_code": 503,
                "error.type": "circuit_open",
            },
        )
    ]
    labels = {**CALL_LABELS, "underlay.cache.result": "refused", "underlay.batch.mode": "alone"}
    assert telemetry.points() == {m.CALL_DURATION.name: [({**labels, "error.type": "circuit_open"}, 0.5)]}


def test_an_observed_refusal_is_sent_and_says_so(telemetry: Telemetry) -> None:
    """A watching breaker changes no result and leaves its judgement on the span."""
    handle = telemetry.listener().start(started())
    handle.event(CircuitRefused(CircuitState.OPEN, 12.5, observed=True))
    miss(handle)
    (span,) = telemetry.spans()
    assert span["attributes"]["underlay.circuit_breaker.observed"] == "refused"
    assert span["attributes"]["underlay.cache.result"] == "miss"


def test_a_failed_attempt_is_an_error(telemetry: Telemetry) -> None:
    """An answer with an error status fails the span, and tokens that are unknown are left out, never 0."""
    attempt = answered(
        verdict=Verdict.FAILURE, status=529, error_type="overloaded_error", usage=None, cost_usd=None,
        response_model="", response_id="", finish_reasons=(), stored=False, store_reason="status",
    )  # fmt: skip
    end = CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.5, 529, "overloaded_error")
    miss(telemetry.listener().start(started()), attempt=attempt, end=end)
    assert telemetry.spans() == [
        span_of(
            status="ERROR",
            attributes={
                **START,
                **OURS_AT_END,
                "underlay.cache.result": "miss",
                "underlay.cache.key": KEY[:16],
                "underlay.cache.stored": False,
                "underlay.cache.reason": "status",
                "underlay.attempt.verdict": "failure",
                "http.response.status_code": 529,
                "error.type": "overloaded_error",
            },
        )
    ]
    assert telemetry.points() == {
        m.CALL_DURATION.name: [({**CALL_LABELS, **MISS_LABELS, "error.type": "overloaded_error"}, 1.5)]
    }


@pytest.mark.parametrize("ending", [Ending.CANCELLED, Ending.CLOSED, Ending.DROPPED])
def test_a_reader_that_leaves_is_no_error(telemetry: Telemetry, ending: Ending) -> None:
    """A cancelled, closed or dropped reply leaves a span without an error, in the points too."""
    end = CallEnded(CacheResult.MISS, ending, 1.5, 200, "CancelledError")
    miss(telemetry.listener().start(started()), attempt=answered(usage=None), end=end)
    (span,) = telemetry.spans()
    assert (span["status"], span["attributes"]["underlay.call.ending"]) == ("UNSET", ending.value)
    assert "error.type" not in span["attributes"]
    assert telemetry.points() == {m.CALL_DURATION.name: [({**ANSWERED_LABELS, **MISS_LABELS}, 1.5)]}


def test_an_error_status_stays_an_error_when_its_body_is_left(telemetry: Telemetry) -> None:
    """Closing the body of a 500 unread does not turn it into a success."""
    end = CallEnded(CacheResult.MISS, Ending.CLOSED, 1.5, 500, "server_error")
    miss(telemetry.listener().start(started()), end=end)
    assert telemetry.spans()[0]["status"] == "ERROR"


def test_a_dropped_call_ends_when_it_was_dropped(telemetry: Telemetry) -> None:
    """A reply that the garbage collector found late has the span end that its duration tells."""
    handle = telemetry.listener().start(started())
    handle.event(CallEnded(CacheResult.MISS, Ending.DROPPED, 2.5, 200))
    (span,) = telemetry.finished
    assert span.start_time is not None
    assert span.end_time == span.start_time + 2_500_000_000


def test_an_attempt_that_ends_after_its_call_still_counts(telemetry: Telemetry) -> None:
    """When other readers hold the body, tokens are counted late and the ended span is left alone."""
    handle = telemetry.listener().start(started())
    handle.event(CacheLooked(CacheResult.MISS, KEY))
    handle.event(CallEnded(CacheResult.MISS, Ending.CLOSED, 0.5, 200))
    handle.event(answered())
    handle.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 9.0, 200))
    (span,) = telemetry.spans()
    assert "gen_ai.usage.input_tokens" not in span["attributes"]
    points = telemetry.points()
    assert len(points[m.TOKEN_USAGE.name]) == 2
    assert points[m.CALL_DURATION.name] == [({**CALL_LABELS, **MISS_LABELS}, 0.5)]


def test_unknown_tokens_are_not_zero(telemetry: Telemetry) -> None:
    """A zero is recorded as a zero, and an unknown count as nothing."""
    miss(telemetry.listener().start(started()), attempt=answered(usage=Usage(0, None)))
    (span,) = telemetry.spans()
    assert span["attributes"]["gen_ai.usage.input_tokens"] == 0
    assert "gen_ai.usage.output_tokens" not in span["attributes"]
    assert telemetry.points()[m.TOKEN_USAGE.name] == [({**ANSWERED_LABELS, "gen_ai.token.type": "input"}, 0)]


def test_labels_are_those_of_the_vocabulary(telemetry: Telemetry) -> None:
    """Every histogram point carries labels of its metric's row and no other, with every label that is
    known."""
    listener = telemetry.listener()
    end = CallEnded(
        CacheResult.MISS, Ending.FAILED, 1.5, 200, "error", 3, 0.5, 0.5, batch_mode=BatchMode.MERGED
    )
    miss(listener.start(started(stream=True)), end=end)
    hit(listener.start(started()), b"")
    points = telemetry.points()
    by_name = {metric.name: metric for metric in m.ALL}
    for name, several in points.items():
        keys = {label.key for label in by_name[name].labels}
        assert set().union(*(labels for labels, _ in several)) == keys
    assert set(points) == {
        m.CALL_DURATION.name, m.TOKEN_USAGE.name, m.FIRST_CHUNK.name, m.OUTPUT_CHUNK.name, m.TIME_SAVED.name,
    }  # fmt: skip


def test_names_of_the_upcoming_conventions(telemetry: Telemetry) -> None:
    """One setting switches the names that the next conventions change, and no other."""
    listener = telemetry.listener(generation="upcoming")
    end = CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.5, 200, "", 3, 0.5, 0.5)
    miss(listener.start(started(stream=True)), end=end)
    assert set(telemetry.points()) == {
        "gen_ai.client.inference.duration",
        "gen_ai.client.inference.time_to_first_chunk",
        "gen_ai.client.inference.time_per_output_chunk",
        "gen_ai.client.token.usage",
    }
