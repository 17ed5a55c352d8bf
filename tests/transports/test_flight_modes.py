"""When calls are not coalesced, and what stands around a flight: settings, directives, an open circuit, transports
inside transports, a fork."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Any

import pytest
from flight_lab import HEADERS, Bench, bench_for
from flight_provider import JSON_FRAMES, Fail, Gate, json_answer, stream_answer
from transport_lab import CHAT_ASK, CHAT_FRAMES, CHAT_URL, WAYS

from underlay.telemetry.events import CircuitRefused, Coalesced

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

ALL = list(CHAT_FRAMES)
WHOLE = b"".join(JSON_FRAMES)


@pytest.fixture(params=WAYS)
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One way in, with callers beside each other."""
    return bench_for(request.param, monkeypatch)


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_switched_off_or_observing_everybody_sends(bench: Bench, mode: str) -> None:
    """Each of three calls is sent; observing says of two whom they would have followed."""
    head = Gate()

    async def scenario() -> None:
        client = bench.serve([json_answer(before=[head])], coalesce={"mode": mode})
        for count in (1, 2, 3):
            await bench.start(bench.calling(client, stream=False))
            await bench.until(lambda count=count: head.reached == count)  # type: ignore[misc]
        head.open()
        await bench.ended()

    bench.run(scenario)
    assert [caller.body for caller in bench.callers] == [WHOLE] * 3
    bench.check(upstream=3)
    assert bench.ends() == [("miss", "complete", "")] * 3
    told = [event for call in bench.recorder.calls for event in call.of(Coalesced)]
    assert [(event.origin, event.observed) for event in told] == (
        [(b"1", True)] * 2 if mode == "observe" else []
    )


def test_observing_takes_no_lease(bench: Bench) -> None:
    """An observer changes nothing, for other homes and processes neither."""

    async def scenario() -> None:
        client = bench.serve([stream_answer(*ALL)], coalesce={"mode": "observe"})
        response = await bench.open(client)
        store: Any = bench.runtime.engine.state.store
        assert (store._leases, len(bench.leads)) == ({}, 1)
        assert await bench.frames(response).rest() == ALL

    bench.run(scenario)
    bench.check(upstream=1)


@pytest.mark.parametrize("directive", ["no-store", "no-cache"])
def test_a_directive_keeps_a_call_out(bench: Bench, directive: str) -> None:
    """Who wants a fresh answer, or none kept, neither follows nor leads."""
    head = Gate()
    own = {**HEADERS, "cache-control": directive}

    async def scenario() -> None:
        client = bench.serve([json_answer(before=[head])])
        await bench.start(bench.calling(client, stream=False, headers=own))
        await bench.until(lambda: head.reached == 1)
        await bench.start(bench.calling(client, stream=False))
        await bench.until(lambda: head.reached == 2)
        await bench.start(bench.calling(client, stream=False, headers=own))
        await bench.until(lambda: head.reached == 3)
        await bench.start(bench.calling(client, stream=False))
        await bench.until(lambda: bench.followers == 1)
        head.open()
        await bench.ended()

    bench.run(scenario)
    bench.check(upstream=3)
    assert [caller.body for caller in bench.callers] == [WHOLE] * 4


def test_other_credentials_have_a_flight_of_their_own(bench: Bench) -> None:
    """A follower never reads an answer that another credential paid for."""
    head = Gate()

    async def scenario() -> None:
        client = bench.serve([json_answer(before=[head])])
        for count, key in enumerate(("one", "two"), 1):
            headers = {**HEADERS, "authorization": f"Bearer {key}"}
            await bench.start(bench.calling(client, stream=False, headers=headers))
            await bench.until(lambda count=count: head.reached == count)  # type: ignore[misc]
        head.open()
        await bench.ended()

    bench.run(scenario)
    bench.check(upstream=2)


def test_an_open_circuit_refuses_leader_and_followers(bench: Bench) -> None:
    """The circuit opens while followers wait: their leader failed for them; whoever comes then is refused, at once and
    by itself."""
    head = Gate()

    async def scenario() -> None:
        breaker = {"failure_threshold": 1, "recovery_timeout": 60}
        client = bench.serve([json_answer(before=[head, Fail("ConnectError")])], circuit_breaker=breaker)
        await bench.start(bench.calling(client, stream=False))
        await bench.until(lambda: head.reached == 1)
        await bench.start(bench.calling(client, stream=False))
        await bench.until(lambda: bench.followers == 1)
        head.open()
        await bench.ended()
        for _ in range(5):
            await bench.start(bench.calling(client, stream=False))
        await bench.ended()

    bench.run(scenario)
    assert [caller.outcome for caller in bench.callers] == ["ConnectError"] * 2 + ["ok"] * 5
    assert [caller.status for caller in bench.callers[2:]] == [503] * 5
    bench.check(upstream=1)
    assert [len(call.of(CircuitRefused)) for call in bench.recorder.calls] == [0, 0, 1, 1, 1, 1, 1]
    assert bench.ends()[2:] == [("refused", "complete", "circuit_open")] * 5


