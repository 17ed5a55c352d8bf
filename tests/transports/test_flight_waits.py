"""How long a follower waits: its own read timeout, the bound of the settings, and which flights it joins at all."""

from __future__ import annotations

from typing import Any

import pytest
from flight_lab import Bench, bench_for
from flight_provider import JSON_FRAMES, Fail, Gate, json_answer, stream_answer
from transport_lab import CHAT_FRAMES, WAYS

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

ALL = list(CHAT_FRAMES)


@pytest.fixture(params=WAYS)
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One way in, with callers beside each other."""
    return bench_for(request.param, monkeypatch)


def reads(bench: Bench, seconds: float | None) -> Any:
    """A timeout of which only the read counts."""
    return bench.module.Timeout(None, read=seconds)


async def passing(bench: Bench, seconds: float) -> None:
    """Let time pass for those who wait on the clock."""
    bench.clock.advance(seconds)
    await bench.settle()


@pytest.mark.parametrize("waits_for", ["the head", "the first byte", "the next frame"])
def test_a_followers_own_read_timeout(bench: Bench, waits_for: str) -> None:
    """It gets its family's ReadTimeout when its own time is up, and not before; leader and patient follower go on."""
    head, first, second, pace = Gate(), Gate(), Gate(), Gate()
    others = 1 if bench.mode == "sync" else 2  # a thread that pulls does not wait

    async def scenario() -> None:
        client = bench.serve([stream_answer(first, ALL[0], second, *ALL[1:], before=[head])])
        leader = await bench.start(bench.calling(client, timeout=reads(bench, 60)))
        await bench.until(lambda: head.reached == 1)

        async def wait(caller: Any) -> None:
            response = await bench.open(client, timeout=reads(bench, 5))
            try:
                frames = bench.frames(response)
                caller.frames.append(await frames.next())
                await pace.wait(bench)
                await frames.next()
            finally:
                await bench.close(response)

        brief = await bench.start(wait)
        patient = await bench.start(bench.calling(client, timeout=reads(bench, 60)))
        await bench.until(lambda: bench.followers == 2)
        if waits_for != "the head":
            head.open()
            await bench.until(lambda: bench.enlisted == others + 1)
        if waits_for == "the next frame":
            first.open()
            await bench.until(lambda: second.reached == 1 and pace.reached == 1)
            await bench.until(lambda: bench.enlisted == others)
            pace.open()
            await bench.until(lambda: bench.enlisted == others + 1)
        await bench.until(lambda: bench.clock.waiting >= 2)
        await passing(bench, 4.9)
        assert not brief.done
        await passing(bench, 0.2)
        await bench.until(lambda: brief.done)
        assert brief.outcome == "ReadTimeout"
        assert brief.error.__cause__ is None  # type: ignore[union-attr]
        assert type(brief.error).__module__ == bench.family
        assert brief.error.request.url.host == "api.openai.com"  # type: ignore[union-attr]
        for gate in (head, first, second):
            gate.open()
        await bench.ended()
        assert leader.frames == patient.frames == ALL

    bench.run(scenario)
    bench.check(upstream=1)
    assert bench.stored() == [tuple(ALL)]
    assert ("coalesced", "failed", "ReadTimeout") in bench.ends()
    assert bench.runtime.circuit("gpt-4o", "openai").view().counts.failures == 0
    assert bench.clock.waiting == 0


@pytest.mark.parametrize(
    ("leads", "mine", "joined"),
    [(5, 5, True), (9, 5, True), (None, 5, True), (None, None, True), (5, 9, False), (5, None, False)],
)
def test_only_a_flight_that_is_as_patient_is_joined(
    bench: Bench, leads: float | None, mine: float | None, joined: bool
) -> None:
    """A leader with a shorter read timeout would end the answer for both; a follower that waits longer leads its own
    flight, and others may follow that one."""
    head = Gate()

    async def scenario() -> None:
        client = bench.serve([json_answer(before=[head])])
        await bench.start(bench.calling(client, stream=False, timeout=reads(bench, leads)))
        await bench.until(lambda: head.reached == 1)
        await bench.start(bench.calling(client, stream=False, timeout=reads(bench, mine)))
        await bench.until(lambda: bench.followers == 1 if joined else head.reached == 2)
        await bench.start(bench.calling(client, stream=False, timeout=reads(bench, mine)))
        await bench.until(lambda: bench.followers == (2 if joined else 1))
        head.open()
        await bench.ended()

    bench.run(scenario)
    assert [caller.body for caller in bench.callers] == [b"".join(JSON_FRAMES)] * 3
    bench.check(upstream=1 if joined else 2)


