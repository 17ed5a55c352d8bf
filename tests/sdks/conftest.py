"""The real official SDKs over a runtime with a clock that stands still, against the provider simulator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai
import pytest

from underlay import Runtime
from underlay.simulator import Simulator
from underlay.testing import FakeClock, Recorder


@dataclass
class Sdk:
    """One official SDK in one mode. Each ask returns plain data of the SDK's own parsed objects, ids
    included."""

    name: str
    model: str
    error: type[Exception]
    json: Callable[[str], Any]
    stream: Callable[[str], Any]
    close: Callable[[], None] = lambda: None


@dataclass
class Bench:
    """What a test has to hand."""

    sdk: Sdk
    runtime: Runtime
    clock: FakeClock
    recorder: Recorder
    simulator: Simulator
    slept: list[float] = field(default_factory=list)

    @property
    def upstream(self) -> int:
        """Requests that reached the provider."""
        return self.simulator.counts().total.requests


def _text(prompt: str) -> list[Any]:
    return [{"role": "user", "content": prompt}]


def _openai_sync(runtime: Runtime, url: str, http_client: Any) -> Sdk:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="key", http_client=http_client)

    def stream(prompt: str) -> Any:
        options: Any = {"include_usage": True}
        return [
            chunk.model_dump()
            for chunk in client.chat.completions.create(
                model="gpt-4o", messages=_text(prompt), stream=True, stream_options=options
            )
        ]

    return Sdk(
        "openai",
        "gpt-4o",
        openai.InternalServerError,
        lambda prompt: client.chat.completions.create(model="gpt-4o", messages=_text(prompt)).model_dump(),
        stream,
        client.close,
    )


def _openai_responses(runtime: Runtime, url: str) -> Sdk:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="key", http_client=runtime.httpx2_client())
    return Sdk(
        "openai",
        "gpt-4o",
        openai.InternalServerError,
        lambda prompt: client.responses.create(model="gpt-4o", input=prompt).model_dump(),
        lambda prompt: [
            event.model_dump() for event in client.responses.create(model="gpt-4o", input=prompt, stream=True)
        ],
        client.close,
    )


def _openai_async(runtime: Runtime, url: str) -> Sdk:
    async def ask(prompt: str, stream: bool) -> Any:
        async with openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="key", http_client=runtime.async_httpx2_client()
        ) as client:
            if not stream:
                return (
                    await client.chat.completions.create(model="gpt-4o", messages=_text(prompt))
                ).model_dump()
            chunks = await client.chat.completions.create(model="gpt-4o", messages=_text(prompt), stream=True)
            return [chunk.model_dump() async for chunk in chunks]

    return Sdk(
        "openai",
        "gpt-4o",
        openai.InternalServerError,
        lambda prompt: asyncio.run(ask(prompt, False)),
        lambda prompt: asyncio.run(ask(prompt, True)),
    )


def _anthropic_sync(runtime: Runtime, url: str) -> Sdk:
    client = anthropic.Anthropic(base_url=url, api_key="key", http_client=runtime.httpx2_client())

    def stream(prompt: str) -> Any:
        with client.messages.stream(
            model="claude-sonnet-5-5", max_tokens=32, messages=_text(prompt)
        ) as events:
            return [event.model_dump() for event in events]

    return Sdk(
        "anthropic",
        "claude-sonnet-5-5",
        anthropic.InternalServerError,
        lambda prompt: client.messages.create(
            model="claude-sonnet-5-5", max_tokens=32, messages=_text(prompt)
        ).model_dump(),
        stream,
        client.close,
    )


def _anthropic_async(runtime: Runtime, url: str) -> Sdk:
    async def ask(prompt: str, stream: bool) -> Any:
        async with anthropic.AsyncAnthropic(
            base_url=url, api_key="key", http_client=runtime.async_httpx2_client()
        ) as client:
            asked: Any = {"model": "claude-sonnet-5-5", "max_tokens": 32, "messages": _text(prompt)}
            if not stream:
                return (await client.messages.create(**asked)).model_dump()
            async with client.messages.stream(**asked) as events:
                return [event.model_dump() async for event in events]

    return Sdk(
        "anthropic",
        "claude-sonnet-5-5",
        anthropic.InternalServerError,
        lambda prompt: asyncio.run(ask(prompt, False)),
        lambda prompt: asyncio.run(ask(prompt, True)),
    )


SDKS: dict[str, Callable[[Runtime, str], Sdk]] = {
    "openai-sync": lambda runtime, url: _openai_sync(runtime, url, runtime.httpx2_client()),
    "openai-sync-legacy-httpx": lambda runtime, url: _openai_sync(runtime, url, runtime.httpx_client()),
    "openai-responses": _openai_responses,
    "openai-async": _openai_async,
    "anthropic-sync": _anthropic_sync,
    "anthropic-async": _anthropic_async,
}


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    """One simulator for a module, reset for each test."""
    with Simulator() as running:
        yield running


@pytest.fixture(params=list(SDKS))
def bench(
    request: pytest.FixtureRequest, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """An SDK over a fresh runtime. Sleeps of the SDK's retry loop are recorded and cost no time."""
    simulator.reset()
    clock, recorder = FakeClock(), Recorder()
    runtime = Runtime({"circuit_breaker": {"failure_threshold": 3}}, clock=clock, listeners=[recorder])
    bench = Bench(SDKS[request.param](runtime, simulator.url), runtime, clock, recorder, simulator)

    async def no_sleep(seconds: float) -> None:
        bench.slept.append(seconds)

    for module in (openai._base_client, anthropic._base_client):
        monkeypatch.setattr(module.time, "sleep", bench.slept.append)
        monkeypatch.setattr(module.anyio, "sleep", no_sleep)
    yield bench
    bench.sdk.close()
