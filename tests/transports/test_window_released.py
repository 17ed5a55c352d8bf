"""Windows of the fixed linger: calls that are released together, each in a request of its own, and merged ones."""

from __future__ import annotations

from typing import Any

import pytest
from transport_lab import CHAT, CHAT_ASK, CHAT_FRAMES, CHAT_URL, dumped, stream_reply
from window_lab import WindowLab, embedding
from window_provider import refusal

from underlay.telemetry.attributes import BatchMode
from underlay.telemetry.events import Batched, CallEnded
from underlay.testing import Received, Scripted


def chat(prompt: object, **fields: object) -> dict[str, Any]:
    """A chat request."""
    return {**CHAT_ASK, "messages": [{"role": "user", "content": str(prompt)}], **fields}


def prompts(lab: WindowLab) -> list[str]:
    """The prompts that left, sorted: those that are released together have no order."""
    return sorted(held.body["messages"][0]["content"] for held in lab.sent)


def sizes(lab: WindowLab) -> list[int]:
    """How many calls each dispatch has."""
    return [len(dispatch.started.members) for dispatch in lab.recorder.dispatches]


def test_chat_is_released_together_each_in_its_own_request(crowd: WindowLab) -> None:
    """Nothing leaves before the window is full; then all do, byte for byte as they were made, and each has its
    own answer."""
    crowd.windows(linger="fixed", max_batch_size=3)
    client, bare = crowd.client(), crowd.bare(crowd.provider.transport(crowd.family, crowd.kind))
    calls = crowd.ask_all(client, [chat("a"), chat("b")], url=CHAT_URL)
    assert crowd.sent == []
    calls.append(crowd.ask(client, chat("c"), url=CHAT_URL))
    assert prompts(crowd) == ["a", "b", "c"]
    crowd.ask_all(bare, [chat("a"), chat("b"), chat("c")], url=CHAT_URL)
    bodies = sorted(held.received.body for held in crowd.sent)
    assert bodies[::2] == bodies[1::2]
    for held in reversed(crowd.sent):
        held.reply()
    assert [call.result().content for call in calls] == [dumped(CHAT)] * 3
    assert [call.of(CallEnded)[0].batch_mode for call in crowd.recorder.calls] == [BatchMode.RELEASED] * 3


def test_streams_are_released_with_the_rest(crowd: WindowLab) -> None:
    """A stream and an ordinary call of one model share a window, and the stream comes frame by frame."""
    crowd.provider.answer = lambda received: (
        stream_reply() if b'"stream"' in received.body else Scripted(200, {}, [dumped(CHAT)])
    )
    crowd.windows(linger="fixed", max_batch_size=2)
    client = crowd.client()

    async def streamed() -> list[bytes]:
        response = await crowd.open(client, CHAT_URL, chat("a", stream=True))
        got: list[bytes] = await crowd.frames(response).rest()
        await crowd.close(response)
        return got

    stream = crowd.start(streamed)
    plain = crowd.ask(client, chat("b"), url=CHAT_URL)
    assert prompts(crowd) == ["a", "b"]
    crowd.provider.release()
    assert stream.result() == list(CHAT_FRAMES)
    assert plain.result().content == dumped(CHAT)
    assert sizes(crowd) == [2]


def test_a_quiet_spell_does_not_send_the_first_alone(crowd: WindowLab) -> None:
    """Long after anything happened, the first to come waits for those that come within the linger."""
    crowd.windows(linger="fixed", max_batch_size=10)
    crowd.provider.holds = False
    client = crowd.client()
    for _ in range(2):
        crowd.advance(3600)
        crowd.ask(client, chat("a"), url=CHAT_URL)
        crowd.advance(0.049)
        crowd.ask_all(client, [chat("b"), chat("c")], url=CHAT_URL)
        crowd.advance(0.002)
    assert sizes(crowd) == [3, 3]