def test_the_leaders_own_read_timeout_ends_no_longer_one(bench: Bench) -> None:
    """Upstream is silent for the leader's read timeout: only who joined it gets that; who waits longer has a flight
    of its own and its answer."""
    first, second = Gate(), Gate()

    async def scenario() -> None:
        answers = [json_answer(before=[first, Fail("ReadTimeout")]), json_answer(before=[second])]
        client = bench.serve(answers)
        leader = await bench.start(bench.calling(client, stream=False, timeout=reads(bench, 5)))
        await bench.until(lambda: first.reached == 1)
        same = await bench.start(bench.calling(client, stream=False, timeout=reads(bench, 5)))
        await bench.until(lambda: bench.followers == 1)
        longer = await bench.start(bench.calling(client, stream=False, timeout=reads(bench, 9)))
        await bench.until(lambda: second.reached == 1)
        first.open()
        await bench.ended(leader, same)
        second.open()
        await bench.ended()
        assert (leader.outcome, same.outcome, longer.outcome) == ("ReadTimeout", "ReadTimeout", "ok")

    bench.run(scenario)
    bench.check(upstream=2)


def test_a_follower_without_a_read_timeout_waits_for_no_head_for_ever(bench: Bench) -> None:
    """After `coalesce.wait_timeout` it sends for itself, whatever has become of the leader."""
    head, other = Gate(), Gate(opened=True)

    async def scenario() -> None:
        client = bench.serve(
            [json_answer(before=[head]), json_answer(before=[other])], coalesce={"wait_timeout": 30}
        )
        leader = await bench.start(bench.calling(client, stream=False, timeout=reads(bench, None)))
        await bench.until(lambda: head.reached == 1)
        follower = await bench.start(bench.calling(client, stream=False, timeout=reads(bench, None)))
        await bench.until(lambda: bench.followers == 1 and bench.clock.waiting == 1)
        await passing(bench, 29)
        assert other.reached == 0
        await passing(bench, 1)
        await bench.until(lambda: follower.done)
        assert (follower.body, leader.done) == (b"".join(JSON_FRAMES), False)
        head.open()
        await bench.ended()

    bench.run(scenario)
    bench.check(upstream=2)
    assert bench.ends() == [("miss", "complete", "")] * 2


def test_who_leads_after_a_wait_begins_then(bench: Bench) -> None:
    """The leader is given up after 20 of 30 seconds. Of the two that waited for it one leads, and the other's
    patience begins with that: it does not send for itself after 10."""
    first, second, third = Gate(), Gate(), Gate(opened=True)

    async def scenario() -> None:
        answers = [json_answer(before=[gate]) for gate in (first, second, third)]
        client = bench.serve(answers, coalesce={"wait_timeout": 30})
        leader = await bench.start(bench.calling(client, stream=False, timeout=reads(bench, None)))
        await bench.until(lambda: first.reached == 1)
        for _ in range(2):
            await bench.start(bench.calling(client, stream=False, timeout=reads(bench, None)))
        await bench.until(lambda: bench.followers == 2 and bench.clock.waiting == 2)
        await passing(bench, 20)
        await bench.cancel(leader)
        await bench.until(lambda: second.reached == 1 and bench.followers == 1)
        await passing(bench, 29)
        assert third.reached == 0
        await passing(bench, 1)
        await bench.until(lambda: third.reached == 1)
        second.open()
        await bench.ended()

    bench.run(scenario)
    bench.check(upstream=3)


def test_a_half_read_stream_of_this_thread_holds_no_lease_against_it(bench: Bench) -> None:
    """A thread or task that has half read one answer, and asks again with longer timeouts, leads flights of its own
    one after the other; none waits for the stream that only it would read on."""

    async def scenario() -> None:
        failed = json_answer(status=500)
        client = bench.serve([stream_answer(*CHAT_FRAMES), failed, failed])
        response = await bench.open(client, timeout=reads(bench, 5))
        frames = bench.frames(response)
        assert await frames.next() == ALL[0]
        for _ in range(2):
            other = await bench.open(client, timeout=reads(bench, 9))
            assert other.status_code == 500
            await bench.read(other)
            await bench.close(other)
        assert bench.clock.waiting == 0
        assert await frames.rest() == ALL[1:]

    bench.run(scenario)
    bench.check(upstream=3)
    assert bench.stored() == [tuple(ALL)]


def test_the_wait_is_told_in_seconds(bench: Bench) -> None:
    """`Coalesced.wait` is the time from the call's wait for another until its first bytes, and its duration ends with
    its reader."""
    head = Gate()

    async def scenario() -> None:
        client = bench.serve([json_answer(before=[head])])
        await bench.start(bench.calling(client, stream=False, timeout=reads(bench, 60)))
        await bench.until(lambda: head.reached == 1)
        bench.clock.advance(1)
        await bench.start(bench.calling(client, stream=False, timeout=reads(bench, 60)))
        await bench.until(lambda: bench.followers == 1)
        bench.clock.advance(2)
        head.open()
        await bench.ended()

    bench.run(scenario)
    bench.check(upstream=1)
    assert bench.coalesced() == [(b"1", 2.0)]
