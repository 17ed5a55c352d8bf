"""Readers of one live answer: each at its own pace, in the same thread too, over the cap, and at the terminal
event."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from flight_lab import Bench, bench_for
from flight_provider import Gate, json_answer, stream_answer
from transport_lab import CHAT_FRAMES, WAYS

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

ALL = list(CHAT_FRAMES)


@pytest.fixture(params=WAYS)
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One way in, with callers beside each other."""
    return bench_for(request.param, monkeypatch)


async def opened(bench: Bench, client: Any, **options: Any) -> tuple[Any, Any]:
    """A response whose body is not read yet, and its frames."""
    response = await bench.open(client, **options)
    return response, bench.frames(response)


@pytest.mark.parametrize("read", [0, 1])
def test_a_follower_needs_nothing_of_its_leader(bench: Bench, read: int) -> None:
    """A follower in the very task or thread of a leader that has read so many frames and reads no more gets every
    frame, the first before the leader's next one; the leader reads the rest when it likes."""

    async def scenario() -> None:
        client = bench.serve([stream_answer(*CHAT_FRAMES)])
        response, leading = await opened(bench, client)
        assert [await leading.next() for _ in range(read)] == ALL[:read]
        other, following = await opened(bench, client)
        assert bench.provider.pulls == max(read, 1)
        assert await following.next() == ALL[0]
        assert bench.provider.pulls == 1
        assert await following.rest() == ALL[1:]
        assert other.headers["content-type"] == response.headers["content-type"]
        assert other.headers["cache-status"] == "underlay; fwd=miss; collapsed"
        assert "cache-status" not in response.headers
        assert await leading.rest() == ALL[read:]

    bench.run(scenario)
    bench.check(upstream=1)
    assert bench.stored() == [tuple(ALL)]
    # The follower's reply ends first.
    assert bench.ends() == [("miss", "complete", ""), ("coalesced", "complete", "")]


def test_a_lead_that_reads_no_more_is_alive_while_others_read(bench: Bench) -> None:
    """Calls of other homes wait for as long as frames come, whoever has them come."""

    async def scenario() -> None:
        client = bench.serve([stream_answer(*ALL)])
        _, leading = await opened(bench, client)
        (lead,) = bench.leads
        begun = lead.alive()
        bench.clock.advance(1)
        await leading.next()
        assert lead.alive() == begun + 1
        _, following = await opened(bench, client)
        bench.clock.advance(2)
        assert [await following.next() for _ in range(2)] == ALL[:2]
        assert lead.alive() == begun + 3
        await leading.rest()
        await following.rest()

    bench.run(scenario)
    bench.check(upstream=1)


def test_a_leader_that_reads_ahead_keeps_no_frame_from_who_waited(bench: Bench) -> None:
    """Followers that waited for the head get the frames that are there while the leader, ahead of them, already waits
    for the next one: they do not wait for it too."""
    head, pause = Gate(), Gate()

    async def scenario() -> None:
        client = bench.serve([stream_answer(*ALL[:2], pause, *ALL[2:], before=[head])])
        leader = await bench.start(bench.calling(client))
        await bench.until(lambda: head.reached == 1)
        followers = [await bench.start(bench.calling(client)) for _ in range(3)]
        await bench.until(lambda: bench.followers == 3)
        head.open()
        await bench.until(lambda: pause.reached == 1)
        await bench.until(lambda: [each.frames for each in followers] == [ALL[:2]] * 3)
        assert leader.frames == ALL[:2]
        pause.open()
        await bench.ended()
        assert [each.frames for each in bench.callers] == [ALL] * 4

    bench.run(scenario)
    bench.check(upstream=1)


