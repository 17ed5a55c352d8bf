"""Many calls that one event loop starts at once: those after its turn are held, leave a few each time it comes round,
and replies are read in between. Nobody else is held."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from pacing_lab import COST, FIRST, LOOPS, PacingLab, ask
from transport_lab import Lab, json_reply

from underlay.telemetry.events import Paced


@pytest.fixture(params=LOOPS)
def lab(request: pytest.FixtureRequest) -> PacingLab:
    """One loop and family."""
    return PacingLab(request.param)


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_a_burst_goes_by_turns(lab: PacingLab, at_once: int) -> None:
    """Until a turn is over calls are sent; the others go so many each time the loop comes round. All are answered,
    each once and with its own answer."""
    client = lab.paced(at_once)
    lab.run(lambda: lab.burst(client, range(20)))
    lab.right()
    first, *later = lab.sent_by_round()
    assert first == FIRST
    full, rest = divmod(20 - FIRST, at_once)
    assert later == [at_once] * full + [rest] * (rest > 0)


def test_replies_are_read_in_between(lab: PacingLab) -> None:
    """A reply that has come is read when the loop comes round, and does not wait until the last request has left."""
    client = lab.paced()
    calls = lab.run(lambda: lab.burst(client, range(20)))
    late = [call for call in calls if call.answered_in - call.sent_in > 1]
    assert late == []
    last = max(at for at, (what, _) in enumerate(lab.log) if what == "sent")
    answered = [name for what, name in lab.log[:last] if what == "answered"]
    assert len(answered) >= 20 - 2 * 2
    lab.right()


def test_without_pacing_no_reply_is_read_before_all_have_left(lab: PacingLab) -> None:
    """What the bench is for: with pacing off the burst is one turn of the loop, and nobody hears of it."""
    client = lab.paced(pacing={"mode": "off"})
    lab.run(lambda: lab.burst(client, range(20)))
    assert lab.sent_by_round() == [20]
    assert [what for what, _ in lab.log] == ["came", "sent"] * 20 + ["answered"] * 20
    assert lab.waits() == [[]] * 20
    assert lab.turns == {}
    lab.right()


def test_first_come_first_served(lab: PacingLab) -> None:
    """They are sent in the order in which they came, those of one round in the order that the loop wakes them."""
    client = lab.paced()
    lab.run(lambda: lab.burst(client, range(21)))
    came, sent = [call.name for call in lab.arrived], lab.sends
    assert sent[:FIRST] == came[:FIRST]
    if lab.mode == "asyncio":
        assert sent == came
    groups = range(FIRST, 21, 2)
    assert [set(sent[at : at + 2]) for at in groups] == [set(came[at : at + 2]) for at in groups]


def test_each_held_call_tells_how_long(lab: PacingLab) -> None:
    """The wait is the time from its coming to its turn, to the tick; calls that were not held tell nothing."""
    client = lab.paced()
    lab.run(lambda: lab.burst(client, range(20)))
    waits = lab.waits()
    assert waits[:FIRST] == [[]] * FIRST
    assert [len(told) for told in waits[FIRST:]] == [1] * (20 - FIRST)
    told = [wait for ((wait, _),) in waits[FIRST:]]
    assert sorted(told) == [COST * place for place in range(20 - FIRST)]
    if lab.mode == "asyncio":
        assert told == sorted(told)
    assert not any(observed for each in waits for _, observed in each)
    assert lab.books() == [("complete", 1)] * 20


def test_the_wait_is_told_before_the_attempt(lab: PacingLab) -> None:
    """A held call is in its books as one that waited and was then sent."""
    client = lab.paced()
    lab.run(lambda: lab.burst(client, range(FIRST + 1)))
    kinds = [type(event).__name__ for event in lab.recorder.calls[-1].events]
    assert kinds == ["CacheLooked", "Paced", "AttemptStarted", "AttemptEnded", "CallEnded"]


def test_one_call_after_the_other_never_waits(lab: PacingLab) -> None:
    """However long each takes to send, a lone call goes at once, in the loop's own turn."""
    client = lab.paced()
    lab.cost = 10.0

    async def scenario() -> None:
        for name in range(20):
            await lab.burst(client, [name])

    lab.run(scenario)
    assert lab.waits() == [[]] * 20
    lab.right()


