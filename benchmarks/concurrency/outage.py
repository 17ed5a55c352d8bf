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
from benchmarks.stats import spread
from underlay import Runtime

__all__ = ["outage"]

_DOWN = 0.2  # seconds until the failing provider says so
_AT_ONCE = 0.05
_THREADS = 4


def outage(effort: Effort, given: Provider) -> list[Promise]:
    """The share of calls that were answered or refused without asking the provider, while each of its answers
    is a 503 after 200 ms; and how long those took, by a clock that other jobs of the machine delay too."""
    ours = sdk("threads", given.url, runtime=Runtime(SETTINGS))
    bare = sdk("threads", given.url)
    known = [fresh() for _ in range(4)]
    for question in known:
        _ask(ours, question)
    with given.down(_DOWN):
        before = given.requests()
        waits = _asked(ours, effort.outage, known)
        sent = given.requests() - before
        alone = _asked(bare, _THREADS, known)
    ours.close()
    bare.close()
    # Those that asked are the slowest.
    at_once = sorted(waits)[: len(waits) - sent]
    late = at_once[int(0.99 * (len(at_once) - 1))] * 1e3
    in_time = 100 * sum(wait < _AT_ONCE for wait in waits) / len(waits)
    return [
        Promise(
            "the provider is down: answered or refused without asking it",
            "> 99 %",
            spread([100 * (1 - sent / len(waits))]),
            "%",
            "the bare SDK without retries: 0 %, each call waits "
            f"{min(alone) * 1e3:.0f} ms or more for its 503. "
            f"{len(waits)} calls by {_THREADS} threads, 2 of 5 of them repeats; 99 % of those at once within "
            f"{late:.0f} ms, {in_time:.1f} % of all within 50 ms",
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