@pytest.mark.parametrize("merged", [True, False])
def test_fifty_calls_make_five_dispatches(crowd: WindowLab, merged: bool) -> None:
    """Fifty at a bound of ten: exactly five of ten, and everybody is answered; merged they are five requests."""
    crowd.windows(linger="fixed")
    crowd.provider.holds = False
    client = crowd.client()
    ask = {"url": CHAT_URL} if not merged else {}
    bodies = [embedding(f"{number}") if merged else chat(number) for number in range(50)]
    calls = [crowd.ask(client, body, settle=False, **ask) for body in bodies]
    crowd.settle()
    assert sizes(crowd) == [10] * 5
    assert len(crowd.sent) == (5 if merged else 50)
    assert all(call.result().status_code == 200 for call in calls)
    (stats,) = crowd.runtime.stats().values()
    assert dict(stats.batched) == {("merged" if merged else "released", "size"): 50}


def test_a_lone_call_waits_for_its_window(crowd: WindowLab) -> None:
    """By itself a call waits 50 ms, merged or not, and is a window of one."""
    crowd.windows(linger="fixed")
    crowd.provider.holds = False
    client = crowd.client()
    calls = [crowd.ask(client, chat("a"), url=CHAT_URL), crowd.ask(client, embedding("a"))]
    crowd.advance(0.0499)
    assert not any(call.done for call in calls)
    crowd.advance(0.0002)
    assert all(call.done for call in calls)
    assert sizes(crowd) == [1, 1]


def test_every_call_of_a_released_window_knows_its_dispatch(crowd: WindowLab) -> None:
    """Whoever closes the window tells of it before anybody leaves: every member has its pointer, also when all
    of them find the window due in the same moment."""
    crowd.windows(linger="fixed", max_batch_size=100)
    crowd.provider.holds = False
    client = crowd.client()
    for turn in range(5):
        crowd.ask_all(client, [chat(f"{turn} {number}") for number in range(8)], url=CHAT_URL)
        crowd.advance(0.05)
    told = [call.of(Batched)[0] for call in crowd.recorder.calls]
    assert [(each.origin, each.size) for each in told] == [
        (b"d%d" % (turn + 1), 8) for turn in range(5) for _ in range(8)
    ]


def test_one_members_failure_is_its_own(crowd: WindowLab) -> None:
    """Released calls share nothing: an error, a refusal and a cancellation are each one call's."""
    crowd.windows(linger="fixed", max_batch_size=4)
    client = crowd.client()
    calls = crowd.ask_all(client, [chat(letter) for letter in "abcd"], url=CHAT_URL)
    held = {held.body["messages"][0]["content"]: held for held in crowd.sent}
    held["a"].fail(crowd.module.ReadTimeout("late"), settle=True)
    held["b"].reply(refusal(400))
    crowd.cancel(calls[2])
    held["d"].reply()
    assert isinstance(calls[0].error, crowd.module.ReadTimeout)
    assert [calls[1].result().status_code, calls[3].result().status_code] == [400, 200]
    assert calls[2].error is not None


def test_a_released_window_is_counted_out_once(crowd: WindowLab) -> None:
    """Its calls end one by one, and none of them is taken for another that is still in flight."""
    crowd.windows(linger="fixed", max_batch_size=2)
    client = crowd.client()
    crowd.ask(client, chat("hurried"), url=CHAT_URL, headers={"underlay-deadline": "0.01"})
    calls = crowd.ask_all(client, [chat("a"), chat("b")], url=CHAT_URL)
    for held in crowd.sent[1:]:
        held.reply()
    assert all(call.done for call in calls)
    lanes = list(crowd.runtime.engine.state.windows._lanes.values())
    assert [lane.idle for lane in lanes] == [False]
    crowd.sent[0].reply()
    assert [lane.idle for lane in lanes] == [True]


def test_cancelled_members_of_an_open_window_are_not_sent(crowd: WindowLab) -> None:
    """Whoever leaves while the window is open makes room; the rest leave when it is full or due."""
    crowd.windows(linger="fixed", max_batch_size=3)
    crowd.provider.holds = False
    client = crowd.client()
    calls = crowd.ask_all(client, [chat("a"), chat("b")], url=CHAT_URL)
    for call in calls:
        crowd.cancel(call)
    assert sum(count for _, count in crowd.runtime.engine.state.windows.queued()) == 0
    crowd.ask_all(client, [chat("c"), chat("d")], url=CHAT_URL)
    assert crowd.sent == []
    crowd.advance(0.05)
    assert prompts(crowd) == ["c", "d"]
    assert sizes(crowd) == [2]


