"""The dispatch of a merged window: one request for its members, sent in the call of one of them.

Each member makes its own reply of its part, in its own call: its books, its entry in the store, its
followers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.core.decode import decoder
from underlay.core.flight import Flight
from underlay.pipeline.attempt import Attempt
from underlay.pipeline.flow import PROCEED, Reply
from underlay.pipeline.ports import Exchange, Mishap, Upstream
from underlay.pipeline.reader import Body, Reader
from underlay.pipeline.replies import admit, finished, refuse
from underlay.pipeline.windows import Apart, Failed, Place, Refused, Shares
from underlay.telemetry.attributes import BatchMode, Ending, Stage, Verdict
from underlay.telemetry.events import Batched, BatchEnded, BatchStarted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from underlay.pipeline.flow import Flow, Step
    from underlay.pipeline.ports import Ports
    from underlay.pipeline.watch import WatchedDispatch
    from underlay.pipeline.windows import Departure, Outcome

__all__ = [
    "MergeError",
    "altered",
    "batched",
    "decoded",
    "dispatch",
    "fetch",
    "own_place",
    "plain_headers",
    "resolved",
    "share",
    "told",
    "unread",
]

# Of one request or one reply: they do not fit the merged request, or a part of its reply.
_REQUEST_ONLY = frozenset((b"content-length", b"transfer-encoding", b"idempotency-key", b"x-idempotency-key"))
_REPLY_ONLY = frozenset((b"content-length", b"transfer-encoding", b"content-encoding"))
_LIMIT = 64 * 1024 * 1024  # bytes of a merged reply that is read; the largest of the known providers is 25 MB


class MergeError(Exception):
    """A merged reply does not fit its members. Counted as a fault; each of them sends by itself."""


async def dispatch(flow: Flow, departure: Departure) -> Step:
    """Send for all, and take the sender's own part."""
    windows, ports = flow.engine.state.windows, flow.ports
    places = windows.compose(departure)
    if len(places) == 1:
        return _lone(flow, departure)
    try:
        request = _merged(flow, places)
    except Exception as error:  # noqa: BLE001 never break the app: the members are sent apart
        flow.engine.faults.report(Stage.QUEUE, error)
        windows.resolve(departure, Apart(), ports.now(), None)
        return await resolved(flow, departure)
    refusal = admit(flow)
    if refusal is not None:
        windows.resolve(departure, Refused(refusal), ports.now(), None)
        return refuse(flow, refusal)
    flow.call.batch_mode = BatchMode.MERGED
    started = ports.now()
    flow.attempt = Attempt(flow.engine, flow.asked, flow.call.watched, flow.permit, flow.tried + 1, started)
    try:
        with flow.call.watched.sending():
            outcome = await _sent(flow, departure, places, request)
    except Exception as error:
        if flow.foreign is error:
            batched(flow, departure, own_place(flow), len(places))
            # A copy: the frames of what is raised here lead back to the departure.
            windows.resolve(departure, Failed(ports.adopt(error)), ports.now(), None)
        raise
    now = ports.now()
    answered = isinstance(outcome, Shares) and outcome.status == 200
    windows.resolve(departure, outcome, now, now - started if answered else None)
    return await resolved(flow, departure)


def _lone(flow: Flow, departure: Departure) -> Step:
    """Everybody else has left, or nobody came. A window of the fixed linger counts as one all the same."""
    place = own_place(flow)
    if departure.rule.linger == "fixed":
        with flow.call.watched.sending():
            told(flow, departure, [place], BatchMode.ALONE).event(BatchEnded(0.0))
        batched(flow, departure, place, 1)
    flow.call.lane = departure.lane  # as the window's dispatch, which is counted
    flow.seat = flow.call
    place.vacate()
    return PROCEED


def own_place(flow: Flow) -> Place:
    """The place of a call that does not go alone."""
    assert isinstance(flow.seat, Place)  # noqa: S101 who goes alone has left this stage
    return flow.seat


