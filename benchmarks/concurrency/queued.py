"""Memory of a call that waits: 10,000 of them at once, under the bare SDK and in each place where underlay
lets a call wait. Each figure is a process of its own."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.interleave import environment
from benchmarks.stats import Spread, differences, spread

__all__ = ["PLACES", "Queued", "queued"]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where calls wait. `settings` None is the bare SDK; `same` calls all ask the same."""

    title: str
    kind: str
    settings: dict[str, object] | None = None
    same: bool = False


_TRACED = 5
_HOW = ("rss", "trace")
_HOURS = {"linger": "fixed", "batch_timeout_ms": 3_600_000, "max_batch_size": 10_000}
PLACES: dict[str, _Place] = {
    "bare-chat": _Place("chat, bare: in the transport", "chat"),
    "bare-embedding": _Place("embeddings, bare: in the transport", "embedding"),
    "sent": _Place("chat, each its own flight: in the transport", "chat", {}),
    "followers": _Place("chat, identical: behind one flight", "chat", {}, same=True),
    "released": _Place("chat, `linger: fixed`: in a window that collects", "chat", {"llm_batch": {**_HOURS}}),
    "merged": _Place("embeddings: in merged windows that were sent", "embedding", {}),
    "collecting": _Place(
        "embeddings, `linger: fixed`: in a window that collects", "embedding", {"llm_batch": {**_HOURS}}
    ),
}
"""The bare ones are what the others are held against."""


@dataclass(frozen=True, slots=True)
class Queued:
    """Bytes a call, of so many that wait: what tracemalloc sees (of a fifth as many, for it is slow), and
    what the process grew by (RSS; None where the system does not say). `added` is over the bare SDK's calls
    of the same kind, as tracemalloc sees them."""

    title: str
    calls: int
    traced: Spread
    grown: Spread | None
    added: Spread | None


def queued(
    calls: int, runs: int, *, step: Callable[[], None], places: Sequence[str] = tuple(PLACES)
) -> list[Queued]:
    """Measure each of these places `runs` times; the bare ones of their kinds must be among them. `step` is
    called after each."""
    traced: dict[str, list[float]] = {name: [] for name in places}
    grown: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(runs):
        for name in places:
            traced[name].append(_sample(name, max(1, calls // _TRACED), trace=True))
            grown[name].append(_sample(name, calls, trace=False))
            step()
    return [_row(PLACES[name], calls, traced, grown, name) for name in places]


def _row(
    place: _Place, calls: int, traced: dict[str, list[float]], grown: dict[str, list[float]], name: str
) -> Queued:
    base = traced[f"bare-{place.kind}"]
    added = None if place.settings is None else spread(differences(traced[name], base))
    rss = spread(grown[name]) if all(grown[name]) else None
    return Queued(place.title, calls, spread(traced[name]), rss, added)


def _sample(name: str, calls: int, *, trace: bool) -> float:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.concurrency.queued",
            name,
            str(calls),
            "trace" if trace else "rss",
        ],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        raise RuntimeError(f"calls that wait ({name}) failed:\n{done.stderr}")
    return float(json.loads(done.stdout))


def _resident() -> float:
    status = Path("/proc/self/statm")
    if not status.exists():
        return 0.0
    import resource

    return float(int(status.read_text().split()[1]) * resource.getpagesize())


class _Silent(httpx2.AsyncBaseTransport):
    """A provider that never answers."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody ends this wait")


async def _held(place: _Place, calls: int, *, trace: bool) -> float:
    import openai

    from benchmarks.concurrency.callers import fresh
    from benchmarks.concurrency.loads import SETTINGS
    from benchmarks.concurrency.provider import CHAT, EMBEDDING
    from underlay import Runtime

    inner: Any = _Silent()
    if place.settings is not None:
        inner = Runtime({**SETTINGS, **place.settings}).async_httpx2_transport(inner)
    http = httpx2.AsyncClient(transport=inner, timeout=None, trust_env=False)
    client = openai.AsyncOpenAI(
        api_key="sk-bench", base_url="http://127.0.0.1/v1", http_client=http, max_retries=0, timeout=None
    )

    def ask(question: str) -> Any:
        if place.kind == "embedding":
            return client.embeddings.create(model=EMBEDDING, input=question)
        messages: Any = [{"role": "user", "content": question}]
        return client.chat.completions.create(model=CHAT, messages=messages)

    same = fresh() if place.same else ""
    tasks: set[asyncio.Task[Any]] = set()

    async def more(count: int) -> None:
        tasks.update([asyncio.create_task(ask(same or fresh())) for _ in range(count)])
        for _ in range(10):  # until each has come to where it waits
            await asyncio.sleep(0.01)

    await more(100)  # what is made once
    await asyncio.sleep(0.2)
    gc.collect()
    if trace:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0] if trace else _resident()
    await more(calls)
    await asyncio.sleep(0.2)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0] if trace else _resident()
    if any(task.done() for task in tasks):
        raise RuntimeError("a call did not wait")
    return (after - before) / calls


def _main(arguments: Sequence[str]) -> None:
    name, calls, how = arguments
    loop = asyncio.new_event_loop()
    held = loop.run_until_complete(_held(PLACES[name], int(calls), trace=how == _HOW[True]))
    print(json.dumps(held), flush=True)
    os._exit(0)  # thousands of calls would be cancelled first


if __name__ == "__main__":
    _main(sys.argv[1:])
