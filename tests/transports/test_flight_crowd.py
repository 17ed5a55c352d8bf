"""A hundred identical calls are one request: of one home with the cache on or off, of one process with it on."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

import pytest
from flight_lab import Bench, bench_for
from flight_provider import JSON_FRAMES, PATIENCE, Answer, Fail, Gate, Provider, json_answer, stream_answer
from transport_lab import CHAT_FRAMES, WAYS

from underlay import Runtime
from underlay.pipeline.flights import _chain
from underlay.testing import Recorder

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

ALL = list(CHAT_FRAMES)
OFF = {"llm_cache": {"mode": "off"}}


@pytest.fixture(params=WAYS)
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One way in, with callers beside each other."""
    return bench_for(request.param, monkeypatch)


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_hundred_calls_of_one_home_are_one_request(bench: Bench, stream: bool, cache: str) -> None:
    """All of them get the very frames that came, ninety-nine are told as coalesced with their leader's origin."""
    head, tail = Gate(), Gate()
    frames = ALL if stream else JSON_FRAMES
    answer = stream_answer if stream else json_answer

    async def scenario() -> None:
        settings = OFF if cache == "off" else {}
        client = bench.serve([answer(frames[0], tail, *frames[1:], before=[head])], **settings)
        await bench.start(bench.calling(client, stream=stream))
        await bench.until(lambda: head.reached == 1)
        for _ in range(49):
            await bench.start(bench.calling(client, stream=stream))
        await bench.until(lambda: bench.followers == 49)
        head.open()
        await bench.until(lambda: tail.reached == 1)
        for _ in range(50):
            await bench.start(bench.calling(client, stream=stream))
        await bench.until(lambda: bench.readers == 100)
        tail.open()
        await bench.ended()

    bench.run(scenario)
    assert [caller.outcome for caller in bench.callers] == ["ok"] * 100
    assert [caller.frames for caller in bench.callers] == [list(frames)] * 100
    bench.check(upstream=1)
    first = "bypass" if cache == "off" else "miss"
    assert bench.ends() == [(first, "complete", "")] + [("coalesced", "complete", "")] * 99
    assert bench.coalesced() == [(b"1", 0.0)] * 99
    assert bench.stored() == ([] if cache == "off" else [tuple(frames)])
    assert bench.runtime.circuit("gpt-4o", "openai").view().counts.successes == 1


def test_a_hundred_calls_that_come_as_they_like_are_one_request(bench: Bench) -> None:
    """Nothing is timed: whoever comes after the answer is in the store is a hit, all others follow."""

    async def scenario() -> None:
        client = bench.serve([stream_answer(*ALL)])
        for _ in range(100):
            await bench.start(bench.calling(client))
        await bench.ended()

    bench.run(scenario)
    assert [caller.frames for caller in bench.callers] == [ALL] * 100
    bench.check(upstream=1)
    results = [result for result, _, _ in bench.ends()]
    assert results.count("miss") == 1
    assert results.count("hit") + results.count("coalesced") == 99


def elsewhere(way: str, runtime: Runtime, recorder: Recorder, answer: Answer) -> Bench:
    """A bench of another home over the same runtime."""
    bench = Bench(way)
    bench.recorder, bench.runtime = recorder, runtime
    bench.provider = Provider(bench, [answer])
    return bench


