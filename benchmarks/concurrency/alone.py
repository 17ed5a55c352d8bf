"""What a flight and a window cost a call that shares neither: CPU of the calling thread, added to the same
miss without them. Replies come out of memory, and the variants take turns in one process."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from benchmarks.concurrency.callers import MODES, fresh
from benchmarks.concurrency.loads import SETTINGS
from benchmarks.concurrency.provider import CHAT, EMBEDDING
from benchmarks.replies import JSON_REPLY, Reply, transport
from benchmarks.stats import Spread, differences, spread
from underlay import Runtime

__all__ = ["KINDS", "ROWS", "Alone", "alone"]

KINDS = ("a flight, on a chat call", "a window, on an embedding", "nothing, on a chat call")
"""The last is the noise: the skeleton against itself."""

ROWS = [(mode, kind) for mode in MODES for kind in KINDS]
_PAIR = ("skeleton", "on")
_OFF = {"enabled": False}
_SKELETON: dict[str, object] = {**SETTINGS, "coalesce": _OFF, "llm_batch": _OFF}
_ON: dict[str, dict[str, object]] = {
    KINDS[0]: {**SETTINGS, "llm_batch": _OFF},
    KINDS[1]: {**SETTINGS, "coalesce": _OFF},
    KINDS[2]: _SKELETON,
}
_VECTOR = Reply(
    "application/json",
    (
        json.dumps(
            {
                "object": "list",
                "data": [{"object": "embedding", "index": 0, "embedding": [0.25] * 256}],
                "model": EMBEDDING,
                "usage": {"prompt_tokens": 24, "total_tokens": 24},
            }
        ).encode(),
    ),
)
_WARM = 1100  # calls a client makes before it is timed: the cache is full after a thousand
_BURST = 20  # calls: short ones, right after each other, because a shared machine's pace drifts
_ERROR = 0.3  # microseconds: the standard error of a median that is small enough to end
_LONGEST = 6  # times as many rounds as were asked for, on a machine where it does not get there


@dataclass(frozen=True, slots=True)
class Alone:
    """Microseconds of CPU a call: the bare client's, the skeleton's miss, and what was added to it."""

    kind: str
    mode: str
    bare: Spread
    skeleton: Spread
    added: Spread
    target: float = 5.0


def alone(rounds: int, *, seed: int, step: Callable[[], None], warm: int = _WARM) -> list[Alone]:
    """Measure every kind in both modes, after `warm` calls of each variant, in `rounds` bursts of each that
    follow one another, and in more where their neighbours on the machine leave the median uncertain. `step`
    is called after each row."""
    draw, loop = random.Random(seed), asyncio.new_event_loop()
    measured = []
    try:
        for mode, kind in ROWS:
            spent = _spent(mode, kind, loop, draw, (rounds, warm))
            added = differences(spent["on"], spent["skeleton"])
            measured.append(
                Alone(kind, mode, spread(spent["bare"]), spread(spent["skeleton"]), spread(added))
            )
            step()
    finally:
        loop.close()
    return measured


def _spent(
    mode: str, kind: str, loop: asyncio.AbstractEventLoop, draw: random.Random, effort: tuple[int, int]
) -> dict[str, list[float]]:
    """Microseconds a call of each variant, round by round. Nothing else runs between the two of a pair: a
    full collection, say, would leave the next burst with the cold caches of a call that is made once an
    hour."""
    rounds, warm = effort
    operations = {variant: _operation(mode, kind, variant, loop) for variant in ("bare", *_PAIR)}
    for operation in operations.values():
        operation(warm)
    gc.collect()
    gc.freeze()
    spent: dict[str, list[float]] = {variant: [] for variant in operations}
    try:
        while not _certain(spent, rounds):
            for _ in range(rounds):
                for variant in draw.sample(_PAIR, len(_PAIR)):
                    spent[variant].append(_timed(operations[variant]))
        for _ in range(rounds):  # there for its size, and no part of the pair
            spent["bare"].append(_timed(operations["bare"]))
    finally:
        gc.unfreeze()
    return spent


def _certain(spent: dict[str, list[float]], rounds: int) -> bool:
    """Whether the median of what was added is known well enough, or cannot be."""
    done = len(spent["on"])
    if done == 0:
        return False
    added = spread(differences(spent["on"], spent["skeleton"]))
    return added.error <= _ERROR or done >= rounds * _LONGEST


def _timed(operation: Callable[[int], None]) -> float:
    began = time.thread_time()
    operation(_BURST)
    return (time.thread_time() - began) / _BURST * 1e6


def _operation(mode: str, kind: str, variant: str, loop: asyncio.AbstractEventLoop) -> Callable[[int], None]:
    chat, asynchronous = not kind.startswith("a window"), mode == "asyncio"
    inner = transport(httpx2, JSON_REPLY if chat else _VECTOR, asynchronous=asynchronous)
    if variant != "bare":
        runtime = Runtime(_ON[kind] if variant == "on" else _SKELETON)
        wrap: Any = runtime.async_httpx2_transport if asynchronous else runtime.httpx2_transport
        inner = wrap(inner)
    make: Any = httpx2.AsyncClient if asynchronous else httpx2.Client
    http = make(transport=inner, trust_env=False, timeout=600.0)
    url = f"http://127.0.0.1/v1/{'chat/completions' if chat else 'embeddings'}"
    headers = {"authorization": "Bearer sk-bench", "content-type": "application/json"}

    def body() -> bytes:
        asked = {"messages": [{"role": "user", "content": fresh()}]} if chat else {"input": fresh()}
        return json.dumps({"model": CHAT if chat else EMBEDDING, **asked}).encode()

    async def repeat(calls: int) -> None:
        for _ in range(calls):
            await http.post(url, content=body(), headers=headers)

    def loop_through(calls: int) -> None:
        if asynchronous:
            loop.run_until_complete(repeat(calls))
            return
        for _ in range(calls):
            http.post(url, content=body(), headers=headers)

    return loop_through
