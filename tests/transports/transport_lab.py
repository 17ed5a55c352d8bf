"""One bench for every way in: (sync, asyncio, trio) x (httpx, httpx2), written once. A scenario is a coroutine
function; in the synchronous bench it never suspends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import Any

import trio
from replies import (
    CHAT,
    CHAT_CHUNKS,
    EMBEDDINGS,
    MESSAGE,
    MESSAGE_EVENTS,
    RESPONSE,
    RESPONSE_EVENTS,
    chunks,
    dumped,
    events,
)

from underlay import Runtime
from underlay.telemetry.events import AttemptEnded, CallEnded
from underlay.testing import FakeClock, Recorder, Script, Scripted

WAYS = [f"{mode}-{family}" for mode in ("sync", "asyncio", "trio") for family in ("httpx", "httpx2")]
CHAT_URL = "https://api.openai.com/v1/chat/completions"
JSON_TYPE = {"content-type": "application/json"}
SSE_TYPE = {"content-type": "text/event-stream; charset=utf-8"}
KEY = {"authorization": "Bearer key"}

DIALECTS: dict[str, tuple[str, dict[str, Any], dict[str, Any], Sequence[bytes]]] = {
    # name: URL, request body, JSON answer, frames of the stream (none: no stream)
    "chat": (CHAT_URL, {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}, CHAT, [chunks([c], done=False) for c in CHAT_CHUNKS] + [b"data: [DONE]\n\n"]),
    "responses": ("https://api.openai.com/v1/responses", {"model": "gpt-4o", "input": "Hi"}, RESPONSE, [events([e]) for e in RESPONSE_EVENTS]),
    "embeddings": ("https://api.openai.com/v1/embeddings", {"model": "text-embedding-3-small", "input": "Hi"}, EMBEDDINGS, ()),
    "messages": ("https://api.anthropic.com/v1/messages", {"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}, MESSAGE, [events([e]) for e in MESSAGE_EVENTS]),
}  # fmt: skip
CHAT_ASK = DIALECTS["chat"][1]
CHAT_FRAMES = DIALECTS["chat"][3]


def json_reply(value: object = CHAT, status: int = 200, **headers: str) -> Scripted:
    """A JSON answer in one frame."""
    return Scripted(status, {**JSON_TYPE, **headers}, [dumped(value)])


def stream_reply(frames: Sequence[Any] = CHAT_FRAMES, status: int = 200, **headers: str) -> Scripted:
    """A stream of events."""
    return Scripted(status, {**SSE_TYPE, **headers}, frames)


class Lab:
    """One way in: its client family and mode, a runtime with a clock that stands still, and a script."""

    def __init__(self, way: str) -> None:
        self.mode, self.family = way.split("-")
        self.kind = "sync" if self.mode == "sync" else "async"
        self.module = import_module(self.family)
        self.clock = FakeClock()
        self.recorder = Recorder()
        self.script = Script([])
        self.runtime = Runtime({}, clock=self.clock, listeners=[self.recorder])
        self._clients: list[Any] = []

    def setup(self, replies: Any, **settings: Any) -> Lab:
        """A script, and a runtime with other settings."""
        self.script = Script(replies)
        self.runtime = Runtime(settings, clock=self.clock, listeners=[self.recorder])
        return self

    def run(self, scenario: Callable[[], Awaitable[Any]]) -> Any:
        """Run a scenario in this bench's loop, or by hand; clients are closed inside."""

        async def whole() -> Any:
            try:
                return await scenario()
            finally:
                for client in self._clients:
                    await self._await(client.close() if self.kind == "sync" else client.aclose())
                self._clients.clear()

        if self.mode == "asyncio":
            return asyncio.run(whole())
        if self.mode == "trio":
            return trio.run(whole)
        try:
            whole().send(None)  # type: ignore[attr-defined]
        except StopIteration as stop:
            return stop.value
        raise AssertionError("the synchronous scenario suspended")

    async def _await(self, value: Any) -> Any:
        return value if self.kind == "sync" else await value

    def wrap(self, inner: Any) -> Any:
        """Underlay's transport over `inner`."""
        prefix = "" if self.kind == "sync" else "async_"
        return getattr(self.runtime, f"{prefix}{self.family}_transport")(inner)

    def client(self, inner: Any = None, **options: Any) -> Any:
        """A client over underlay over `inner` (the script's own transport)."""
        transport = self.wrap(self.script.transport(self.family, self.kind) if inner is None else inner)
        return self.bare(transport, **options)

    def bare(self, transport: Any, **options: Any) -> Any:
        """A client over exactly this transport."""
        name = "Client" if self.kind == "sync" else "AsyncClient"
        made = getattr(self.module, name)(transport=transport, **options)
        self._clients.append(made)
        return made

    async def post(self, client: Any, url: str = CHAT_URL, body: Any = None, **options: Any) -> Any:
        """A whole answer."""
        return await self._await(
            client.post(url, json=CHAT_ASK if body is None else body, **{"headers": KEY, **options})
        )

    async def open(self, client: Any, url: str = CHAT_URL, body: Any = None, **options: Any) -> Any:
        """A response whose body is not read yet."""
        request = client.build_request(
            "POST", url, json=CHAT_ASK if body is None else body, **{"headers": KEY, **options}
        )
        return await self.send(client, request, stream=True)

    async def send(self, client: Any, request: Any, **options: Any) -> Any:
        """Send a request as it is."""
        return await self._await(client.send(request, **options))

    def frames(self, response: Any) -> Frames:
        """The raw frames of an open response, one at a time."""
        return Frames(self, response)

    async def close(self, response: Any) -> None:
        """Close a response."""
        await self._await(response.close() if self.kind == "sync" else response.aclose())

    async def read(self, response: Any) -> bytes:
        """Read a response."""
        return bytes(await self._await(response.read() if self.kind == "sync" else response.aread()))

    def transport(self, handle: Callable[[Any], Any]) -> Any:
        """An app's own transport around `handle(request) -> response`, an ordinary function that may return an
        awaitable in asynchronous modes."""
        base = getattr(self.module, "BaseTransport" if self.kind == "sync" else "AsyncBaseTransport")
        if self.kind == "sync":
            return type("Own", (base,), {"handle_request": lambda _, request: handle(request)})()

        async def handled(_: Any, request: Any) -> Any:
            answer = handle(request)
            return await answer if hasattr(answer, "__await__") else answer

        return type("Own", (base,), {"handle_async_request": handled})()

    def inner(self, transport: Any, request: Any) -> Any:
        """Hand a request on to another transport: a response, or an awaitable of one."""
        return (
            transport.handle_request(request)
            if self.kind == "sync"
            else transport.handle_async_request(request)
        )

    def last(self, kind: type[Any] = CallEnded) -> Any:
        """The last event of a kind, of the last call."""
        return self.recorder.calls[-1].of(kind)[-1]

    @property
    def attempt(self) -> Any:
        """How the last call's attempt ended."""
        return self.last(AttemptEnded)

    @property
    def faults(self) -> dict[str, int]:
        """Faults of underlay by stage."""
        return dict(self.runtime.engine.faults.counts)

    @property
    def upstream(self) -> int:
        """Requests that left."""
        return len(self.script.sent)


class Frames:
    """Raw frames of a response, pulled by hand."""

    def __init__(self, lab: Lab, response: Any) -> None:
        self._lab = lab
        self._iterator = iter(response.iter_raw()) if lab.kind == "sync" else response.aiter_raw().__aiter__()

    async def next(self) -> bytes | None:
        """The next frame, or None at the end."""
        if self._lab.kind == "sync":
            return next(self._iterator, None)
        try:
            return await self._iterator.__anext__()
        except StopAsyncIteration:
            return None

    async def rest(self) -> list[bytes]:
        """All that is left."""
        got = []
        while (frame := await self.next()) is not None:
            got.append(frame)
        return got

    async def close(self) -> None:
        """Close the generator over the body."""
        if self._lab.kind == "sync":
            self._iterator.close()
        else:
            await self._iterator.aclose()


def sent_body(lab: Lab, at: int = -1) -> Any:
    """The JSON body of a request that left."""
    return json.loads(lab.script.sent[at].body)
