"""The beginning of a live answer for each of its followers, before any of them has more: a crowd of readers keeps
the processor from those who have had nothing yet."""

from __future__ import annotations

from typing import Any

import pytest
from flight_lab import Bench, bench_for
from flight_provider import Gate, json_answer, stream_answer
from transport_lab import CHAT_FRAMES, WAYS

from underlay.pipeline.flights import Lead
from underlay.pipeline.reader import Body, Reader

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

WHOLE = b"".join(CHAT_FRAMES)
SIZE = len(WHOLE) // 9
ALL = [WHOLE[start : start + SIZE] for start in range(0, len(WHOLE), SIZE)]
BEGINNING = 4  # frames


@pytest.fixture(params=WAYS)
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One way in, with callers beside each other."""
    return bench_for(request.param, monkeypatch)


class Slow:
    """The last follower to come stands still between the head and its first frame."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
        self.gate = Gate()
        prime, came = Reader.prime, list[Reader]()

        async def primed(reader: Reader) -> bool:
            came.append(reader)
            if len(came) == last:
                await self.gate.wait(bench)
            return await prime(reader)

        monkeypatch.setattr(Reader, "prime", primed)

    def stands(self) -> bool:
        """Whether it is there."""
        return self.gate.reached == 1


async def crowd(bench: Bench, answer: Any, head: Gate, followers: int = 3, **settings: Any) -> Lead:
    """A leader and its followers, up to the head. They are the bench's callers, in this order."""
    client = bench.serve([answer], **settings)
    await bench.start(bench.calling(client, timeout=None))
    await bench.until(lambda: head.reached == 1)
    for _ in range(followers):
        await bench.start(bench.calling(client, timeout=None))
    await bench.until(lambda: bench.followers == followers)
    lead: Lead = bench.leads[0]
    return lead


def giving_way(lead: Lead) -> int:
    """How many readers of its body let others go first."""
    return len(lead.outcome._giving_way or ()) if isinstance(lead.outcome, Body) else 0


@pytest.mark.parametrize("tail", ["runs on", "has come"])
@pytest.mark.parametrize("then", ["comes", "is cancelled", "stands for a second"])
def test_all_have_the_beginning_before_any_has_more(
    bench: Bench, then: str, tail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Followers that have had four frames read on once the last of them has had one, or is known not to come, or
    after a second. Their leader is not held up by any of it."""
    head, end = Gate(), Gate(opened=tail == "has come")
    slow = Slow(bench, monkeypatch, 3)
    give_way, gave_way = Reader._give_way, list[Reader]()

    async def counted(reader: Reader, waiter: object) -> None:
        gave_way.append(reader)
        await give_way(reader, waiter)

    monkeypatch.setattr(Reader, "_give_way", counted)

    async def scenario() -> None:
        lead = await crowd(bench, stream_answer(*ALL, end, before=[head]), head)
        leader, *others = bench.callers
        head.open()
        await bench.until(slow.stands)
        await bench.until(lambda: giving_way(lead) == 2 and leader.frames == ALL)
        late, *quick = sorted(others, key=lambda caller: len(caller.frames))
        assert [caller.frames for caller in (late, *quick)] == [[], ALL[:BEGINNING], ALL[:BEGINNING]]
        if then == "comes":
            slow.gate.open()
        elif then == "is cancelled":
            await bench.cancel(late)
            await bench.ended(late)
        else:
            bench.clock.advance(1)
        await bench.until(lambda: [caller.frames for caller in quick] == [ALL] * 2)
        slow.gate.open()
        end.open()
        await bench.ended()
        assert late.frames == ([] if then == "is cancelled" else ALL)

    bench.run(scenario)
    assert len(gave_way) == 2  # once each, whatever came meanwhile
    bench.check(upstream=1)
    assert bench.clock.waiting == 0


def test_who_comes_after_the_head_goes_first_as_well(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody expected it, and a reader that has had the beginning lets it have its own."""
    head, pause, end = Gate(), Gate(), Gate()
    slow = Slow(bench, monkeypatch, 2)

    async def scenario() -> None:
        answer = stream_answer(*ALL[:BEGINNING], pause, *ALL[BEGINNING:], end, before=[head])
        lead = await crowd(bench, answer, head, 1)
        first = bench.callers[1]
        head.open()
        await bench.until(lambda: first.frames == ALL[:BEGINNING])
        late = await bench.start(bench.calling(bench.client(bench.provider.transport()), timeout=None))
        await bench.until(slow.stands)
        pause.open()
        await bench.until(lambda: giving_way(lead) == 1)
        slow.gate.open()
        end.open()
        await bench.ended()
        assert (first.frames, late.frames) == (ALL, ALL)

    bench.run(scenario)
    bench.check(upstream=1)


def test_who_gives_way_can_be_cancelled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves nothing behind that others would wait for."""
    head = Gate()
    slow = Slow(bench, monkeypatch, 2)

    async def scenario() -> None:
        lead = await crowd(bench, stream_answer(*ALL, before=[head]), head, 2)
        leader, *others = bench.callers
        head.open()
        await bench.until(slow.stands)
        await bench.until(lambda: giving_way(lead) == 1)
        (gives_way,) = (caller for caller in others if caller.frames)
        await bench.cancel(gives_way)
        await bench.ended(gives_way)
        slow.gate.open()
        await bench.ended()
        (late,) = (caller for caller in others if caller is not gives_way)
        assert (gives_way.frames, late.frames, leader.frames) == (ALL[:BEGINNING], ALL, ALL)

    bench.run(scenario)
    bench.check(upstream=1)


def test_nobody_gives_way_until_it_is_cut_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader is cut off when it lags by more than may be held for it: at half of that it reads on."""
    head, end = Gate(), Gate()
    slow = Slow(bench, monkeypatch, 2)

    async def scenario() -> None:
        answer = stream_answer(*ALL, end, before=[head])
        await crowd(bench, answer, head, 2, llm_cache={"max_entry_bytes": len(WHOLE)})
        head.open()
        await bench.until(slow.stands)
        leader, *others = bench.callers
        await bench.until(lambda: leader.frames == ALL)
        await bench.until(lambda: ALL in [caller.frames for caller in others])
        slow.gate.open()
        end.open()
        await bench.ended()
        assert [caller.frames for caller in bench.callers] == [ALL] * 3

    bench.run(scenario)
    bench.check(upstream=1)


def test_an_answer_in_one_piece_makes_nobody_give_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is whole before there is anything to give way with."""
    head = Gate()
    slow = Slow(bench, monkeypatch, 3)

    async def scenario() -> None:
        client = bench.serve([json_answer(before=[head])])
        for _ in range(4):
            await bench.start(bench.calling(client, stream=False, timeout=None))
        await bench.until(lambda: bench.followers == 3)
        head.open()
        await bench.until(slow.stands)
        await bench.until(
            lambda: sum(caller.outcome == "ok" and caller.done for caller in bench.callers) == 3
        )
        slow.gate.open()
        await bench.ended()

    bench.run(scenario)
    bench.check(upstream=1)
