"""Windows beside the cache, coalescing, forks and the garbage collector."""

from __future__ import annotations

import gc
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transport_lab import CHAT_ASK, CHAT_URL
from window_lab import Running, WindowLab, embedding
from window_provider import EMBEDDINGS_URL, answer, gzipped, refusal

from underlay.pipeline.call import Call
from underlay.pipeline.ports import Exchange
from underlay.pipeline.windows import Departure, Place
from underlay.telemetry.attributes import CacheResult
from underlay.telemetry.events import AttemptEnded, CallEnded, Coalesced
from underlay.testing import Received

INPUTS: list[Any] = ["a", ["b", "c"], "d"]
FIXED = {"linger": "fixed", "max_batch_size": 3}


def own(inputs: object) -> dict[str, Any]:
    """The reply to a call with these inputs alone."""
    received = Received("POST", EMBEDDINGS_URL, (), json.dumps(embedding(inputs)).encode())
    reply: dict[str, Any] = json.loads(b"".join(answer(received).frames))  # type: ignore[arg-type]
    return reply


def results(lab: WindowLab) -> list[str]:
    """How the calls were answered."""
    return [call.of(CallEnded)[0].result for call in lab.recorder.calls]


# The cache


@pytest.mark.parametrize("compressed", [False, True])
def test_every_member_stores_its_own_answer(crowd: WindowLab, compressed: bool) -> None:
    """Later each call by itself is a hit, with the bytes that the member was given and none of the merged
    reply's headers that do not fit."""
    if compressed:
        crowd.provider.answer = gzipped
    crowd.setup(llm_batch=FIXED)
    client = crowd.client()
    calls = crowd.ask_all(client, [embedding(inputs) for inputs in INPUTS])
    crowd.provider.release()
    again = crowd.ask_all(client, [embedding(inputs) for inputs in INPUTS])
    assert len(crowd.sent) == 1
    for first, second, inputs in zip(calls, again, INPUTS, strict=True):
        assert second.result().content == first.result().content
        assert second.result().json() == own(inputs)
        assert "content-encoding" not in second.result().headers
        assert second.result().headers["content-length"] == str(len(first.result().content))
    assert results(crowd) == ["miss"] * 3 + ["hit"] * 3
    stored = [event for call in crowd.recorder.calls for event in call.of(AttemptEnded)]
    assert [event.stored for event in stored] == [True] * 3


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_is_not_stored(crowd: WindowLab, status: int) -> None:
    """After a merged failure every call is asked again."""
    crowd.setup(llm_batch=FIXED)
    client = crowd.client()
    for turn in range(2):
        crowd.ask_all(client, [embedding(inputs) for inputs in INPUTS])
        crowd.sent[-1].reply(refusal(status))
        assert (len(crowd.sent), crowd.runtime.cache.size) == (turn + 1, 0)


def test_a_member_that_must_not_be_stored_is_not(crowd: WindowLab) -> None:
    """`no-store` is each member's own word."""
    crowd.setup(llm_batch=FIXED)
    client = crowd.client()
    crowd.ask(client, embedding("a"))
    crowd.ask(client, embedding("b"), headers={"cache-control": "no-store"})
    crowd.ask(client, embedding("c"))
    crowd.provider.release()
    assert crowd.runtime.cache.size == 2
    assert len(crowd.sent) == 1


def test_an_answer_that_is_too_large_is_given_and_not_stored(crowd: WindowLab) -> None:
    """`max_entry_bytes` bounds a member's part as it bounds an answer of its own."""
    size = len(json.dumps(own("a"), separators=(",", ":")))
    crowd.setup(llm_batch=FIXED, llm_cache={"max_entry_bytes": size + 100})
    calls = crowd.ask_all(crowd.client(), [embedding(inputs) for inputs in ("a", ["b"] * 9, "d")])
    crowd.provider.release()
    assert [len(call.result().json()["data"]) for call in calls] == [1, 9, 1]
    assert crowd.runtime.cache.size == 2
    reasons = [event.store_reason for call in crowd.recorder.calls for event in call.of(AttemptEnded)]
    assert reasons == ["", "too_large", ""]


def test_windows_over_a_store_that_is_shared(crowd: WindowLab, tmp_path: Path) -> None:
    """With a SQLite file every member's answer is stored and found again, and a list is filled from it."""
    crowd.setup(llm_batch=FIXED, llm_cache={"store": f"sqlite:///{tmp_path}/answers.db"})
    client = crowd.client()
    for _ in range(2):
        calls = crowd.ask_all(client, [embedding(inputs) for inputs in INPUTS])
        crowd.provider.release()
        assert [call.result().json() for call in calls] == [own(inputs) for inputs in INPUTS]
    filled = crowd.ask(client, embedding(["a", "z", "d"]))
    assert filled.result().json() == own(["a", "z", "d"])
    assert [held.inputs for held in crowd.sent] == [["a", "b", "c", "d"], ["z"]]
    crowd.runtime.close()


