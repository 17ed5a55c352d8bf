"""The stages between a call's entry and its attempt. Each looks at the flow and says how to go on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from underlay.core.cache import Lacking, plan_lookup, replay_headers
from underlay.core.flight import Flight
from underlay.pipeline.flow import PROCEED, Flow, Reply, Step
from underlay.pipeline.reader import Body, Reader
from underlay.settings import Mode
from underlay.telemetry.attributes import CacheResult, Stage
from underlay.telemetry.events import CacheLooked, CircuitRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from underlay.core.cache import Found
    from underlay.core.circuit_breaker import Refusal

__all__ = ["STAGES", "refuse"]


async def policy(flow: Flow) -> Step:
    """Deadlines and allow rules: a seam. Nothing is refused yet."""
    return PROCEED


async def cache(flow: Flow) -> Step:
    """Answer from the store, or say why not."""
    settings, asked = flow.engine.settings.llm_cache, flow.asked
    reason = asked.uncacheable
    if settings.mode is Mode.OFF:
        reason = "off"
    elif not reason and asked.directives.no_store:
        reason = "no_store"
    if reason:
        flow.call.result = CacheResult.BYPASS
        flow.call.watched.event(CacheLooked(CacheResult.BYPASS, asked.key.hex()[:16], reason))
        return PROCEED
    now = flow.ports.now()
    found = plan_lookup(await flow.ports.load(asked.key), now, asked.directives)
    observed = settings.mode is Mode.OBSERVE
    if isinstance(found, Lacking):
        flow.call.result = CacheResult.MISS
        flow.call.watched.event(CacheLooked(CacheResult.MISS, asked.key.hex()[:16], found.reason, observed))
        return PROCEED
    _tell_hit(flow, found, observed=observed)
    if observed:
        flow.call.result = CacheResult.MISS
        return PROCEED
    flow.call.result = CacheResult.HIT
    flow.call.stream = found.entry.stream
    headers = replay_headers(found.entry.headers, found.age, found.ttl_left)
    return _finished(flow, found.entry.status, headers, found.entry.frames)


def _tell_hit(flow: Flow, found: Found, *, observed: bool) -> None:
    entry = found.entry
    # What the provider took, less what this took so far: the books of the hit itself end with its reader.
    saved = max(0.0, entry.duration - (flow.ports.now() - flow.call.started))
    flow.call.watched.event(
        CacheLooked(
            CacheResult.HIT,
            flow.asked.key.hex()[:16],
            "",
            observed,
            found.age,
            entry.origin,
            saved,
            entry.cost_usd,
            entry.usage,
        )
    )


async def coalesce(flow: Flow) -> Step:
    """The same key in flight: a seam. Every call leads its own flight yet."""
    return PROCEED


async def circuit(flow: Flow) -> Step:
    """Refuse at once what an open circuit would refuse at the attempt. Looks, takes no permit. A breaker that
    observes has its say at the attempt alone: once a call."""
    if flow.engine.settings.circuit_breaker.mode is not Mode.ENFORCE:
        return PROCEED
    refusal = flow.engine.state.circuits.look(flow.asked.circuit, flow.ports.now())
    return PROCEED if refusal is None else refuse(flow, refusal)


async def budget(flow: Flow) -> Step:
    """Reserve the predicted cost: a seam. No budget is kept yet."""
    return PROCEED


async def queue(flow: Flow) -> Step:
    """Windows and limits: a seam. Every call is dispatched alone yet."""
    return PROCEED


STAGES: tuple[tuple[Stage, Callable[[Flow], Awaitable[Step]]], ...] = (
    (Stage.POLICY, policy),
    (Stage.CACHE, cache),
    (Stage.COALESCE, coalesce),
    (Stage.CIRCUIT, circuit),
    (Stage.BUDGET, budget),
    (Stage.QUEUE, queue),
)
"""The order of operations. It is also a security property: a hit has passed policy."""


def refuse(flow: Flow, refusal: Refusal) -> Step:
    """Answer with the dialect's own error: the SDKs retry what a transport raises, and sleep before they
    do."""
    observed = flow.engine.settings.circuit_breaker.mode is Mode.OBSERVE
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
    return _finished(flow, 503, headers, (body,))


def _finished(
    flow: Flow, status: int, headers: Sequence[tuple[bytes, bytes]], frames: tuple[bytes, ...]
) -> Reply:
    flow.call.status = status
    body = Body(flow.engine, Flight.finished(frames))
    return Reply(status, headers, Reader(body, flow.call, flow.ports))
