"""The cells of the table: which client makes which call. A cell is prepared twice in a worker, bare and
with what the worker's world put in."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import MethodType
from typing import Any

import wrapt

from benchmarks.replies import JSON_REPLY, OTHER_REPLY, Reply, stream_reply, transport

__all__ = ["CLIENTS", "LONG", "SHORT", "Cell", "Client", "Operation", "cells", "prepare"]

SHORT, LONG = 10, 110
"""Frames of the two streams; what a chunk costs is the difference over the frames between them."""

_URL = "https://api.openai.com/v1"
_KEY = "sk-bench"
_MODEL = "gpt-4o-mini"
_SYSTEM = "You are a helpful assistant of a travel agency. Answer in one paragraph and name your sources."
_QUESTION = "What is the capital of France, on which river does it lie, and how many people live there?"


@dataclass(frozen=True, slots=True)
class Client:
    """A client as an app uses it. `sdk`: the official openai SDK on top."""

    name: str
    family: str
    asynchronous: bool
    sdk: bool
    title: str


CLIENTS: dict[str, Client] = {
    client.name: client
    for client in (
        Client("openai", "httpx2", False, True, "openai SDK, sync, on httpx2"),
        Client("httpx2", "httpx2", False, False, "httpx2 client, sync"),
        Client("httpx", "httpx", False, False, "httpx client, sync"),
        Client("openai-async", "httpx2", True, True, "openai SDK, async, on httpx2"),
        Client("httpx2-async", "httpx2", True, False, "httpx2 client, async"),
        Client("httpx-async", "httpx", True, False, "httpx client, async"),
    )
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One client and one kind of call. `frames` is 0 for a JSON answer."""

    client: str
    traffic: str
    frames: int

    @property
    def name(self) -> str:
        """A name for the wire between driver and worker."""
        return f"{self.client}/{self.traffic}/{self.frames}"


_TRAFFIC = (
    ("unknown", 0),
    ("miss", 0),
    ("hit", 0),
    ("miss", SHORT),
    ("miss", LONG),
    ("hit", SHORT),
    ("hit", LONG),
)


def cells(clients: list[str]) -> list[Cell]:
    """Every cell of these clients."""
    return [Cell(client, traffic, frames) for client in clients for traffic, frames in _TRAFFIC]


Operation = Callable[[int], None]
"""Makes that many calls, one after the other."""

_asked = itertools.count()  # one for the whole process: a miss is never a question that was asked before


def _messages(cell: Cell) -> list[dict[str, str]]:
    # A hit is the same question again, but not that of another cell, whose answer is another.
    question = f"{_QUESTION} ({next(_asked) if cell.traffic == 'miss' else cell.name})"
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}]


def prepare(
    cell: Cell, *, bare: bool, loop: asyncio.AbstractEventLoop, touch: Callable[[Any], None]
) -> Operation:
    """A client with a reply in memory under it. `bare`: free of what was patched into its class; else
    `touch` is given the HTTP client, for what an app puts into one client."""
    client = CLIENTS[cell.client]
    family = import_module(client.family)
    inner = transport(family, _reply(cell), asynchronous=client.asynchronous)
    base = family.AsyncClient if client.asynchronous else family.Client
    http = (_unpatched(base) if bare else base)(transport=inner, trust_env=False, timeout=600.0)
    if not bare:
        touch(http)
    if client.sdk:
        call = _sdk_call(cell, http, bare=bare, asynchronous=client.asynchronous)
    else:
        call = _plain_call(cell, http, asynchronous=client.asynchronous)
    return _looped(call, loop) if client.asynchronous else _repeated(call)


def _reply(cell: Cell) -> Reply:
    if cell.traffic == "unknown":
        return OTHER_REPLY
    return stream_reply(cell.frames) if cell.frames else JSON_REPLY


def _unpatched(base: Any) -> Any:
    """The client class as it was before underlay's seam."""
    method = base.__dict__["_transport_for_url"]
    return type(
        f"Bare{base.__name__}", (base,), {"_transport_for_url": getattr(method, "__wrapped__", method)}
    )


def _repeated(call: Callable[[], object]) -> Operation:
    def operation(calls: int) -> None:
        for _ in range(calls):
            call()

    return operation


def _looped(call: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> Operation:
    async def repeat(calls: int) -> None:
        for _ in range(calls):
            await call()

    def operation(calls: int) -> None:
        loop.run_until_complete(repeat(calls))

    return operation


def _sdk_call(cell: Cell, http: Any, *, bare: bool, asynchronous: bool) -> Callable[[], Any]:
    import openai

    make = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    sdk: Any = make(api_key=_KEY, base_url=_URL, http_client=http, max_retries=0)
    if cell.traffic == "unknown":
        return lambda: sdk.moderations.create(input=_QUESTION)
    completions = sdk.chat.completions
    patched = type(completions).__dict__["create"]
    if bare and isinstance(patched, wrapt.FunctionWrapper):
        completions.create = MethodType(patched.__wrapped__, completions)
    if not cell.frames:
        return lambda: completions.create(model=_MODEL, messages=_messages(cell), temperature=0.2)

    def ask() -> Any:
        return completions.create(
            model=_MODEL,
            messages=_messages(cell),
            temperature=0.2,
            stream=True,
            stream_options={"include_usage": True},
        )

    def read() -> None:
        for _ in ask():
            pass

    async def aread() -> None:
        async for _ in await ask():
            pass

    return aread if asynchronous else read


def _plain_call(cell: Cell, http: Any, *, asynchronous: bool) -> Callable[[], Any]:
    headers = {"authorization": f"Bearer {_KEY}", "content-type": "application/json"}
    if cell.traffic == "unknown":
        body = json.dumps({"input": _QUESTION}).encode()
        return lambda: http.post(f"{_URL}/moderations", content=body, headers=headers)
    fields = {"model": _MODEL, "temperature": 0.2, **({"stream": True} if cell.frames else {})}

    def body_of() -> bytes:
        return json.dumps({**fields, "messages": _messages(cell)}).encode()

    url = f"{_URL}/chat/completions"
    if not cell.frames:
        return lambda: http.post(url, content=body_of(), headers=headers)

    def read() -> None:
        with http.stream("POST", url, content=body_of(), headers=headers) as response:
            for _ in response.iter_bytes():
                pass

    async def aread() -> None:
        async with http.stream("POST", url, content=body_of(), headers=headers) as response:
            async for _ in response.aiter_bytes():
                pass

    return aread if asynchronous else read
