"""The public API as a user's type checker sees it: checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

import httpx
import httpx2

import underlay
from underlay import Answer, CircuitOpenError, Item, Runtime, Settings

runtime = Runtime()
runtime = Runtime({"llm_cache": {"enabled": True, "ttl": 60}})
runtime = Runtime(Settings())
assert_type(underlay.instrument(), Runtime)
assert_type(underlay.uninstrument(), None)
assert_type(runtime.httpx_client(), httpx.Client)
assert_type(runtime.async_httpx_client(timeout=3.0), httpx.AsyncClient)
assert_type(runtime.httpx2_client(), httpx2.Client)
assert_type(runtime.async_httpx2_client(), httpx2.AsyncClient)
assert_type(runtime.httpx_transport(httpx.HTTPTransport()), httpx.BaseTransport)
assert_type(runtime.call("hi", model="gpt-4o"), Answer)
assert_type(runtime.call("hi", model="gpt-4o").text, str)
assert_type(runtime.call("hi", model="gpt-4o").cost_usd, float | None)
for item in runtime.map(["hi", [{"role": "user", "content": "hi"}]], model="gpt-4o", errors="raise"):
    assert_type(item, Item)
    assert_type(item.text, str)
    assert_type(item.answer, Answer | None)
    assert_type(item.error, Exception | None)
with runtime.map(iter(["hi"]), model="gpt-4o", progress=lambda done, total: None) as items:
    assert_type(next(items), Item)
assert_type(runtime.cache.hit_rate, float)
assert_type(runtime.circuit("gpt-4o").state, str)


@runtime.protect(model="local", provider="local", key=lambda prompt: prompt)
def local(prompt: str) -> int:
    """A protected function keeps its own signature."""
    return len(prompt)


assert_type(local("x"), int)


async def asked() -> None:
    """Coroutines too."""
    assert_type(await runtime.acall("hi", model="gpt-4o"), Answer)
    async with runtime.amap(["hi"], model="gpt-4o", ordered=False, concurrency=4) as items:
        assert_type(await anext(items), Item)
    async for item in runtime.amap(prompts(), model="gpt-4o", progress=True):
        assert_type(item, Item)


async def prompts() -> AsyncIterator[str]:
    """Prompts may come asynchronously."""
    yield "hi"


try:
    runtime.call("hi", model="gpt-4o")
except CircuitOpenError as error:
    assert_type(error.retry_after, float)
