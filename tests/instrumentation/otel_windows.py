"""Hand-made events of flights and windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_scenarios import CALL_LABELS, KEY, started

from underlay.telemetry.attributes import BatchMode, BatchTrigger, CacheResult, Ending, Verdict
from underlay.telemetry.events import (
    AttemptEnded,
    AttemptStarted,
    Batched,
    BatchEnded,
    BatchStarted,
    CacheLooked,
    CallEnded,
    CallStarted,
    Coalesced,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.trace import Tracer

    from underlay.telemetry.listener import Dispatch, Handle
    from underlay_instrumentation.listener import OpenTelemetryListener

MERGED, RELEASED = BatchMode.MERGED, BatchMode.RELEASED
EMBEDDER = "text-embedding-3-small"
EMBEDDING = {"gen_ai.provider.name": "openai", "gen_ai.request.model": EMBEDDER}
EMBEDDING_CALL = {**CALL_LABELS, **EMBEDDING, "gen_ai.operation.name": "embeddings"}
IN_WINDOW = {"underlay.batch.trigger": "time", "underlay.batch.wait": 0.5}


def follow(handle: Handle, leader: bytes) -> None:
    """The events of a call that reads another one's answer, in the runtime's order."""
    handle.event(CacheLooked(CacheResult.MISS, KEY))
    handle.event(Coalesced(leader, 0.25))
    handle.event(
        CallEnded(
            CacheResult.COALESCED, Ending.COMPLETE, 0.5, 200, saved_usd=0.25, saved_usage=Usage(100, 20)
        )
    )


def embedding() -> CallStarted:
    """An embeddings call: its window is merged."""
    return started(operation="embeddings", model=EMBEDDER, parameters={})


def left(handles: Sequence[Handle], mode: BatchMode, **changes: Any) -> BatchStarted:
    """A window of these calls that was closed by its time; each brings two inputs."""
    merged = mode is BatchMode.MERGED
    fields: dict[str, Any] = {
        "provider": "openai",
        "operation": "embeddings" if merged else "chat",
        "model": EMBEDDER if merged else "gpt-4o",
        "mode": mode,
        "trigger": BatchTrigger.TIME,
        "members": tuple(handle.origin() for handle in handles),
        "inputs": 2 * len(handles),
        "filled": 2 * len(handles) if merged else len(handles),
        "capacity": 256 if merged else 10,
        "wait": 0.5,
    }
    return BatchStarted(**{**fields, **changes})


def batched(mode: BatchMode, size: int, dispatch: bytes, **changes: Any) -> Batched:
    """A call leaves that window."""
    fields: dict[str, Any] = {"trigger": BatchTrigger.TIME, "wait": 0.5, "size": size, "origin": dispatch}
    return Batched(mode, **{**fields, **changes})


def merged(
    listener: OpenTelemetryListener, handles: Sequence[Handle], end: BatchEnded, *, tracer: Tracer
) -> Dispatch:
    """A window of these calls leaves as one request, sent by the first: the events up to the reply, in the
    runtime's order, with the HTTP client's span."""
    with handles[0].attempt():
        dispatch = listener.dispatch(left(handles, BatchMode.MERGED))
        assert dispatch is not None
        for handle in handles:
            handle.event(batched(BatchMode.MERGED, len(handles), dispatch.origin()))
        handles[0].event(AttemptStarted(1))
        with dispatch.attempt(), tracer.start_as_current_span("POST"):
            pass
        dispatch.event(end)
    return dispatch


def dispatch_of(mode: BatchMode, size: int, parent: str | None, **changes: Any) -> dict[str, Any]:
    """What a dispatch's span looks like, with these differences."""
    merging = mode is MERGED
    known = {"underlay.batch.inputs": 2 * size, "underlay.batch.fill": 2 * size / 256}
    return {
        "name": f"batch dispatch {EMBEDDER if merging else 'gpt-4o'}",
        "kind": "INTERNAL",
        "parent": parent,
        "status": "UNSET",
        "attributes": {
            "gen_ai.operation.name": "embeddings" if merging else "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": EMBEDDER if merging else "gpt-4o",
            "underlay.batch.mode": mode.value,
            "underlay.batch.size": size,
            **(known if merging else {"underlay.batch.fill": size / 10}),
            **IN_WINDOW,
        },
        "links": [("member", f"call{number}") for number in range(size)],
        "events": 0,
        **changes,
    }


def named(handles: list[Handle]) -> dict[str, Handle]:
    """The calls by the names that `dispatch_of` gives them."""
    return {f"call{number}": handle for number, handle in enumerate(handles)}


def looked(listener: OpenTelemetryListener, number: int) -> list[Handle]:
    """Embeddings calls that missed the cache and wait."""
    handles = [listener.start(embedding()) for _ in range(number)]
    for handle in handles:
        handle.event(CacheLooked(CacheResult.MISS, KEY))
    return handles


def answer(handle: Handle, part: Usage, cost: float, *, sent: bool) -> None:
    """A member's part of a merged reply, and its end."""
    handle.event(
        AttemptEnded(
            1, 1.0, Verdict.SUCCESS, 200, usage=part, cost_usd=cost, response_model=EMBEDDER, sent=sent
        )
    )
    handle.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 2.0, 200, batch_mode=MERGED))
