"""A call with a span of our own: span, links and points of every way it can end, asserted whole."""

from __future__ import annotations

import gc
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

from underlay.telemetry.attributes import CacheResult, CircuitState, Ending, Verdict
from underlay.telemetry.events import (
    AttemptEnded,
    AttemptStarted,
    CacheLooked,
    CallEnded,
    CircuitRefused,
    Usage,
)

STREAM = {"gen_ai.request.stream": True}
DURATION = "gen_ai.client.operation.duration"
TOKENS = "gen_ai.client.token.usage"
FIRST = "gen_ai.client.operation.time_to_first_chunk"
EACH = "gen_ai.client.operation.time_per_output_chunk"
TOKEN_POINTS = [
    ({**ANSWERED_LABELS, "gen_ai.token.type": "input"}, 100),
    ({**ANSWERED_LABELS, "gen_ai.token.type": "output"}, 20),
]


def call_span(attributes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A call's span as data."""
    plain = {
        "name": "chat gpt-4o", "kind": "CLIENT", "parent": None, "status": "UNSET",
        "attributes": attributes, "links": [], "events": 0,
    }  # fmt: skip
    return {**plain, **changes}


def test_a_miss_is_one_client_span_and_three_points(telemetry: Telemetry) -> None:
    """A JSON miss leaves one GenAI CLIENT span and one duration and two token points, nothing else."""
    miss(telemetry.listener().start(started()))

    assert telemetry.spans() == [call_span({**START, **OURS_ON_MISS, **ANSWER})]
    assert telemetry.points() == {
        DURATION: [({**ANSWERED_LABELS, **MISS_LABELS}, 1.5)],
        TOKENS: TOKEN_POINTS,
    }
    assert telemetry.logs() == []


def test_a_hit_links_to_the_span_that_generated_its_answer_and_counts_no_tokens(
    telemetry: Telemetry,
) -> None:
    """A hit's span links to the generating span by role, says what it saved, and reports no token usage."""
    listener = telemetry.listener()
    first = listener.start(started())
    miss(first)
    hit(listener.start(started()), first.origin())

    assert telemetry.spans()[1] == call_span(
        {**START, **OURS_ON_HIT, **OURS_AT_END, "http.response.status_code": 200},
        links=[("generated", "chat gpt-4o")],
    )
    generated, replayed = telemetry.finished
    assert [link.context.span_id for link in replayed.links] == [generated.context.span_id]
    assert telemetry.points() == {
        DURATION: [({**ANSWERED_LABELS, **MISS_LABELS}, 1.5), ({**CALL_LABELS, **HIT_LABELS}, 0.5)],
        TOKENS: TOKEN_POINTS,
        "underlay.cache.time_saved": [(MODEL_LABELS, 1.0)],
    }


@pytest.mark.parametrize("origin", [b"", b"\0" * 25, b"short", b"x" * 26])
def test_a_hit_without_a_usable_origin_has_no_link(telemetry: Telemetry, origin: bytes) -> None:
    """Origins come from stores that others share: one that names no span makes no link and no fault."""
    hit(telemetry.listener().start(started()), origin)
    (span,) = telemetry.spans()
    assert span["links"] == []


def test_a_hit_slower_than_the_first_answer_saved_nothing_and_not_less(telemetry: Telemetry) -> None:
    """Time saved is never negative."""
    handle = telemetry.listener().start(started())
    handle.event(CacheLooked(CacheResult.HIT, KEY, saved_seconds=0.1))
    handle.event(CallEnded(CacheResult.HIT, Ending.COMPLETE, 0.5, 200))
    assert telemetry.points()["underlay.cache.time_saved"] == [(MODEL_LABELS, 0.0)]


def stream_end(result: CacheResult = CacheResult.MISS, ending: Ending = Ending.COMPLETE) -> CallEnded:
    """The end of a stream of five chunks."""
    return CallEnded(result, ending, 1.5, 200, chunks=5, first_chunk=0.25, chunk_interval=0.125)


def test_a_streamed_miss_tells_its_first_chunk_and_the_mean_of_the_others_once(telemetry: Telemetry) -> None:
    """A stream has five points: duration, two of tokens, time to the first chunk, mean time per chunk."""
    miss(telemetry.listener().start(started(stream=True)), end=stream_end())

    assert telemetry.spans() == [
        call_span(
            {
                **START, **STREAM, **OURS_ON_MISS, **ANSWER,
                "underlay.call.chunks": 5, "gen_ai.response.time_to_first_chunk": 0.25,
            }
        )
    ]  # fmt: skip
    labels = {**ANSWERED_LABELS, **MISS_LABELS}
    assert telemetry.points() == {
        DURATION: [(labels, 1.5)],
        TOKENS: TOKEN_POINTS,
        FIRST: [(labels, 0.25)],
        EACH: [(labels, 0.125)],
    }


def test_a_streamed_hit_has_chunk_points_of_its_own(telemetry: Telemetry) -> None:
    """A replayed stream is a stream: its chunk points say `hit`, so that they can be told from a provider's."""
    handle = telemetry.listener().start(started(stream=True))
    handle.event(CacheLooked(CacheResult.HIT, KEY, age=30.0, saved_seconds=1.5, saved_usd=0.25))
    handle.event(stream_end(CacheResult.HIT))

    assert telemetry.spans() == [
        call_span(
            {
                **START, **STREAM, **OURS_ON_HIT, **OURS_AT_END, "http.response.status_code": 200,
                "underlay.call.chunks": 5, "gen_ai.response.time_to_first_chunk": 0.25,
            }
        )
    ]  # fmt: skip
    labels = {**CALL_LABELS, **HIT_LABELS}
    assert telemetry.points() == {
        DURATION: [(labels, 1.5)],
        FIRST: [(labels, 0.25)],
        EACH: [(labels, 0.125)],
        "underlay.cache.time_saved": [(MODEL_LABELS, 0.0)],
    }


@pytest.mark.parametrize("ending", [Ending.CLOSED, Ending.CANCELLED])
def test_a_reader_that_leaves_is_no_error(telemetry: Telemetry, ending: Ending) -> None:
    """A stream closed early or cancelled ends its span there, with what it gave so far and no error."""
    attempt = AttemptEnded(1, 1.0, Verdict.NOTHING, 200, error_type="CancelledError", store_reason="partial")
    end = CallEnded(
        CacheResult.MISS, ending, 0.75, 200, error_type="CancelledError", chunks=2, first_chunk=0.25
    )
    miss(telemetry.listener().start(started(stream=True)), attempt=attempt, end=end)

    assert telemetry.spans() == [
        call_span(
            {
                **START, **STREAM, "underlay.cache.result": "miss", "underlay.cache.key": KEY[:16],
                "underlay.cache.stored": False, "underlay.cache.reason": "partial",
                "underlay.attempt.verdict": "nothing", "underlay.batch.mode": "alone",
                "underlay.call.ending": ending.value, "underlay.call.chunks": 2,
                "gen_ai.response.time_to_first_chunk": 0.25, "http.response.status_code": 200,
            }
        )
    ]  # fmt: skip
    labels = {**CALL_LABELS, **MISS_LABELS}
    assert telemetry.points() == {DURATION: [(labels, 0.75)], FIRST: [(labels, 0.25)]}


def test_an_error_reply_that_nobody_read_is_still_an_error(telemetry: Telemetry) -> None:
    """Leaving the body of a 500 unread does not make the call a success."""
    end = CallEnded(CacheResult.MISS, Ending.CLOSED, 0.75, 500, error_type="500")
    miss(telemetry.listener().start(started()), end=end, attempt=AttemptEnded(1, 0.5, Verdict.FAILURE, 500))
    (span,) = telemetry.spans()
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", "500")


def test_a_dropped_body_ends_its_span_when_the_duration_says(telemetry: Telemetry) -> None:
    """The garbage collector tells late: the span's end comes from the duration, not from the clock."""
    handle = telemetry.listener().start(started(stream=True))
    end = CallEnded(CacheResult.MISS, Ending.DROPPED, 0.002, 200, chunks=1, first_chunk=0.001)
    miss(handle, end=end, attempt=answered(verdict=Verdict.NOTHING, usage=None, cost_usd=None))

    (span,) = telemetry.finished
    assert span.start_time is not None
    assert span.end_time == span.start_time + 2_000_000
    assert span.status.status_code.name == "UNSET"
    assert (span.attributes or {})["underlay.call.ending"] == "dropped"


def test_a_handle_that_is_only_dropped_leaves_nothing_open(telemetry: Telemetry) -> None:
    """Forgetting a handle without its end raises nothing and exports nothing: the runtime owns the end."""
    handle = telemetry.listener().start(started())
    del handle
    gc.collect()
    assert telemetry.spans() == []


def test_a_failed_call_says_its_kind_on_span_and_point(telemetry: Telemetry) -> None:
    """A provider's failure is an ERROR span without a description, and `error.type` on the duration."""
    attempt = AttemptEnded(1, 1.0, Verdict.FAILURE, 529, error_type="overloaded_error", store_reason="status")
    end = CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.5, 529, error_type="overloaded_error")
    miss(telemetry.listener().start(started()), attempt=attempt, end=end)

    assert telemetry.spans() == [
        call_span(
            {
                **START, "underlay.cache.result": "miss", "underlay.cache.key": KEY[:16],
                "underlay.cache.stored": False, "underlay.cache.reason": "status",
                "underlay.attempt.verdict": "failure", **OURS_AT_END,
                "http.response.status_code": 529, "error.type": "overloaded_error",
            },
            status="ERROR",
        )
    ]  # fmt: skip
    assert telemetry.finished[0].status.description is None
    assert telemetry.points() == {
        DURATION: [({**CALL_LABELS, **MISS_LABELS, "error.type": "overloaded_error"}, 1.5)]
    }