def test_functions_are_released_together(crowd: WindowLab) -> None:
    """Calls of protected functions of one model share a window like any other call."""
    crowd.windows(linger="fixed", max_batch_size=3)
    protect = crowd.runtime.protect(model="gpt-4o")

    if crowd.kind == "sync":

        @protect
        def ask(number: int) -> int:
            return number

        calls = [
            crowd.start(lambda number=number: crowd._await(ask(number)), settle=False) for number in range(3)
        ]  # type: ignore[misc]
    else:

        @protect
        async def aask(number: int) -> int:
            return number

        calls = [crowd.start(lambda number=number: aask(number), settle=False) for number in range(3)]  # type: ignore[misc]
    crowd.settle()
    assert [call.result() for call in calls] == [0, 1, 2]
    assert sizes(crowd) == [3]


def test_a_refused_window_sends_nothing(crowd: WindowLab) -> None:
    """With an open circuit every call is refused at once, and none waits in a window."""
    crowd.setup(
        llm_batch={"linger": "fixed", "max_batch_size": 2},
        circuit_breaker={"failure_threshold": 1},
        coalesce={"mode": "off"},
    )
    crowd.provider.holds = False
    crowd.provider.answer = lambda received: refusal(503)
    client = crowd.client()
    crowd.ask_all(client, [chat("a"), chat("b")], url=CHAT_URL)
    before = len(crowd.sent)
    calls = crowd.ask_all(client, [chat("c"), chat("d"), chat("e")], url=CHAT_URL)
    assert [call.result().headers["underlay-refused"] for call in calls] == ["circuit_open"] * 3
    assert (len(crowd.sent), sizes(crowd)) == (before, [2])


def test_answers_are_told_apart_by_their_own_request(crowd: WindowLab) -> None:
    """A hundred released calls whose answers repeat their prompts: nobody has another's."""

    def repeated(received: Received) -> Scripted:
        return Scripted(200, {"content-type": "application/json"}, [received.body])

    crowd.provider.answer = repeated
    crowd.provider.holds = False
    crowd.windows(linger="fixed")
    client = crowd.client()
    calls = [crowd.ask(client, chat(number), url=CHAT_URL, settle=False) for number in range(100)]
    crowd.settle()
    assert [call.result().json()["messages"][0]["content"] for call in calls] == [
        str(number) for number in range(100)
    ]


@pytest.mark.parametrize("linger", ["adaptive", "learned"])
def test_only_fixed_holds_what_cannot_be_merged(crowd: WindowLab, linger: str) -> None:
    """Under the other lingers chat leaves at once, however many calls are in flight."""
    crowd.windows(linger=linger)
    crowd.ask_all(crowd.client(), [chat(letter) for letter in "abc"], url=CHAT_URL)
    assert prompts(crowd) == ["a", "b", "c"]
    crowd.provider.release()
    assert crowd.recorder.dispatches == []
    assert crowd.runtime.engine.state.windows._lanes == {}


@pytest.mark.parametrize(("deadline", "waits"), [("1.07", True), ("1.03", False)])
def test_the_latency_of_released_calls_is_learned_without_their_wait(
    crowd: WindowLab, deadline: str, waits: bool
) -> None:
    """After answers that took a second, a call with time for that and for the linger waits; with less it does
    not."""
    crowd.windows(linger="fixed")
    client = crowd.client()
    crowd.ask_all(client, [chat("a"), chat("b")], url=CHAT_URL)
    crowd.advance(0.05)
    crowd.clock.advance(1)
    crowd.provider.release()
    crowd.ask(client, chat("c"), url=CHAT_URL, headers={"underlay-deadline": deadline})
    assert len(crowd.sent) == (2 if waits else 3)
    crowd.advance(0.05)
