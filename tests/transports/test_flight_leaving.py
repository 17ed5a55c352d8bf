"""Who leaves hurts nobody: a caller that is cancelled, interrupted, that closes or drops its answer, as leader or as
follower, before the head, before a byte, with bytes."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from flight_lab import Bench, Caller, bench_for
from flight_provider import Gate, json_answer, stream_answer
from transport_lab import CHAT_FRAMES, WAYS

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

Work = Callable[[Caller], Awaitable[Any]]
GIVEN_UP = {"sync": "KeyboardInterrupt", "asyncio": "CancelledError", "trio": "Cancelled"}


@pytest.fixture(params=WAYS)
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One way in, with callers beside each other."""
    return bench_for(request.param, monkeypatch)


def paced(bench: Bench, client: Any, *paces: Gate, leave: str = "close") -> Work:
    """Open; before each frame wait at the next gate; after the last gate leave, by closing or by dropping."""

    async def work(caller: Caller) -> None:
        response = await bench.open(client)
        caller.status = response.status_code
        reading = bench.reading(response, bare=leave == "drop")
        try:
            for pace in paces[:-1]:
                await pace.wait(bench)
                frame = await reading.next()
                assert frame is not None
                caller.frames.append(frame)
            await paces[-1].wait(bench)
        except BaseException:
            await bench.close(response)
            raise
        if leave == "close":
            await reading.close()
            await bench.close(response)

    return work


@pytest.mark.parametrize("stream", [True, False])
def test_a_leader_that_is_cancelled_before_the_head_has_an_heir(bench: Bench, stream: bool) -> None:
    """Cancelled while it sends, a leader takes nobody along: one follower sends again, the others follow that one."""
    first, second = Gate(), Gate()
    answer = stream_answer if stream else json_answer

    async def scenario() -> None:
        frames = CHAT_FRAMES if stream else ()
        client = bench.serve([answer(*frames, before=[first]), answer(*frames, before=[second])])
        leader = await bench.start(bench.calling(client, stream=stream))
        await bench.until(lambda: first.reached == 1)
        for _ in range(4):
            await bench.start(bench.calling(client, stream=stream))
        await bench.until(lambda: bench.followers == 4)
        await bench.cancel(leader)
        await bench.until(lambda: leader.done and second.reached == 1 and bench.followers == 3)
        assert leader.outcome == GIVEN_UP[bench.mode]
        second.open()
        await bench.ended()

    bench.run(scenario)
    whole = bench.callers[1].body
    assert [caller.body for caller in bench.callers[1:]] == [whole] * 4
    assert [b"".join(frames) for frames in bench.stored()] == [whole]
    bench.check(upstream=2)
    ends = bench.ends()
    assert ends[0] == ("miss", "cancelled", "cancelled")
    assert sorted(ends[1:]) == [("coalesced", "complete", "")] * 3 + [("miss", "complete", "")]
    assert [attempt.verdict for attempt in bench.attempts()] == ["nothing", "success"]


@pytest.mark.parametrize("had", [0, 1])
def test_who_had_no_byte_asks_anew_when_the_pull_dies(bench: Bench, had: int) -> None:
    """The leader is cancelled in a pull of its own: who joined meanwhile was given nothing, so each leads or follows
    a new request, and gets the whole answer of that one."""
    gate, again = Gate(), Gate()

    async def scenario() -> None:
        frames = [*CHAT_FRAMES[:had], gate, *CHAT_FRAMES[had:]]
        client = bench.serve([stream_answer(*frames), stream_answer(again, *CHAT_FRAMES)])
        leader = await bench.start(bench.calling(client))
        await bench.until(lambda: gate.reached == 1)
        for _ in range(3):
            await bench.start(bench.calling(client))
        await bench.until(lambda: bench.readers == 4 and bench.enlisted == 3)
        await bench.cancel(leader)
        await bench.until(lambda: leader.done and again.reached == 1 and bench.readers == 3)
        again.open()
        await bench.ended()
        assert (leader.frames, leader.outcome) == (list(CHAT_FRAMES[:had]), GIVEN_UP[bench.mode])

    bench.run(scenario)
    assert [caller.frames for caller in bench.callers[1:]] == [list(CHAT_FRAMES)] * 3
    assert bench.stored() == [tuple(CHAT_FRAMES)]
    bench.check(upstream=2)
    assert bench.ends()[0] == ("miss", "cancelled", "cancelled")
    assert {ending for _, ending, _ in bench.ends()[1:]} == {"complete"}
    assert {origin for origin, _ in bench.coalesced()} <= {b"2", b"3", b"4"}


