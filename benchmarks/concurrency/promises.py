"""The classic promises of this kind of runtime, each measured against a baseline that is said in words.

The provider of the promises takes 1 to 3 s. Here it takes a tenth of that, drawn for each question, and so
every ratio is measured and no second is multiplied. A promise of batching or of a total says "against one
by one" in the classic text; what is left of it against plain fan-out, which any asynchronous program has, is
in a row of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import fmean
from typing import Any

import httpx2

from benchmarks.concurrency.callers import Callers, Turn, fresh, sdk
from benchmarks.concurrency.hits import hits
from benchmarks.concurrency.loads import SETTINGS
from benchmarks.concurrency.outage import outage
from benchmarks.concurrency.promise import Effort, Promise
from benchmarks.concurrency.provider import Provider, provider
from benchmarks.stats import Spread, spread
from underlay import Runtime

__all__ = ["promises"]

_SCALE = 10
_SECONDS = 2.0 / _SCALE  # of the classic example's call
_DOLLARS = 0.20  # what it costs
_PACE = {"first_token": _SECONDS, "jitter": 0.5}  # 1 to 3 s, scaled


def promises(effort: Effort, *, seed: int, step: Callable[[], None]) -> list[Promise]:
    """Measure every row. `step` is called five times."""
    draw = random.Random(seed)
    made: list[Promise] = []
    with ExitStack() as stack:
        given = stack.enter_context(provider(chat=_PACE, embedding=_PACE))
        steady = stack.enter_context(provider(chat={"first_token": _SECONDS}))
        measures: Sequence[Callable[[], list[Promise]]] = (
            lambda: _batching(effort, given),
            lambda: _repeats(effort, steady, draw),
            lambda: _overhead(effort, given),
            lambda: hits(effort, given),
            lambda: outage(effort, steady),
        )
        for rows in measures:
            made += rows()
            step()
    return made


class _Pair:
    """The bare SDK, and the SDK on each of two fresh runtimes, as tasks of one loop."""

    def __init__(self, given: Provider, inner: tuple[Any, Any] = (None, None)) -> None:
        self.callers = Callers("asyncio")
        self.bare = sdk("asyncio", given.url, inner=inner[0])
        self.ours, self.other = (
            sdk("asyncio", given.url, runtime=Runtime(SETTINGS), inner=inner[1]) for _ in range(2)
        )

    def __enter__(self) -> _Pair:
        for client in (self.bare, self.ours):
            self.callers.at_once(self.callers.job("chat"), client, [fresh()])
        return self

    def __exit__(self, *_: object) -> None:
        self.callers.close(self.bare, self.ours, self.other)


def _workload(size: int, draw: random.Random) -> list[str]:
    """So many questions, 40 % of them repeats of others, in random order."""
    own = [fresh() for _ in range(size - size * 2 // 5)]
    asked = own + draw.choices(own, k=size - len(own))
    draw.shuffle(asked)
    return asked


def _mean(turn: Turn) -> float:
    return fmean(one.done for one in turn.seen)


def _gains(ours: Sequence[Turn], base: Sequence[Turn]) -> tuple[Spread, Spread]:
    """Percent off the average wait, and how many times the throughput."""
    pairs = list(zip(ours, base, strict=True))
    off = [100 * (1 - _mean(one) / _mean(other)) for one, other in pairs]
    return spread(off), spread([other.wall / one.wall for one, other in pairs])


def _batching(effort: Effort, given: Provider) -> list[Promise]:
    turns: dict[str, list[Turn]] = {"ours": [], "alone": [], "fan-out": []}
    with _Pair(given) as pair:
        job = pair.callers.job("embedding")
        for _ in range(effort.rounds):
            asked = [fresh() for _ in range(effort.batched)]
            turns["alone"].append(pair.callers.one_by_one(job, pair.bare, asked))
            turns["fan-out"].append(pair.callers.at_once(job, pair.bare, asked))
            turns["ours"].append(pair.callers.at_once(job, pair.ours, asked))
    off, times = _gains(turns["ours"], turns["alone"])
    against, faster = _gains(turns["ours"], turns["fan-out"])
    calls = f"{effort.batched} embeddings wanted at once"
    one = f"the bare SDK, the same calls one after the other; waits count from when all are wanted ({calls})"
    fan = f"the bare SDK, the same calls at once, each a request of its own ({calls})"
    return [
        Promise("batching: average latency", "20-40 % less", off, "% less", one, 20),
        Promise("batching: throughput", "2-5x", times, "x", one, 2),
        Promise("batching: average latency, against fan-out", "", against, "% less", fan),
        Promise("batching: throughput, against fan-out", "", faster, "x", fan),
    ]


def _repeats(effort: Effort, given: Provider, draw: random.Random) -> list[Promise]:
    """The classic example, 100 calls of 2 s and $0.20 with 40 % repeats, and the promises in total."""
    turns: dict[str, list[Turn]] = {"ours": [], "alone": [], "fan-out": [], "in turn": []}
    sent: list[int] = []
    for place in range(effort.rounds):
        with _Pair(given) as pair:
            job, asked = pair.callers.job("chat"), _workload(effort.callers, draw)
            turns["alone"].append(pair.callers.one_by_one(job, pair.bare, asked))
            turns["fan-out"].append(pair.callers.at_once(job, pair.bare, asked))
            before = given.requests()
            turns["ours"].append(pair.callers.at_once(job, pair.ours, asked))
            sent.append(given.requests() - before)
            if place == 0:  # long, and next to no spread
                turns["in turn"].append(pair.callers.one_by_one(job, pair.other, asked))
    return [*_example(effort.callers, turns, sent), *_total(effort.callers, turns, sent)]


def _example(size: int, turns: dict[str, list[Turn]], sent: list[int]) -> list[Promise]:
    pairs = list(zip(turns["ours"], turns["alone"], strict=True))
    most = size * _DOLLARS * 0.6
    return [
        Promise(
            f"classic example: {size} calls, 40 % repeats, 2 s each: time for all",
            "5 s instead of 200 s (2.5 %)",
            spread([100 * one.wall / other.wall for one, other in pairs]),
            "%",
            f"the bare SDK, {size} calls one after the other; under underlay all at once",
            most=2.5 * 100 / size,
        ),
        Promise(
            "classic example: cost at $0.20 a call",
            "40 % less",
            spread([each * _DOLLARS for each in sent]),
            "$",
            f"the bare SDK, where every call is paid for: ${size * _DOLLARS:.2f}",
            most=most * 1.0001,
        ),
    ]


def _total(size: int, turns: dict[str, list[Turn]], sent: list[int]) -> list[Promise]:
    off, times = _gains(turns["ours"], turns["alone"])
    against, faster = _gains(turns["ours"], turns["fan-out"])
    calls = f"{size} chat calls, 40 % repeats, wanted at once"
    one = f"the bare SDK, the same calls one after the other ({calls})"
    fan = f"the bare SDK, the same calls at once ({calls})"
    in_turn = [100 * (1 - turns["in turn"][0].wall / turns["alone"][0].wall)]
    return [
        Promise("in total: average latency", "60-85 % less", off, "% less", one, 60),
        Promise("in total: throughput", "3-7x", times, "x", one, 3),
        Promise(
            "in total: cost",
            "40-60 % less",
            spread([100 * (1 - each / size) for each in sent]),
            "% less",
            "requests that reached the provider, against one for every call",
            40,
        ),
        Promise("in total: average latency, against fan-out", "", against, "% less", fan),
        Promise("in total: throughput, against fan-out", "", faster, "x", fan),
        Promise(
            "the cache alone: average time of a call",
            "",
            spread(in_turn),
            "% less",
            "one after the other on both sides, so that nothing is shared or merged",
        ),
    ]


class _Wire(httpx2.AsyncHTTPTransport):
    """Counts requests and the bytes of their heads, both ways, as HTTP/1.1 writes them."""

    def __init__(self) -> None:
        super().__init__(trust_env=False)
        self.requests = 0
        self.head_bytes = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        line = len(request.method) + len(request.url.raw_path) + len(" HTTP/1.1 ")
        self.requests += 1
        self.head_bytes += line + len("HTTP/1.1 200 OK")
        for headers in (request.headers.raw, response.headers.raw):
            self.head_bytes += sum(len(name) + len(value) + len(": \r\n") for name, value in headers) + 4
        return response


def _overhead(effort: Effort, given: Provider) -> list[Promise]:
    requests: list[float] = []
    heads: list[float] = []
    wires = _Wire(), _Wire()
    with _Pair(given, wires) as pair:
        job = pair.callers.job("embedding")
        for _ in range(effort.rounds):
            asked = [fresh() for _ in range(effort.callers)]
            counted = []
            for client, wire in ((pair.bare, wires[0]), (pair.ours, wires[1])):
                wire.requests = wire.head_bytes = 0
                pair.callers.at_once(job, client, asked)
                counted.append((wire.requests, wire.head_bytes))
            requests.append(100 * (1 - counted[1][0] / counted[0][0]))
            heads.append(100 * (1 - counted[1][1] / counted[0][1]))
    base = f"the bare SDK, {effort.callers} embeddings at once, each a request of its own"
    return [
        Promise("HTTP overhead: requests", "50-90 % less", spread(requests), "% less", base, 50),
        Promise("HTTP overhead: bytes of headers", "50-90 % less", spread(heads), "% less", base, 50),
    ]