def test_two_readers_in_one_task_take_turns(bench: Bench) -> None:
    """Frame by frame in turn, in one thread: nobody waits for the other, and each frame is pulled once."""

    async def scenario() -> None:
        client = bench.serve([stream_answer(*CHAT_FRAMES)])
        _, one = await opened(bench, client)
        _, two = await opened(bench, client)
        for number, frame in enumerate(ALL):
            first, second = (one, two) if number % 2 else (two, one)
            assert (await first.next(), await second.next()) == (frame, frame)
            assert bench.provider.pulls == number + 1
        assert (await one.next(), await two.next()) == (None, None)

    bench.run(scenario)
    bench.check(upstream=1)


def test_a_late_reader_of_an_answer_that_has_ended_reads_on(bench: Bench) -> None:
    """The leader has ended and the entry is stored; a follower that joined while it ran still gets its every byte
    from the flight, and one that comes now gets the entry."""

    async def scenario() -> None:
        client = bench.serve([stream_answer(*CHAT_FRAMES)])
        _, leading = await opened(bench, client)
        _, following = await opened(bench, client)
        assert await leading.rest() == ALL
        assert bench.stored() == [tuple(ALL)]
        late, hit = await opened(bench, client)
        assert late.headers["cache-status"].startswith("underlay; hit")
        assert await hit.rest() == ALL
        assert await following.rest() == ALL

    bench.run(scenario)
    bench.check(upstream=1)
    assert bench.ends() == [("miss", "complete", ""), ("coalesced", "complete", ""), ("hit", "complete", "")]


@pytest.mark.parametrize("first", ["leader", "follower"])
def test_who_closes_at_the_terminal_event_had_it_all(bench: Bench, first: str) -> None:
    """The SDKs close at the terminal event: the first to do so ends a complete answer, stores it and closes upstream,
    though the other has read one frame and may never read on; that one has the rest from memory."""

    async def scenario() -> None:
        client = bench.serve([stream_answer(*CHAT_FRAMES)])
        pair = [await opened(bench, client), await opened(bench, client)]
        (response, done), (idle_response, idle) = pair if first == "leader" else reversed(pair)
        assert await idle.next() == ALL[0]
        assert [await done.next() for _ in ALL] == ALL
        await done.close()
        await bench.close(response)
        assert bench.stored() == [tuple(ALL)]
        assert bench.provider.closed == 1
        assert bench.leads == []
        assert await idle.rest() == ALL[1:]
        await bench.close(idle_response)

    bench.run(scenario)
    bench.check(upstream=1)
    ends = bench.ends()
    assert sorted(ends) == [("coalesced", "complete", ""), ("miss", "complete", "")]
    assert bench.attempts()[0].verdict == "success"


def test_who_closes_before_the_terminal_event_ends_nothing(bench: Bench) -> None:
    """One frame short of the terminal event a follower that closes has left early, and the leader reads on."""

    async def scenario() -> None:
        client = bench.serve([stream_answer(*CHAT_FRAMES)])
        _, leading = await opened(bench, client)
        response, following = await opened(bench, client)
        assert [await following.next() for _ in ALL[1:]] == ALL[:-1]
        await following.close()
        await bench.close(response)
        assert bench.stored() == []
        assert await leading.rest() == ALL

    bench.run(scenario)
    bench.check(upstream=1)
    assert bench.ends() == [("miss", "complete", ""), ("coalesced", "closed", "")]


def test_an_answer_that_nobody_reads_is_closed_by_its_last_holder(bench: Bench) -> None:
    """Opened by two and read by none: the second close ends it, and nothing is kept."""

    async def scenario() -> None:
        client = bench.serve([stream_answer(*CHAT_FRAMES)])
        one, _ = await opened(bench, client)
        two, _ = await opened(bench, client)
        await bench.close(one)
        assert bench.provider.closed == 0
        await bench.close(two)
        assert bench.provider.closed == 1
        await bench.close(two)

    bench.run(scenario)
    bench.check(upstream=1)
    assert bench.stored() == []


