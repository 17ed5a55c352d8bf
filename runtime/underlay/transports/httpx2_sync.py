"""The synchronous httpx2 adapter, generated from httpx_async.py by scripts/generate_twins.py."""

from __future__ import annotations

from contextlib import suppress
from types import GeneratorType
from typing import TYPE_CHECKING, Any

import httpx2

from underlay.core.flight import ReaderError
from underlay.errors import WouldSuspendError
from underlay.pipeline.driver import drive
from underlay.pipeline.perform import perform
from underlay.pipeline.ports import NO_TIMEOUTS, Exchange, Mishap, Timeouts, Upstream
from underlay.providers.recognise import may_be_ours
from underlay.telemetry.attributes import Ending, Stage, Verdict
from underlay.transports.common import (
    BasePorts,
    Sending,
    Source,
    content_type,
    drop,
    is_sending,
    kin,
)
from underlay.transports.homes import THREADS
from underlay.transports.wire import has_room, wire

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from underlay.pipeline.engine import Engine
    from underlay.pipeline.flow import Reply
    from underlay.pipeline.reader import Reader
    from underlay.providers.recognise import Candidate

__all__ = ["UnderlayTransport"]

# Where the family's own transport and its bodies are defined: a class says where it is exported.
_OWN = httpx2.HTTPTransport.handle_request.__module__
# The caller's own fault or its own crowd: says nothing about the provider.
_NOTHING = (httpx2.PoolTimeout, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.ProxyError)


class Ports(BasePorts):
    """One call's ports over an inner transport."""

    __slots__ = ("_inner", "_request", "response")

    def __init__(self, engine: Engine, inner: httpx2.BaseTransport, request: httpx2.Request) -> None:
        super().__init__(engine, THREADS, _timeouts(request))
        self._inner = inner
        self._request = request
        self.response: httpx2.Response | None = None

    def forget(self) -> None:
        super().forget()
        self.response = None

    def adopt(self, error: Exception) -> Exception:
        own = kin(error, httpx2.TransportError, httpx2)
        if own is None or own.__module__.partition(".")[0] != "httpx2":
            return super().adopt(error)  # of a class that only its author knows how to make
        self.sent = True
        return own(str(error), request=self._request)

    def timed_out(self) -> Exception:
        self.sent = True
        return httpx2.ReadTimeout("no answer came within the read timeout", request=self._request)

    def describe(self, error: BaseException) -> Mishap:
        own = kin(error, httpx2.TransportError, httpx2)
        if own is not None:
            nothing = issubclass(own, _NOTHING)
            return Mishap(
                Ending.FAILED, Verdict.NOTHING if nothing else Verdict.FAILURE, type(error).__name__
            )
        return self.describe_common(error)

    async def send(self, request: Exchange | None) -> Upstream:
        outgoing = self._request if request is None else _rebuilt(self._request, request)
        self.sent = True
        attempt = Sending()
        try:
            attempt.enter()
            self._prepare(attempt, outgoing)
            # An interrupt must find it: it has a connection.
            self.response = response = self._inner.handle_request(outgoing)
        finally:
            attempt.open = False
            attempt.leave()
        stream, headers = _body(response)  # the response is about to be given ours
        kind = type(stream)
        source = Source(stream)
        source.plain = (
            kind.__module__ == _OWN or kind is httpx2.ByteStream
        ) and "trace" not in outgoing.extensions
        return Upstream(response.status_code, headers, source)

    async def let_go(self) -> None:
        response, self.response = self.response, None
        if response is not None:
            response.close()

    def _prepare(self, attempt: Sending, request: httpx2.Request) -> None:
        """Have it leave in one piece, through connections of ours, and not with too many others. Only of the
        family's own transport is it known how it writes."""
        handle = getattr(type(self._inner), "handle_request", None)
        pacing = self._engine.state.pacing
        if getattr(handle, "__module__", None) != _OWN or not pacing.wires:
            return
        attempt.whole = wire(self._inner) and "trace" not in request.extensions
        gate = pacing.gate
        if gate is None or not attempt.whole or not has_room(self._inner, gate.places):
            return
        if self.pass_gate(attempt, gate) and not has_room(self._inner, gate.places):
            attempt.go_on()  # the pool has filled meanwhile: it would wait there

    async def pull(self, upstream: Upstream) -> bytes | None:
        source = upstream.raw
        assert isinstance(source, Source)  # noqa: S101 ports of this family made it
        # A body that is asked for as it is read must not join the answer that it brings.
        attempt = None if source.plain else Sending()
        try:
            if attempt is not None:
                attempt.enter()
            iterator = source.iterator
            if iterator is None:
                stream: Any = source.stream
                assert hasattr(stream, "__iter__")  # noqa: S101 the client asserts the same
                iterator = source.iterator = stream.__iter__()
            frame: bytes | None = next(iterator, None)
        finally:
            if attempt is not None:
                attempt.open = False
                attempt.leave()
        return frame

    async def close(self, upstream: Upstream) -> None:
        source = upstream.raw
        assert isinstance(source, Source)  # noqa: S101 ports of this family made it
        stream: Any = source.stream
        if hasattr(stream, "close"):
            stream.close()
        if isinstance(source.iterator, GeneratorType):
            # Not left to the collector: trio complains of a generator that was not read to its end. What it
            # raises then, nobody would have been given.
            with suppress(Exception):
                source.iterator.close()


