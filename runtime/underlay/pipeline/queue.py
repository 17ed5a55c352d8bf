"""The queue stage: windows of calls that leave together.

Calls that can be merged share one upstream request. Others are released together and each is sent by its own
caller, under `linger: fixed` alone.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from underlay.core.batching import Released, Rule
from underlay.core.key import scope_of, sort_headers
from underlay.pipeline.fill import filled
from underlay.pipeline.flow import PROCEED, Wait
from underlay.pipeline.merge import batched, dispatch, own_place, resolved, told
from underlay.pipeline.windows import Place, Waiting
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
_NEVER = math.inf
_OFF, _OBSERVE = Mode.OFF, Mode.OBSERVE


async def queue(flow: Flow) -> Step:
    """Wait in a window where there is one for this call, and leave with it."""
    settings = flow.engine.settings.llm_batch
    if settings.mode is _OFF:
        return PROCEED
    if not flow.asked.window and settings.linger != "fixed":
        return PROCEED
    if flow.singles:
        singles, flow.singles = flow.singles, {}
        if (step := await filled(flow, singles)) is not None:
            return step
    if flow.seat is None:
        if _goes_alone(flow):
            return PROCEED
        if settings.mode is _OBSERVE:
            return _observed(flow)
    place, now = own_place(flow), flow.ports.now()
    stand = flow.engine.state.windows.look(place, now)
    if isinstance(stand, Waiting):
        if stand.until is not None:
            return Wait(stand.waiter, stand.until)
        return _overdue(flow, place, now) or Wait(stand.waiter, _patience(flow, place))
    if not flow.asked.window:
        return _released(flow, stand, place)
    return await (dispatch(flow, stand) if stand.sender is place else resolved(flow, stand))


def _goes_alone(flow: Flow) -> bool:
    """Give the call its seat. True: it goes by itself; False: it has a place in a window."""
    asked, ports, windows = flow.asked, flow.ports, flow.engine.state.windows
    key: Hashable
    if asked.window:
        key = (ports.home, asked.window, ports.timeouts, _payer(flow) if flow.engine.namespaced else b"")
    else:
        key = (ports.home, asked.circuit, asked.ask.operation)
    deadline = _asked_deadline(flow) if asked.controlled else _NEVER
    call = flow.seat = flow.call
    if windows.go_alone(call, key):
        return True
    rule = _rule(flow)
    place = flow.seat = _place(flow, rule, deadline)
    turned_away = windows.enter(place, key, rule, asked.circuit)
    if turned_away is not None:
        flow.seat = turned_away
    return turned_away is not None


def _payer(flow: Flow) -> bytes:
    """Whose credential a merged request would leave with. Without a namespace it is in the window's key; a
    namespace shares answers between credentials, and never what is asked with them."""
    return scope_of(flow.engine.secret, sort_headers(flow.exchange.headers).credentials, None)


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


def _place(flow: Flow, rule: Rule, deadline: float) -> Place:
    """A place for this call: how much of a window it takes, and until when it may wait."""
    place = Place(flow.call, flow.exchange, flow.ports)
    inputs, read = flow.asked.ask.inputs, flow.ports.timeouts.read
    if flow.asked.window and inputs is not None:
        place.inputs, place.tokens = inputs.count, inputs.tokens
    place.deadline = min(flow.ports.deadline, deadline)
    if read is not None and read < rule.longest:
        place.deadline = min(place.deadline, flow.ports.now() + read)
    return place


def _asked_deadline(flow: Flow) -> float:
    """The caller's own word, `underlay-deadline`: seconds from its start in which the answer is of use."""
    for name, value in flow.exchange.headers:
        if name.lower() == _DEADLINE:
            try:
                seconds = float(value)
            except ValueError:
                seconds = math.nan
            if seconds > 0:
                return flow.call.started + seconds
            _log.warning(
                "underlay: header underlay-deadline = %r: allowed is a number of seconds above 0; ignored",
                value[:40].decode("latin-1"),
            )
    return math.inf


def _released(flow: Flow, departure: Departure, place: Place) -> Step:
    """Leave with a window whose calls are each sent by their own caller. Who closed it tells of it first."""
    if departure.sender is place and departure.outcome is None:
        with flow.call.watched.sending():
            told(flow, departure, departure.members, BatchMode.RELEASED).event(BatchEnded(0.0))
        flow.engine.state.windows.release(departure, flow.ports.now())
    flow.call.batch_mode = BatchMode.RELEASED
    batched(flow, departure, place, len(departure.members))
    flow.call.lane = Released(departure.lane)
    flow.seat = flow.call
    place.vacate()
    return PROCEED


def _observed(flow: Flow) -> Step:
    """Say what its window would have done, and go on."""
    window = own_place(flow).window
    assert window is not None  # noqa: S101 it has just entered
    mode = BatchMode.MERGED if flow.asked.window else BatchMode.RELEASED
    trigger = window.trigger or BatchTrigger.TIME
    flow.call.watched.event(Batched(mode, trigger, 0.0, len(window.members), observed=True))
    release_seat(flow, fault=True)
    return PROCEED


def _patience(flow: Flow, place: Place) -> float:
    """Until when a member waits for who sends: all four of its own timeouts, for a request takes no
    longer."""
    assert place.departure is not None  # noqa: S101 who waits for a sender has left with it
    bounds = [bound for bound in flow.ports.timeouts if bound is not None]
    return place.departure.at + (sum(bounds) if bounds else flow.engine.settings.coalesce.wait_timeout)


def _overdue(flow: Flow, place: Place, now: float) -> Step | None:
    """Nobody waits without a bound: after it the call goes alone."""
    if now < _patience(flow, place):
        return None
    release_seat(flow, fault=False)
    return PROCEED


def release_seat(flow: Flow, *, fault: bool) -> None:
    """The call ends without a body of its own: whoever counts on it goes on."""
    seat, flow.seat = flow.seat, None
    if seat is not None:
        flow.engine.state.windows.leave(seat, flow.ports.now(), fault=fault)
        if isinstance(seat, Place):
            seat.vacate()