def test_a_transport_inside_a_transport_is_one_flight(bench: Bench) -> None:
    """A transport that forwards through a client which is covered too passes the seam twice: the inner request goes
    straight on, and does not wait for the outer one that it is part of."""

    async def scenario() -> None:
        inner = bench.serve([json_answer()])

        def forward(request: Any) -> Any:
            again = inner.build_request("POST", request.url, content=request.content, headers=request.headers)
            return inner.send(again, stream=True)

        outer = bench.client(bench.transport(forward))
        for _ in range(2):
            await bench.start(bench.calling(outer, stream=False))
        await bench.ended()

    bench.run(scenario)
    assert [caller.body for caller in bench.callers] == [WHOLE] * 2
    bench.check(upstream=1)


def test_a_pull_for_all_runs_in_the_context_of_a_reader(bench: Bench) -> None:
    """An app's transport that looks into its context variables as a body is read finds there what the caller set, in
    a task of the flight too."""
    word: ContextVar[str] = ContextVar("word", default="nothing")
    seen: list[str] = []

    async def scenario() -> None:
        client = bench.serve([stream_answer(*ALL)])
        plain = bench.provider.step

        async def look(step: Any, module: Any, request: Any) -> bytes | None:
            seen.append(word.get())
            return await plain(step, module, request)

        bench.provider.step = look  # type: ignore[method-assign]
        word.set("the caller's")
        pair = [bench.frames(await bench.open(client)) for _ in range(2)]
        for frame in ALL:
            assert [await frames.next() for frames in pair] == [frame, frame]
        assert [await frames.next() for frames in pair] == [None, None]

    bench.run(scenario)
    bench.check(upstream=1)
    assert set(seen) == {"the caller's"}


def test_a_body_that_is_asked_for_as_it_is_read_is_one_flight(bench: Bench) -> None:
    """A transport may send only when its body is pulled, through a client that is covered too: the pull is part of
    the attempt, and does not join the answer that it is to bring."""

    async def scenario() -> None:
        inner = bench.serve([json_answer()])

        def lazy(request: Any) -> Any:
            return bench.module.Response(
                200, headers={"content-type": "application/json"}, stream=_lazy(bench, inner, request)
            )

        outer = bench.client(bench.transport(lazy))
        await bench.start(bench.calling(outer, stream=False))
        await bench.ended()

    bench.run(scenario)
    assert bench.callers[0].body == WHOLE
    assert bench.provider.requests == 1
    assert bench.leads == []


def _lazy(bench: Bench, inner: Any, request: Any) -> Any:
    def asked() -> Any:
        return inner.build_request("POST", request.url, content=request.content, headers=request.headers)

    if bench.kind == "sync":

        class Sync(bench.module.SyncByteStream):  # type: ignore[misc,name-defined]
            def __iter__(self) -> Any:
                yield inner.send(asked()).content

        return Sync()

    class Async(bench.module.AsyncByteStream):  # type: ignore[misc,name-defined]
        async def __aiter__(self) -> Any:
            yield (await inner.send(asked())).content

    return Async()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_child_drops_the_flights_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leaders and waiters of the parent do not exist in the child: there the same call leads at once, with no
    lease in its way; the parent's follower gets the parent's answer."""
    bench = bench_for("sync-httpx", monkeypatch)
    head, opened = Gate(), Gate(opened=True)
    answers = [json_answer(before=[head]), json_answer(before=[opened])]

    async def scenario() -> None:
        client = bench.serve(answers)
        for _ in range(2):
            await bench.start(bench.calling(client, stream=False))
            await bench.until(lambda: head.reached == 1)
        await bench.until(lambda: bench.followers == 1)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                state: Any = bench.runtime.engine.state
                clean = (state.flights._leads, state.flights._elsewhere, state.store._leases) == ({}, {}, {})
                whole = client.post(CHAT_URL, json=CHAT_ASK, headers=HEADERS).content == WHOLE
                code = 0 if clean and whole and bench.leads == [] else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        head.open()
        await bench.ended()

    bench.run(scenario)
    assert [caller.body for caller in bench.callers] == [WHOLE] * 2
    bench.check(upstream=1)
