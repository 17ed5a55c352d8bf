"""Those who call: the official openai SDK on httpx2, bare and on underlay, as tasks of one event loop or as
threads, all at once.

Nothing is patched here, so the bare clients of this process are bare.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import openai

from benchmarks.concurrency.provider import CHAT, EMBEDDING
from underlay import Runtime

__all__ = ["MODES", "Callers", "Job", "Seen", "Turn", "fresh", "sdk"]

MODES = ("asyncio", "threads")

_QUESTION = "What is the capital of France, on which river does it lie, and how many people live there?"
_asked = itertools.count()


def fresh() -> str:
    """A question that nobody asked before."""
    return f"{_QUESTION} ({next(_asked)})"


def sdk(mode: str, base_url: str, *, runtime: Runtime | None = None, inner: Any = None) -> Any:
    """An SDK client, with the SDK's own limits of connections; with `runtime` it goes through underlay.
    `inner` takes the network's place under either, where it is given."""
    limits = openai.DEFAULT_CONNECTION_LIMITS
    transport, tasks = inner, mode == "asyncio"
    if runtime is not None and inner is not None:
        transport = (runtime.async_httpx2_transport if tasks else runtime.httpx2_transport)(inner)
    http: Any = httpx2.AsyncClient if tasks else httpx2.Client
    if runtime is not None and inner is None:
        http = runtime.async_httpx2_client if tasks else runtime.httpx2_client
    make: Any = openai.AsyncOpenAI if tasks else openai.OpenAI
    return make(
        api_key="sk-bench",
        base_url=f"{base_url}/v1",
        http_client=http(transport=transport, timeout=600.0, trust_env=False, limits=limits),
        max_retries=0,
    )


@dataclass(frozen=True, slots=True)
class Seen:
    """What one caller saw, in seconds after all were told to go: when its first token came (streams), and
    when its whole answer. `led`: its answer was not another call's."""

    done: float
    first: float = 0.0
    led: bool = True


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: what every caller saw, and the seconds until the last of them had its answer."""

    seen: Sequence[Seen]
    wall: float


Job = Callable[[Any, str, Callable[[], float]], Any]
"""(SDK client, question, seconds since the start) -> Seen, or an awaitable of it."""


class Callers:
    """Runs jobs of a mode, all at once or one after the other."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self._loop = asyncio.new_event_loop() if mode == "asyncio" else None

    def job(self, kind: str) -> Job:
        """`embedding` (of a text, or of a list in one request), `chat` or `stream`."""
        return (_ASYNC if self.mode == "asyncio" else _SYNC)[kind]

    def at_once(self, job: Job, client: Any, questions: Sequence[Any]) -> Turn:
        """Each question by a caller of its own, all told to go at the same moment."""
        gc.collect()
        if self._loop is not None:
            return self._loop.run_until_complete(_gathered(job, client, questions))
        return _threaded(job, client, questions)

    def one_by_one(self, job: Job, client: Any, questions: Sequence[Any]) -> Turn:
        """The same questions, each after the answer to the one before."""
        gc.collect()
        if self._loop is not None:
            return self._loop.run_until_complete(_in_turn(job, client, questions))
        began = time.perf_counter()
        seen = [job(client, question, _since(began)) for question in questions]
        return Turn(seen, time.perf_counter() - began)

    def close(self, *clients: Any) -> None:
        """Close clients of this mode."""
        for client in clients:
            if self._loop is not None:
                self._loop.run_until_complete(client.close())
            else:
                client.close()
        if self._loop is not None:
            gc.collect()  # streams leave generators that the loop ends
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()


def _since(began: float) -> Callable[[], float]:
    return lambda: time.perf_counter() - began


async def _gathered(job: Job, client: Any, questions: Sequence[Any]) -> Turn:
    since = _since(time.perf_counter())
    calls = [job(client, question, since) for question in questions]
    seen: list[Seen | BaseException] = await asyncio.gather(*calls, return_exceptions=True)
    wall, answered = since(), [one for one in seen if isinstance(one, Seen)]
    for one in seen:
        if isinstance(one, BaseException):
            raise one
    return Turn(answered, wall)


async def _in_turn(job: Job, client: Any, questions: Sequence[Any]) -> Turn:
    since = _since(time.perf_counter())
    seen = [await job(client, question, since) for question in questions]
    return Turn(seen, since())


def _threaded(job: Job, client: Any, questions: Sequence[Any]) -> Turn:
    seen: list[Seen | None] = [None] * len(questions)
    failed: list[Exception] = []
    began = [0.0]
    gate = threading.Barrier(len(questions) + 1, action=lambda: began.__setitem__(0, time.perf_counter()))

    def run(place: int) -> None:
        gate.wait()
        try:
            seen[place] = job(client, questions[place], _since(began[0]))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(questions))]
    for thread in threads:
        thread.start()
    gate.wait()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - began[0]
    if failed:
        raise failed[0]
    return Turn([one for one in seen if one is not None], wall)


def _messages(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


def _led(headers: Any) -> bool:
    return "collapsed" not in headers.get("cache-status", "")


async def _aembed(client: Any, question: Any, since: Callable[[], float]) -> Seen:
    await client.embeddings.create(model=EMBEDDING, input=question)
    return Seen(since())


def _embed(client: Any, question: Any, since: Callable[[], float]) -> Seen:
    client.embeddings.create(model=EMBEDDING, input=question)
    return Seen(since())


async def _achat(client: Any, question: str, since: Callable[[], float]) -> Seen:
    await client.chat.completions.create(model=CHAT, messages=_messages(question))
    return Seen(since())


def _chat(client: Any, question: str, since: Callable[[], float]) -> Seen:
    client.chat.completions.create(model=CHAT, messages=_messages(question))
    return Seen(since())


async def _astream(client: Any, question: str, since: Callable[[], float]) -> Seen:
    first = 0.0
    stream = await client.chat.completions.create(model=CHAT, messages=_messages(question), stream=True)
    async for chunk in stream:
        if not first and chunk.choices and chunk.choices[0].delta.content:
            first = since()
    return Seen(since(), first, _led(stream.response.headers))


def _stream(client: Any, question: str, since: Callable[[], float]) -> Seen:
    first = 0.0
    stream = client.chat.completions.create(model=CHAT, messages=_messages(question), stream=True)
    for chunk in stream:
        if not first and chunk.choices and chunk.choices[0].delta.content:
            first = since()
    return Seen(since(), first, _led(stream.response.headers))


_ASYNC: dict[str, Callable[..., Awaitable[Seen]]] = {
    "embedding": _aembed,
    "chat": _achat,
    "stream": _astream,
}
_SYNC: dict[str, Callable[..., Seen]] = {"embedding": _embed, "chat": _chat, "stream": _stream}