def test_a_refusal_has_no_attempt_and_says_when_to_come_again(telemetry: Telemetry) -> None:
    """A refused call is an ERROR span with the circuit's state; nothing says a provider answered."""
    handle = telemetry.listener().start(started())
    handle.event(CacheLooked(CacheResult.MISS, KEY, reason="absent"))
    handle.event(CircuitRefused(CircuitState.OPEN, 12.5))
    handle.event(CallEnded(CacheResult.REFUSED, Ending.COMPLETE, 0.001, 503, error_type="circuit_open"))

    assert telemetry.spans() == [
        call_span(
            {
                **START, "underlay.cache.result": "refused", "underlay.cache.key": KEY[:16],
                "underlay.cache.reason": "absent", "underlay.circuit_breaker.state": "open",
                "underlay.circuit_breaker.retry_after": 12.5, **OURS_AT_END,
                "http.response.status_code": 503, "error.type": "circuit_open",
            },
            status="ERROR",
        )
    ]  # fmt: skip
    labels = {
        **CALL_LABELS, "underlay.cache.result": "refused", "underlay.batch.mode": "alone",
        "error.type": "circuit_open",
    }  # fmt: skip
    assert telemetry.points() == {DURATION: [(labels, 0.001)]}


def test_an_observing_cache_and_breaker_say_what_they_would_have_done(telemetry: Telemetry) -> None:
    """In observe mode the call is a miss that a provider answered; what would have been is told beside it,
    without a saving, a link or a time saved."""
    handle = telemetry.listener().start(started())
    handle.event(
        CacheLooked(
            CacheResult.HIT, KEY, observed=True, age=30.0, origin=b"\1" * 25, saved_seconds=9.0, saved_usd=9.0
        )
    )
    handle.event(CircuitRefused(CircuitState.OPEN, 12.5, observed=True))
    handle.event(AttemptStarted(1))
    handle.event(answered())
    handle.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.5, 200))

    assert telemetry.spans() == [
        call_span(
            {
                **START, **OURS_ON_MISS, **ANSWER, "underlay.cache.observed": "hit",
                "underlay.cache.age": 30.0, "underlay.circuit_breaker.observed": "refused",
                "underlay.circuit_breaker.state": "open", "underlay.circuit_breaker.retry_after": 12.5,
            }
        )
    ]  # fmt: skip
    assert telemetry.points() == {
        DURATION: [({**ANSWERED_LABELS, **MISS_LABELS}, 1.5)],
        TOKENS: TOKEN_POINTS,
    }


