"""How calls end while a provider is down: a share of them are repeats that the cache answers."""

from __future__ import annotations

import threading
import time
from typing import Any

import openai

from benchmarks.concurrency.callers import fresh, sdk
from benchmarks.concurrency.loads import SETTINGS
from benchmarks.concurrency.promise import Effort, Promise
from benchmarks.concurrency.provider import CHAT, Provider
from benchmarks.stats import Spread, spread
from underlay import Runtime

__all__ = ["outage"]

_DOWN = 0.2  # seconds until the failing provider says so
_AT_ONCE = 0.05
_THREADS = 4


def outage(effort: Effort, given: Provider) -> list[Promise]:
    """The share of calls that were answered, or refused within 50 ms, while every upstream answer is a 503
    after 200 ms."""
    ours = sdk("threads", given.url, runtime=Runtime(SETTINGS))
    bare = sdk("threads", given.url)
    known = [fresh() for _ in range(4)]
    for question in known:
        _ask(ours, question)
    with given.down(_DOWN):
        began = time.perf_counter()
        waits = _asked(ours, effort.outage, known)
        took = time.perf_counter() - began
        alone = _asked(bare, max(_THREADS, effort.outage // 50), known)
    ours.close()
    bare.close()
    calls = f"{effort.outage} calls by {_THREADS} threads in {took:.1f} s, 2 of 5 of them repeats"
    return [
        Promise(
            "the provider is down: answered or refused within 50 ms",
            "> 99 %",
            _share(waits),
            "%",
            f"the bare SDK without retries: {_share(alone).median:.0f} %, each call waits 200 ms for its 503 "
            f"({calls})",
            99,
        )
    ]


def _asked(client: Any, calls: int, known: list[str]) -> list[float]:
    """Seconds until each call was answered or refused."""
    waits: list[float] = []

    def run(mine: int) -> None:
        for place in range(mine):
            question = known[place % len(known)] if place % 5 < 2 else fresh()
            began = time.perf_counter()
            _ask(client, question)
            waits.append(time.perf_counter() - began)

    threads = [threading.Thread(target=run, args=(calls // _THREADS,)) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return waits


def _ask(client: Any, question: str) -> None:
    try:
        client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": question}])
    except openai.InternalServerError:
        return


def _share(waits: list[float]) -> Spread:
    return spread([100 * sum(wait < _AT_ONCE for wait in waits) / len(waits)])
