"""The life of one call at the simulator: read, count, plan, keep time, send, break."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from underlay.errors import SettingsError
from underlay.simulator.counts import CREDENTIALS, Ledger, Seen
from underlay.simulator.errors import error_body, reply_headers, request_id
from underlay.simulator.faults import FaultBook, Plan, parse_faults
from underlay.simulator.latency import Schedule, schedule
from underlay.simulator.replies import AT_ONCE, BadCall, Context, Exchange, Frame
from underlay.simulator.text import compact, request_key
from underlay.simulator.wire import Wire, accepted, break_connection, encoder, read_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from underlay.simulator.options import SimulatorOptions
    from underlay.simulator.wire import Receive, Scope, Send

__all__ = ["Endpoint", "State"]


@dataclass(frozen=True, slots=True)
class State:
    """What all calls of one simulator share. `numbers` never goes back: no two replies have the same id."""

    options: SimulatorOptions
    ledger: Ledger
    book: FaultBook
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The ASGI application behind one path: the provider it belongs to, its name in counts, its dialect."""

    state: State
    provider: str
    kind: str
    dialect: Callable[[Mapping[str, Any], Context], Exchange]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever a client sent; a cut without a socket raises `ConnectionCut`."""
        started = anyio.current_time()
        raw = await read_body(receive)
        if raw is None:
            return
        headers = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in scope["headers"]]
        call = self._open(scope, headers, raw, started)
        reply = _Reply(call, scope, receive, send)
        try:
            await reply.run()
        finally:
            call.add(active=-1)

    def _open(self, scope: Scope, headers: list[tuple[str, str]], raw: bytes, started: float) -> _Call:
        options, number, given = self.state.options, next(self.state.numbers), dict(headers)
        model, stream, problem, exchange, plan, key = "", False, None, None, Plan(), ""
        try:
            body = _parsed(raw)
            model, stream = str(body.get("model") or ""), body.get("stream") is True
            key = request_key(options.seed, self.kind, body)
            if options.known_models_only and model not in options.models:
                raise BadCall(f"The model `{model}` does not exist.", status=404)
            cached = _share(given.get("x-sim-cached"), options.cached_fraction)
            exchange = self.dialect(body, Context(options, key, number, int(time.time()), cached))
        except BadCall as bad:
            problem = bad
        try:
            plan = self.state.book.take(
                self.provider, self.kind, model, parse_faults(given.get("x-sim-fault", ""))
            )
        except SettingsError as wrong:
            problem = BadCall(str(wrong), param="x-sim-fault")
        kept = tuple((name, value) for name, value in headers if name not in CREDENTIALS)
        digest = hashlib.sha256(raw).hexdigest()
        seen = Seen(scope["method"], scope["path"], kept, len(raw), digest, self.kind, model, stream)
        self.state.ledger.receive(seen)
        timing = schedule(options.pace(model), key, plan.slow)
        encoding = accepted(given.get("accept-encoding", ""), plan.encoding)
        return _Call(self, seen, number, started, exchange, problem, plan, timing, encoding)


@dataclass(frozen=True, slots=True)
class _Call:
    endpoint: Endpoint
    seen: Seen
    number: int
    started: float
    exchange: Exchange | None
    problem: BadCall | None
    plan: Plan
    timing: Schedule
    encoding: str | None

    def add(self, *, status: int | None = None, **numbers: int) -> None:
        self.endpoint.state.ledger.add(self.seen.kind, self.seen.model, status=status, **numbers)

    @property
    def id(self) -> str:
        return request_id(self.endpoint.state.options.seed, self.number)


class _Reply:
    """One reply, run beside a watch on the client."""

    def __init__(self, call: _Call, scope: Scope, receive: Receive, send: Send) -> None:
        self.call, self.scope, self.receive = call, scope, receive
        self.wire = Wire(send, encoder(call.encoding))
        self.broken = False

    async def run(self) -> None:
        """Send the reply; when the client goes away first, stop and count it."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch, group.cancel_scope)
                await self._answer()
                group.cancel_scope.cancel()
        finally:
            if not self.wire.complete and not self.broken:
                self.call.add(aborted=1)
        if self.broken:
            await break_connection(self.scope, self.receive)

    async def _watch(self, work: anyio.CancelScope) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            continue
        work.cancel()

    async def _answer(self) -> None:
        call, ending = self.call, self.call.plan.ending
        kind = call.plan.kind
        if kind == "drop":
            self.broken = True
        elif kind == "hang" and ending is not None and ending.after is None:
            await anyio.sleep_forever()
        elif call.problem is not None:
            problem = call.problem
            await self._refuse(problem.status, problem.message, problem=problem)
        elif kind == "status" and ending is not None:
            await self._wait(call.plan.slow)
            await self._refuse(ending.status, None, retry_after=ending.retry_after)
        elif call.exchange is not None and call.exchange.stream:
            await self._stream(call.exchange)
        elif call.exchange is not None:
            await self._json(call.exchange)

    async def _refuse(
        self,
        status: int,
        message: str | None,
        *,
        problem: BadCall | None = None,
        retry_after: float | None = None,
    ) -> None:
        provider = self.call.endpoint.provider
        named: dict[str, str | None] = {}
        if problem is not None:
            named = {"param": problem.param, "code": problem.code, "type_": problem.kind}
        body = error_body(provider, status, message, **named, id_=self.call.id)
        data = self.wire.encoded(compact(body).encode("utf-8", "replace"), last=True)
        wait = 1.0 if retry_after is None and status == 429 else retry_after
        extra = {} if wait is None else {"retry-after": f"{wait:g}"}
        await self._head(status, "application/json", {"content-length": str(len(data)), **extra})
        self.call.add(bytes_out=len(data))
        await self.wire.end(data)

    async def _json(self, exchange: Exchange) -> None:
        call, kind = self.call, self.call.plan.kind
        await self._wait(call.timing.due(exchange.steps))
        whole = exchange.payload()
        if kind == "error_event" and call.plan.ending is not None:
            whole = compact(error_body(call.endpoint.provider, call.plan.ending.status)).encode()
        elif kind == "clean_eof":
            whole = whole[: len(whole) // 2]
        data = self.wire.encoded(whole, last=True)
        usual = kind is None
        self._given(exchange, exchange.usage.output if usual else 0)
        await self._head(200, "application/json", {"content-length": str(len(data))})
        if kind in ("cut", "hang"):
            half = data[: len(data) // 2]
            call.add(bytes_out=len(half))
            await self.wire.part(half)
            await self._break_off(kind)
        else:
            call.add(bytes_out=len(data))
            await self.wire.end(data)

    async def _stream(self, exchange: Exchange) -> None:
        call, kind = self.call, self.call.plan.kind
        frames = list(exchange.frames())
        stop = self._stop(len(frames))
        self._given(exchange, 0)
        for frame in frames[:stop]:
            await self._wait(0.0 if frame.after == AT_ONCE else call.timing.due(frame.after))
            await self._frame(frame)
        await self._stream_head()
        if kind in ("cut", "hang"):
            await self._break_off(kind)
            return
        tail = b""
        if kind == "error_event" and call.plan.ending is not None:
            tail = exchange.failure(call.plan.ending.status, stop)
        tail = self.wire.encoded(tail, last=True)
        call.add(bytes_out=len(tail))
        await self.wire.end(tail)

    def _stop(self, frames: int) -> int:
        ending = self.call.plan.ending
        if ending is None:
            return frames
        return min(frames - 1, frames // 2 if ending.after is None else ending.after)

    async def _frame(self, frame: Frame) -> None:
        await self._stream_head()
        data = self.wire.encoded(frame.data)
        self.call.add(bytes_out=len(data), output_tokens=frame.tokens)
        await self.wire.part(data)
        # At an instant pace nothing else here yields: other calls and the watch on the client must have
        # their turn.
        await anyio.lowlevel.checkpoint()

    async def _stream_head(self) -> None:
        if not self.wire.started:
            kind = "text/event-stream; charset=utf-8"
            await self._head(200, kind, {"cache-control": "no-cache"})

    async def _head(self, status: int, content_type: str, extra: dict[str, str]) -> None:
        call = self.call
        tokens = call.exchange.usage.input if call.exchange else 0
        spent = anyio.current_time() - call.started
        usual = reply_headers(
            call.endpoint.provider,
            call.id,
            number=call.number,
            tokens=tokens,
            spent=spent,
            limited=status == 429,
        )
        encoding = {"content-encoding": call.encoding, "vary": "accept-encoding"} if call.encoding else {}
        call.add(status=status)
        await self.wire.head(status, {"content-type": content_type, **usual, **encoding, **extra})

    async def _break_off(self, kind: str) -> None:
        if kind == "hang":
            await anyio.sleep_forever()
        self.broken = True

    def _given(self, exchange: Exchange, output: int) -> None:
        usage = exchange.usage
        self.call.add(
            inputs=exchange.inputs, input_tokens=usage.input, cached_tokens=usage.cached, output_tokens=output
        )

    async def _wait(self, due: float) -> None:
        left = self.call.started + due - anyio.current_time()
        if left > 0:
            await anyio.sleep(left)


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadCall("We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise BadCall("The body of the request must be a JSON object.")
    return body


def _share(header: str | None, usual: float) -> float:
    if header is None:
        return usual
    try:
        share = float(header)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise BadCall("The header x-sim-cached must be a number from 0 to 1.", param="x-sim-cached")
    return share
