"""A bench for `map` and `amap`: one scenario, written as a coroutine, for threads, asyncio and trio; and a
provider that answers with the prompt itself, and holds calls back until it is told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from transport_lab import CHAT, Lab, json_reply

from underlay import Item
from underlay.testing import Received, Script, Scripted

WAYS = ["sync", "asyncio", "trio"]
EVENTS = {"sync": threading.Event, "asyncio": asyncio.Event, "trio": trio.Event}


def threads() -> list[threading.Thread]:
    """The threads of maps that live."""
    return [thread for thread in threading.enumerate() if thread.name == "underlay-map"]


class Provider:
    """Answers a chat with the text of its prompt, a prompt in `failing` with a 500.

    A call waits for the gate of its prompt, if it has one. `begun` has the prompts in the order in which their
    calls came, `under_way` and `most` count calls at once, and `on_call` is called as one comes.
    """

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.gates: dict[str, Any] = {}
        self.begun: list[str] = []
        self.under_way = self.most = 0
        self.on_call: Callable[[str], object] = lambda prompt: None
        self._lock = threading.Lock()

    def reply(self, received: Received) -> Scripted:
        """The answer to one request."""
        prompt = json.loads(received.body)["messages"][0]["content"]
        if prompt in self.failing:
            return json_reply({"error": {"type": "server_error"}}, 500)
        choice = {**CHAT["choices"][0], "message": {"role": "assistant", "content": prompt}}
        return json_reply({**CHAT, "choices": [choice]})

    def enter(self, body: bytes) -> Any:
        """A call has come: its gate, or None."""
        prompt = json.loads(body)["messages"][0]["content"]
        with self._lock:
            self.begun.append(prompt)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.on_call(prompt)
        return self.gates.get(prompt)

    def leave(self) -> None:
        """A call has its answer, or was cancelled."""
        with self._lock:
            self.under_way -= 1


class SyncGate(httpx.BaseTransport):
    """The provider for threads."""

    def __init__(self, provider: Provider, inner: Any) -> None:
        self.provider, self.inner = provider, inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer, once the gate is open."""
        gate = self.provider.enter(request.read())
        try:
            if gate is not None:
                gate.wait()
            return self.inner.handle_request(request)
        finally:
            self.provider.leave()


class AsyncGate(httpx.AsyncBaseTransport):
    """The provider for a loop."""

    def __init__(self, provider: Provider, inner: Any) -> None:
        self.provider, self.inner = provider, inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer, once the gate is open."""
        gate = self.provider.enter(await request.aread())
        try:
            if gate is not None:
                await gate.wait()
            return await self.inner.handle_async_request(request)
        finally:
            self.provider.leave()


class Bench:
    """A runtime whose own clients reach a `Provider`, and one way to map over it."""

    def __init__(self, way: str, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.way = way
        self.lab = Lab(f"{way}-httpx")
        self.provider = Provider()
        script = Script(self.provider.reply)
        # Where a client makes its own transport from its options.
        monkeypatch.setattr(
            httpx._client,
            "HTTPTransport",
            lambda **_: SyncGate(self.provider, script.transport("httpx", "sync")),
        )
        monkeypatch.setattr(
            httpx._client,
            "AsyncHTTPTransport",
            lambda **_: AsyncGate(self.provider, script.transport("httpx", "async")),
        )
        self.lab.setup([], **settings)
        self.lab.script = script

    def event(self) -> Any:
        """An event of this way."""
        return EVENTS[self.way]()

    def map(self, prompts: Any, **options: Any) -> Any:
        """The items of a map."""
        options.setdefault("model", "gpt-4o")
        return getattr(self.lab.runtime, "map" if self.way == "sync" else "amap")(prompts, **options)

    async def next(self, items: Any) -> Item | None:
        """The next item, or None at the end."""
        if self.way == "sync":
            return next(items, None)
        return await anext(items, None)

    async def rest(self, items: Any) -> list[Item]:
        """All items that are left."""
        got = []
        while (item := await self.next(items)) is not None:
            got.append(item)
        return got

    async def close(self, items: Any) -> None:
        """End a map."""
        await self.lab._await(items.close() if self.way == "sync" else items.aclose())

    async def wait(self, event: Any) -> None:
        """Wait for an event of this way."""
        await self.lab._await(event.wait())

    async def others(self) -> int:
        """Threads of maps, or tasks of this loop beside our own."""
        if self.way == "sync":
            return len(threads())
        if self.way == "asyncio":
            return len(asyncio.all_tasks()) - 1
        return int(trio.lowlevel.current_statistics().tasks_living) - self._own

    async def settle(self) -> None:
        """Let tasks that are being cancelled come to their end."""
        if self.way == "asyncio":
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0)
        if self.way == "trio":
            await trio.testing.wait_all_tasks_blocked()

    def run(self, scenario: Callable[[], Any]) -> Any:
        """Run a scenario, and close what its calls left open."""

        async def whole() -> Any:
            self._own = trio.lowlevel.current_statistics().tasks_living if self.way == "trio" else 0
            try:
                return await scenario()
            finally:
                for gate in self.provider.gates.values():
                    gate.set()
                runtime = self.lab.runtime
                await self.lab._await(runtime.close() if self.way == "sync" else runtime.aclose())

        return self.lab.run(whole)


async def asynchronous(prompts: Iterable[Any]) -> AsyncIterator[Any]:
    """The same prompts from an asynchronous generator."""
    for prompt in prompts:
        yield prompt


def texts(count: int) -> list[str]:
    """Prompts that differ."""
    return [str(number) for number in range(count)]