HOMES = ["sync-httpx", "asyncio-httpx", "asyncio-httpx2", "trio-httpx", "trio-httpx2"]


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_hundred_calls_of_five_homes(stream: bool, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads, two asyncio loops and two of trio at once: one request with the cache on, the others wait for its
    entry; with the cache off, one for each home."""
    lead = bench_for("sync-httpx", monkeypatch)
    recorder = Recorder()
    runtime = Runtime(OFF if cache == "off" else {}, listeners=[recorder])
    head = Gate()
    frames = ALL if stream else JSON_FRAMES
    answer = (stream_answer if stream else json_answer)(*frames, before=[head])
    benches = [elsewhere(way, runtime, recorder, answer) for way in HOMES]
    flights = runtime.engine.state.flights

    def live(bench: Bench) -> None:
        async def scenario() -> None:
            client = bench.client(bench.provider.transport())
            for _ in range(20):
                await bench.start(bench.calling(client, stream=stream))
            await bench.ended()

        bench.run(scenario)

    threads = [threading.Thread(target=live, args=(bench,), daemon=True) for bench in benches]
    for thread in threads:
        thread.start()

    def arrived() -> bool:
        leads = [lead for first in list(flights._leads.values()) for lead in _chain(first)]
        waiting = sum(len(waiters) for waiters in list(flights._elsewhere.values()))
        following = sum(len(lead.company.waiting or ()) if lead.company else 0 for lead in leads)
        return following == 95 and (waiting if cache == "on" else head.reached - 1) == 4

    lead.run(lambda: lead.until(arrived))
    head.open()
    for thread in threads:
        thread.join(PATIENCE)
    callers = [caller for bench in benches for caller in bench.callers]
    assert [caller.frames for caller in callers if caller.error is None] == [list(frames)] * 100
    assert sum(bench.provider.requests for bench in benches) == (1 if cache == "on" else 5)
    assert [bench.provider.broken for bench in benches] == [[]] * 5
    assert sum(bench.provider.opened - bench.provider.closed for bench in benches) == 0
    assert (flights._leads, flights._elsewhere, dict(runtime.engine.faults.counts)) == ({}, {}, {})
    assert runtime.engine.state.store._leases == {}  # type: ignore[attr-defined]


@pytest.mark.parametrize("leads", ["httpx", "httpx2"])
@pytest.mark.parametrize("ending", ["ok", "ReadError", "ReadTimeout", "ConnectError"])
def test_client_families_of_one_home_share(leads: str, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In threads a client of one family follows one of the other: same bytes, and each failure in its own family's
    classes, with its own request."""
    bench = bench_for(f"sync-{leads}", monkeypatch)
    other = import_module("httpx2" if leads == "httpx" else "httpx")
    head, tail = Gate(), Gate()

    async def scenario() -> None:
        before = [head, Fail(ending)] if ending == "ConnectError" else [head]
        end = [] if ending == "ok" else [Fail(ending)]
        frames = ALL if ending == "ok" else ALL[:2]
        client = bench.serve([stream_answer(frames[0], tail, *frames[1:], *end, before=before)])
        wrapped = getattr(bench.runtime, f"{other.__name__}_transport")(bench.provider.transport(other))
        second = other.Client(transport=wrapped)
        await bench.start(bench.calling(client))
        await bench.until(lambda: head.reached == 1)
        await bench.start(bench.calling(second))
        await bench.until(lambda: bench.followers == 1)
        head.open()
        tail.open()
        await bench.ended()
        second.close()
        leader, follower = bench.callers
        if ending != "ConnectError":
            assert leader.frames == follower.frames == frames
        assert leader.outcome == follower.outcome == ending
        if ending != "ok":
            assert type(leader.error).__module__ == leads
            assert type(follower.error).__module__ == other.__name__
            assert isinstance(follower.error.request, other.Request)  # type: ignore[union-attr]

    bench.run(scenario)
    bench.check(upstream=1)
    assert bench.runtime.circuit("gpt-4o", "openai").view().counts.failures == (0 if ending == "ok" else 1)


def test_a_subclass_of_the_apps_own_is_translated_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app's transport may raise a subclass of its own: the other family's client gets the class that it knows,
    one of the same family the very class."""
    bench = bench_for("sync-httpx", monkeypatch)
    other = import_module("httpx2")
    head = Gate()

    class GatewayError(bench.module.ConnectError):  # type: ignore[misc,name-defined]
        pass

    async def scenario() -> None:
        client = bench.serve([json_answer(before=[head, GatewayError("scripted")])])
        wrapped: Any = bench.runtime.httpx2_transport(bench.provider.transport(other))
        second = other.Client(transport=wrapped)
        await bench.start(bench.calling(client))
        await bench.until(lambda: head.reached == 1)
        await bench.start(bench.calling(client))
        await bench.start(bench.calling(second))
        await bench.until(lambda: bench.followers == 2)
        head.open()
        await bench.ended()
        second.close()
        assert [type(caller.error) for caller in bench.callers] == [
            GatewayError,
            GatewayError,
            other.ConnectError,
        ]

    bench.run(scenario)
    bench.check(upstream=1)