def test_unknown_usage_makes_no_token_point_and_zero_does(telemetry: Telemetry) -> None:
    """Unknown is never 0: no point and no attribute without a count, but a known 0 is told."""
    handle = telemetry.listener().start(started())
    miss(handle, attempt=answered(usage=Usage(None, 0)))
    (span,) = telemetry.spans()
    assert "gen_ai.usage.input_tokens" not in span["attributes"]
    assert span["attributes"]["gen_ai.usage.output_tokens"] == 0
    assert telemetry.points()[TOKENS] == [({**ANSWERED_LABELS, "gen_ai.token.type": "output"}, 0)]


def test_the_end_is_told_once(telemetry: Telemetry) -> None:
    """A second end, and an attempt that ends after it, make no second span and no second duration."""
    handle = telemetry.listener().start(started())
    end = CallEnded(CacheResult.MISS, Ending.CLOSED, 0.5, 200)
    handle.event(CacheLooked(CacheResult.MISS, KEY))
    handle.event(end)
    handle.event(end)
    handle.event(answered())
    assert len(telemetry.finished) == 1
    assert telemetry.points() == {
        DURATION: [({**CALL_LABELS, **MISS_LABELS}, 0.5)],
        TOKENS: TOKEN_POINTS,
    }


def test_the_call_lies_under_the_span_that_is_current(telemetry: Telemetry) -> None:
    """The call's span is a child of what the app was doing, and is current only inside `attempt()`."""
    tracer = telemetry.tracers.get_tracer("app")
    with tracer.start_as_current_span("app"):
        handle = telemetry.listener().start(started())
        with handle.attempt(), tracer.start_as_current_span("POST"):
            pass
        with tracer.start_as_current_span("after the head"):
            pass
        handle.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 0.5, 200))
    assert {span["name"]: span["parent"] for span in telemetry.spans()} == {
        "POST": "chat gpt-4o",
        "after the head": "app",
        "chat gpt-4o": "app",
        "app": None,
    }
    assert handle.trace_id() == format(telemetry.span("app").context.trace_id, "032x")


