"""The queue stage: windows of calls that leave together.

Calls that can be merged share one upstream request. Others are released together and each is sent by its own
caller, under `linger: fixed` alone.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from underlay.core.batching import Member, Rule
from underlay.core.key import scope_of, sort_headers
from underlay.pipeline.fill import filled
from underlay.pipeline.flow import PROCEED, Wait
from underlay.pipeline.merge import batched, dispatch, resolved, told
from underlay.pipeline.windows import Seat, Waiting
from underlay.settings import Mode
from underlay.telemetry.attributes import BatchMode, BatchTrigger
from underlay.telemetry.events import Batched, BatchEnded

if TYPE_CHECKING:
    from collections.abc import Hashable

    from underlay.pipeline.flow import Flow, Step
    from underlay.pipeline.windows import Departure

__all__ = ["queue", "release_seat"]

_log = logging.getLogger("underlay")
_DEADLINE = b"underlay-deadline"
_UNBOUNDED = 1_000_000_000


async def queue(flow: Flow) -> Step:
    """Wait in a window where there is one for this call, and leave with it."""
    settings = flow.engine.settings.llm_batch
    if settings.mode is Mode.OFF:
        return PROCEED
    merged = bool(flow.asked.window)
    if not merged and settings.linger != "fixed":
        return PROCEED
    if flow.singles:
        singles, flow.singles = flow.singles, {}
        if (step := await filled(flow, singles)) is not None:
            return step
    windows, seat = flow.engine.state.windows, flow.seat
    if seat is None:
        rule = _rule(flow)
        seat = flow.seat = Seat(flow.call, flow.exchange, flow.ports, _member(flow, rule))
        windows.enter(seat, _key(flow), rule, flow.asked.circuit)
        if settings.mode is Mode.OBSERVE:
            return _observed(flow, seat, merged=merged)
    now = flow.ports.now()
    stand = windows.look(seat, now)
    if stand is None:
        return PROCEED
    if isinstance(stand, Waiting):
        if stand.until is not None:
            return Wait(stand.waiter, stand.until)
        return _overdue(flow, seat, now) or Wait(stand.waiter, _patience(flow, seat))
    if not merged:
        return _released(flow, stand, seat)
    return await (dispatch(flow, stand) if stand.sender is seat else resolved(flow, stand))


def _key(flow: Flow) -> Hashable:
    asked, ports = flow.asked, flow.ports
    if asked.window:
        return (ports.home, asked.window, ports.timeouts, _payer(flow))
    return (ports.home, asked.circuit, asked.ask.operation)


def _payer(flow: Flow) -> bytes:
    """Whose credential a merged request would leave with. A namespace shares answers between credentials, and
    never what is asked with them."""
    settings, secret = flow.engine.settings.llm_cache, flow.engine.secret
    if settings.namespace is None:
        return b""  # in the window's key already
    return scope_of(secret, sort_headers(flow.exchange.headers).credentials, None)


def _rule(flow: Flow) -> Rule:
    settings, asked = flow.engine.settings.llm_batch, flow.asked
    timeout, fixed = settings.batch_timeout_ms / 1000, settings.linger == "fixed"
    merger = asked.dialect.merger
    if not asked.window or merger is None:
        return Rule(settings.linger, timeout, settings.max_batch_size, _UNBOUNDED, _UNBOUNDED)
    inputs, tokens = merger.bounds(asked.circuit.provider if asked.host_known else "")
    if not fixed:
        inputs = min(inputs, settings.merge_max_inputs)
    return Rule(settings.linger, timeout, settings.max_batch_size if fixed else _UNBOUNDED, inputs, tokens)


def _member(flow: Flow, rule: Rule) -> Member:
    inputs, read = flow.asked.ask.inputs, flow.ports.timeouts.read
    deadline = min(flow.ports.deadline, _asked_deadline(flow))
    if read is not None and read < rule.longest:
        deadline = min(deadline, flow.ports.now() + read)
    if not flow.asked.window or inputs is None:
        return Member(1, 0, deadline=deadline)
    return Member(inputs.count, inputs.tokens, deadline=deadline)


def _asked_deadline(flow: Flow) -> float:
    """The caller's own word, `underlay-deadline`: seconds from its start in which the answer is of use."""
    if not flow.asked.controlled:
        return math.inf
    for name, value in flow.exchange.headers:
        if name.lower() == _DEADLINE:
            try:
                seconds = float(value)
            except ValueError:
                seconds = math.nan
            if seconds > 0:
                return flow.call.started + seconds
            _log.warning(
                "underlay: header underlay-deadline: allowed is a number of seconds above 0; ignored"
            )
    return math.inf


def _released(flow: Flow, departure: Departure, seat: Seat) -> Step:
    """Leave with a window whose calls are each sent by their own caller. Who closed it tells of it first."""
    if departure.sender is seat and departure.outcome is None:
        with flow.call.watched.sending():
            told(flow, departure, departure.members, BatchMode.RELEASED).event(BatchEnded(0.0))
        flow.engine.state.windows.release(departure, flow.ports.now())
    flow.call.batch_mode = BatchMode.RELEASED
    batched(flow, departure, seat, len(departure.members))
    seat.vacate()
    return PROCEED


def _observed(flow: Flow, seat: Seat, *, merged: bool) -> Step:
    """Say what a window would have done, and go on."""
    if seat.window is not None:
        mode = BatchMode.MERGED if merged else BatchMode.RELEASED
        trigger = seat.window.trigger or BatchTrigger.TIME
        flow.call.watched.event(Batched(mode, trigger, 0.0, len(seat.window.members), observed=True))
        release_seat(flow, fault=True)
    return PROCEED


def _patience(flow: Flow, seat: Seat) -> float:
    """Until when a member waits for who sends: all four of its own timeouts, for a request takes no
    longer."""
    assert seat.departure is not None  # noqa: S101 who waits for a sender has left with it
    bounds = [bound for bound in flow.ports.timeouts if bound is not None]
    return seat.departure.at + (sum(bounds) if bounds else flow.engine.settings.coalesce.wait_timeout)


def _overdue(flow: Flow, seat: Seat, now: float) -> Step | None:
    """Nobody waits without a bound: after it the call goes alone."""
    if now < _patience(flow, seat):
        return None
    release_seat(flow, fault=False)
    return PROCEED


def release_seat(flow: Flow, *, fault: bool) -> None:
    """The call ends without a body of its own: whoever counts on it goes on."""
    seat, flow.seat = flow.seat, None
    if seat is not None:
        flow.engine.state.windows.leave(seat, flow.ports.now(), fault=fault)
        seat.vacate()