def _merged(flow: Flow, places: Sequence[Place]) -> Exchange:
    """The one request for all."""
    merger = flow.asked.dialect.merger
    assert merger is not None  # noqa: S101 only mergeable calls are merged
    return altered(flow.exchange, merger.merge([place.exchange.body for place in places]))


async def _sent(flow: Flow, departure: Departure, places: Sequence[Place], request: Exchange) -> Outcome:
    """What came of it. Raises what the app's own transport raised."""
    started = flow.ports.now()
    handle = told(flow, departure, places, BatchMode.MERGED)
    try:
        with handle.sending():
            status, headers, body = await fetch(flow, request)
    except BaseException as error:
        handle.event(BatchEnded(flow.ports.now() - started, None, flow.ports.describe(error).name))
        raise
    outcome = _read(flow, status, headers, body, [place.exchange.body for place in places])
    apart = isinstance(outcome, Apart)
    kind = str(status) if status >= 400 else "not_split" if apart else ""
    handle.event(BatchEnded(flow.ports.now() - started, status, kind, apart))
    return outcome


def altered(mine: Exchange, body: bytes) -> Exchange:
    """The sender's own request with another body. The reply must be one that can be read here."""
    headers = [
        (name, b"gzip, deflate" if name.lower() == b"accept-encoding" else value)
        for name, value in mine.headers
        if name.lower() not in _REQUEST_ONLY and name[:9].lower() != b"underlay-"
    ]
    return Exchange(mine.method, mine.scheme, mine.host, mine.port, mine.target, headers, body)


async def fetch(flow: Flow, request: Exchange) -> tuple[int, Sequence[tuple[bytes, bytes]], bytes]:
    """Send, read the whole reply, and leave the ports as if nothing had been sent: the reply is not this
    caller's alone."""
    ports = flow.ports
    try:
        upstream = await ports.send(request)
        body = await _read_all(ports, upstream)
    except BaseException as error:
        flow.foreign = error
        ports.forget()
        ports.sent = True
        raise
    ports.forget()
    return upstream.status, upstream.headers, body


async def _read_all(ports: Ports, upstream: Upstream) -> bytes:
    frames: list[bytes] = []
    try:
        while (frame := await ports.pull(upstream)) is not None:
            frames.append(frame)
    finally:
        await ports.close(upstream)
    return b"".join(frames)


def _read(
    flow: Flow,
    status: int,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    bodies: Sequence[bytes],
) -> Outcome:
    """Each member's part, or the same refusal for all. A request that was refused as a whole for one of its
    inputs is sent apart, so that only the guilty fails."""
    flow.call.status = status
    try:
        plain = decoded(headers, body)
        if status == 429 or not 200 <= status < 500:
            return Shares(status, headers, [plain] * len(bodies))
        if status < 300:
            merger = flow.asked.dialect.merger
            parts = merger.split(plain, bodies) if merger is not None else None
            if parts is not None:
                return Shares(status, headers, parts)
            raise MergeError("the reply does not fit the inputs")
    except Exception as error:  # noqa: BLE001 never break the app: the members are sent apart
        flow.engine.faults.report(Stage.QUEUE, error)
    unread(flow, status, headers, body)
    return Apart()