# Coalescing


def test_an_identical_call_reads_its_twins_answer(crowd: WindowLab) -> None:
    """Calls that ask the same as a member, or as the sender, wait for it and are not sent."""
    crowd.setup(llm_batch=FIXED)
    client = crowd.client()
    bodies = [embedding(inputs) for inputs in INPUTS]
    calls = [
        *crowd.ask_all(client, bodies[:2]),
        *crowd.ask_all(client, bodies[:2] * 2),
        *crowd.ask_all(client, bodies[2:]),
    ]
    more = crowd.ask_all(client, [bodies[2], bodies[0]])
    assert crowd.provider.inputs == [4]
    crowd.provider.release()
    asked = [*INPUTS[:2] * 3, INPUTS[2], INPUTS[2], INPUTS[0]]
    assert [call.result().json() for call in calls + more] == [own(inputs) for inputs in asked]
    assert len(crowd.sent) == 1
    assert Counter(results(crowd)) == {CacheResult.MISS: 3, CacheResult.COALESCED: 6}
    waits = [event for call in crowd.recorder.calls for event in call.of(Coalesced)]
    assert {event.origin for event in waits} == {b"1", b"2", b"7"}


def test_followers_of_a_member_that_leaves_lead_anew(crowd: WindowLab) -> None:
    """Cancelling a member of an open window costs its followers nothing: one of them takes its place."""
    crowd.setup(llm_batch=FIXED)
    client = crowd.client()
    leader = crowd.ask(client, embedding("a"))
    followers = crowd.ask_all(client, [embedding("a"), embedding("a")])
    crowd.cancel(leader)
    crowd.ask_all(client, [embedding("b"), embedding("c")])
    assert sorted(crowd.sent[0].inputs) == ["a", "b", "c"]
    crowd.provider.release()
    assert [call.result().json() for call in followers] == [own("a")] * 2
    assert len(crowd.sent) == 1


def test_followers_of_a_sender_that_leaves_are_answered(crowd: WindowLab) -> None:
    """The heir sends for those that live; the sender's follower asks for itself."""
    crowd.setup(llm_batch=FIXED)
    client = crowd.client()
    calls = crowd.ask_all(client, [embedding("a"), embedding("b"), embedding("c")])
    follower = crowd.ask(client, embedding("c"))
    crowd.cancel(calls[2])
    crowd.provider.release()
    crowd.advance(0.05)
    assert [call.result().json() for call in calls[:2]] == [own("a"), own("b")]
    assert follower.result().json() == own("c")


@pytest.mark.parametrize("error", ["status", "transport"])
def test_followers_share_the_windows_failure(crowd: WindowLab, error: str) -> None:
    """What is everybody's is theirs too, and nothing is sent again."""
    crowd.setup(llm_batch=FIXED)
    client = crowd.client()
    calls = crowd.ask_all(client, [embedding("a"), embedding("b")])
    calls += crowd.ask_all(client, [embedding("a"), embedding("b"), embedding("c"), embedding("c")])
    if error == "status":
        crowd.sent[0].reply(refusal(503))
        assert [call.result().status_code for call in calls] == [503] * 6
    else:
        crowd.sent[0].fail(crowd.module.ReadError("broken"), settle=True)
        assert [type(call.error) for call in calls] == [crowd.module.ReadError] * 6
    assert len(crowd.sent) == 1


def test_followers_of_members_that_are_sent_apart(crowd: WindowLab) -> None:
    """They read the answer of their own leader's own request."""
    crowd.provider.answer = lambda received: (
        refusal(400) if len(json.loads(received.body)["input"]) == 3 else answer(received)
    )
    crowd.setup(llm_batch=FIXED)
    client = crowd.client()
    calls = crowd.ask_all(
        client, [embedding("a"), embedding("b"), embedding("a"), embedding("b"), embedding("c")]
    )
    crowd.provider.release()
    assert [call.result().json() for call in calls] == [own(letter) for letter in "ababc"]
    assert len(crowd.sent) == 4


# Lists that are known in part


