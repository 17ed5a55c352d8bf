"""The coalesce stage: lead, follow, or wait for the entry that a lead elsewhere will store.

A call that is asked again after a wait finds its way by what the flow remembers: whom it followed, and since
when.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.core.cache import Found, plan_lookup
from underlay.pipeline.flights import Fate
from underlay.pipeline.flow import PROCEED, Join, Reply, Wait
from underlay.pipeline.reader import Body, Reader
from underlay.pipeline.replies import stored_reply
from underlay.settings import Mode
from underlay.stores.store import Held, Lease
from underlay.telemetry.attributes import CacheResult, Verdict
from underlay.telemetry.events import Coalesced

if TYPE_CHECKING:
    from underlay.pipeline.flights import Lead
    from underlay.pipeline.flow import Flow, Step
    from underlay.pipeline.ports import Mishap, Timeouts

__all__ = ["coalesce", "joined", "release_lead"]

# A member is slow to reach through its class (CPython 3.11), and every call asks.
_OBSERVE, _ENFORCE = Mode.OBSERVE, Mode.ENFORCE
_SENDING, _APART, _GONE = Fate.SENDING, Fate.APART, Fate.GONE
_COALESCED, _REFUSED = CacheResult.COALESCED, CacheResult.REFUSED

_COLLAPSED = (b"cache-status", b"underlay; fwd=miss; collapsed")  # RFC 9211
# The place in `Timeouts` of what each exception ran out of.
_TIMEOUTS = {"ConnectTimeout": 0, "ReadTimeout": 1, "WriteTimeout": 2, "PoolTimeout": 3}


async def coalesce(flow: Flow) -> Step:
    """Read the answer that an identical call is fetching, or fetch it for all who come meanwhile."""
    asked, flights = flow.asked, flow.engine.state.flights
    if not asked.key or asked.directives.no_store or asked.directives.no_cache:
        return PROCEED
    mode = flow.engine.settings.coalesce.mode
    if mode is not _ENFORCE:
        if mode is _OBSERVE:
            _observe(flow)
        return PROCEED
    if flow.following is not None:
        step = _outcome(flow, flow.following)
        if step is not None:
            return step
        flow.following = None
    while flow.lead is None:
        call = flow.call
        lead = flights.enter(call, asked.key, flow.ports)
        if lead is call:
            flow.lead = call
            if flow.since is not None:
                call.last = flow.ports.now()  # who has waited for another begins now
        # An answer may have landed between the look into the store and this.
        if flow.looked != flights.landings and (reply := await _landed(flow)) is not None:
            return reply
        if lead is not call and (step := _follow(flow, lead)) is not None:
            return step
    # In the store of this process a lease is needed only where two homes meet: whoever comes second takes it.
    company = flow.lead.company
    if flights.shared or (company is not None and company.contended):
        return await _lease(flow, flow.lead)
    return PROCEED


def _observe(flow: Flow) -> None:
    """Say whom this call would have followed; others would have followed it where there is nobody."""
    call = flow.call
    lead = flow.engine.state.flights.enter(call, flow.asked.key, flow.ports)
    if lead is call:
        flow.lead = lead
    else:
        flow.call.watched.event(Coalesced(lead.watched.origin(), 0.0, observed=True))


def _follow(flow: Flow, lead: Lead) -> Step | None:
    """Follow that lead of this home. None: it has just ended, and the call is to enter anew."""
    # Who asks from inside of a function that leads is part of that call, and must not wait for it. What a
    # client sends from inside of a send never comes here: the seam lets it pass.
    if lead.outcome is _SENDING and flow.ports.inside(lead.ports):
        return PROCEED
    if flow.since is None:
        flow.since = flow.ports.now()
    flow.following = lead
    step = _outcome(flow, lead)
    if step is None:
        flow.following = None
    return step


def _outcome(flow: Flow, lead: Lead) -> Step | None:
    """What a follower does by its lead's outcome. None: ask anew."""
    if lead.outcome is _SENDING:
        waiter = flow.engine.state.flights.wait(lead, flow.ports)
        if waiter is not None:
            return _overdue(flow, lead) or Wait(waiter, _limit(flow, lead))
    outcome = lead.outcome
    if isinstance(outcome, Exception):
        if _impatient(lead, outcome, flow.ports.timeouts):
            return None
        flow.call.result = _COALESCED
        flow.foreign = flow.ports.adopt(outcome)
        raise flow.foreign
    if isinstance(outcome, Fate):
        return PROCEED if outcome is _APART else None
    return Join(lead)


