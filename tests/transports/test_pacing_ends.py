"""Calls that are held for their turn and end there, or whose turn does not come: the line goes on, nobody is lost, and
the books say what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import trio
from pacing_lab import COST, FIRST, LOOPS, Call, PacingLab
from transport_lab import EMBEDDINGS, JSON_TYPE, dumped

from underlay import Runtime
from underlay.pipeline.windows import Windows
from underlay.telemetry.events import AttemptStarted, CircuitRefused, Coalesced, Paced
from underlay.transports.homes import AsyncioHome, TrioHome

CANCELLED = (asyncio.CancelledError, trio.Cancelled)


@pytest.fixture(params=LOOPS)
def lab(request: pytest.FixtureRequest) -> PacingLab:
    """One loop and family."""
    return PacingLab(request.param)


def ends(lab: PacingLab, call: Call) -> tuple[str, int, int]:
    """How a call ended by its books: its ending, its attempts, and how often it told of a wait."""
    at = lab.arrived.index(call)
    return (*lab.books()[at], len(lab.waits()[at]))


def others_are_right(lab: PacingLab, *gone: Call) -> None:
    """Everybody else was answered, and nothing is left of those that are gone."""
    lab.calls = [call for call in lab.calls if call not in gone]
    lab.right()


@pytest.mark.parametrize("places", [[FIRST], [7], [-2], [FIRST, 4, 5, 8]], ids=str)
def test_a_held_call_that_is_cancelled_leaves_the_line(lab: PacingLab, places: list[int]) -> None:
    """It is never sent, its books are closed as cancelled with no attempt and no wait, and the others go by turns."""
    client = lab.paced()

    def on_call(_: Call) -> None:
        if len(lab.arrived) == 12:  # the others wait by now
            for place in places:
                lab.arrived[place].stop()

    lab.on_call = on_call
    lab.run(lambda: lab.burst(client, range(12)))
    gone = [lab.arrived[place] for place in places]
    assert [type(call.error) in CANCELLED for call in gone] == [True] * len(gone)
    assert {call.name for call in gone}.isdisjoint(lab.sends)
    assert [ends(lab, call) for call in gone] == [("cancelled", 0, 0)] * len(gone)
    first, *later = lab.sent_by_round()
    assert (first, max(later), sum(later)) == (FIRST, 2, 12 - FIRST - len(gone))
    others_are_right(lab, *gone)


def test_when_all_have_left_the_loop_is_free(lab: PacingLab) -> None:
    """With nobody in the line any more, the next call goes at once."""
    client = lab.paced()

    async def scenario() -> None:
        lab.start(client, range(12))
        await lab.until(lambda: len(lab.arrived) == 12)
        for call in lab.arrived:
            if call.sent_in is None:
                call.stop()
        await lab.settle()
        await lab.burst(client, ["after"])

    lab.run(scenario)
    gone = [call for call in lab.arrived if call.error is not None]
    assert len(gone) >= 12 - FIRST - 2  # trio may have come round once before
    assert lab.waits()[-1] == []
    lab.calls = [call for call in lab.calls if call not in gone]
    assert lab.calls[-1].answer == "to after"
    lab.clean()


def test_a_call_that_is_cancelled_as_its_turn_comes(lab: PacingLab) -> None:
    """Whether it was still sent or not, its books close once as cancelled and the line goes on."""
    client = lab.paced()

    def on_send(name: object) -> None:
        if len(lab.sends) == FIRST + 1:
            (mate,) = {call for call in lab.arrived[FIRST : FIRST + 2] if call.name != name}
            mate.stop()
            gone.append(mate)

    gone: list[Call] = []
    lab.on_send = on_send
    lab.run(lambda: lab.burst(client, range(12)))
    assert type(gone[0].error) in CANCELLED
    assert ends(lab, gone[0])[0] == "cancelled"
    lab.sends = [name for name in lab.sends if name != gone[0].name]
    others_are_right(lab, *gone)


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """The first that a loop is to run when it comes round is lost."""
    lost: list[Callable[[], object]] = []
    for home in (AsyncioHome, TrioHome):
        real: Any = home.soon.fget  # type: ignore[attr-defined]
        monkeypatch.setattr(
            home, "soon", property(lambda self, real=real: real(self) if lost else lost.append)
        )
    return lost


def test_a_turn_that_never_comes_is_waited_for_no_longer_than_bound(lab: PacingLab, lossy: list[Any]) -> None:
    """Who waited as long as for any other call goes, and takes those along that came after it; then bursts are paced
    again."""
    client = lab.paced(coalesce={"wait_timeout": 60})

    async def scenario() -> None:
        lab.start(client, range(6))
        await lab.settle()
        assert len(lab.sends) == FIRST
        lab.clock.advance(10)
        lab.start(client, ["late", "later"])
        await lab.settle()
        lab.clock.advance(49)
        await lab.settle()
        assert len(lab.sends) == FIRST
        lab.cost = 0.0
        lab.clock.advance(1 - FIRST * COST)
        await lab.settle()
        assert len(lab.sends) == FIRST
        lab.clock.advance(FIRST * COST)
        await lab.all_done()
        lab.cost = COST
        await lab.burst(client, [f"again {number}" for number in range(9)])

    lab.run(scenario)
    assert len(lossy) == 1
    told = [wait for each in lab.waits()[:8] for wait, _ in each]
    assert told == [60.0] * 3 + [50.0] * 2
    assert lab.sent_by_round()[-4:] == [3, 2, 2, 2]
    lab.right()


def test_a_circuit_that_opens_meanwhile_refuses_who_waits(lab: PacingLab) -> None:
    """No permit is held while waiting: when the first answers open the circuit, those that wait are not sent."""
    client = lab.paced(circuit_breaker={"failure_threshold": FIRST})
    lab.reply = lambda _: 500
    lab.run(lambda: lab.burst(client, range(20)))
    sent = len(lab.sends)
    assert sent == FIRST if lab.mode == "asyncio" else FIRST <= sent <= FIRST + 4
    assert sorted(call.status or 0 for call in lab.calls) == [500] * sent + [503] * (20 - sent)
    refused = [call for call in lab.recorder.calls if call.of(CircuitRefused)]
    assert len(refused) == 20 - sent
    assert [(len(call.of(Paced)), call.of(AttemptStarted)) for call in refused] == [(1, [])] * (20 - sent)
    lab.clean()


def test_identical_calls_that_wait_are_sent_once(lab: PacingLab) -> None:
    """The first of them waits for its turn, the others for its answer: one request, and one wait."""
    client = lab.paced()
    lab.run(lambda: lab.burst(client, [*range(FIRST), *["same"] * 10, *range(10, 14)]))
    lab.right()
    assert lab.sends.count("same") == 1
    followers = [call for call in lab.recorder.calls if call.of(Coalesced)]
    assert len(followers) == 9
    assert [event for call in followers for event in call.of(Paced)] == []


def test_who_follows_one_that_waits_is_not_timed_out_for_it(lab: PacingLab) -> None:
    """A read timeout is for the provider: while the call that it follows has not been sent, a call's own does not
    run out. Without pacing none of them would."""
    client = lab.paced()
    lab.run(lambda: lab.burst(client, [f"pair {number // 2}" for number in range(120)], timeout=5.0))
    lab.right()


def test_a_leader_that_is_cancelled_while_it_waits_has_an_heir(lab: PacingLab) -> None:
    """Identical calls whose first gives up its turn ask again: one of them is sent, for the others too."""
    client = lab.paced()

    def on_call(_: Call) -> None:
        if len(lab.arrived) == 16:
            lab.arrived[12].stop()

    async def scenario() -> None:
        lab.start(client, range(12))
        await lab.until(lambda: len(lab.arrived) == 12)
        await lab.burst(client, ["same"] * 4)

    lab.on_call = on_call
    lab.run(scenario)
    (gone,) = [call for call in lab.arrived if call.error is not None]
    assert ends(lab, gone) == ("cancelled", 0, 0)
    assert lab.sends.count("same") == 1
    others_are_right(lab, gone)


def test_a_burst_longer_than_the_bound_is_paced_to_its_end(lab: PacingLab) -> None:
    """The bound is for a loop that nobody hears of: where it comes round all the time, nobody goes before its turn."""
    client = lab.paced(coalesce={"wait_timeout": 2})
    lab.run(lambda: lab.burst(client, range(63)))
    first, *later = lab.sent_by_round()
    assert (first, sum(later)) == (FIRST, 60)
    # Where the bound and a turn meet, trio may run two turns in one round.
    assert max(later) <= (2 if lab.mode == "asyncio" else 4)
    lab.right()


@pytest.mark.parametrize("seed", range(8))
def test_any_storm_ends_with_everybody_served(lab: PacingLab, seed: int) -> None:
    """Bursts of any size at any time, sends of any length, identical calls and cancellations wherever they hit: who
    was not cancelled is answered right, and nothing is left."""
    random = Random(seed)
    client = lab.paced(random.randint(1, 5))

    def on_send(_: object) -> None:
        lab.cost = random.choice([0.0, 0.01, COST, 1.0])
        if random.random() < 0.2:
            random.choice(lab.arrived).stop()

    async def scenario() -> None:
        for burst in range(12):
            names = [f"{burst}.{random.randint(0, 25)}" for _ in range(random.randint(0, 20))]
            lab.start(client, names, timeout=None)
            for _ in range(random.randint(0, 6)):
                await lab.pause()
        await lab.all_done()

    lab.on_send = on_send
    lab.run(scenario)
    assert {type(call.error) for call in lab.calls if call.error} <= set(CANCELLED)
    assert [call for call in lab.calls if call.error is None and call.answer != f"to {call.name}"] == []
    lab.runtime.stats()  # a caller is inside: it closes the books of those who left
    lab.books()
    lab.clean()


def test_it_works_by_the_real_clock(lab: PacingLab) -> None:
    """With the system's clock and a turn of next to nothing, the calls of a burst wait, go, and are answered."""
    lab.paced(pacing={"turn_ms": 1e-6})
    lab.runtime = Runtime({"pacing": {"turn_ms": 1e-6, "at_once": 2}}, listeners=[lab.recorder])
    client = lab.client(lab.transport(lab._handle))
    lab.run(lambda: lab.burst(client, range(50)))
    lab.right()
    waits = [wait for each in lab.waits() for wait, _ in each]
    assert len(waits) == 49
    assert min(waits) > 0
    assert max(lab.sent_by_round()) == 2


def test_a_window_learns_no_wait_for_a_turn(lab: PacingLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a lane learns of its provider's latency begins when the call is sent."""
    client = lab.paced(llm_batch={"linger": "learned"})
    learned: list[float | None] = []
    landed = Windows.landed

    def listen(self: Windows, seat: Any, now: float, latency: float | None) -> None:
        learned.append(latency)
        landed(self, seat, now, latency)

    async def handle(_: Any) -> Any:
        lab.clock.advance(COST)
        await lab.pause()
        return lab.module.Response(200, headers=JSON_TYPE, content=dumped(EMBEDDINGS))

    monkeypatch.setattr(Windows, "landed", listen)
    client = lab.client(lab.transport(handle))

    async def scenario() -> None:
        asks = [{"model": f"model-{number}", "input": "text"} for number in range(9)]
        url = "https://api.openai.com/v1/embeddings"
        await lab.together([lambda ask=ask: lab.post(client, url, ask) for ask in asks])  # type: ignore[misc]

    lab.run(scenario)
    waits = [wait for told in lab.waits() for wait, _ in told]
    assert max(waits) > 3 * COST
    assert len(learned) == 9
    # Its own send, and those that the loop starts before it looks for replies.
    assert max(learned) <= (FIRST + 2) * COST