def plain_headers(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of a reply for a body in plain that is not the one that came with them."""
    kept = [header for header in headers if header[0].lower() not in _REPLY_ONLY]
    return [*kept, (b"content-length", b"%d" % len(body))]


def unread(flow: Flow, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
    """A reply that answers nobody is in the books as what it was; what comes now is another attempt."""
    attempt = flow.attempt
    assert attempt is not None  # noqa: S101 it was sent
    attempt.answered(Upstream(status, headers))
    attempt.feed(body)
    attempt.finish(Ending.CLOSED, flow.ports.now(), Flight(0))
    flow.attempt, flow.permit = None, None
    flow.tried += 1


def decoded(headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes:
    """The body in plain. Raises MergeError for a coding that cannot be read here."""
    coding = next((value for name, value in headers if name.lower() == b"content-encoding"), b"")
    if not coding or coding.lower() == b"identity":
        return body
    reading = decoder(coding.decode("latin-1"))
    plain = reading.decode(body) if reading is not None else b""
    if reading is None or reading.failed or reading.lost or len(plain) > _LIMIT:
        raise MergeError(f"a reply in {coding.decode('latin-1')[:20]} cannot be read here")
    return plain


async def resolved(flow: Flow, departure: Departure) -> Step:
    """What the dispatch means for this member."""
    outcome, place = departure.outcome, own_place(flow)
    assert outcome is not None  # noqa: S101 asked only when it is known
    flow.seat = None
    place.vacate()
    if isinstance(outcome, Refused):
        return refuse(flow, outcome.refusal)
    if isinstance(outcome, Apart) or place.number is None:
        flow.call.batch_mode = BatchMode.ALONE
        return PROCEED
    flow.call.batch_mode = BatchMode.MERGED
    batched(flow, departure, place, len(departure.sent))
    if isinstance(outcome, Failed):
        flow.foreign = flow.ports.adopt(outcome.error)
        raise flow.foreign
    body = outcome.bodies[place.number]
    if flow.attempt is None:
        flow.attempt = Attempt(flow.engine, flow.asked, flow.call.watched, None, 1, departure.at, sent=False)
    return await share(flow, outcome.status, outcome.headers, body, body)


async def share(
    flow: Flow, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, told: bytes
) -> Reply:
    """The reply of one caller out of one that was not its alone, and its books: `told` is what the provider
    said, for usage and cost. A fault of ours costs the books and not the answer."""
    attempt, kept = flow.attempt, plain_headers(headers, body)
    assert attempt is not None  # noqa: S101 what is shared was sent
    try:
        reader = await _booked(flow, attempt, Upstream(status, kept), body, told)
    except Exception as error:  # noqa: BLE001 never break the app
        flow.engine.faults.report(Stage.RECORD, error)
        attempt.failed(Mishap(Ending.COMPLETE, Verdict.NOTHING, ""), flow.ports.now())
        return finished(flow, status, kept, (body,))
    return Reply(status, kept, reader)


async def _booked(flow: Flow, attempt: Attempt, head: Upstream, body: bytes, told: bytes) -> Reader:
    """A reader of this body, whose books are closed and which is stored."""
    attempt.answered(head)
    attempt.feed(told)
    flow.call.status = head.status
    flight = Flight(flow.engine.settings.llm_cache.max_entry_bytes)
    shared = Body(flow.engine, flight, head, attempt, flow.asked.key, open_=False)
    reader = Reader(shared, flow.call, flow.ports)
    flight.pulled(body)
    if flow.lead is not None:
        shared.lead = flow.lead
        flow.engine.state.flights.answered(flow.lead, shared)
    await shared.conclude(flow.ports)
    return reader


def told(flow: Flow, departure: Departure, places: Sequence[Place], mode: BatchMode) -> WatchedDispatch:
    """Tell the listeners that a window leaves, in the context of the call that sends. Its members are told
    where to find it."""
    rule, asked = departure.rule, flow.asked
    inputs = sum([place.inputs for place in places])
    by_calls = mode is BatchMode.RELEASED or rule.linger == "fixed"
    handle = flow.engine.watch.dispatch(
        BatchStarted(
            asked.circuit.provider,
            asked.ask.operation,
            asked.circuit.model,
            mode,
            departure.trigger,
            tuple([place.call.watched.origin() for place in places]),
            inputs,
            len(places) if by_calls else inputs,
            rule.members if by_calls else rule.inputs,
            max(0.0, departure.at - departure.opened),
            departure.told,
        )
    )
    departure.told = True
    departure.origin = handle.origin()
    return handle


def batched(flow: Flow, departure: Departure, place: Place, size: int) -> None:
    """Say of a call that it left its window."""
    wait = max(0.0, departure.at - place.entered)
    flow.call.watched.event(Batched(flow.call.batch_mode, departure.trigger, wait, size, departure.origin))