def _overdue(flow: Flow, lead: Lead) -> Step | None:
    """The wait is over and the lead has no head yet: the caller's own read timeout, where it has one."""
    if flow.ports.now() < _limit(flow, lead):
        return None
    _stop_following(flow, lead)
    if flow.ports.timeouts.read is None:
        return PROCEED
    flow.call.result = _COALESCED
    flow.foreign = flow.ports.timed_out()
    raise flow.foreign


def _stop_following(flow: Flow, lead: Lead) -> None:
    flow.engine.state.flights.leave(lead, flow.ports)
    flow.following = None  # last: who is interrupted before leaves again


def _limit(flow: Flow, lead: Lead) -> float:
    read = flow.ports.timeouts.read
    assert flow.since is not None  # noqa: S101 who follows has a beginning
    patience = flow.engine.settings.coalesce.wait_timeout if read is None else read
    return max(flow.since, lead.alive()) + patience


def _impatient(lead: Lead, error: Exception, mine: Timeouts) -> bool:
    """Whether the lead failed by a timeout of its own that is shorter than the follower's."""
    place = _TIMEOUTS.get(type(error).__name__)
    if place is None:
        return False
    theirs, own = lead.ports.timeouts[place], mine[place]
    return theirs is not None and (own is None or own > theirs)


async def _landed(flow: Flow) -> Reply | None:
    """The entry that was stored since this call looked into the cache, as its reply."""
    engine = flow.engine
    flow.looked = engine.state.flights.landings
    return await _from_store(flow) if engine.settings.llm_cache.mode is _ENFORCE else None


async def _from_store(flow: Flow) -> Reply | None:
    now = flow.ports.now()
    found = plan_lookup(await flow.ports.load(flow.asked.key), now, flow.asked.directives)
    if not isinstance(found, Found):
        return None
    entry = found.entry
    flow.call.result = _COALESCED
    flow.call.stream = entry.stream
    flow.call.saved = (entry.cost_usd, entry.usage)
    flow.call.watched.event(Coalesced(entry.origin, 0.0 if flow.since is None else now - flow.since))
    return stored_reply(flow, found)


async def _lease(flow: Flow, lead: Lead) -> Step:
    """Lead in this home; elsewhere somebody may be fetching the same, so take the lease or wait, bounded, for
    the entry."""
    engine, ports = flow.engine, flow.ports
    if engine.settings.llm_cache.mode is not _ENFORCE or not engine.state.flights.meet(lead).leases:
        return PROCEED
    if flow.elsewhere is not None:
        _stop_waiting(flow, lead)
        if (reply := await _from_store(flow)) is not None:
            return reply
    ttl, poll = engine.settings.coalesce.wait_timeout, ports.poll
    await _lend(flow, lead, ttl)
    leased = await ports.lease(lead.key, ttl)
    if not isinstance(leased, Held):
        return await _taken(flow, lead, leased, ttl)
    now = ports.now()
    if flow.since is None:
        flow.since = now
    limit = min(flow.since + min(ttl, ports.timeouts.read or ttl), leased.until)
    flights = engine.state.flights
    if now >= limit or not ports.patient or flights.leads_here(lead.key, ports.home):
        return PROCEED
    flow.elsewhere = flights.wait_elsewhere(lead.key, ports)
    if poll is None and not isinstance(again := await ports.lease(lead.key, ttl), Held):
        # It landed before the waiter was there to be woken.
        _stop_waiting(flow, lead)
        return await _taken(flow, lead, again, ttl)
    return Wait(flow.elsewhere, limit if poll is None else min(limit, now + poll))