def test_nobody_joins_an_answer_over_the_cap(bench: Bench) -> None:
    """Once it has outgrown what may be kept, an answer is the leader's alone: whoever comes then leads anew at once,
    nothing is stored, and who had joined before keeps every frame."""
    size = len(ALL[0]) + len(ALL[1])

    async def scenario() -> None:
        client = bench.serve([stream_answer(*CHAT_FRAMES)], llm_cache={"max_entry_bytes": size})
        _, leading = await opened(bench, client)
        _, following = await opened(bench, client)
        for number, frame in enumerate(ALL[:3]):
            assert (await leading.next(), await following.next()) == (frame, frame), number
        assert bench.leads == []
        _, late = await opened(bench, client)
        assert await late.next() == ALL[0]
        assert bench.provider.requests == 2
        for frame in [*ALL[3:], None]:
            assert (await leading.next(), await following.next()) == (frame, frame)
        assert await late.rest() == ALL[1:]

    bench.run(scenario)
    bench.check(upstream=2)
    assert bench.stored() == []
    assert [attempt.store_reason for attempt in bench.attempts()] == ["too_large"] * 2


def test_a_reader_that_lags_more_than_the_cap_is_cut_off(bench: Bench) -> None:
    """It gets the family's read error after the frames that it could still have; nobody waited for it."""

    async def scenario() -> None:
        client = bench.serve([stream_answer(*CHAT_FRAMES)], llm_cache={"max_entry_bytes": len(ALL[0])})
        _, leading = await opened(bench, client)
        response, lagging = await opened(bench, client)
        assert await leading.rest() == ALL
        assert await lagging.next() == ALL[0]
        with pytest.raises(bench.module.ReadError):
            await lagging.next()
        await bench.close(response)

    bench.run(scenario)
    bench.check(upstream=1)
    assert [end[1] for end in bench.ends()] == ["complete", "failed"]
    assert bench.runtime.circuit("gpt-4o", "openai").view().counts.failures == 0


def test_without_a_follower_left_the_leader_pulls_alone_again(bench: Bench) -> None:
    """Joined and left again, an answer is an ordinary one: cancelled in its next pull it ends, and is not kept."""
    gate = Gate()

    async def scenario() -> None:
        client = bench.serve([stream_answer(*ALL[:2], gate, *ALL[2:])])
        leader = await bench.start(bench.calling(client))
        await bench.until(lambda: gate.reached == 1)
        follower = await bench.start(bench.calling(client))
        await bench.until(lambda: bench.enlisted == 1)
        await bench.cancel(follower)
        await bench.until(lambda: follower.done)
        await bench.cancel(leader)
        await bench.ended()

    bench.run(scenario)
    bench.check(upstream=1)
    assert bench.stored() == []


def test_a_shared_failure_leaves_no_cycle(bench: Bench) -> None:
    """The exception of a request that failed for several is freed with the last of them: kept with the flight, its
    frames would lead back to it, and a prompt would wait for the garbage collector."""
    head, seen = Gate(), []

    async def scenario() -> None:
        client = bench.serve([json_answer(before=[head])])

        class OwnError(bench.module.ConnectError):  # type: ignore[misc,name-defined]
            pass

        async def fail(module: Any, request: Any) -> Any:
            await head.wait(bench)
            error = OwnError("scripted", request=request)
            seen.append(weakref.ref(error))
            try:
                raise error
            finally:
                del error

        bench.provider.head = fail  # type: ignore[method-assign]
        await bench.start(bench.calling(client))
        await bench.until(lambda: head.reached == 1)
        await bench.start(bench.calling(client))
        await bench.until(lambda: bench.followers == 1)
        head.open()
        await bench.ended()
        assert {caller.outcome for caller in bench.callers} == {"OwnError"}
        for caller in bench.callers:
            caller.error = None
        await bench.settle()
        assert bench.leads == []

    gc.collect()
    gc.disable()
    try:
        bench.run(scenario)
        assert [ref() for ref in seen] == [None]
    finally:
        gc.enable()