@pytest.mark.parametrize("size", [1, 2, FIRST])
def test_a_burst_within_a_turn_never_waits(lab: PacingLab, size: int) -> None:
    """Calls that are sent within a turn go at once, burst after burst."""
    client = lab.paced()

    async def scenario() -> None:
        for burst in range(10):
            await lab.burst(client, [f"{burst}.{number}" for number in range(size)])

    lab.run(scenario)
    assert lab.waits() == [[]] * (10 * size)
    assert lab.sent_by_round() == [size] * 10
    lab.right()


def test_burst_after_burst_is_paced_alike(lab: PacingLab) -> None:
    """When a burst is over the loop is as before it."""
    client = lab.paced()

    async def scenario() -> None:
        for burst in range(3):
            await lab.burst(client, [f"{burst}.{number}" for number in range(9)])
            lab.clock.advance(1.0)

    lab.run(scenario)
    assert lab.sent_by_round() == [3, 2, 2, 2] * 3
    lab.right()


def test_who_comes_while_others_wait_is_the_last(lab: PacingLab) -> None:
    """A call that is started later goes after those that were held before it."""
    client = lab.paced()

    async def scenario() -> None:
        lab.start(client, range(12))
        await lab.until(lambda: len(lab.sends) > FIRST)
        await lab.burst(client, ["late"])

    lab.run(scenario)
    assert "late" in lab.sends[-2:]
    assert lab.waits()[-1] != []
    lab.right()


def test_protected_functions_go_by_turns(lab: PacingLab) -> None:
    """Functions of the app are calls as well: those that a loop starts at once are begun by turns."""
    lab.setup([], pacing={"turn_ms": 250, "at_once": 2})
    began: list[int] = []

    @lab.runtime.protect(model="m", provider="custom", key=str)
    async def work(name: int) -> int:
        began.append(lab.rounds)
        lab.clock.advance(COST)
        await lab.pause()
        return name * 2

    async def scenario() -> list[int]:
        return await lab.together([lambda name=name: work(name) for name in range(9)])

    assert lab.run(scenario) == [name * 2 for name in range(9)]
    assert sorted(Counter(began).items()) == list(zip(sorted(set(began)), [3, 2, 2, 2], strict=True))
    assert [len(told) for told in lab.waits()] == [0] * FIRST + [1] * (9 - FIRST)
    lab.clean()


def test_watching_holds_nobody(lab: PacingLab) -> None:
    """Observed pacing sends at once, and tells of each call that it would have held."""
    client = lab.paced(pacing={"mode": "observe"})
    lab.run(lambda: lab.burst(client, range(20)))
    assert lab.sent_by_round() == [20]
    assert lab.waits() == [[]] * FIRST + [[(0.0, True)]] * (20 - FIRST)
    assert lab.books() == [("complete", 1)] * 20
    lab.right()


def test_watching_is_over_with_the_burst(lab: PacingLab) -> None:
    """Once the loop has come round, nobody would be held."""
    client = lab.paced(pacing={"mode": "observe"})

    async def scenario() -> None:
        await lab.burst(client, range(9))
        await lab.burst(client, ["after"])

    lab.run(scenario)
    assert lab.waits()[-1] == []


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_threads_have_no_turns_of_a_loop(family: str) -> None:
    """A hundred threads at once, each of whose sends takes a second of everybody's clock: all are answered, and none is
    held, or would be, as a loop's calls are."""
    lab = Lab(f"sync-{family}").setup([json_reply()], llm_cache={"mode": "off"}, pacing={"turn_ms": 1})
    script = lab.script.transport(family, "sync")  # type: ignore[arg-type]

    def handle(request: Any) -> Any:
        lab.clock.advance(1.0)
        return lab.inner(script, request)

    client = lab.client(lab.transport(handle))
    barrier = threading.Barrier(100)

    answers: list[int] = []

    def call(name: int) -> None:
        barrier.wait()
        response = client.post("https://api.openai.com/v1/chat/completions", json=ask(str(name)))
        answers.append(response.status_code)

    threads = [threading.Thread(target=call, args=(name,)) for name in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert answers == [200] * 100
    assert len(lab.recorder.calls) == lab.upstream == 100
    assert not any(event.observed for call in lab.recorder.calls for event in call.of(Paced))
    assert lab.runtime.engine.state.pacing._turns == {}
