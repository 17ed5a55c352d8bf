"""The cancel storm: a thousand flights on asyncio, on trio and in threads, each with a member that is cancelled, timed
out or interrupted at a random point. Nobody else gets a wrong answer, nobody hangs, nothing cut is kept."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from flight_lab import Bench, Caller, bench_for
from flight_provider import Answer, Fail, Provider, local
from transport_lab import CHAT_CHUNKS, JSON_TYPE, SSE_TYPE, chunks, dumped

from underlay.telemetry.events import CallEnded

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

FLIGHTS = 1000
AT_ONCE = 40
KINDS = ["stream", "stream", "stream", "json", "cut", "500"]


@dataclass
class Plan:
    """One flight: what the provider answers, who is struck, how, and after how many steps."""

    number: int
    kind: str
    members: int
    victim: int
    strike: str
    after: int
    pauses: random.Random
    callers: list[Caller] = field(default_factory=list)

    @property
    def ask(self) -> dict[str, Any]:
        """Its own request."""
        prompt = [{"role": "user", "content": f"flight {self.number}"}]
        return {"model": "gpt-4o", "messages": prompt, "stream": self.kind in ("stream", "cut")}

    @property
    def frames(self) -> list[bytes]:
        """Its own answer: no two flights have a frame in common."""
        own = f"f{self.number}"
        if self.kind == "500":
            return [dumped({"error": {"message": own, "code": "x"}})]
        if self.kind == "json":
            whole = dumped({"id": own, "model": "m", "choices": [{"message": {}, "finish_reason": "stop"}]})
            return [whole[:8], whole[8:]]
        head, word, *rest = CHAT_CHUNKS
        # More than each follower is given before all have something.
        made = [chunks([{**chunk, "id": own}], done=False) for chunk in (head, *[word] * 5, *rest)]
        return made[:2] if self.kind == "cut" else [*made, b"data: [DONE]\n\n"]

    @property
    def outcome(self) -> str:
        """What everybody but the victim gets."""
        return "ReadError" if self.kind == "cut" else "ok"


def plan(number: int, mode: str) -> Plan:
    """A flight by its number: the same in every run."""
    rand = random.Random(f"{mode} {number}")
    members = rand.randint(2, 4)
    strikes = ["cancel", "timeout", "close"]
    return Plan(
        number,
        rand.choice(KINDS),
        members,
        rand.randrange(members),
        rand.choice(strikes),
        rand.randint(0, 12),
        rand,
    )


class Storm(Provider):
    """A provider that answers every flight in its own words and lets others run in between."""

    def __init__(self, bench: Bench, plans: list[Plan]) -> None:
        super().__init__(bench, [])
        self.plans = plans

    async def pause(self, at: Plan) -> None:
        """Let others run; a thread that was interrupted meanwhile is told here."""
        for _ in range(at.pauses.randint(0, 3)):
            await self.bench.yield_()
            caller = getattr(local, "caller", None)
            if caller is not None and caller.interrupted:
                caller.interrupted = False
                raise KeyboardInterrupt

    async def head(self, module: Any, request: Any) -> Answer:
        """The head of this flight's answer."""
        words = json.loads(request.content)["messages"][0]["content"]
        at = self.plans[int(words.split()[1])]
        with self.lock:
            self.requests += 1
        await self.pause(at)
        with self.lock:
            self.opened += 1
        steps: list[Any] = []
        for frame in at.frames:
            steps += [at, frame]
        steps += [at, Fail("ReadError")] if at.kind == "cut" else [at]
        kind = SSE_TYPE if at.kind in ("stream", "cut") else JSON_TYPE
        return Answer(steps, (), 500 if at.kind == "500" else 200, dict(kind))

    async def step(self, step: Any, module: Any, request: Any) -> bytes | None:
        """A frame, or a pause."""
        if isinstance(step, Plan):
            await self.pause(step)
            return None
        return await super().step(step, module, request)


