"""What a hit takes, from the caller's side."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from benchmarks.concurrency.callers import sdk
from benchmarks.concurrency.loads import SETTINGS
from benchmarks.concurrency.promise import Effort, Promise
from benchmarks.concurrency.provider import CHAT, Provider
from benchmarks.replies import JSON_REPLY, transport
from benchmarks.stats import Spread, spread
from underlay import Runtime

__all__ = ["hits"]

_VARIABLE = "BENCH_API_KEY"


def hits(effort: Effort, given: Provider) -> list[Promise]:
    """The same answer again, one call after the other: as a library call, and through the SDK."""
    route = {"base_url": f"{given.url}/v1", "api_key_env": _VARIABLE}
    runtime = Runtime({**SETTINGS, "models": {"*": route}})
    with _key():
        library = _times(effort.hits, lambda: runtime.call("a hit", model=CHAT))
    inner = transport(httpx2, JSON_REPLY, asynchronous=False)
    bare = sdk("threads", given.url, inner=inner)
    ours = sdk("threads", given.url, runtime=runtime, inner=inner)
    instant, through = (_times(effort.hits, _ask(client)) for client in (bare, ours))
    for each in (bare, ours, runtime):
        each.close()
    time_itself = "the time itself, against nothing"
    return [
        Promise("a hit, as `runtime.call`", "< 1 ms", library, "ms", time_itself, most=1.0),
        Promise(
            "a hit, through the openai SDK and with it",
            "< 1 ms",
            through,
            "ms",
            f"{time_itself}; the bare SDK on an instant reply: {instant.median:.2f} ms",
            most=1.0,
        ),
    ]


def _ask(client: Any) -> Callable[[], object]:
    messages = [{"role": "user", "content": "a hit, through the SDK"}]
    return lambda: client.chat.completions.create(model=CHAT, messages=messages)


@contextmanager
def _key() -> Iterator[None]:
    """`Runtime.call` takes its API key from the environment."""
    os.environ[_VARIABLE] = "sk-bench"
    try:
        yield
    finally:
        del os.environ[_VARIABLE]


def _times(calls: int, ask: Callable[[], object]) -> Spread:
    """Milliseconds of so many calls, after two that are not timed: the miss and the first hit."""
    taken = []
    for place in range(calls + 2):
        began = time.perf_counter()
        ask()
        if place > 1:
            taken.append((time.perf_counter() - began) * 1e3)
    return spread(taken)