async def _lend(flow: Flow, lead: Lead, ttl: float) -> None:
    """Take the lease for the call of another home that came first, and met nobody: for as long as it would
    have had it by now, had it taken one. One that has been silent for longer is waited for no more."""
    flights, ports = flow.engine.state.flights, flow.ports
    rival = flights.rival(lead)
    if rival is None or rival.token:
        return
    left = rival.alive() + ttl - ports.now()
    if left <= 0:
        return
    leased = await ports.lease(lead.key, left)
    if isinstance(leased, Lease) and not flights.lend(rival, leased.token, rival.alive() + ttl / 2):
        ports.free(lead.key, leased.token)


async def _taken(flow: Flow, lead: Lead, lease: Lease | None, ttl: float) -> Step:
    """This call has the key, or the store cannot say. Who had it before may have stored its answer since this
    call looked."""
    if lease is None:
        return PROCEED
    company = flow.engine.state.flights.meet(lead)
    company.token, company.renew_at = lease.token, flow.ports.now() + ttl / 2
    return await _from_store(flow) or PROCEED


def _stop_waiting(flow: Flow, lead: Lead) -> None:
    waiter, flow.elsewhere = flow.elsewhere, None
    flow.engine.state.flights.leave_elsewhere(lead.key, waiter)


async def joined(flow: Flow, lead: Lead) -> Reply | None:
    """The reply of a follower, once the first bytes are there. None: the answer can be joined no more, or was
    given up before this caller had a byte; ask anew."""
    body, ports = lead.outcome, flow.ports
    assert isinstance(body, Body)  # noqa: S101 only a lead that was answered is joined
    head = body.head
    assert head is not None  # noqa: S101 it came from a provider
    try:
        reader = Reader.joining(body, flow.call, ports)
        has_bytes = reader is not None and await _primed(flow, body, reader)
    finally:
        _stop_following(flow, lead)
    if reader is None:
        flow.engine.state.flights.forget(lead)
    if reader is None or not has_bytes:
        return None
    now = ports.now()
    flow.call.status = head.status
    flow.call.watched.event(
        Coalesced(lead.watched.origin(), now - (flow.since if flow.since is not None else flow.call.started))
    )
    return Reply(head.status, [*head.headers, _COLLAPSED], reader)


async def _primed(flow: Flow, body: Body, reader: Reader) -> bool:
    """Whether the reader has its first bytes, or the end."""
    call = flow.call
    alone, call.result, call.stream = call.result, _COALESCED, body.stream
    try:
        if await reader.prime():
            return True
    except BaseException as error:
        flow.foreign, flow.ports.sent = error, True  # no request leaves for it any more
        raise
    call.result = alone
    return False


def release_lead(flow: Flow, error: BaseException | None, mishap: Mishap | None) -> None:
    """The call ends, and no body of it can be joined: say so to those who wait for it.

    `error` is what the app's own transport raised, or None: the call was answered or refused without one, or
    a fault of ours made it pass.
    """
    if flow.following is not None:  # given up while it waited for a head
        _stop_following(flow, flow.following)
    lead, flights, ports = flow.lead, flow.engine.state.flights, flow.ports
    if lead is None and mishap is not None and flow.call is not None:
        lead = flights.struck(flow.call)  # as it entered
    if lead is None:
        return
    if lead.outcome is not _SENDING:
        if mishap is not None:
            flights.tell(lead)  # once more: who was struck may not have come to it
        return
    if flow.elsewhere is not None:
        _stop_waiting(flow, lead)
    if isinstance(error, Exception) and mishap is not None and mishap.verdict is Verdict.FAILURE:
        # Not the exception itself: its frames lead back to the lead.
        flights.ended(lead, ports.adopt(error), ports)
    elif error is None and flow.call is not None and flow.call.result is _REFUSED:
        flights.ended(lead, _APART, ports)
    else:
        flights.ended(lead, _GONE, ports)
