"""A storm of windows: members that are cancelled, timed out or interrupted at random points, and crowds that
arrive at once. Nobody is given another's answer, nobody hangs, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import trio
from window_lab import Running, WindowLab, embedding
from window_provider import EMBEDDINGS_URL, answer

from underlay.testing import Received

WAYS = ["sync-httpx", "asyncio-httpx2", "trio-httpx"]
WINDOWS = 500  # of each linger and way, in storms
RUNS = 100  # of each way, in crowds


def own(inputs: object) -> bytes:
    """What a call with these inputs alone would be answered."""
    body = json.dumps(embedding(inputs)).encode()
    return b"".join(answer(Received("POST", EMBEDDINGS_URL, (), body)).frames)  # type: ignore[arg-type]


class Storm:
    """One way in, many windows: what became of every call is counted."""

    def __init__(self, lab: WindowLab, seed: str, settings: dict[str, Any]) -> None:
        self.lab = lab
        self.random = random.Random(f"{seed} {lab.mode}")
        lab.setup(llm_batch=settings)
        self.client = lab.client(timeout=30)
        self.counts: Counter[str] = Counter()
        self._deadlines: dict[Running, Callable[[], None]] = {}

    def settle(self) -> None:
        """Let everybody come to where it waits, or go on beside them: both happen."""
        if self.random.random() < 0.7:
            self.lab.settle()

    def start(self, inputs: object) -> Running:
        """A call that can be timed out by its own caller."""
        lab = self.lab
        limits: dict[str, Any] = {}

        async def ask() -> Any:
            body = embedding(inputs)
            if lab.mode == "asyncio":
                async with asyncio.timeout(None) as limits["limit"]:
                    return (await lab.post(self.client, EMBEDDINGS_URL, body)).content
            if lab.mode == "trio":
                with trio.fail_after(float("inf")) as limits["limit"]:
                    return (await lab.post(self.client, EMBEDDINGS_URL, body)).content
            return (await lab.post(self.client, EMBEDDINGS_URL, body)).content

        def over() -> None:
            limit = limits.get("limit")
            if lab.mode == "asyncio" and limit is not None and not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())
            elif lab.mode == "trio" and limit is not None:
                limit.deadline = trio.current_time()

        call = lab.start(ask, name=inputs, settle=False)
        self._deadlines[call] = over
        self.settle()
        return call

    def strike(self, call: Running) -> str:
        """End one call: by its task's cancellation, its own time limit, or an interrupt."""
        lab, kind = self.lab, self.random.choice(["cancelled", "timed out", "interrupted"])
        if call.done:
            return "after its end"
        if kind == "cancelled":
            lab.cancel(call, settle=False)
        elif kind == "timed out" and lab.kind == "async":
            with lab.changed:
                lab._forget(call)
            assert lab._loop is not None
            lab._loop.soon(self._deadlines[call])
        else:
            lab.interrupt(call, settle=False)
        self.settle()
        return kind

    def window(self, number: int) -> None:
        """One window with some members, one of which (or two) is struck at a random point."""
        lab, chance = self.lab, self.random
        lab.provider.holds = True
        size = chance.randint(2, 5)
        asked: list[Any] = [
            [f"{number}.{member}.{each}" for each in range(chance.randint(1, 3))] for member in range(size)
        ]
        steps: list[Callable[[], object]] = [
            lambda: lab.clock.advance(0.03),
            self.reply,
            self.reply,
            self.finish,
        ]
        victims = chance.sample(range(size), 2 if chance.random() < 0.2 else 1)
        point = chance.randint(1, size + len(steps))
        calls: list[Running] = []
        struck: list[Running] = []
        for at in range(size + len(steps) + 1):
            if at >= point and not struck and any(victim < len(calls) for victim in victims):
                struck = [calls[victim] for victim in victims if victim < len(calls)]
                self.counts.update(self.strike(call) for call in struck)
            if at < size:
                calls.append(self.start(asked[at]))
            elif at < size + len(steps):
                steps[at - size]()
                self.settle()
        self.end()
        self.check(calls, struck)

    def reply(self) -> None:
        """Answer what came first, whole or its head alone."""
        for held in self.lab.provider.held[:1]:
            held.reply(head_only=self.random.random() < 0.5, settle=False)

    def finish(self) -> None:
        """Let the bodies come."""
        for held in self.lab.provider.seen:
            if held.gated:
                held.finish(settle=False)

    def end(self) -> None:
        """Answer everything, and let every window's time be over."""
        lab = self.lab
        lab.provider.holds = False
        for _ in range(9):
            for held in lab.provider.held:
                held.reply(settle=False)
            self.finish()
            lab.settle()
            lab.clock.advance(0.2)
            lab.settle()
            if all(call.done for call in lab.calls):
                return
        self.counts["hung"] += sum(not call.done for call in lab.calls)

    def check(self, calls: list[Running], struck: list[Running]) -> None:
        """Count what is not as it should be."""
        lab, ours = (
            self.lab,
            (KeyboardInterrupt, asyncio.CancelledError, trio.Cancelled, TimeoutError, trio.TooSlowError),
        )
        for call in calls:
            if call.error is not None and not (call in struck and isinstance(call.error, ours)):
                self.counts["failed"] += 1
            elif call.error is None and json.loads(call.value) != json.loads(own(call.name)):
                self.counts["wrong"] += 1
        lab.clean()
        self.counts["windows"] += 1
        self.counts["requests"] += len(lab.provider.seen)
        lab.calls.clear()
        lab.provider.seen.clear()
        lab._threads.clear()
        self._deadlines.clear()
        lab.recorder.calls.clear()


