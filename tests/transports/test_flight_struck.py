"""An interrupt may come wherever the interpreter looks for one. Whoever it strikes, the others have their answer."""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any

import pytest
from flight_lab import Bench, Caller, bench_for
from flight_provider import JSON_FRAMES, Fail, Gate, json_answer, local, stream_answer
from transport_lab import CHAT_FRAMES

from underlay.transports import homes
from underlay.transports.httpx_sync import Ports

pytestmark = [  # a coroutine that was made and not begun
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <coroutine:pytest.PytestUnraisableExceptionWarning"
    ),
]

ALL = list(CHAT_FRAMES)
# Where each point is struck once; what lies elsewhere decides nothing about others.
FILES = (
    *(f"/pipeline/{name}.py" for name in ("flights", "coalesce", "perform", "reader")),
    *(f"/transports/{name}.py" for name in ("httpx_sync", "common")),
    "/core/flight.py",
)
# CPython looks for signals after a call and as a frame begins, and not in between: what is called by a `with` has
# taken its lock and is told to let go of it.
LOOKS = frozenset(("CALL", "CALL_FUNCTION_EX", "RESUME"))


def lines_of(function: Any, text: str) -> list[int]:
    """The lines of a function that hold this."""
    source, first = inspect.getsourcelines(function)
    return [first + at for at, line in enumerate(source) if text in line]


@cache
def looked(code: CodeType) -> frozenset[int]:
    """The offsets of the instructions that an interrupt may come before."""
    steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
    return frozenset(then.offset for step, then in pairwise(steps) if step.opname in LOOKS)


def stack(frame: FrameType | None) -> Iterator[FrameType]:
    """This frame and those that it was called from."""
    while frame is not None:
        yield frame
        frame = frame.f_back


class Interrupter:
    """Raises a KeyboardInterrupt in its thread at the point with this number, counted over the runtime's code;
    without one it only says where the points lie."""

    def __init__(self, number: int = 0) -> None:
        self.left = number
        self.where = "nowhere"
        self.seen: list[tuple[CodeType, int] | None] = []

    def enter(self, frame: FrameType, event: str, _: object) -> Any:
        """Trace what is ours. What a finaliser raises reaches nobody."""
        if "/underlay/" not in frame.f_code.co_filename or any(
            above.f_code.co_name == "__del__" for above in stack(frame)
        ):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self.step

    def step(self, frame: FrameType, event: str, _: object) -> Any:
        """Count a point."""
        code = frame.f_code
        if event == "opcode" and frame.f_lasti in looked(code):
            self.left -= 1
            self.seen.append((code, frame.f_lasti) if code.co_filename.endswith(FILES) else None)
            if self.left == 0:
                self.where = f"{code.co_qualname}, line {frame.f_lineno}"
                raise KeyboardInterrupt
        return self.step

    def points(self) -> list[int]:
        """The numbers of all points in these files, each at its first time."""
        first = {point: number for number, point in reversed([*enumerate(self.seen, 1)])}
        return [number for point, number in first.items() if point is not None]


OPEN = "a connection is open"
# A reply is nobody's while the app's own transport hands it over.
HANDED_OVER = [f"Ports.send, line {line}" for line in lines_of(Ports.send, "self.response = response =")]

ANSWERS = {
    "stream": (ALL, lambda head: [stream_answer(*ALL, before=[head])]),
    "closed": (ALL, lambda head: [stream_answer(*ALL, before=[head])]),
    "json": (JSON_FRAMES, lambda head: [json_answer(before=[head])]),
    "error": (
        ALL,
        lambda head: [stream_answer(before=[head, Fail("ConnectError")]), stream_answer(*ALL, before=[head])],
    ),
}


