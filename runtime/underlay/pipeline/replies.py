"""Replies of our own: a stored answer, a refusal, a part of a merged reply."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from underlay.core.cache import replay_headers
from underlay.core.circuit_breaker import Refusal
from underlay.core.flight import Flight
from underlay.pipeline.flow import PROCEED, Reply
from underlay.pipeline.reader import Body, Reader
from underlay.settings import Mode
from underlay.telemetry.attributes import CacheResult
from underlay.telemetry.events import CircuitRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from underlay.core.cache import Found
    from underlay.pipeline.flow import Flow, Step

__all__ = ["admit", "finished", "refuse", "stored_reply"]

# A member is slow to reach through its class (CPython 3.11), and every call asks.
_OFF, _OBSERVE = Mode.OFF, Mode.OBSERVE


def stored_reply(flow: Flow, found: Found) -> Reply:
    """A stored answer, replayed."""
    entry = found.entry
    return finished(
        flow, entry.status, replay_headers(entry.headers, found.age, found.ttl_left), entry.frames
    )


def admit(flow: Flow) -> Refusal | None:
    """Take a permit for one attempt, or be refused. A breaker that observes only says so."""
    engine = flow.engine
    mode = engine.settings.circuit_breaker.mode
    if mode is _OFF:
        return None
    permit = engine.state.circuits.admit(flow.asked.circuit, flow.ports.now())
    if not isinstance(permit, Refusal):
        flow.permit = permit
        return None
    if mode is _OBSERVE:
        refuse(flow, permit)
        return None
    return permit


def refuse(flow: Flow, refusal: Refusal) -> Step:
    """Answer with the dialect's own error: the SDKs retry what a transport raises, and sleep before they
    do."""
    observed = flow.engine.settings.circuit_breaker.mode is _OBSERVE
    flow.call.watched.event(CircuitRefused(refusal.state, refusal.retry_after, observed))
    if observed:
        return PROCEED
    name = flow.asked.circuit
    flow.engine.state.circuits.refused(name, flow.ports.now())
    flow.call.result = CacheResult.REFUSED
    flow.call.error_type = "circuit_open"
    seconds = max(1, math.ceil(refusal.retry_after))
    body = flow.asked.dialect.error_body(
        "circuit_open",
        f"underlay: circuit of {name.provider}/{name.model} is {refusal.state}; next probe in {seconds} s",
    )
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"%d" % seconds),
        (b"x-should-retry", b"false"),
        (b"underlay-refused", b"circuit_open"),
    ]
    return finished(flow, 503, headers, (body,))


def finished(
    flow: Flow, status: int, headers: Sequence[tuple[bytes, bytes]], frames: tuple[bytes, ...]
) -> Reply:
    """A reply whose whole body is known."""
    flow.call.status = status
    body = Body(flow.engine, Flight.finished(frames))
    return Reply(status, headers, Reader(body, flow.call, flow.ports))
