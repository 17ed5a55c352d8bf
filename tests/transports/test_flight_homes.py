"""Calls of different homes meet at the lease: a bounded wait for the entry, never for what only the caller drives."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from flight_lab import Bench, bench_for
from flight_provider import JSON_FRAMES, PATIENCE, Answer, Fail, Gate, Provider, json_answer, stream_answer
from transport_lab import CHAT_ASK, CHAT_FRAMES

from underlay.stores.memory import MemoryStore
from underlay.stores.store import Held, Lease

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

ALL = list(CHAT_FRAMES)
WHOLE = b"".join(JSON_FRAMES)
LOOPS = ["asyncio-httpx", "trio-httpx2"]
OTHERS = [("sync-httpx", loop) for loop in LOOPS] + [(loop, "sync-httpx") for loop in LOOPS] + [tuple(LOOPS)]


class Two:
    """Two homes over one runtime: the first runs in a thread of its own, the second in the test's."""

    def __init__(self, ways: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.first = bench_for(ways[0], monkeypatch)
        self.second = Bench(ways[1])

    def serve(self, first: Answer, second: Answer, **settings: Any) -> None:
        """What each home's provider answers."""
        self.first.setup([], **settings)
        self.second.runtime, self.second.recorder = self.first.runtime, self.first.recorder
        self.second.clock = self.first.clock
        self.first.provider = Provider(self.first, [first])
        self.second.provider = Provider(self.second, [second])

    def run(self, first: Callable[[Any], Awaitable[None]], second: Callable[[Any], Awaitable[None]]) -> None:
        """Run both scenarios, each with a client of its home."""
        failed: list[BaseException] = []

        def live(bench: Bench, scenario: Callable[[Any], Awaitable[None]]) -> None:
            async def whole() -> None:
                await scenario(bench.client(bench.provider.transport()))

            try:
                bench.run(whole)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=live, args=(self.first, first), daemon=True)
        thread.start()
        live(self.second, second)
        thread.join(PATIENCE)
        assert not thread.is_alive()
        for error in failed:
            raise error

    @property
    def flights(self) -> Any:
        """The flights of both."""
        return self.first.runtime.engine.state.flights

    @property
    def waiting(self) -> int:
        """How many calls wait for a landing elsewhere."""
        return sum(len(waiters) for waiters in list(self.flights._elsewhere.values()))

    def check(self, *, upstream: tuple[int, int]) -> None:
        """Nothing is left behind in either home."""
        benches = (self.first, self.second)
        assert (self.first.provider.requests, self.second.provider.requests) == upstream
        assert [bench.provider.broken for bench in benches] == [[], []]
        assert [bench.provider.opened - bench.provider.closed for bench in benches] == [0, 0]
        assert (self.flights._leads, self.flights._elsewhere) == ({}, {})
        store: Any = self.first.runtime.engine.state.store
        assert store._leases == {}
        assert self.first.faults == {}