def test_a_list_asks_only_for_what_is_not_known(crowd: WindowLab) -> None:
    """Answers that members of a window stored fill a later list."""
    crowd.setup(llm_batch={**FIXED, "max_batch_size": 2})
    client = crowd.client()
    crowd.provider.holds = False
    crowd.ask_all(client, [embedding("a"), embedding("b")])
    some = crowd.ask(client, embedding(["a", "x", "b", "y"]))
    assert crowd.sent[1].inputs == ["x", "y"]
    every = crowd.ask(client, embedding(["b", "a"]))
    assert len(crowd.sent) == 2
    assert some.result().json() == own(["a", "x", "b", "y"])
    assert every.result().json() == own(["b", "a"])


# Forks


def in_child(work: Any) -> str:
    """What `work` returns in a fork child, as text; "" when it raised or hung."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            os.write(write, str(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as said:
        return said.read()


@pytest.mark.filterwarnings(r"ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("family", ["httpx", "httpx2"])
@pytest.mark.parametrize("linger", ["adaptive", "fixed"])
def test_a_fork_child_has_no_windows(monkeypatch: pytest.MonkeyPatch, family: str, linger: str) -> None:
    """With a window open and a request in flight in the parent, the child's first call is alone: its leaders and
    its members do not exist there. The parent's go on."""
    with WindowLab(f"sync-{family}", monkeypatch).running() as lab:
        lab.windows(linger=linger, max_batch_size=2)
        client = lab.client()
        calls = lab.ask_all(client, [embedding(letter) for letter in "abc"])

        def child() -> object:
            lab.provider.holds = False
            lab.clock.autojump = True
            windows = lab.runtime.engine.state.windows
            left = sum(count for _, count in windows.queued()), len(windows._lanes)
            response = client.post(
                EMBEDDINGS_URL, json=embedding("child"), headers={"authorization": "Bearer key"}
            )
            return left, response.json() == own("child"), lab.provider.inputs[-1]

        assert in_child(child) == "((0, 0), True, 1)"
        lab.provider.release()
        lab.advance(0.05)
        assert [call.result().json() for call in calls] == [own(letter) for letter in "abc"]


# The garbage collector


def left_behind(kinds: tuple[type, ...] = (Call, Departure, Place)) -> Counter[str]:
    """What is left of windows in memory."""
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds))


def fail_all(lab: WindowLab, end: str) -> None:
    """End what is at the provider in this way."""
    for held in lab.provider.held:
        if end == "failed":
            held.fail(lab.module.ReadError("broken"), settle=True)
        else:
            held.reply(refusal(503 if end == "refused" else 400))


def forget(lab: WindowLab) -> None:
    """Let go of what the test itself holds: calls, their errors with their frames, and requests."""
    for call in lab.calls:
        call.value = call.error = None
    lab.calls.clear()
    for held in lab.provider.seen:
        held._reply = None
    lab.provider.seen.clear()
    for thread in lab._threads:
        thread.join()
    lab._threads.clear()


@pytest.mark.parametrize("merged", [True, False])
def test_a_window_leaves_nothing_to_the_collector(crowd: WindowLab, merged: bool) -> None:
    """However it ended: when its calls are gone, so are they, with all that they hold, and without a
    collection."""
    crowd.windows(linger="fixed", max_batch_size=4)
    client = crowd.client()
    gc.collect()
    gc.freeze()  # what is looked at is what comes now
    gc.disable()
    try:
        for end in ("answered", "failed", "refused", "apart", "cancelled", "sender cancelled"):
            crowd.provider.holds = True
            calls: list[Running] = []
            for number in range(4):
                url = EMBEDDINGS_URL if merged else CHAT_URL
                calls.append(crowd.ask(client, embedding(f"{number}") if merged else CHAT_ASK, url=url))
            if "cancelled" in end:
                crowd.cancel(calls[0 if end == "cancelled" else 3])
            elif end != "answered":
                fail_all(crowd, end)
            crowd.provider.release()
            assert all(call.done for call in calls)
            forget(crowd)
            calls.clear()
            assert (end, left_behind()) == (end, Counter())
    finally:
        gc.enable()
        gc.unfreeze()


@pytest.mark.parametrize("linger", ["adaptive", "learned", "fixed"])
def test_a_call_alone_leaves_nothing_to_the_collector(crowd: WindowLab, linger: str) -> None:
    """Whether its lane knows it or not, and whether it fits into a window or not."""
    crowd.windows(linger=linger, batch_timeout_ms=1)
    crowd.provider.holds = False
    client = crowd.client()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for inputs in ("a", "b", ["c"] * 2000):
            call = crowd.ask(client, embedding(inputs))
            crowd.advance(0.002)
            assert call.done
            forget(crowd)
            del call
            assert left_behind((Call, Departure, Place, Exchange)) == Counter()
    finally:
        gc.enable()
        gc.unfreeze()