def test_a_leader_that_leaves_a_shared_pull_hurts_nobody(bench: Bench) -> None:
    """Both have a frame; the follower's pull runs on when the leader is cancelled as it waits for it."""
    slow, go = Gate(), Gate()

    async def scenario() -> None:
        client = bench.serve([stream_answer(CHAT_FRAMES[0], slow, *CHAT_FRAMES[1:])])
        leader = await bench.start(paced(bench, client, Gate(opened=True), go, Gate()))
        await bench.until(lambda: go.reached == 1)
        follower = await bench.start(bench.calling(client))
        await bench.until(lambda: slow.reached == 1)
        assert follower.frames == [CHAT_FRAMES[0]]
        go.open()
        await bench.until(lambda: bench.enlisted == (1 if bench.mode == "sync" else 2))
        await bench.cancel(leader)
        await bench.until(lambda: leader.done)
        assert (leader.frames, leader.outcome) == ([CHAT_FRAMES[0]], GIVEN_UP[bench.mode])
        slow.open()
        await bench.ended()
        assert (follower.frames, follower.outcome) == (list(CHAT_FRAMES), "ok")

    bench.run(scenario)
    assert bench.stored() == [tuple(CHAT_FRAMES)]
    bench.check(upstream=1)
    assert bench.ends() == [("miss", "cancelled", "cancelled"), ("coalesced", "complete", "")]


@pytest.mark.parametrize("leave", ["close", "drop"])
@pytest.mark.parametrize("read", [0, 1, 3])
def test_a_leader_that_reads_no_further_leaves_the_answer_to_the_others(
    bench: Bench, read: int, leave: str
) -> None:
    """Closed or dropped after so many frames, the leader's answer runs on for its followers, is whole, and is
    kept."""
    stay, pace = Gate(), Gate()
    opened = Gate(opened=True)

    async def scenario() -> None:
        client = bench.serve([stream_answer(*CHAT_FRAMES)])
        leader = await bench.start(paced(bench, client, *[opened] * read, stay, leave=leave))
        await bench.until(lambda: stay.reached == 1)
        follower = await bench.start(
            paced(bench, client, opened, *[pace] * (len(CHAT_FRAMES) - 1), opened, leave="close")
        )
        await bench.until(lambda: pace.reached == 1)
        stay.open()
        await bench.until(lambda: leader.done)
        gc.collect()
        bench.runtime.engine.settle_dropped()
        pace.open()
        await bench.ended()
        assert leader.frames == list(CHAT_FRAMES[:read])
        assert follower.frames == list(CHAT_FRAMES)

    bench.run(scenario)
    bench.check(upstream=1)
    assert bench.stored() == [tuple(CHAT_FRAMES)]
    assert bench.ends() == [
        ("miss", "closed" if leave == "close" else "dropped", ""),
        ("coalesced", "complete", ""),
    ]


@pytest.mark.parametrize("leave", ["close", "drop"])
@pytest.mark.parametrize("read", [0, 1, 2])
def test_a_follower_that_reads_no_further_hurts_nobody(bench: Bench, read: int, leave: str) -> None:
    """A follower that closes or drops its answer after so many frames leaves leader and other followers with the
    whole of it."""
    stay, pace = Gate(), Gate()
    opened = Gate(opened=True)

    async def scenario() -> None:
        client = bench.serve([stream_answer(*CHAT_FRAMES)])
        leader = await bench.start(paced(bench, client, opened, *[pace] * (len(CHAT_FRAMES) - 1), opened))
        await bench.until(lambda: pace.reached == 1)
        leaving = await bench.start(paced(bench, client, *[opened] * read, stay, leave=leave))
        await bench.until(lambda: stay.reached == 1)
        other = await bench.start(bench.calling(client))
        await bench.until(lambda: other.done)
        stay.open()
        await bench.until(lambda: leaving.done)
        gc.collect()
        bench.runtime.engine.settle_dropped()
        pace.open()
        await bench.ended()
        assert leaving.frames == list(CHAT_FRAMES[:read])
        assert leader.frames == other.frames == list(CHAT_FRAMES)

    bench.run(scenario)
    bench.check(upstream=1)
    assert bench.stored() == [tuple(CHAT_FRAMES)]
    gone = "closed" if leave == "close" else "dropped"
    assert bench.ends() == [("miss", "complete", ""), ("coalesced", gone, ""), ("coalesced", "complete", "")]


@pytest.mark.parametrize("waits_for", ["the head", "the first byte", "the next frame"])
def test_a_waiting_follower_that_is_cancelled_hurts_nobody(bench: Bench, waits_for: str) -> None:
    """Cancelled (in a thread: interrupted) while it waits for what the leader fetches, a follower ends alone."""
    head, first, second, pace = Gate(), Gate(), Gate(), Gate()
    opened = Gate(opened=True)
    waiting = 2 if bench.mode == "sync" else 3  # a thread that pulls does not wait
    paces = (opened, pace, *[opened] * (len(CHAT_FRAMES) - 1))

    async def scenario() -> None:
        client = bench.serve([stream_answer(first, CHAT_FRAMES[0], second, *CHAT_FRAMES[1:], before=[head])])
        leader = await bench.start(bench.calling(client))
        await bench.until(lambda: head.reached == 1)
        leaving = await bench.start(paced(bench, client, *paces))
        other = await bench.start(paced(bench, client, *paces))
        await bench.until(lambda: bench.followers == 2)
        if waits_for != "the head":
            head.open()
            await bench.until(lambda: bench.readers == 3 and bench.enlisted == waiting)
        if waits_for == "the next frame":
            first.open()
            await bench.until(lambda: second.reached == 1 and pace.reached == 2)
            pace.open()
            await bench.until(lambda: bench.enlisted == waiting)
        await bench.cancel(leaving)
        await bench.until(lambda: leaving.done)
        for gate in (head, first, second, pace):
            gate.open()
        await bench.ended()
        assert leaving.outcome == GIVEN_UP[bench.mode]
        assert leader.frames == other.frames == list(CHAT_FRAMES)

    bench.run(scenario)
    bench.check(upstream=1)
    assert bench.stored() == [tuple(CHAT_FRAMES)]
    assert sorted(end for end in bench.ends() if end[1] != "cancelled") == [
        ("coalesced", "complete", ""),
        ("miss", "complete", ""),
    ]