@pytest.mark.parametrize("linger", ["adaptive", "fixed"])
@pytest.mark.parametrize("way", WAYS)
def test_a_storm_hurts_nobody_else(way: str, linger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 500 windows of each linger and way: 0 wrong answers, 0 failed, 0 hung, 0 connections and windows left."""
    with WindowLab(way, monkeypatch).running() as lab:
        storm = Storm(lab, linger, {"linger": linger, "max_batch_size": 4})
        for number in range(WINDOWS):
            storm.window(number)
        lab.provider.release()
        assert storm.counts["windows"] == WINDOWS
        assert [storm.counts[kind] for kind in ("wrong", "failed", "hung")] == [0, 0, 0]
        assert min(storm.counts[kind] for kind in ("cancelled", "timed out", "interrupted")) > WINDOWS / 5
        assert any(dispatch.started.again for dispatch in lab.recorder.dispatches)
        assert storm.counts["requests"] > WINDOWS
        assert lab.faults == {}


@pytest.mark.parametrize("way", WAYS)
def test_crowds_lose_nobody(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 crowds of each way that arrive at once: no window is overfull, nobody is left out, nobody is sent
    twice."""
    chance = random.Random(way)
    with WindowLab(way, monkeypatch).running() as lab:
        lab.provider.holds = False
        for run in range(RUNS):
            bound, linger = chance.randint(2, 6), ("fixed", "adaptive", "learned")[run % 3]
            lab.windows(linger=linger, max_batch_size=bound, merge_max_inputs=bound)
            client = lab.client()
            asked = [
                [f"{run} {at} {each}" for each in range(chance.randint(1, 2))]
                for at in range(chance.randint(3, 20))
            ]
            calls = [lab.ask(client, embedding(inputs), settle=False) for inputs in asked]
            lab.settle()
            while not all(call.done for call in calls):
                lab.advance(0.05)
            assert [json.loads(call.result().content) for call in calls] == [
                json.loads(own(each)) for each in asked
            ]
            sent = [each for held in lab.sent for each in held.inputs]
            assert sorted(sent) == sorted(each for inputs in asked for each in inputs)
            assert all(each.started.filled <= bound for each in lab.recorder.dispatches)
            lab.clean()
            lab.calls.clear()
            lab.provider.seen.clear()
            lab._threads.clear()
            lab.recorder.dispatches.clear()
