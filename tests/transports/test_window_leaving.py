"""Members of a window that leave: whoever goes, at whatever point, everybody else is given its own answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from window_lab import Running, WindowLab, embedding
from window_provider import EMBEDDINGS_URL, answer

from underlay.telemetry.events import AttemptEnded, CallEnded
from underlay.testing import Received

INPUTS: list[Any] = ["first", ["second", "and third"], "fourth", ["fifth"]]


def expected(body: Any) -> bytes:
    """What this call alone would be answered."""
    received = Received("POST", EMBEDDINGS_URL, (), json.dumps(body).encode())
    return b"".join(frame for frame in answer(received).frames if isinstance(frame, bytes))


def assert_own(calls: dict[int, Running]) -> None:
    """Each of these was given its own answer."""
    for number, call in calls.items():
        assert json.loads(call.result().content) == json.loads(expected(embedding(INPUTS[number])))


def adaptive_window(lab: WindowLab) -> list[Running]:
    """Four calls behind one in flight. The first of them will send."""
    lab.windows()
    client = lab.client()
    lab.ask(client, embedding("in flight"))
    return lab.ask_all(client, [embedding(inputs) for inputs in INPUTS])


def left_window(lab: WindowLab) -> list[Running]:
    """The same, as it has left: its request is at the provider."""
    calls = adaptive_window(lab)
    lab.sent[0].reply()
    assert lab.provider.inputs == [1, 5]
    return calls


def end(lab: WindowLab, call: Running, ending: str) -> None:
    """Let a call end from outside."""
    (lab.cancel if ending == "cancelled" else lab.interrupt)(call)
    assert call.done
    assert call.error is not None


@pytest.mark.parametrize("ending", ["cancelled", "interrupted"])
@pytest.mark.parametrize("position", range(4))
def test_a_member_leaves_while_the_window_is_open(crowd: WindowLab, position: int, ending: str) -> None:
    """It is not sent, and the others are given their own."""
    calls = adaptive_window(crowd)
    end(crowd, calls[position], ending)
    crowd.sent[0].reply()
    crowd.provider.release()
    kept = {number: call for number, call in enumerate(calls) if number != position}
    assert_own(kept)
    assert len(crowd.sent) == 2
    lost = INPUTS[position] if isinstance(INPUTS[position], list) else [INPUTS[position]]
    assert not set(lost) & set(crowd.sent[1].inputs)


@pytest.mark.parametrize("ending", ["cancelled", "interrupted"])
@pytest.mark.parametrize("moment", ["before the reply", "before its body", "after it"])
@pytest.mark.parametrize("position", range(4))
def test_a_member_leaves_when_the_window_has_left(
    crowd: WindowLab, position: int, moment: str, ending: str
) -> None:
    """The reply is split as it was sent. When it is the sender that goes, the next living member sends again,
    for those that live."""
    calls = left_window(crowd)
    if moment != "before the reply":
        crowd.sent[1].reply(head_only=True)
    if moment == "after it":
        crowd.sent[1].finish()
    else:
        end(crowd, calls[position], ending)
    for held in crowd.sent[1:]:
        if held.gated:
            held.finish()
    crowd.provider.release()
    assert_own({number: call for number, call in enumerate(calls) if call.error is None})
    assert [number for number, call in enumerate(calls) if call.error is not None] == (
        [] if moment == "after it" else [position]
    )
    again = position == 0 and moment != "after it"
    assert crowd.provider.inputs == ([1, 5, 4] if again else [1, 5])
    told = [event.status for event in crowd.attempts() if event.sent]
    assert told == ([200, None, 200] if again else [200, 200])


def test_senders_that_are_cancelled_one_after_the_other(crowd: WindowLab) -> None:
    """Each is followed by the next living member: at most one request a member, and the last has its answer."""
    calls = left_window(crowd)
    crowd.cancel(calls[2])
    for sender in (0, 1):
        crowd.cancel(calls[sender])
    assert crowd.provider.inputs == [1, 5, 3, 1]
    crowd.provider.release()
    assert_own({3: calls[3]})
    assert crowd.faults == {}


def test_all_are_cancelled(crowd: WindowLab) -> None:
    """Nothing is left: no request waits for anybody, no window, nothing in flight, and the next call goes at
    once."""
    calls = left_window(crowd)
    for call in calls:
        crowd.cancel(call)
    assert crowd.provider.inputs == [1, 5, 4, 2, 1]
    crowd.clean()
    crowd.provider.seen.clear()
    crowd.ask(crowd.client(), embedding("next"))
    assert crowd.provider.inputs == [1]
    crowd.provider.release()


def test_all_are_cancelled_at_once(crowd: WindowLab) -> None:
    """Also when nobody has time to send again before it is cancelled itself."""
    calls = left_window(crowd)
    for call in calls:
        crowd.cancel(call, settle=False)
    crowd.settle()
    assert all(call.done for call in calls)
    assert len(crowd.sent) <= 5
    crowd.clean()


def test_all_leave_an_open_window(crowd: WindowLab) -> None:
    """An empty window goes away, and nothing is sent when its time has come."""
    calls = adaptive_window(crowd)
    for call in calls:
        crowd.cancel(call)
    crowd.advance(1)
    crowd.sent[0].reply()
    assert len(crowd.sent) == 1


def test_the_one_that_fills_the_window_is_cancelled(crowd: WindowLab) -> None:
    """Under `fixed` the last to come sends: when it goes, the first of the others does."""
    crowd.windows(linger="fixed", max_batch_size=4)
    calls = crowd.ask_all(crowd.client(), [embedding(inputs) for inputs in INPUTS])
    crowd.cancel(calls[3])
    assert crowd.provider.inputs == [5, 4]
    crowd.provider.release()
    assert_own(dict(enumerate(calls[:3])))
    told = [dispatch.started for dispatch in crowd.recorder.dispatches]
    assert [each.again for each in told] == [False, True]
    assert [len(each.members) for each in told] == [4, 3]
    (stats,) = crowd.runtime.stats().values()
    assert sum(stats.batches.values()) == 1


def test_two_are_left_and_one_goes(crowd: WindowLab) -> None:
    """The last living member goes by itself, with the request that it made."""
    crowd.windows(linger="fixed", max_batch_size=2)
    client = crowd.client()
    calls = crowd.ask_all(client, [embedding("a"), embedding("b")])
    crowd.cancel(calls[1])
    assert [held.body["input"] for held in crowd.sent] == [["a", "b"], "a"]
    crowd.provider.release()
    assert calls[0].result().status_code == 200


def test_a_cancelled_sender_says_nothing_about_the_provider(crowd: WindowLab) -> None:
    """One attempt that was given up and one that succeeded; no failure in the circuit."""
    calls = left_window(crowd)
    crowd.cancel(calls[0])
    crowd.provider.release()
    view = crowd.runtime.circuit("text-embedding-3-small", provider="openai").view()
    assert (view.counts.failures, view.counts.successes, view.counts.nothings) == (0, 2, 1)
    ended = [event for event in crowd.attempts() if event.sent]
    assert [event.error_type for event in ended] == ["", "cancelled", ""]


@pytest.mark.parametrize("timeout", [2.0, None])
def test_nobody_waits_for_ever(crowd: WindowLab, timeout: float | None) -> None:
    """When the request of the sender hangs, the others go by themselves after as long as a request may take."""
    crowd.windows()
    client = crowd.client(timeout=timeout)
    crowd.ask(client, embedding("in flight"))
    calls = crowd.ask_all(client, [embedding(inputs) for inputs in INPUTS])
    crowd.sent[0].reply()
    crowd.advance(8.1 if timeout else 60.1)
    assert [held.body["input"] for held in crowd.sent[2:]] != []
    assert sorted(str(held.body["input"]) for held in crowd.sent[2:]) == sorted(
        str(each) for each in INPUTS[1:]
    )
    for held in crowd.sent[2:]:
        held.reply()
    assert_own(dict(enumerate(calls[1:], 1)))
    assert not calls[0].done
    crowd.sent[1].reply()
    assert_own({0: calls[0]})


def test_the_sender_hears_of_no_vectors_of_those_that_left(crowd: WindowLab) -> None:
    """Parts of members that are gone are kept from everybody and from the store."""
    crowd.setup(coalesce={"mode": "off"})
    client = crowd.client()
    crowd.ask(client, embedding("in flight"))
    calls = crowd.ask_all(client, [embedding(inputs) for inputs in INPUTS])
    crowd.sent[0].reply()
    crowd.cancel(calls[1])
    crowd.provider.release()
    assert_own({0: calls[0], 2: calls[2], 3: calls[3]})
    assert crowd.runtime.cache.size == 4  # the first call, and the three that live
    asked = crowd.ask(client, embedding(INPUTS[1]))
    assert len(crowd.sent) == 3
    assert_own({1: asked})


def test_ended_calls_tell_how(crowd: WindowLab) -> None:
    """The cancelled are told as cancelled, the others as complete, each once."""
    calls = left_window(crowd)
    crowd.cancel(calls[2])
    crowd.provider.release()
    endings = [[event.ending for event in call.of(CallEnded)] for call in crowd.recorder.calls]
    assert endings == [["complete"], ["complete"], ["complete"], ["cancelled"], ["complete"]]
    attempts = [len(call.of(AttemptEnded)) for call in crowd.recorder.calls]
    assert attempts == [1, 1, 1, 0, 1]
