"""Protected functions share an execution as clients share a request."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flight_lab import Bench, bench_for
from flight_provider import Gate, run_now

from underlay.transports import function as functions

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

GIVEN_UP = {"sync": "KeyboardInterrupt", "asyncio": "CancelledError", "trio": "Cancelled"}


@pytest.fixture(params=["sync-httpx", "asyncio-httpx", "trio-httpx"])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Threads or one loop."""
    return bench_for(request.param, monkeypatch)


class Work:
    """A function that waits at gates, one an execution, and then returns or raises what `made` makes."""

    def __init__(
        self, bench: Bench, made: Any, *gates: Gate, key: Any = lambda name: name, **settings: Any
    ) -> None:
        self.bench, self.made, self.gates = bench, made, gates
        self.runs = 0
        bench.setup([], **settings)

        async def work(name: str) -> Any:
            at, self.runs = self.runs, self.runs + 1
            await gates[min(at, len(gates) - 1)].wait(bench)
            made = self.made(at)
            if isinstance(made, BaseException):
                raise made
            return made

        def blocking(name: str) -> Any:
            return run_now(work(name))

        function = blocking if bench.kind == "sync" else work
        self.function = bench.runtime.protect(model="m", provider="custom", key=key)(function)

    async def call(self, name: str = "a") -> Any:
        """One call."""
        value = self.function(name)
        return value if self.bench.kind == "sync" else await value

    async def started(self, count: int) -> None:
        """So many calls of one key, all but the first of them waiting."""
        await self.bench.start(lambda caller: self.call())
        await self.bench.until(lambda: self.gates[0].reached == 1)
        for _ in range(count - 1):
            await self.bench.start(lambda caller: self.call())

    def check(self, bench: Bench) -> None:
        """Nothing is left behind."""
        flights, store = bench.runtime.engine.state.flights, bench.runtime.engine.state.results
        assert (flights._leads, flights._elsewhere, store._leases, bench.faults) == ({}, {}, {}, {})  # type: ignore[attr-defined]


@pytest.mark.parametrize("cache", ["enforce", "off"])
def test_twenty_identical_calls_are_one_execution(bench: Bench, cache: str) -> None:
    """Each caller has the result as an object of its own, with the cache off too."""
    gate = Gate()
    work = Work(bench, lambda _: {"answer": ["a"]}, gate, llm_cache={"mode": cache})

    async def scenario() -> None:
        await work.started(20)
        await bench.until(lambda: bench.followers == 19)
        gate.open()
        await bench.ended()

    bench.run(scenario)
    assert [caller.value for caller in bench.callers] == [{"answer": ["a"]}] * 20
    assert len({id(caller.value) for caller in bench.callers}) == 20
    assert work.runs == 1
    work.check(bench)
    first = "miss" if cache == "enforce" else "bypass"
    assert bench.ends() == [(first, "complete", "")] + [("coalesced", "complete", "")] * 19


def test_a_result_that_cannot_be_pickled_is_its_own_callers_alone(bench: Bench) -> None:
    """A lock cannot be given to others: each of them runs the function, beside each other, and none is left
    waiting."""
    gate, others = Gate(), Gate()
    work = Work(bench, lambda _: threading.Lock(), gate, others)

    async def scenario() -> None:
        await work.started(5)
        await bench.until(lambda: bench.followers == 4)
        gate.open()
        await bench.until(lambda: others.reached == 4)
        others.open()
        await bench.ended()

    bench.run(scenario)
    assert [caller.outcome for caller in bench.callers] == ["ok"] * 5
    assert len({id(caller.value) for caller in bench.callers}) == 5
    assert work.runs == 5
    work.check(bench)


class OwnError(Exception):
    """An error that copies badly."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


@pytest.mark.parametrize("error", [ValueError("no"), OwnError("a", "b")])
def test_what_the_function_raises_is_everybodys(bench: Bench, error: Exception) -> None:
    """One execution, one failure of the provider; every caller gets the exception, of its class and with its text."""
    gate = Gate()
    work = Work(bench, lambda _: error, gate)

    async def scenario() -> None:
        await work.started(5)
        await bench.until(lambda: bench.followers == 4)
        gate.open()
        await bench.ended()

    bench.run(scenario)
    assert [type(caller.error) for caller in bench.callers] == [type(error)] * 5
    assert [str(caller.error) for caller in bench.callers] == [str(error)] * 5
    assert work.runs == 1
    work.check(bench)
    assert bench.runtime.circuit("m", "custom").view().counts.failures == 1


def test_without_a_key_every_call_is_an_execution(bench: Bench) -> None:
    """A key of None keeps a call out of cache and flights."""
    gate = Gate()
    work = Work(bench, lambda at: at, gate, key=lambda name: None)

    async def scenario() -> None:
        await work.started(5)
        await bench.until(lambda: gate.reached == 5)
        gate.open()
        await bench.ended()

    bench.run(scenario)
    assert sorted(caller.value for caller in bench.callers) == [0, 1, 2, 3, 4]
    work.check(bench)


def test_a_leader_that_is_cancelled_has_an_heir(bench: Bench) -> None:
    """One of the followers runs the function again, the others get its result."""
    first, second = Gate(), Gate()
    work = Work(bench, lambda at: f"run {at}", first, second)

    async def scenario() -> None:
        await work.started(5)
        await bench.until(lambda: bench.followers == 4)
        await bench.cancel(bench.callers[0])
        await bench.until(lambda: second.reached == 1 and bench.followers == 3)
        second.open()
        await bench.ended()

    bench.run(scenario)
    assert bench.callers[0].outcome == GIVEN_UP[bench.mode]
    assert [caller.value for caller in bench.callers[1:]] == ["run 1"] * 4
    assert work.runs == 2
    work.check(bench)


def test_a_function_that_runs_for_longer_than_anybody_waits(bench: Bench) -> None:
    """A follower runs the function itself after `coalesce.wait_timeout`: no wait is unbounded."""
    first, second = Gate(), Gate(opened=True)
    work = Work(bench, lambda at: at, first, second, coalesce={"wait_timeout": 10})

    async def scenario() -> None:
        await work.started(2)
        await bench.until(lambda: bench.followers == 1 and bench.clock.waiting == 1)
        bench.clock.advance(10)
        await bench.until(lambda: bench.callers[1].done)
        first.open()
        await bench.ended()

    bench.run(scenario)
    assert [caller.value for caller in bench.callers] == [0, 1]
    work.check(bench)


def test_a_function_that_calls_itself_does_not_wait_for_itself(bench: Bench) -> None:
    """What a protected function asks is part of its own call, the very same call included. It is part of nothing
    afterwards."""
    depth: list[int] = []
    bench.setup([])

    async def inner(name: str) -> int:
        depth.append(1)
        if len(depth) < 3:
            value = protected(name)
            return (value if bench.kind == "sync" else await value) + 1  # type: ignore[no-any-return]
        return 1

    def blocking(name: str) -> Any:
        return run_now(inner(name))

    function: Any = blocking if bench.kind == "sync" else inner
    protected: Any = bench.runtime.protect(model="m", provider="custom", key=lambda name: name)(function)

    async def scenario() -> None:
        value = protected("a")
        assert (value if bench.kind == "sync" else await value) == 3
        assert functions._running.get() == ()

    bench.run(scenario)