class BodyStream(httpx2.SyncByteStream):
    """A reply's body: frames as the reader brings them. Ends the call however it is left.

    A body that was read to its end lets go of its reader: the client's response and its stream hold each
    other, and the answer's frames would wait with them for the garbage collector.
    """

    __slots__ = ("_closed", "_engine", "_reader")

    def __init__(self, engine: Engine, reader: Reader) -> None:
        self._engine = engine
        self._reader: Reader | None = reader
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        reader = self._reader
        if reader is None:
            raise StopIteration
        try:
            frame = drive(reader.read())
        except WouldSuspendError as error:
            # A store that had to wait, as the books were closed: what is left of the body is its end.
            self._engine.faults.report(Stage.RECORD, error)
            frame = drive(reader.read())
        except ReaderError as error:
            raise httpx2.ReadError(str(error)) from error
        if frame is None:
            self._closed = True
            self._reader = None
            raise StopIteration
        return frame

    def close(self) -> None:
        self._closed = True
        if self._reader is None:
            return
        try:
            drive(self._reader.close())
        except WouldSuspendError as error:
            self._engine.faults.report(Stage.RECORD, error)

    def __del__(self) -> None:
        # One that an interrupt kept from being made has no attributes.
        if not getattr(self, "_closed", True) and self._reader is not None:
            drop(self._engine, self._reader)


class UnderlayTransport(httpx2.BaseTransport):
    """Puts the pipeline in front of `inner`, which stays what the app made it. Holds no state of a call."""

    __slots__ = ("engine", "inner")

    def __init__(self, inner: httpx2.BaseTransport, engine: Engine) -> None:
        self.inner = inner
        self.engine = engine

    def __repr__(self) -> str:
        return f"<UnderlayTransport over {self.inner!r}>"

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        call = _recognised(self.engine, self.inner, request)
        if call is None:
            return self.inner.handle_request(request)
        candidate, exchange, ports = call
        engine = self.engine
        reply: Reply | None = None
        try:
            reply = drive(perform(engine, exchange, candidate, ports))
            response = ports.response
            if (
                reply.reader is not None
                and reply.upstream is not None
                and response is not None
                and _read_already(response)
            ):
                return self._from_memory(reply.reader, response)
            response = _response(engine, reply, response)
            # The response holds the reader, which holds these ports: kept here, an abandoned body would wait
            # for the cycle collector.
            ports.response = None
            return response
        except WouldSuspendError as error:
            engine.faults.report(Stage.CALL, error)
        except (KeyboardInterrupt, SystemExit):
            if reply is not None and reply.reader is not None:
                drive(reply.reader.close())  # the app is given no response that it could close
            raise
        except Exception as error:
            if ports.sent and ports.response is None:
                raise  # the app's own: what is ours was sorted out
            engine.faults.report(Stage.CALL, error)
            if reply is not None and reply.reader is not None:
                drop(engine, reply.reader)  # nobody reads through it: the next caller closes its books
        if ports.response is not None:
            return ports.response
        if ports.sent:
            raise httpx2.RemoteProtocolError(
                "underlay: the request was sent and its answer was lost", request=request
            )
        return self.inner.handle_request(request)

    def _from_memory(self, reader: Reader, response: httpx2.Response) -> httpx2.Response:
        """The books of a reply that the app's own transport has read, closed at once: the caller gets that
        very response, which hands out its own copy and would never read our stream."""
        try:
            while drive(reader.read()) is not None:
                continue
        except BaseException as error:
            drop(self.engine, reader)  # nobody closes it: the next caller takes it out of its flight
            if not isinstance(error, Exception):
                raise
            self.engine.faults.report(Stage.STREAM, error)
        return response

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.inner.__exit__(exc_type, exc_value, traceback)

    def close(self) -> None:
        self.inner.close()


