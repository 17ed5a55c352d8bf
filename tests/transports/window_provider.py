"""A provider of embeddings and completions behind a scripted transport: it answers as the simulator does, at once
or when it is told to."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from merge_lab import completed, embedded, inputs_in
from transport_lab import CHAT, JSON_TYPE, json_reply

from underlay.testing import Received, Scripted
from underlay.transports.homes import THREADS, current_home

if TYPE_CHECKING:
    from window_lab import WindowLab

__all__ = ["COMPLETIONS_URL", "EMBEDDINGS_URL", "Held", "Provider", "answer", "gzipped", "refusal"]

EMBEDDINGS_URL = "https://api.openai.com/v1/embeddings"
COMPLETIONS_URL = "https://api.openai.com/v1/completions"


def answer(received: Received) -> Scripted:
    """What the simulator would answer."""
    made = embedded if "embeddings" in received.url else completed if "/completions" in received.url else None
    if made is None or "chat" in received.url:
        return json_reply(CHAT)
    headers = {**JSON_TYPE, "x-request-id": "req_1"}
    body = made(received.body)
    return Scripted(200, {**headers, "content-length": str(len(body))}, [body])


def gzipped(received: Received) -> Scripted:
    """The same, compressed."""
    plain = answer(received)
    body = gzip.compress(b"".join(frame for frame in plain.frames if isinstance(frame, bytes)))
    headers = {**dict(plain.headers), "content-length": str(len(body)), "content-encoding": "gzip"}
    return Scripted(200, headers, [body])


def refusal(status: int, **headers: str) -> Scripted:
    """An error of the provider."""
    return json_reply({"error": {"message": "no", "type": "some_error"}}, status, **headers)


class Held:
    """A request at the provider, and its answer as soon as there is one."""

    def __init__(self, provider: Provider, received: Received, home: Any) -> None:
        self.received = received
        self.answered = False
        self._provider = provider
        self._home = home
        self._waiter = home.waiter()
        self.gated = False
        self._gate = home.waiter()
        self._reply: Scripted | None = None

    @property
    def body(self) -> Any:
        """The request's body."""
        return json.loads(self.received.body)

    @property
    def inputs(self) -> list[Any]:
        """What it asks for."""
        body = self.body
        return inputs_in(body["input"] if "input" in body else body["prompt"])

    @property
    def headers(self) -> dict[str, str]:
        """Its headers."""
        return {name.decode().lower(): value.decode() for name, value in self.received.headers}

    def reply(
        self, scripted: Scripted | None = None, *, head_only: bool = False, settle: bool = True
    ) -> None:
        """Answer, by default with what the provider has to say. `head_only`: the body waits for `finish`."""
        if self.answered:
            return
        self.answered = True
        self._reply = self._provider.answer(self.received) if scripted is None else scripted
        if head_only:
            self.gated = True
        self._home.wake(self._waiter)
        if settle:
            self._provider.lab.settle()

    def finish(self, *, settle: bool = True) -> None:
        """Let the body come."""
        self.gated = False
        self._home.wake(self._gate)
        if settle:
            self._provider.lab.settle()

    def fail(self, error: BaseException, *, settle: bool = False) -> None:
        """Raise instead of answering."""
        self.reply(Scripted(error=error), settle=settle)

    async def wait(self) -> Scripted:
        """Used by the transport: until there is an answer."""
        if self._reply is None:
            await self._home.wait(self._waiter, None)
        assert self._reply is not None
        if self._reply.error is not None:
            raise self._reply.error
        return self._reply

    async def wait_body(self) -> None:
        """Used by the transport: until the body may come."""
        if self.gated:
            await self._home.wait(self._gate, None)


class Provider:
    """`seen` has every request that came, `held` those that wait for an answer. `holds` false: it answers at
    once, with `answer`."""

    def __init__(self, lab: WindowLab) -> None:
        self.lab = lab
        self.holds = True
        self.answer: Callable[[Received], Scripted] = answer
        self.seen: list[Held] = []
        self.opened = self.closed = 0

    @property
    def held(self) -> list[Held]:
        """Requests without an answer, in the order in which they came."""
        return [held for held in self.seen if not held.answered]

    @property
    def inputs(self) -> list[int]:
        """How many inputs each request asked for."""
        return [len(held.inputs) for held in self.seen]

    def release(self) -> None:
        """Answer what waits, and what comes from now on."""
        self.holds = False
        for held in self.held:
            held.reply(settle=False)
        self.lab.settle()

    def transport(self, family: str, kind: str) -> Any:
        """A transport of this family over the provider."""
        module = import_module(family)
        return (_sync_transport if kind == "sync" else _async_transport)(module, self)

    async def handle(self, module: Any, request: Any, body: bytes, home: Any, stream: Any) -> Any:
        """One request, from its arrival to the head of its reply."""
        received = Received(request.method, str(request.url), tuple(request.headers.raw), body)
        held = Held(self, received, home)
        with self.lab.changed:
            self.seen.append(held)
        if not self.holds:
            held.answered = True
            held._reply = self.answer(received)
        scripted = await held.wait()
        with self.lab.changed:
            self.opened += 1
        headers: Any = scripted.headers
        pairs = list(headers.items()) if hasattr(headers, "items") else list(headers)
        return module.Response(scripted.status, headers=pairs, stream=stream(held, scripted.frames))

    def close_one(self, closed: list[bool]) -> None:
        """A body was closed."""
        if not closed:
            closed.append(True)
            with self.lab.changed:
                self.closed += 1


def _steps(frames: Sequence[Any]) -> Iterator[bytes]:
    for step in frames:
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, bytes):
            yield step
        else:
            step()


def _driven(work: Any) -> Any:
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a synchronous transport suspended")


def _sync_transport(module: Any, provider: Provider) -> Any:
    class Stream(module.SyncByteStream):  # type: ignore[misc,name-defined]
        def __init__(self, held: Held, frames: Sequence[Any]) -> None:
            self._held, self._frames, self._closed = held, frames, list[bool]()

        def __iter__(self) -> Iterator[bytes]:
            _driven(self._held.wait_body())
            yield from _steps(self._frames)

        def close(self) -> None:
            provider.close_one(self._closed)

    class Transport(module.BaseTransport):  # type: ignore[misc,name-defined]
        def handle_request(self, request: Any) -> Any:
            return _driven(provider.handle(module, request, request.read(), THREADS, Stream))

    return Transport()


def _async_transport(module: Any, provider: Provider) -> Any:
    class Frames:
        def __init__(self, held: Held, frames: Sequence[Any]) -> None:
            self._held, self._steps = held, _steps(frames)

        def __aiter__(self) -> Frames:
            return self

        async def __anext__(self) -> bytes:
            await self._held.wait_body()
            frame = next(self._steps, None)
            if frame is None:
                raise StopAsyncIteration
            return frame

    class Stream(module.AsyncByteStream):  # type: ignore[misc,name-defined]
        def __init__(self, held: Held, frames: Sequence[Any]) -> None:
            self._held, self._frames, self._closed = held, frames, list[bool]()

        def __aiter__(self) -> Frames:
            return Frames(self._held, self._frames)

        async def aclose(self) -> None:
            provider.close_one(self._closed)

    class Transport(module.AsyncBaseTransport):  # type: ignore[misc,name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            return await provider.handle(module, request, await request.aread(), current_home(), Stream)

    return Transport()
