"""What listeners are told of windows, whole: every event of every call and of every dispatch, in order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transport_lab import CHAT_ASK, CHAT_URL
from window_lab import WindowLab, embedding
from window_provider import refusal

from underlay.telemetry.attributes import BatchMode, BatchTrigger, CacheResult, Ending, Verdict
from underlay.telemetry.events import (
    AttemptEnded,
    AttemptStarted,
    Batched,
    BatchEnded,
    BatchStarted,
    CacheLooked,
    CallEnded,
    Usage,
)
from underlay.testing import RecordedDispatch

EMBEDDER = "text-embedding-3-small"
TOKEN = 2e-8  # US dollars for a token of this model
MERGED, RELEASED, ALONE = BatchMode.MERGED, BatchMode.RELEASED, BatchMode.ALONE
MISS = CacheLooked(CacheResult.MISS, "key", "absent")


def close(seconds: float) -> Any:
    """A time on a clock that counts from 1000."""
    return pytest.approx(seconds, abs=1e-9)


def told(lab: WindowLab) -> list[list[Any]]:
    """The events of every call, with "key" for the key of its answer."""
    return [
        [replace(event, key="key") if isinstance(event, CacheLooked) else event for event in call.events]
        for call in lab.recorder.calls
    ]


def own_part(tokens: int, *, sent: bool, took: float) -> AttemptEnded:
    """A member's part of an answer that came whole."""
    return AttemptEnded(
        1,
        close(took),
        Verdict.SUCCESS,
        200,
        usage=Usage(input_tokens=tokens, output_tokens=None),
        cost_usd=pytest.approx(tokens * TOKEN),  # type: ignore[arg-type]
        response_model=EMBEDDER,
        stored=True,
        sent=sent,
    )


def miss_ended(took: float, mode: BatchMode, status: int | None = 200, **changes: Any) -> CallEnded:
    """A call that a provider answered."""
    return CallEnded(CacheResult.MISS, Ending.COMPLETE, close(took), status, batch_mode=mode, **changes)


def test_a_merged_window_of_three(crowd: WindowLab) -> None:
    """Full at 20 ms, answered after a quarter of a second: one dispatch, one request, three parts."""
    crowd.setup(llm_batch={"linger": "fixed", "max_batch_size": 3})
    client = crowd.client()
    for inputs in ("a", ["b", "c"], "d"):
        crowd.ask(client, embedding(inputs))
        crowd.clock.advance(0.01)
    crowd.clock.advance(0.24)
    crowd.sent[0].reply()
    size = BatchTrigger.SIZE
    assert crowd.recorder.dispatches == [
        RecordedDispatch(
            BatchStarted(
                "openai", "embeddings", EMBEDDER, MERGED, size, (b"1", b"2", b"3"), 4, 3, 3, close(0.02)
            ),
            [BatchEnded(close(0.25), 200)],
            1,
        )
    ]
    assert told(crowd) == [
        [
            MISS,
            Batched(MERGED, size, close(0.02), 3, b"d1"),
            own_part(1, sent=False, took=0.25),
            miss_ended(0.27, MERGED),
        ],
        [
            MISS,
            Batched(MERGED, size, close(0.01), 3, b"d1"),
            own_part(2, sent=False, took=0.25),
            miss_ended(0.26, MERGED),
        ],
        [
            MISS,
            AttemptStarted(1),
            Batched(MERGED, size, 0.0, 3, b"d1"),
            own_part(1, sent=True, took=0.25),
            miss_ended(0.25, MERGED),
        ],
    ]
    assert crowd.recorder.process == []


def test_an_idle_window_of_three(crowd: WindowLab) -> None:
    """Three that waited for one in flight: its end is their trigger, its latency is not theirs."""
    crowd.setup()
    client = crowd.client()
    crowd.ask(client, embedding("first"))
    for inputs in ("a", ["b", "c"], "d"):
        crowd.ask(client, embedding(inputs))
        crowd.clock.advance(0.01)
    crowd.sent[0].reply()
    crowd.clock.advance(0.25)
    crowd.sent[1].reply()
    idle = BatchTrigger.IDLE
    started = BatchStarted(
        "openai", "embeddings", EMBEDDER, MERGED, idle, (b"2", b"3", b"4"), 4, 4, 256, close(0.03)
    )
    assert crowd.recorder.dispatches == [RecordedDispatch(started, [BatchEnded(close(0.25), 200)], 1)]
    assert told(crowd) == [
        [MISS, AttemptStarted(1), own_part(2, sent=True, took=0.03), miss_ended(0.03, ALONE)],
        [
            MISS,
            AttemptStarted(1),
            Batched(MERGED, idle, close(0.03), 3, b"d1"),
            own_part(1, sent=True, took=0.25),
            miss_ended(0.28, MERGED),
        ],
        [
            MISS,
            Batched(MERGED, idle, close(0.02), 3, b"d1"),
            own_part(2, sent=False, took=0.25),
            miss_ended(0.27, MERGED),
        ],
        [
            MISS,
            Batched(MERGED, idle, close(0.01), 3, b"d1"),
            own_part(1, sent=False, took=0.25),
            miss_ended(0.26, MERGED),
        ],
    ]