def test_the_last_to_leave_closes_upstream(bench: Bench) -> None:
    """Leader and follower close an answer that runs on: upstream is closed by the second, nothing is kept, and the
    provider is not blamed."""
    one, two = Gate(), Gate()
    opened = Gate(opened=True)

    async def scenario() -> None:
        client = bench.serve([stream_answer(*CHAT_FRAMES)])
        leader = await bench.start(paced(bench, client, opened, one))
        await bench.until(lambda: one.reached == 1)
        await bench.start(paced(bench, client, opened, opened, two))
        await bench.until(lambda: two.reached == 1)
        one.open()
        await bench.until(lambda: leader.done)
        assert (bench.provider.opened, bench.provider.closed) == (1, 0)
        two.open()
        await bench.ended()

    bench.run(scenario)
    bench.check(upstream=1)
    assert bench.stored() == []
    assert bench.ends() == [("miss", "closed", ""), ("coalesced", "closed", "")]
    assert bench.attempts()[0].verdict == "nothing"


def test_all_are_cancelled_in_a_shared_pull(bench: Bench) -> None:
    """When the last reader is cancelled while a pull for all is under way, that pull ends too: upstream is closed at
    once, not when the provider says its next word."""
    slow, go = Gate(), Gate()
    opened = Gate(opened=True)
    paces = (opened, go, opened)

    async def scenario() -> None:
        client = bench.serve([stream_answer(CHAT_FRAMES[0], slow, *CHAT_FRAMES[1:])])
        for count in (1, 2):
            await bench.start(paced(bench, client, *paces))
            await bench.until(lambda count=count: go.reached == count)  # type: ignore[misc]
        go.open()
        await bench.until(lambda: slow.reached == 1 and bench.enlisted == (1 if bench.mode == "sync" else 2))
        for caller in bench.callers:
            await bench.cancel(caller)
        await bench.ended()
        await bench.until(lambda: bench.provider.closed == 1)
        assert {caller.outcome for caller in bench.callers} <= {GIVEN_UP[bench.mode], "ReadError"}
        fresh = await bench.start(bench.calling(client))
        slow.open()
        await bench.ended()
        assert fresh.frames == list(CHAT_FRAMES)

    bench.run(scenario)
    bench.check(upstream=2)
    assert bench.stored() == [tuple(CHAT_FRAMES)]


@pytest.mark.parametrize("had_bytes", [True, False])
def test_a_thread_that_is_interrupted_as_it_pulls_for_all(
    had_bytes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be hidden from its interrupt: the answer is dead. Who had bytes gets the family's read error,
    who had none leads anew; nobody else gets the interrupt, and nothing cut is kept."""
    bench = bench_for("sync-httpx2", monkeypatch)
    slow, go, wait = Gate(), Gate(), Gate()
    opened = Gate(opened=True)
    first = [CHAT_FRAMES[0]] if had_bytes else []

    async def scenario() -> None:
        frames = [*first, slow, *CHAT_FRAMES[len(first) :]]
        client = bench.serve([stream_answer(*frames), stream_answer(*CHAT_FRAMES)])
        idle = await bench.start(paced(bench, client, wait, *[opened] * len(CHAT_FRAMES)))
        await bench.until(lambda: wait.reached == 1)
        rest = [opened] * (len(CHAT_FRAMES) + (not had_bytes))
        pulling = await bench.start(paced(bench, client, *first and [opened], *rest[1:], go))
        await bench.until(lambda: slow.reached == 1)
        third = await bench.start(bench.calling(client))
        await bench.until(lambda: bench.enlisted == 1)
        await bench.cancel(pulling)
        await bench.until(lambda: pulling.done and third.done)
        wait.open()
        await bench.ended()
        assert pulling.outcome == "KeyboardInterrupt"
        assert third.outcome == ("ReadError" if had_bytes else "ok")
        assert third.frames == (first if had_bytes else list(CHAT_FRAMES))
        assert idle.outcome == "ReadError"

    bench.run(scenario)
    bench.check(upstream=1 if had_bytes else 2)
    assert bench.stored() == ([] if had_bytes else [tuple(CHAT_FRAMES)])
