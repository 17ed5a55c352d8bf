"""The part of the scripted program in which calls come together: identical ones at once, embeddings in every
kind of window, and a second runtime whose windows hold every call back.

How a call was answered is read off its reply, as any program could. Which windows its calls left in is what
the runtimes counted: nobody else knows what closed one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any, Protocol

import openai
from opentelemetry.metrics import get_meter_provider

from underlay import Runtime
from underlay.telemetry import metrics as m

__all__ = ["ADAPTIVE", "KINDS", "Reply", "Together", "Windows", "fixed_runtime", "windows_of"]

CROWD, RELEASED, EMBED, LARGE = "gpt-4.1", "gpt-4.1-mini", "text-embedding-3-small", "text-embedding-3-large"
FULL = 5  # calls that fill a window of the second runtime
FIXED_MS = 2000.0  # how long its windows stay open
QUEUED = 3  # calls that wait in one of them while the metrics are collected
ADAPTIVE = {
    "UNDERLAY_LLM_BATCH__BATCH_TIMEOUT_MS": "1500",
    "UNDERLAY_LLM_BATCH__MERGE_MAX_INPUTS": "6",
}
"""Settings of the first runtime under which each window is closed by what the script means to close it, also
on a slow machine."""

KINDS = {
    "merged/size", "merged/time", "merged/idle", "merged/deadline", "released/size", "released/time",
    "alone/time",
}  # fmt: skip
"""Every way in which calls leave a window, as "mode/trigger": each comes in every round."""

Windows = dict[str, dict[str, list[int]]]
"""By model and "mode/trigger": dispatches, and calls in them."""


@dataclass(frozen=True)
class Reply:
    """An answer: to what, its usage (input, output), seconds, and whether it was shared with another call."""

    question: tuple[str, str, bool]
    usage: tuple[int, int]
    took: float
    shared: bool
    first_chunk: float | None = None


class Faults(Protocol):
    """How the simulator is asked for a fault."""

    def __call__(self, fault: str, **scope: Any) -> None:
        """Ask for it."""
        ...


def fixed_runtime() -> Runtime:
    """The second runtime: its telemetry is that of the process."""
    from underlay_instrumentation import bridge

    batches = {"linger": "fixed", "max_batch_size": FULL, "batch_timeout_ms": FIXED_MS}
    runtime = Runtime({"llm_batch": batches, "llm_cache": {"maxsize": 50}})
    runtime.listen(bridge(runtime))
    return runtime


def windows_of(runtimes: Iterable[Runtime], before: Windows | None = None) -> Windows:
    """What left windows so far, less what had `before`."""
    counts: dict[str, dict[str, Counter[int]]] = {}
    for runtime in runtimes:
        for (_, model), stats in runtime.stats().items():
            for (mode, trigger), dispatches in stats.batches.items():
                found = counts.setdefault(model, {}).setdefault(f"{mode}/{trigger}", Counter())
                found.update({0: dispatches, 1: stats.batched[mode, trigger]})
    for model, kinds in (before or {}).items():
        for kind, (dispatches, calls) in kinds.items():
            counts[model][kind].subtract({0: dispatches, 1: calls})
    return {
        model: {kind: [count[0], count[1]] for kind, count in kinds.items() if count[0]}
        for model, kinds in counts.items()
    }


class Together:
    """One round; `tag` makes its questions new. `run` gives the replies; `queued_at` is when the metrics were
    collected while `QUEUED` calls waited."""

    def __init__(self, tag: str, fault: Faults, fixed: Runtime) -> None:
        self._tag = tag
        self._fault = fault
        self._fixed = fixed
        self.replies: list[Reply] = []
        self.queued_at = 0.0

    def run(self) -> None:
        """Everything: crowds of tasks and of threads, and windows."""
        self._threads(6)
        self._threads(4, stream=True)
        asyncio.run(self._tasks())

    def _threads(self, count: int, *, stream: bool = False) -> None:
        """Threads that ask the same at once, while the first one's answer takes its time."""
        client, start = openai.OpenAI(max_retries=0), Barrier(count)
        prompt = f"what do the threads ask, {self._tag}"
        self._fault("slow;seconds=2", model=CROWD, count=1)

        def one(_: int) -> Reply:
            start.wait()
            began = time.perf_counter()
            raw = client.chat.completions.with_raw_response.create(**_asked(CROWD, prompt, stream))
            answer, usage, first = raw.parse(), None, None
            for chunk in answer if stream else (answer,):
                first = first or time.perf_counter() - began
                usage = chunk.usage
            took = time.perf_counter() - began
            return _reply((CROWD, prompt, stream), usage, took, raw.headers, first if stream else None)

        with ThreadPoolExecutor(count) as threads:
            self.replies += threads.map(one, range(count))

    async def _tasks(self) -> None:
        async with openai.AsyncOpenAI(max_retries=0) as client:
            await asyncio.gather(self._crowds(client), self._adaptive(client), self._held_back())

    async def _crowds(self, client: openai.AsyncOpenAI) -> None:
        """Identical calls, then identical streams."""
        self._fault("slow;seconds=2", model=CROWD, count=1)
        await _all(lambda _: self._chat(client, CROWD, "what do all ask"), 8)
        self._fault("slow;seconds=1.5", model=CROWD, count=1)
        await _all(lambda _: self._stream(client, CROWD, "what do all read"), 4)

    async def _adaptive(self, client: openai.AsyncOpenAI) -> None:
        """One embedding is under way, and the others wait: for its end, until they are too many, until one of
        them cannot wait longer, until they have waited long enough."""

        async def behind(seconds: float, kind: str, count: int, headers: Any = None) -> None:
            self._fault(f"slow;seconds={seconds}", model=EMBED, count=1)
            first = asyncio.create_task(self._embed(client, EMBED, f"{kind} first"))
            await asyncio.sleep(0.1)
            await _all(lambda n: self._embed(client, EMBED, f"{kind} {n}", headers), count)
            await first

        await behind(1.0, "idle", 4)
        await behind(1.0, "full", 6)
        await behind(3.5, "hurried", 2, {"underlay-deadline": "2"})
        await behind(3.5, "late", 3)

    async def _held_back(self) -> None:
        """The second runtime: a full window, one whose time is over, and one that nobody else came to."""
        http = self._fixed.async_httpx2_client()
        async with openai.AsyncOpenAI(max_retries=0, http_client=http) as client:
            await _all(lambda n: self._chat(client, RELEASED, f"held back {n}"), FULL)
            await _all(lambda n: self._embed(client, LARGE, f"held back {n}"), FULL)
            waiting = asyncio.create_task(_all(lambda n: self._chat(client, RELEASED, f"late {n}"), QUEUED))
            await self._collect()
            await waiting
            await self._embed(client, LARGE, "nobody else")

    async def _collect(self) -> None:
        """Have the metrics collected and sent while the calls wait."""
        while sum(value for _, value in self._fixed.collect(m.QUEUED.key)) < QUEUED:
            await asyncio.sleep(0.01)
        flush = getattr(get_meter_provider(), "force_flush", None)
        assert flush is not None, "the script runs without an SDK for metrics"
        await asyncio.to_thread(flush)
        self.queued_at = time.time()

    async def _chat(self, client: openai.AsyncOpenAI, model: str, prompt: str) -> None:
        prompt, began = f"{prompt}, {self._tag}", time.perf_counter()
        raw = await client.chat.completions.with_raw_response.create(**_asked(model, prompt))
        usage, took = raw.parse().usage, time.perf_counter() - began
        self.replies.append(_reply((model, prompt, False), usage, took, raw.headers))

    async def _stream(self, client: openai.AsyncOpenAI, model: str, prompt: str) -> None:
        prompt, began = f"{prompt}, {self._tag}", time.perf_counter()
        raw = await client.chat.completions.with_raw_response.create(**_asked(model, prompt, stream=True))
        usage, first = None, None
        async for chunk in raw.parse():
            first = first or time.perf_counter() - began
            usage = chunk.usage
        took = time.perf_counter() - began
        self.replies.append(_reply((model, prompt, True), usage, took, raw.headers, first))

    async def _embed(self, client: openai.AsyncOpenAI, model: str, text: str, headers: Any = None) -> None:
        text, began = f"{text}, {self._tag}", time.perf_counter()
        raw = await client.embeddings.with_raw_response.create(model=model, input=text, extra_headers=headers)
        usage, took = raw.parse().usage, time.perf_counter() - began
        self.replies.append(_reply((model, text, False), usage, took, raw.headers))


async def _all(call: Callable[[int], Awaitable[None]], count: int) -> None:
    await asyncio.gather(*(call(number) for number in range(count)))


def _asked(model: str, prompt: str, stream: bool = False) -> Any:
    asked = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    return asked | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})


def _reply(
    question: tuple[str, str, bool], usage: Any, took: float, headers: Any, first: float | None = None
) -> Reply:
    """One answer. It was shared when it says that it was collapsed with another request (RFC 9211)."""
    assert usage is not None, f"{question} came without usage"
    tokens = (usage.prompt_tokens, getattr(usage, "completion_tokens", 0))
    return Reply(question, tokens, took, "collapsed" in headers.get("cache-status", ""), first)
