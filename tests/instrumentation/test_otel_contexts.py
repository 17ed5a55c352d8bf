"""Where a call is current, in which thread it ends, and what identifies it: contexts, threads, exemplars, origins."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
from typing import Any

import pytest
from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from otel_scenarios import (
    ANSWER,
    OURS_ON_MISS,
    START,
    Telemetry,
    miss,
    started,
)

from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import CacheResult, Ending
from underlay.telemetry.events import CallEnded
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


def test_model_names_in_labels_are_bounded(telemetry: Telemetry) -> None:
    """Beyond the bound, names that callers make up are counted together, while spans keep the real name."""
    listener = telemetry.listener(max_models=2)
    for number in range(4):
        handle = listener.start(started(model=f"m{number}"))
        handle.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.0 + number, 200))
    assert [span["name"] for span in telemetry.spans()] == [f"chat m{number}" for number in range(4)]
    metrics = telemetry.reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    counts = {point.attributes["gen_ai.request.model"]: point.count for point in metrics[0].data.data_points}
    assert counts == {"m0": 1, "m1": 1, "other": 2}


def test_points_carry_the_call_as_their_exemplar(telemetry: Telemetry) -> None:
    """The exemplars of every point of a call name its own span, although it is never current when recorded."""
    handle = telemetry.listener().start(started(stream=True))
    miss(handle, end=CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.5, 200, "", 3, 0.5, 0.5))
    context = telemetry.finished[0].context
    mine = (context.trace_id, context.span_id)
    assert telemetry.exemplars() == {
        m.CALL_DURATION.name: [mine],
        m.TOKEN_USAGE.name: [mine, mine],
        m.FIRST_CHUNK.name: [mine],
        m.OUTPUT_CHUNK.name: [mine],
    }
    assert handle.trace_id() == format(context.trace_id, "032x")


def test_the_send_alone_runs_under_the_span(telemetry: Telemetry) -> None:
    """Only inside attempt() is the call's span current; its parent is what was current at the start."""
    listener = telemetry.listener()
    tracer = telemetry.tracers.get_tracer("app")
    with tracer.start_as_current_span("app") as app:
        handle = listener.start(started())
        assert trace.get_current_span() is app
        with handle.attempt(), tracer.start_as_current_span("POST"):
            pass
        assert trace.get_current_span() is app
    handle.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.0, 200))
    parents = {span["name"]: span["parent"] for span in telemetry.spans()}
    assert parents == {"app": None, "chat gpt-4o": "app", "POST": "chat gpt-4o"}


def test_leaving_an_attempt_elsewhere_is_silent(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """A coroutine that is closed in another context, as at garbage collection, logs nothing and leaves no
    trace there."""
    handle = telemetry.listener().start(started())

    async def send() -> None:
        with handle.attempt():
            await asyncio.get_running_loop().create_future()

    async def main() -> Any:
        coroutine = send()
        contextvars.Context().run(coroutine.send, None)
        return coroutine

    coroutine = asyncio.run(main())
    with caplog.at_level(logging.DEBUG):
        coroutine.close()
        gc.collect()
    assert caplog.records == []
    assert context_api.get_current() == {}


def test_a_call_may_end_in_another_thread(telemetry: Telemetry) -> None:
    """Who ends a call, and where, changes nothing of its telemetry."""
    handle = telemetry.listener().start(started())
    thread = threading.Thread(target=miss, args=(handle,))
    thread.start()
    thread.join()
    assert telemetry.spans() == [span_of(attributes={**START, **OURS_ON_MISS, **ANSWER})]


def test_calls_of_many_threads_are_all_told(telemetry: Telemetry) -> None:
    """Calls that start and end in eight threads at once share one listener, and none is lost or mixed up."""
    listener = telemetry.listener(max_models=3)
    together = threading.Barrier(8)
    faults: list[BaseException] = []

    def calls(thread: int) -> None:
        together.wait()
        try:
            for number in range(25):
                handle = listener.start(started(model=f"m{(thread + number) % 5}"))
                miss(handle)
                assert len(handle.origin()) == origin.SIZE
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=calls, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    spans = telemetry.finished
    assert len({span.context.span_id for span in spans}) == 200
    assert all(span.name == f"chat {(span.attributes or {})['gen_ai.request.model']}" for span in spans)
    metrics = telemetry.reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    counts = {metric.name: sum(point.count for point in metric.data.data_points) for metric in metrics}
    assert counts == {m.CALL_DURATION.name: 200, m.TOKEN_USAGE.name: 400}


def test_a_sampled_out_call_still_counts() -> None:
    """Without a recorded span the points are the same, and the attempt carries the unsampled context on."""
    telemetry = Telemetry(sampler=ALWAYS_OFF)
    handle = telemetry.listener().start(started())
    with handle.attempt():
        assert trace.get_current_span().get_span_context().is_valid
    miss(handle)
    assert telemetry.spans() == []
    assert set(telemetry.points()) == {m.CALL_DURATION.name, m.TOKEN_USAGE.name}


def test_scope_names_the_project(telemetry: Telemetry) -> None:
    """Spans say which instrumentation made them, in which version, by which schema."""
    from underlay._version import __version__

    miss(telemetry.listener().start(started()))
    scope = telemetry.finished[0].instrumentation_scope
    assert (scope.name, scope.version) == ("underlay", __version__)
    assert scope.schema_url == "https://opentelemetry.io/schemas/1.37.0"


def test_origin_is_25_bytes_that_come_back() -> None:
    """A span context survives the store, and anything that is no origin is no link."""
    context = trace.SpanContext(0x1234, 0x5678, is_remote=False, trace_flags=trace.TraceFlags(1))
    packed = origin.pack(context)
    assert len(packed) == origin.SIZE == 25
    back = origin.unpack(packed)
    assert back is not None
    assert (back.trace_id, back.span_id, back.trace_flags) == (0x1234, 0x5678, 1)
    assert origin.pack(trace.INVALID_SPAN_CONTEXT) == b""
    assert [origin.unpack(wrong) for wrong in (b"", b"x" * 24, b"\0" * 25)] == [None, None, None]
