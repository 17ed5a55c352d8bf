"""The life of a call, from a candidate request to its reply.

    recognise -> call -> policy -> cache -> coalesce -> circuit -> budget -> queue -> attempt -> (stream ->
    record, as the body is read)

Never break the app: a fault of ours before the send lets the request go upstream unchanged; after the send,
the upstream reply is handed over and only the book-keeping is lost. Nothing is ever sent twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.core.flight import Flight
from underlay.pipeline.attempt import Attempt
from underlay.pipeline.call import Call
from underlay.pipeline.coalesce import joined, release_lead
from underlay.pipeline.flow import PROCEED, Flow, Join, Reply, Wait
from underlay.pipeline.ports import Exchange, Mishap
from underlay.pipeline.queue import release_seat
from underlay.pipeline.reader import Body, Reader
from underlay.pipeline.recognise import recognise
from underlay.pipeline.replies import admit, refuse
from underlay.pipeline.stages import STAGES
from underlay.settings import Mode
from underlay.telemetry.attributes import Ending, Stage, Verdict
from underlay.telemetry.events import CallStarted, Paced

if TYPE_CHECKING:
    from underlay.pipeline.engine import Engine
    from underlay.pipeline.flow import Step
    from underlay.pipeline.ports import Ports
    from underlay.providers.recognise import Candidate

__all__ = ["perform"]

# A member is slow to reach through its class (CPython 3.11), and every call asks.
_COMPLETE = Ending.COMPLETE
_CALL, _ATTEMPT = Stage.CALL, Stage.ATTEMPT
_OFF = Mode.OFF

_TOLD = 0.001  # seconds: a shorter wait of a thread is the processor's and nobody's news

# A fault of ours says nothing about the provider, of whatever class it is.
_OURS = Mishap(_COMPLETE, Verdict.NOTHING, "")


async def perform(engine: Engine, exchange: Exchange, candidate: Candidate, ports: Ports) -> Reply:
    """Carry one request through the stages. Raises only what the app's own transport raised, or the caller's
    own cancellation."""
    flow = Flow(engine, exchange, ports)
    try:
        engine.settle_dropped()
        asked = recognise(exchange, candidate, engine.settings.llm_cache, engine.secret, engine.state.memo)
        if asked is None:
            return await _untouched(flow)
        flow.asked = asked
        flow.stage = _CALL
        _open(flow)
        reply = await _answer(flow)
        if reply.upstream is None:
            _release(flow, None, None)  # answered without an upstream body of its own
        return reply
    except BaseException as error:  # noqa: BLE001 sorted out below; what is not ours is raised again
        caught = error
    # Outside the handler: what the app's transport raises from here on must not carry a fault of ours.
    try:
        return await _rescue(flow, caught)
    except (KeyboardInterrupt, SystemExit) as error:
        if error is not caught:  # it came as the books were being closed: what it struck is done again
            await _let_go(flow)
            _close_books(flow, error, theirs=True)
        raise
    finally:
        # An exception whose frames lead back to it would live until the next collection, with all it holds.
        del caught
        flow.foreign = None


async def _answer(flow: Flow) -> Reply:
    for stage, step in STAGES:
        flow.stage = stage
        answer = await step(flow)
        while answer is not PROCEED:
            reply = await _acted(flow, answer)
            if reply is not None:
                return reply
            answer = await step(flow)
    flow.stage = _ATTEMPT
    return await _attempt(flow)


def _open(flow: Flow) -> None:
    asked, exchange = flow.asked, flow.exchange
    ask = asked.ask
    started = CallStarted(
        asked.circuit.provider,
        ask.operation,
        ask.model,
        ask.stream,
        exchange.host,
        exchange.port,
        ask.parameters,
    )
    call = flow.call = Call(flow.engine.watch.start(started), flow.ports.now())
    call.stream = ask.stream


async def _acted(flow: Flow, answer: Step) -> Reply | None:
    """The reply, or None: the stage is to be asked again."""
    if isinstance(answer, Reply):
        return answer
    if isinstance(answer, Wait):
        try:
            await flow.ports.wait(answer.waiter, answer.until)
        except BaseException as error:  # nothing of ours runs here: it is the app's, a time limit say
            flow.foreign, flow.ports.sent = error, True  # no request leaves for it any more
            raise
        return None
    assert isinstance(answer, Join)  # noqa: S101 the union is closed
    return await joined(flow, answer.lead)


async def _attempt(flow: Flow) -> Reply:
    """Wait for the turn, take a permit, send, and hand over a body whose books are kept as it is read."""
    engine, ports, call, asked = flow.engine, flow.ports, flow.call, flow.asked
    if engine.state.pacing.holds(ports):
        await _turn(flow)
    refusal = admit(flow)
    if refusal is not None:
        answer = refuse(flow, refusal)
        assert isinstance(answer, Reply)  # noqa: S101 a breaker that observes admits
        return answer
    attempt = flow.attempt = Attempt(engine, asked, call.watched, flow.permit, flow.tried + 1, ports.now())
    try:
        with call.watched.sending():
            outgoing = _outgoing(flow.exchange) if asked.controlled else None
            upstream = flow.upstream = await ports.send(outgoing)
    except BaseException as error:
        if ports.sent:
            flow.foreign = error
        raise
    finally:
        if ports.waited >= _TOLD:
            attempt.left += ports.waited
            call.watched.event(Paced(ports.waited))
    call.status = upstream.status
    attempt.answered(upstream)
    call.stream = attempt.stream
    body = Body(engine, Flight(_cap(flow)), upstream, attempt, asked.key)
    reader = flow.reader = Reader(body, call, ports)
    body.seat = flow.seat  # type: ignore[assignment]  # who is sent by itself has no place any more
    lead = flow.lead
    if lead is not None:
        body.lead = lead
        lead.outcome = body  # and that is all where nobody waits, as for almost every call
        if lead.company is not None:
            engine.state.flights.answered(lead, body)
    return Reply(upstream.status, upstream.headers, reader, upstream)


async def _turn(flow: Flow) -> None:
    """Wait for the turn to be sent. Meanwhile nobody who follows this call has a reason to lose patience."""
    pacing, flights, ports, lead = flow.engine.state.pacing, flow.engine.state.flights, flow.ports, flow.lead
    if lead is not None:
        flights.held(lead, ports.now() + pacing.patience)
    await pacing.turn(ports, flow.call.watched)
    if lead is not None:
        flights.sent(lead, ports.now())


def _cap(flow: Flow) -> int:
    """Bytes of an answer that are held, for the store and for those who join."""
    settings = flow.engine.settings
    kept = settings.llm_cache.mode is not _OFF or flow.lead is not None
    return settings.llm_cache.max_entry_bytes if flow.asked.key and kept else 0


def _outgoing(exchange: Exchange) -> Exchange | None:
    """None: the request as the caller made it. Our own control headers never leave the process."""
    if not any(name[:9].lower() == b"underlay-" for name, _ in exchange.headers):
        return None
    kept = [(name, value) for name, value in exchange.headers if name[:9].lower() != b"underlay-"]
    return Exchange(
        exchange.method, exchange.scheme, exchange.host, exchange.port, exchange.target, kept, exchange.body
    )


async def _untouched(flow: Flow) -> Reply:
    """Let the request pass: it is not ours, or a fault of ours stands in its way."""
    try:
        upstream = flow.upstream = await flow.ports.send(_outgoing(flow.exchange))
    except BaseException as error:
        if flow.ports.sent:
            flow.foreign = error
        raise
    return Reply(upstream.status, upstream.headers, None, upstream)


async def _rescue(flow: Flow, error: BaseException) -> Reply:
    """Tell the app's own exceptions from faults of ours, close the books, and keep the call alive."""
    theirs = flow.foreign is error or not isinstance(error, Exception)
    if not theirs:
        flow.engine.faults.report(flow.stage, error)
    if not isinstance(error, Exception | GeneratorExit):
        await _let_go(flow)
    _close_books(flow, error, theirs=theirs)
    if theirs:
        try:
            raise error
        finally:
            del error
    if flow.upstream is not None:
        return Reply(flow.upstream.status, flow.upstream.headers, None, flow.upstream)
    return await _untouched(flow)


async def _let_go(flow: Flow) -> None:
    """The head came, and an interrupt with it: nobody is given what it belongs to."""
    if flow.reader is not None:
        await flow.reader.close()
    else:
        await flow.ports.let_go()


def _close_books(flow: Flow, error: BaseException, *, theirs: bool) -> None:
    now = flow.ports.now()
    try:
        mishap = flow.ports.describe(error) if theirs else _OURS
        if flow.attempt is not None:
            if flow.reader is None:  # else its body closes them
                flow.attempt.failed(mishap, now)
        elif flow.permit is not None:
            flow.engine.state.circuits.settle(flow.asked.circuit, flow.permit, mishap.verdict, now, b"")
        if flow.call is not None:
            flow.call.end(mishap.ending, now, mishap.name)
        _release(flow, error if theirs else None, mishap, fault=not theirs)
    except Exception as fault:  # noqa: BLE001 never break the app
        flow.engine.faults.report(Stage.RECORD, fault)


def _release(flow: Flow, error: BaseException | None, mishap: Mishap | None, *, fault: bool = False) -> None:
    """Nobody waits for a call that has ended without a body. Idempotent."""
    try:
        release_seat(flow, fault=fault)
    finally:
        release_lead(flow, error, mishap)