def test_exemplars_of_our_points_lead_to_the_call(telemetry: Telemetry) -> None:
    """Every histogram point of a call carries its trace and span id as exemplar, also when it is recorded
    outside any current span."""
    handle = telemetry.listener().start(started(stream=True))
    miss(handle, end=stream_end())
    (span,) = telemetry.finished
    exemplars = {name: sorted(found) for name, found in telemetry.exemplars().items()}
    mine = (span.context.trace_id, span.context.span_id)
    assert exemplars == {DURATION: [mine], TOKENS: [mine, mine], FIRST: [mine], EACH: [mine]}


def test_upcoming_conventions_change_the_names_and_nothing_else(telemetry: Telemetry) -> None:
    """`telemetry.conventions: upcoming` renames the GenAI metrics; values and labels stay."""
    miss(telemetry.listener(generation="upcoming").start(started(stream=True)), end=stream_end())
    labels = {**ANSWERED_LABELS, **MISS_LABELS}
    assert telemetry.points() == {
        "gen_ai.client.inference.duration": [(labels, 1.5)],
        TOKENS: TOKEN_POINTS,
        "gen_ai.client.inference.time_to_first_chunk": [(labels, 0.25)],
        "gen_ai.client.inference.time_per_output_chunk": [(labels, 0.125)],
    }
    scope = telemetry.finished[0].instrumentation_scope
    assert scope is not None
    assert scope.schema_url == "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"
