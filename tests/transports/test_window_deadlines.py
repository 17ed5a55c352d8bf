"""Windows and calls in a hurry: deadlines, read timeouts, and what is known of how long an answer takes."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from window_lab import WindowLab, embedding
from window_provider import EMBEDDINGS_URL, refusal

SMALL_SERVER = "http://localhost:8000/v1/embeddings"


def asked(lab: WindowLab) -> list[Any]:
    """The inputs of every request that left."""
    return [held.inputs for held in lab.sent]


def triggers(lab: WindowLab) -> list[str]:
    """What closed every window."""
    return [dispatch.started.trigger for dispatch in lab.recorder.dispatches]


def learn(lab: WindowLab, client: Any, seconds: float) -> None:
    """A call that takes so long: the lane knows how long an answer takes."""
    lab.ask(client, embedding("slow"))
    lab.clock.advance(seconds)
    lab.sent[-1].reply()


def test_a_hurried_member_sends_the_window_off_early(crowd: WindowLab) -> None:
    """With answers that take 40 ms, a call whose answer is of use for 60 ms leaves within 20, and all that
    wait leave with it."""
    crowd.windows()
    client = crowd.client()
    learn(crowd, client, 0.04)
    crowd.ask(client, embedding("in flight"))
    crowd.ask(client, embedding("b"))
    crowd.ask(client, embedding("hurried"), headers={"underlay-deadline": "0.06"})
    crowd.advance(0.0199)
    assert len(crowd.sent) == 2
    crowd.advance(0.0002)
    assert asked(crowd)[2:] == [["b", "hurried"]]
    crowd.provider.release()
    assert triggers(crowd) == ["deadline"]
    assert "underlay-deadline" not in {name for held in crowd.sent for name in held.headers}


def test_a_hurried_member_that_leaves_hurries_nobody(crowd: WindowLab) -> None:
    """When it is cancelled, the window stays open for its own time."""
    crowd.windows()
    client = crowd.client()
    learn(crowd, client, 0.04)
    crowd.ask(client, embedding("in flight"))
    crowd.ask(client, embedding("b"))
    crowd.cancel(crowd.ask(client, embedding("hurried"), headers={"underlay-deadline": "0.06"}))
    crowd.advance(0.03)
    assert len(crowd.sent) == 2
    crowd.provider.release()
    assert asked(crowd)[2:] == [["b"]]


@pytest.mark.parametrize(("status", "alone"), [(200, True), (503, False)])
def test_the_latency_of_merged_requests_is_learned(crowd: WindowLab, status: int, alone: bool) -> None:
    """After windows that took a second, a call whose answer is of use for little more goes alone at once; how
    long a refusal took says nothing."""
    crowd.windows(linger="fixed", max_batch_size=2)
    client = crowd.client()
    crowd.ask_all(client, [embedding("a"), embedding("b")])
    crowd.clock.advance(1)
    crowd.sent[0].reply(None if status == 200 else refusal(status))
    crowd.ask(client, embedding("c"), headers={"underlay-deadline": "1.04"})
    assert len(crowd.sent) == (2 if alone else 1)
    crowd.provider.release()
    crowd.advance(0.05)


@pytest.mark.parametrize("linger", ["adaptive", "fixed"])
@pytest.mark.parametrize(
    "options",
    [{"headers": {"underlay-deadline": "0.04"}}, {"timeout": 0.04}],
    ids=["deadline", "read timeout"],
)
def test_a_call_without_time_for_the_linger_goes_alone(
    crowd: WindowLab, linger: str, options: dict[str, Any]
) -> None:
    """With a deadline or a read timeout below the linger it leaves at once, beside one in flight and a window."""
    crowd.windows(linger=linger)
    client, bare = crowd.client(), crowd.bare(crowd.provider.transport(crowd.family, crowd.kind))
    timed = {"timeout": options["timeout"]} if "timeout" in options else {}
    crowd.ask_all(client, [embedding("a"), embedding("b")], **timed)
    before = len(crowd.sent)
    crowd.ask(client, embedding("c"), **options)
    crowd.ask(bare, embedding("c"), **timed)
    assert asked(crowd)[before:] == [["c"], ["c"]]
    assert crowd.sent[before].received == crowd.sent[before + 1].received
    crowd.provider.release()
    crowd.advance(0.05)


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", ""])
def test_a_deadline_that_is_none_is_said_and_ignored(
    crowd: WindowLab, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The call waits like any other, the header does not leave, and the log says what is allowed."""
    crowd.windows(linger="fixed")
    with caplog.at_level(logging.WARNING, "underlay"):
        crowd.ask(crowd.client(), embedding("a"), headers={"underlay-deadline": value})
    assert crowd.sent == []
    crowd.advance(0.05)
    assert "underlay-deadline" not in crowd.sent[0].headers
    crowd.provider.release()
    assert any("underlay-deadline" in record.getMessage() for record in caplog.records)


def test_a_deadline_counts_from_the_calls_beginning(crowd: WindowLab) -> None:
    """What a call has waited for another's answer is gone when it comes to a window: with 4 of 10 seconds left
    it does not wait for another 5."""
    crowd.setup(llm_batch={"linger": "fixed", "batch_timeout_ms": 5000.0})
    client = crowd.client()
    leader = crowd.ask(client, embedding("a"), timeout=60)
    follower = crowd.ask(client, embedding("a"), headers={"underlay-deadline": "10"}, timeout=60)
    crowd.advance(5)
    assert len(crowd.sent) == 1
    crowd.advance(1)
    crowd.cancel(leader)
    assert len(crowd.sent) == 2
    crowd.provider.release()
    assert follower.result().status_code == 200


def test_trios_own_deadline_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call in `move_on_after` leaves in time to be answered before it is cancelled."""
    with WindowLab("trio-httpx", monkeypatch).running() as lab:
        lab.windows(batch_timeout_ms=10_000.0)
        client = lab.client(timeout=600)
        learn(lab, client, 100)
        lab.ask(client, embedding("in flight"))

        async def hurried() -> Any:
            with trio.move_on_after(105):
                return await lab.post(client, EMBEDDINGS_URL, embedding("hurried"))

        lab.ask(client, embedding("b"))
        lab.start(hurried)
        lab.advance(4)
        assert len(lab.sent) == 2
        lab.advance(1)
        assert asked(lab)[2:] == [["b", "hurried"]]
        lab.provider.release()
        assert triggers(lab) == ["deadline"]