def strike(bench: Bench, kind: str, victim: int, interrupter: Interrupter) -> None:
    """Three ask the same, and one of them is interrupted. The first leads."""
    head = Gate()

    def work(client: Any, number: int) -> Any:
        async def traced(caller: Caller) -> None:
            frames = 2 if kind == "closed" and number == victim else None
            before = sys.gettrace()
            if number == victim:
                sys.settrace(interrupter.enter)
            try:
                await bench.consume(client, caller, stream=kind != "json", frames=frames, timeout=None)
            finally:
                sys.settrace(before)

        return traced

    def settled() -> bool:
        running = sum(not caller.done for caller in bench.callers)
        return head.reached + bench.followers >= running

    async def scenario() -> None:
        client = bench.serve(ANSWERS[kind][1](head))
        for number in range(3):
            await bench.start(work(client, number))
            await bench.until(settled)
        head.open()
        await bench.ended()

    bench.run(scenario)


def wrong(bench: Bench, kind: str, victim: int) -> list[str]:
    """What is not as it should be afterwards."""
    engine, frames = bench.runtime.engine, list(ANSWERS[kind][0])
    engine.settle_dropped()
    flights, store = engine.state.flights, engine.state.store
    found = []
    for number, caller in enumerate(bench.callers):
        whole = caller.outcome == "ok" and caller.frames == frames
        begun = caller.frames == frames[: len(caller.frames)] and (caller.frames or number == 0)
        cut = caller.outcome == "ReadError" and begun  # the leader's reply has begun with its head
        shared = kind == "error" and caller.outcome == "ConnectError"
        if number != victim and not (whole or cut or shared):
            found.append(f"{number}: {caller.outcome}, {len(caller.frames)} frames")
    if flights._leads or flights._elsewhere or store._leases:  # type: ignore[attr-defined]
        found.append("somebody leads for ever")
    if bench.provider.opened != bench.provider.closed:
        found.append(OPEN)
    if any(entry != tuple(frames) for entry in bench.stored()):
        found.append("what was cut is stored")
    if bench.faults:
        found.append(str(bench.faults))
    return found


@pytest.mark.timeout(120)
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("kind", ANSWERS)
def test_an_interrupt_anywhere_hurts_nobody_else(
    kind: str, victim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three that ask the same one is interrupted, be it the leader or not: the others have the answer (or had the
    beginning of what the victim was fetching, and its client's read error), nobody hangs, and nothing is left."""
    calm = Interrupter()
    strike(bench_for("sync-httpx", monkeypatch), kind, victim, calm)
    numbers = calm.points()
    hit = 0
    for number in numbers:
        interrupter = Interrupter(number)
        with monkeypatch.context() as patch:
            bench = bench_for("sync-httpx", patch)
            strike(bench, kind, victim, interrupter)
            found = wrong(bench, kind, victim)
            if interrupter.where in HANDED_OVER:
                found = [each for each in found if each != OPEN]
            assert (found, interrupter.where) == ([], interrupter.where)
            hit += interrupter.where != "nowhere"
    assert hit > len(numbers) * 0.8


class TimeLimitError(Exception):
    """What a worker's signal handler raises in the main thread when a job has taken too long."""


@pytest.mark.parametrize("waits_for", ["head", "frame"])
@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_a_time_limit_that_comes_while_a_call_waits_is_the_apps(
    family: str, waits_for: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower that waits for another's answer is struck by an exception: it is given that very one, no request of
    its own leaves, and no fault of ours is told."""
    bench = bench_for(f"sync-{family}", monkeypatch)
    gate, wait = Gate(), homes.Threads.wait

    async def limited(home: Any, waiter: Any, seconds: float | None) -> None:
        if local.caller is bench.callers[1]:
            raise TimeLimitError
        await wait(home, waiter, seconds)

    monkeypatch.setattr(homes.Threads, "wait", limited)

    async def scenario() -> None:
        answer = stream_answer(*ALL, before=[gate]) if waits_for == "head" else stream_answer(gate, *ALL)
        client = bench.serve([answer])
        await bench.start(bench.calling(client))
        await bench.until(lambda: gate.reached == 1)
        follower = await bench.start(bench.calling(client))
        await bench.ended(follower)
        assert follower.outcome == "TimeLimitError"
        gate.open()
        await bench.ended()
        assert bench.callers[0].frames == ALL

    bench.run(scenario)
    bench.check(upstream=1)