@pytest.fixture(params=OTHERS, ids="->".join)
def two(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Two:
    """Two homes."""
    return Two(request.param, monkeypatch)


@pytest.mark.parametrize("ending", ["stored", "500", "cut", "cancelled"])
def test_a_call_elsewhere_waits_for_the_entry(two: Two, ending: str) -> None:
    """It is served from the entry when that lands, with the leader's origin; when nothing was stored, it leads at
    once."""
    head = Gate()
    status, steps = (500 if ending == "500" else 200), [*JSON_FRAMES]
    if ending == "cut":
        steps[1:] = [Fail("ReadError")]  # type: ignore[list-item]
    two.serve(json_answer(*steps, before=[head], status=status), json_answer())

    async def lead(client: Any) -> None:
        caller = await two.first.start(two.first.calling(client, stream=False))
        await two.first.until(lambda: head.reached == 1 and two.waiting == 1)
        if ending == "cancelled":
            await two.first.cancel(caller)
        head.open()
        await two.first.ended()

    async def follow(client: Any) -> None:
        await two.second.until(lambda: head.reached == 1)
        caller = await two.second.start(two.second.calling(client, stream=False))
        await two.second.ended()
        assert (caller.body, caller.status) == (WHOLE, 200)

    two.run(lead, follow)
    two.check(upstream=(1, 0 if ending == "stored" else 1))
    assert two.first.ends()[-1][0] == ("coalesced" if ending == "stored" else "miss")
    assert two.first.coalesced() == ([(b"1", 0.0)] if ending == "stored" else [])


def test_observing_does_not_wait_for_another_home(two: Two) -> None:
    """A call that only observes is sent at once, though a call elsewhere fetches the same."""
    head = Gate()
    two.serve(json_answer(before=[head]), json_answer(), coalesce={"mode": "observe"})

    async def lead(client: Any) -> None:
        await two.first.start(two.first.calling(client, stream=False))
        await two.first.until(lambda: two.second.callers and two.second.callers[0].done)
        head.open()
        await two.first.ended()

    async def follow(client: Any) -> None:
        await two.second.until(lambda: head.reached == 1)
        await two.second.start(two.second.calling(client, stream=False))
        await two.second.ended()

    two.run(lead, follow)
    two.check(upstream=(1, 1))


def test_a_leader_that_is_refused_leaves_its_followers_to_the_breaker(two: Two) -> None:
    """A leader waits for a call elsewhere, whose failure opens the circuit: leader and followers are refused, each by
    the breaker's own word; nothing is sent, nobody hangs."""
    head = Gate()
    two.serve(
        json_answer(before=[head, Fail("ConnectError")]),
        json_answer(),
        circuit_breaker={"failure_threshold": 1},
    )

    async def lead(client: Any) -> None:
        await two.first.start(two.first.calling(client, stream=False))
        await two.first.until(lambda: two.waiting == 1 and two.second.followers == 3)
        head.open()
        await two.first.ended()

    async def follow(client: Any) -> None:
        bench = two.second
        await bench.until(lambda: head.reached == 1)
        await bench.start(bench.calling(client, stream=False))
        await bench.until(lambda: two.waiting == 1)
        for _ in range(3):
            await bench.start(bench.calling(client, stream=False))
        await bench.ended()
        assert [caller.status for caller in bench.callers] == [503] * 4

    two.run(lead, follow)
    two.check(upstream=(1, 0))
    assert (
        sorted(two.first.ends())
        == [("miss", "failed", "ConnectError")] + [("refused", "complete", "circuit_open")] * 4
    )


@pytest.mark.parametrize("read", [5.0, None])
def test_a_call_elsewhere_waits_no_longer_than_it_may(two: Two, read: float | None) -> None:
    """After its own read timeout, or `coalesce.wait_timeout` where that is shorter, it sends for itself, with all of
    its time."""
    head, sent = Gate(), Gate()
    two.serve(json_answer(before=[head]), json_answer(before=[sent]), coalesce={"wait_timeout": 20})
    limit = read or 20.0

    async def lead(client: Any) -> None:
        await two.first.start(two.first.calling(client, stream=False))
        await two.first.until(lambda: sent.reached == 1)
        sent.open()
        await two.first.until(lambda: two.second.callers[0].done)
        head.open()
        await two.first.ended()

    async def follow(client: Any) -> None:
        bench = two.second
        await bench.until(lambda: head.reached == 1)
        timeout = bench.module.Timeout(None, read=read)
        await bench.start(bench.calling(client, stream=False, timeout=timeout))
        await bench.until(lambda: two.waiting == 1 and bench.clock.waiting == 1)
        bench.clock.advance(limit - 1)
        await bench.settle()
        assert sent.reached == 0
        bench.clock.advance(1)
        await bench.ended()
        assert bench.callers[0].body == WHOLE

    two.run(lead, follow)
    two.check(upstream=(1, 1))


def test_nobody_elsewhere_waits_for_an_answer_over_the_cap(two: Two) -> None:
    """As soon as an answer has outgrown what may be kept, who waits for its entry goes its own way; the answer itself
    runs on."""
    more, size = Gate(), len(ALL[0])
    two.serve(
        stream_answer(ALL[0], ALL[1], more, *ALL[2:]),
        stream_answer(*ALL),
        llm_cache={"max_entry_bytes": size},
    )
    reading = Gate()

    async def lead(client: Any) -> None:
        bench = two.first
        response = await bench.open(client)
        frames = bench.frames(response)
        assert await frames.next() == ALL[0]
        reading.reached = 1
        await bench.until(lambda: two.waiting == 1)
        assert await frames.next() == ALL[1]
        await bench.until(lambda: two.second.callers[0].done)
        more.open()
        assert await frames.rest() == ALL[2:]

    async def follow(client: Any) -> None:
        bench = two.second
        await bench.until(lambda: reading.reached)
        caller = await bench.start(bench.calling(client))
        await bench.ended()
        assert caller.frames == ALL

    two.run(lead, follow)
    two.check(upstream=(1, 1))


def test_an_answer_that_lands_just_before_the_lease_is_not_asked_again(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a call's look into the store and its lease the lead elsewhere stores and ends: the call looks once
    more."""
    head, landed = Gate(), threading.Event()
    two.serve(json_answer(before=[head]), json_answer())
    take = MemoryStore.lease

    def late(store: Any, key: bytes, now: float, ttl: float, token: int = 0) -> Any:
        if threading.current_thread() is threading.main_thread():
            head.open()
            assert landed.wait(PATIENCE)
        return take(store, key, now, ttl, token)

    monkeypatch.setattr(MemoryStore, "lease", late)

    async def lead(client: Any) -> None:
        bench = two.first
        await bench.start(bench.calling(client, stream=False))
        await bench.ended()
        landed.set()

    async def follow(client: Any) -> None:
        bench = two.second
        await bench.until(lambda: head.reached == 1)
        response = await bench.open(client, body=CHAT_ASK)
        assert await bench.read(response) == WHOLE

    two.run(lead, follow)
    two.check(upstream=(1, 0))
    assert two.first.ends()[1][0] == "coalesced"


def test_a_long_answer_keeps_its_lease(two: Two) -> None:
    """A stream that runs for longer than `coalesce.wait_timeout` renews its lease as it is read: nobody else takes
    the key, and the whole of it is stored. In the store of one process the lease is taken by whoever comes second."""
    two.serve(stream_answer(*ALL), stream_answer(*ALL), coalesce={"wait_timeout": 10})

    async def lead(client: Any) -> None:
        bench = two.first
        response = await bench.open(client)
        frames = bench.frames(response)
        lead, store = bench.leads[0], bench.runtime.engine.state.store
        key = lead.key
        if store.local:
            taken = store.lease(key, bench.clock.now(), 10)
            assert isinstance(taken, Lease)
            assert bench.runtime.engine.state.flights.lend(lead, taken.token, bench.clock.now() + 5)
        for frame in ALL:
            assert await frames.next() == frame
            assert isinstance(store.lease(key, bench.clock.now(), 10), Held)
            bench.clock.advance(6)
        assert await frames.next() is None

    async def nothing(_: Any) -> None:
        return

    two.run(lead, nothing)
    assert two.first.stored() == [tuple(ALL)]
    two.check(upstream=(1, 0))