def member(bench: Bench, client: Any, at: Plan, number: int) -> Any:
    """One call of a flight. The victim of a timeout waits for five seconds, everybody else for ever; the victim of a
    close reads one frame."""
    struck = number == at.victim
    read = 5.0 if struck and at.strike == "timeout" else None
    timeout = bench.module.Timeout(None, read=read)

    async def work(caller: Caller) -> None:
        response = await bench.open(client, body=at.ask, timeout=timeout)
        caller.status = response.status_code
        try:
            frames = bench.frames(response)
            while (frame := await frames.next()) is not None:
                caller.frames.append(frame)
                if struck and at.strike == "close":
                    await frames.close()
                    return
        finally:
            await bench.close(response)

    return work


async def fly(bench: Bench, client: Any, at: Plan) -> None:
    """Start the members of one flight, and strike one of them."""
    strike_at = at.after
    for number in range(at.members):
        at.callers.append(await bench.start(member(bench, client, at, number)))
        for _ in range(at.pauses.randint(0, 2)):
            await bench.yield_()
    for _ in range(strike_at):
        await bench.yield_()
    if at.strike == "cancel":
        await bench.cancel(at.callers[at.victim])
    elif at.strike == "timeout":
        bench.clock.advance(5)


@dataclass
class Found:
    """What came of a storm."""

    wrong: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)


def judge(bench: Bench, plans: list[Plan]) -> Found:
    """Hold what every member got against what it should have."""
    found = Found()
    for at in plans:
        for number, caller in enumerate(at.callers):
            whole = caller.frames == at.frames and caller.outcome == at.outcome
            cut = caller.frames == at.frames[: len(caller.frames)]
            if number == at.victim:
                found.struck[f"{at.strike}: {caller.outcome}"] += 1
                if not cut or (caller.outcome == "ok" and at.strike != "close" and not whole):
                    found.wrong.append(f"{at.number}.{number} {at.strike} {caller.outcome}")
                continue
            # A thread that was interrupted while it pulled for all takes those with it who had bytes.
            taken = bench.mode == "sync" and at.strike == "cancel" and caller.outcome == "ReadError"
            found.outcomes[caller.outcome if whole else f"cut, {caller.outcome}"] += 1
            if not whole and not (cut and taken and caller.frames):
                found.wrong.append(f"{at.number}.{number} {at.kind} {at.strike}: {caller.outcome}")
    return found


@pytest.mark.timeout(60)
@pytest.mark.parametrize("way", ["asyncio-httpx2", "trio-httpx2", "sync-httpx2"])
def test_a_storm_of_cancellations_hurts_nobody_else(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand flights everybody but the struck member has its whole answer (in threads, who had bytes when the
    pulling thread was interrupted has the family's read error); nothing is left open, held, or stored in part."""
    bench = bench_for(way, monkeypatch)
    bench.setup([], llm_cache={"maxsize": 5000, "ttl": 10**6}, circuit_breaker={"mode": "off"})
    plans = [plan(number, bench.mode) for number in range(FLIGHTS)]
    provider = bench.provider = Storm(bench, plans)

    async def scenario() -> None:
        client = bench.client(provider.transport())
        for start in range(0, FLIGHTS, AT_ONCE):
            for at in plans[start : start + AT_ONCE]:
                await fly(bench, client, at)
            await bench.ended()
            bench.callers.clear()
        await bench.settle()

    bench.run(scenario)
    found = judge(bench, plans)
    assert found.wrong == []
    given_up = {"asyncio": "CancelledError", "trio": "Cancelled", "sync": "KeyboardInterrupt"}[bench.mode]
    assert found.struck[f"cancel: {given_up}"] > 10
    # Time passes at once: on a busy machine few threads have come as far as to wait for it.
    assert found.struck["timeout: ReadTimeout"] > (0 if bench.mode == "sync" else 10)
    assert provider.broken == []
    assert provider.opened == provider.closed
    flights, store = bench.runtime.engine.state.flights, bench.runtime.engine.state.store
    assert (flights._leads, flights._elsewhere, store._leases) == ({}, {}, {})  # type: ignore[attr-defined]
    assert bench.faults == {}
    assert bench.clock.waiting == 0
    answers = {tuple(at.frames) for at in plans if at.kind in ("stream", "json")}
    assert set(bench.stored()) <= answers
    assert all(len(call.of(CallEnded)) == 1 for call in bench.recorder.calls)
    assert len(bench.attempts()) == provider.requests
