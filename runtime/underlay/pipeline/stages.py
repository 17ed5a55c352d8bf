"""The stages between a call's entry and its attempt. Each looks at the flow and says how to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.core.cache import Lacking, plan_lookup
from underlay.pipeline.coalesce import coalesce
from underlay.pipeline.fill import look_for_singles, whole
from underlay.pipeline.flow import PROCEED, Flow, Step
from underlay.pipeline.queue import queue
from underlay.pipeline.replies import refuse, stored_reply
from underlay.settings import Mode
from underlay.telemetry.attributes import CacheResult, Stage
from underlay.telemetry.events import CacheLooked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from underlay.core.cache import Found

__all__ = ["STAGES"]

# A member is slow to reach through its class (CPython 3.11), and every call asks.
_OFF, _OBSERVE, _ENFORCE = Mode.OFF, Mode.OBSERVE, Mode.ENFORCE
_BYPASS, _MISS, _HIT = CacheResult.BYPASS, CacheResult.MISS, CacheResult.HIT


async def cache(flow: Flow) -> Step:
    """Answer from the store, or say why not."""
    settings, asked = flow.engine.settings.llm_cache, flow.asked
    reason = asked.uncacheable
    if settings.mode is _OFF:
        reason = "off"
    elif not reason and asked.directives.no_store:
        reason = "no_store"
    if reason:
        flow.call.result = _BYPASS
        flow.call.watched.event(CacheLooked(_BYPASS, asked.key.hex()[:16], reason))
        return PROCEED
    now = flow.ports.now()
    flow.looked = flow.engine.state.flights.landings
    found = plan_lookup(await flow.ports.load(asked.key), now, asked.directives)
    observed = settings.mode is _OBSERVE
    if isinstance(found, Lacking):
        if asked.ask.inputs is not None and not observed and (reply := await _from_singles(flow)) is not None:
            return reply
        flow.call.result = _MISS
        flow.call.watched.event(CacheLooked(_MISS, asked.key.hex()[:16], found.reason, observed))
        return PROCEED
    _tell_hit(flow, found, observed=observed)
    if observed:
        flow.call.result = _MISS
        return PROCEED
    flow.call.result = _HIT
    flow.call.stream = found.entry.stream
    return stored_reply(flow, found)


async def _from_singles(flow: Flow) -> Step | None:
    """A list whose inputs are all known one by one. What is known of others is kept for the queue stage."""
    inputs = flow.asked.ask.inputs
    if inputs is None or inputs.count < 2 or flow.engine.settings.llm_batch.mode is not _ENFORCE:
        return None
    flow.singles = await look_for_singles(flow)
    return whole(flow, flow.singles) if len(flow.singles) == inputs.count else None


def _tell_hit(flow: Flow, found: Found, *, observed: bool) -> None:
    entry = found.entry
    # What the provider took, less what this took so far: the books of the hit itself end with its reader.
    saved = max(0.0, entry.duration - (flow.ports.now() - flow.call.started))
    flow.call.watched.event(
        CacheLooked(
            _HIT,
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


async def circuit(flow: Flow) -> Step:
    """Refuse at once what an open circuit would refuse at the attempt. Looks, takes no permit. A breaker that
    observes has its say at the attempt alone: once a call."""
    if flow.engine.settings.circuit_breaker.mode is not _ENFORCE:
        return PROCEED
    refusal = flow.engine.state.circuits.look(flow.asked.circuit, flow.ports.now())
    return PROCEED if refusal is None else refuse(flow, refusal)


STAGES: tuple[tuple[Stage, Callable[[Flow], Awaitable[Step]]], ...] = (
    # Stage.POLICY: what decides whether the call may be made at all belongs before the cache.
    (Stage.CACHE, cache),
    (Stage.COALESCE, coalesce),
    (Stage.CIRCUIT, circuit),
    # Stage.BUDGET: what reserves its cost belongs here.
    (Stage.QUEUE, queue),
)
"""The order of operations. It is also a security property: a hit has passed policy."""
