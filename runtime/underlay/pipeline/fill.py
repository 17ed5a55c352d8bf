"""A list of inputs that is partly known: answers to single inputs come from the store, and only the rest is
asked.

Looked for only under a window key of which this process has stored an answer to a single input, so that apps
that ask for lists alone pay nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.core.cache import Found, plan_lookup, replay_headers
from underlay.pipeline.attempt import Attempt
from underlay.pipeline.merge import MergeError, altered, decoded, fetch, plain_headers, share, unread
from underlay.pipeline.recognise import key_for
from underlay.pipeline.replies import admit, finished, refuse
from underlay.telemetry.attributes import CacheResult, Stage
from underlay.telemetry.events import CacheLooked, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from underlay.pipeline.flow import Flow, Reply, Step

__all__ = ["filled", "look_for_singles", "whole"]


async def look_for_singles(flow: Flow) -> dict[int, Found]:
    """The stored answers to single inputs of a list, by their place."""
    asked, engine, ports = flow.asked, flow.engine, flow.ports
    inputs, merger = asked.ask.inputs, asked.dialect.merger
    if inputs is None or merger is None or inputs.count < 2 or asked.window not in engine.state.singles:
        return {}
    found: dict[int, Found] = {}
    now = ports.now()
    for place, bodies in enumerate(merger.singles(flow.exchange.body)):
        for body in bodies:
            key = key_for(flow.exchange, body, engine.settings.llm_cache, engine.secret)
            known = plan_lookup(await ports.load(key), now, asked.directives) if key else None
            if isinstance(known, Found):
                found[place] = known
                break
    return found


def whole(flow: Flow, found: Mapping[int, Found]) -> Reply | None:
    """The reply to a list whose every input is known; None when the parts do not fit together."""
    parts = list(found.values())
    entries = [part.entry for part in parts]
    try:
        body = _together(flow, found, b"")
    except Exception as error:  # noqa: BLE001 never break the app
        flow.engine.faults.report(Stage.CACHE, error)
        return None
    age, left = max(part.age for part in parts), min(part.ttl_left for part in parts)
    costs = [entry.cost_usd for entry in entries if entry.cost_usd is not None]
    counts = [entry.usage.input_tokens or 0 for entry in entries if entry.usage is not None]
    took = max(entry.duration for entry in entries) - (flow.ports.now() - flow.call.started)
    flow.call.result = CacheResult.HIT
    flow.call.watched.event(
        CacheLooked(
            CacheResult.HIT,
            flow.asked.key.hex()[:16],
            age=age,
            origin=entries[0].origin,
            saved_seconds=max(0.0, took),
            saved_usd=sum(costs) if costs else None,
            saved_usage=Usage(input_tokens=sum(counts)) if counts else None,
        )
    )
    headers = replay_headers(plain_headers(entries[0].headers, body), age, left)
    return finished(flow, entries[0].status, headers, (body,))


async def filled(flow: Flow, found: Mapping[int, Found]) -> Step | None:
    """Ask for the inputs that are not known, and answer with all. None: send the whole list after all."""
    merger, ports = flow.asked.dialect.merger, flow.ports
    assert merger is not None  # noqa: S101 only calls that can be merged are filled
    try:
        request = altered(flow.exchange, merger.without(flow.exchange.body, sorted(found)))
    except Exception as error:  # noqa: BLE001 never break the app
        flow.engine.faults.report(Stage.QUEUE, error)
        return None
    refusal = admit(flow)
    if refusal is not None:
        return refuse(flow, refusal)
    flow.attempt = Attempt(
        flow.engine, flow.asked, flow.call.watched, flow.permit, flow.tried + 1, ports.now()
    )
    with flow.call.watched.sending():
        status, headers, body = await fetch(flow, request)
    try:
        plain = decoded(headers, body)
        answer = _together(flow, found, plain) if status == 200 else plain
    except Exception as error:  # noqa: BLE001 never break the app
        flow.engine.faults.report(Stage.QUEUE, error)
        unread(flow, status, headers, body)
        return None
    return await share(flow, status, headers, answer, plain)


def _together(flow: Flow, found: Mapping[int, Found], reply: bytes) -> bytes:
    """The body of the reply to the whole list. Raises MergeError when the parts do not fit together."""
    merger = flow.asked.dialect.merger
    assert merger is not None  # noqa: S101 only calls that can be merged are filled
    singles = {
        place: decoded(known.entry.headers, b"".join(known.entry.frames)) for place, known in found.items()
    }
    body = merger.fill(singles, reply)
    if body is None:
        raise MergeError("stored answers and the reply do not fit together")
    return body