def chat_ended(took: float) -> AttemptEnded:
    """How the attempt of a chat ended, but for what belongs to the answer."""
    return AttemptEnded(1, close(took), Verdict.SUCCESS, 200)


def test_a_released_window_of_three(crowd: WindowLab) -> None:
    """One dispatch that is over as soon as its members are on their way, and three requests with books of their
    own."""
    crowd.setup(llm_batch={"linger": "fixed", "max_batch_size": 3}, llm_cache={"mode": "off"})
    client = crowd.client()
    for _ in range(3):
        crowd.ask(client, {**CHAT_ASK, "user": f"{len(crowd.calls)}"}, url=CHAT_URL)
        crowd.clock.advance(0.01)
    crowd.clock.advance(0.24)
    crowd.provider.release()
    size = BatchTrigger.SIZE
    started = BatchStarted(
        "openai", "chat", "gpt-4o", RELEASED, size, (b"1", b"2", b"3"), 3, 3, 3, close(0.02)
    )
    assert crowd.recorder.dispatches == [RecordedDispatch(started, [BatchEnded(0.0)], 0)]
    plain = [
        [
            AttemptEnded(each.number, each.duration, each.verdict, each.status)
            if isinstance(each, AttemptEnded)
            else each
            for each in events
        ]
        for events in told(crowd)
    ]
    assert plain == [
        [
            CacheLooked(CacheResult.BYPASS, "key", "off"),
            Batched(RELEASED, size, close(0.02 - 0.01 * number), 3, b"d1"),
            AttemptStarted(1),
            chat_ended(0.25),
            CallEnded(
                CacheResult.BYPASS, Ending.COMPLETE, close(0.27 - 0.01 * number), 200, batch_mode=RELEASED
            ),
        ]
        for number in range(3)
    ]


def test_a_window_that_failed(crowd: WindowLab) -> None:
    """A 503 is told of the dispatch, of the one attempt, and of each call."""
    crowd.setup(llm_batch={"linger": "fixed", "max_batch_size": 2}, llm_cache={"mode": "off"})
    crowd.ask_all(crowd.client(), [embedding("a"), embedding("b")])
    crowd.clock.advance(0.25)
    crowd.sent[0].reply(refusal(503))
    (dispatch,) = crowd.recorder.dispatches
    assert dispatch.events == [BatchEnded(close(0.25), 503, "503")]
    batched = Batched(MERGED, BatchTrigger.SIZE, 0.0, 2, b"d1")
    bypass = CacheLooked(CacheResult.BYPASS, "key", "off")
    failed = AttemptEnded(1, close(0.25), Verdict.FAILURE, 503, "some_error", store_reason="off")
    ended = CallEnded(CacheResult.BYPASS, Ending.COMPLETE, close(0.25), 503, "some_error", batch_mode=MERGED)
    assert told(crowd) == [
        [bypass, batched, replace(failed, sent=False), ended],
        [bypass, AttemptStarted(1), batched, failed, ended],
    ]


def test_a_window_that_was_sent_apart(crowd: WindowLab) -> None:
    """The merged request is an attempt of its sender, refused; then each member has an attempt of its own."""
    crowd.windows(linger="fixed", max_batch_size=2)
    crowd.ask_all(crowd.client(), [embedding("a"), embedding("b")])
    crowd.sent[0].reply(refusal(400))
    crowd.provider.release()
    (dispatch,) = crowd.recorder.dispatches
    assert dispatch.events == [BatchEnded(0.0, 400, "400", apart=True)]
    kinds = [[type(event).__name__ for event in call.events] for call in crowd.recorder.calls]
    assert kinds == [
        ["CacheLooked", "AttemptStarted", "AttemptEnded", "CallEnded"],
        ["CacheLooked", "AttemptStarted", "AttemptEnded", "AttemptStarted", "AttemptEnded", "CallEnded"],
    ]
    assert [event.status for event in crowd.attempts()] == [200, 400, 200]
    assert all(event.sent for event in crowd.attempts())


def test_a_window_that_is_sent_again(crowd: WindowLab) -> None:
    """The first dispatch is told as cancelled, the second as sent again, and the windows are counted once."""
    crowd.windows(linger="fixed", max_batch_size=3)
    calls = crowd.ask_all(crowd.client(), [embedding("a"), embedding("b"), embedding("c")])
    crowd.cancel(calls[2])
    crowd.provider.release()
    started = [dispatch.started for dispatch in crowd.recorder.dispatches]
    assert [(each.members, each.again) for each in started] == [
        ((b"1", b"2", b"3"), False),
        ((b"1", b"2"), True),
    ]
    ends = [dispatch.events for dispatch in crowd.recorder.dispatches]
    assert ends == [[BatchEnded(0.0, None, "cancelled")], [BatchEnded(0.0, 200)]]
    told_of = [call.of(Batched) for call in crowd.recorder.calls]
    assert told_of[:2] == [[Batched(MERGED, BatchTrigger.SIZE, 0.0, 2, b"d2")]] * 2
    assert told_of[2] == []