def _recognised(
    engine: Engine, inner: httpx2.BaseTransport, request: httpx2.Request
) -> tuple[Candidate, Exchange, Ports] | None:
    """What a request that may be one of ours goes on with, cheapest questions first. A body that is still to
    be produced is never read."""
    if request.method != "POST" or is_sending():
        return None
    url = request.url
    target = url.raw_path
    if not may_be_ours(target) or not isinstance(request.stream, httpx2.ByteStream):
        return None
    try:
        host, port, headers = url.host, url.port, request.headers.raw
        candidate = engine.recogniser.recognise("POST", host, port, url.path, content_type(headers))
        if candidate is None:
            return None
        exchange = Exchange("POST", url.raw_scheme, host, port, target, headers, request.read())
        return candidate, exchange, Ports(engine, inner, request)
    except Exception as error:  # noqa: BLE001 never break the app: this may be a loop that nobody knows
        engine.faults.report(Stage.RECOGNISE, error)
        return None


def _timeouts(request: httpx2.Request) -> Timeouts:
    """The timeouts that the client gave this request; none where its extensions say nothing readable."""
    given = request.extensions.get("timeout")
    if not given:
        return NO_TIMEOUTS
    try:
        return Timeouts(given.get("connect"), given.get("read"), given.get("write"), given.get("pool"))
    except AttributeError:
        return NO_TIMEOUTS


def _rebuilt(request: httpx2.Request, wanted: Exchange) -> httpx2.Request:
    """The caller's request with the pipeline's headers and body; URL and extensions (timeouts, trace hooks)
    stay."""
    return httpx2.Request(
        wanted.method,
        request.url,
        headers=list(wanted.headers),
        content=wanted.body,
        extensions=request.extensions,
    )


# Of a body on its way: they do not fit one that was read, and so decoded.
_CODED = frozenset((b"content-encoding", b"content-length", b"transfer-encoding"))


def _read_already(response: httpx2.Response) -> bool:
    return response.is_stream_consumed or response.is_closed


def _body(response: httpx2.Response) -> tuple[object, Sequence[tuple[bytes, bytes]]]:
    """The stream to pull and the headers that fit it. A transport may have read its response, to log it or to
    record it: such a stream is spent, and one that is pulled again may never end."""
    raw = response.headers.raw
    if isinstance(response.stream, httpx2.ByteStream) or not _read_already(response):
        return response.stream, raw
    try:
        read = httpx2.ByteStream(response.content)
    except httpx2.ResponseNotRead:
        return None, raw  # closed, or spent and forgotten: there is nothing to pull
    return read, [header for header in raw if header[0].lower() not in _CODED]


def _response(engine: Engine, reply: Reply, response: httpx2.Response | None) -> httpx2.Response:
    if reply.upstream is None:
        assert reply.reader is not None  # noqa: S101 a reply of our own has a body
        return httpx2.Response(
            reply.status, headers=list(reply.headers), stream=BodyStream(engine, reply.reader)
        )
    assert response is not None  # noqa: S101 a reply with an upstream came through these ports
    if reply.reader is None:
        return response
    response.stream = BodyStream(engine, reply.reader)
    return response
