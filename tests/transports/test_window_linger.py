"""When calls that can be merged leave: a lone one at once, others with their window, by what closes it first."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from transport_lab import KEY
from window_lab import WindowLab, embedding
from window_provider import EMBEDDINGS_URL, refusal

from underlay import Runtime
from underlay.telemetry.attributes import BatchMode, BatchTrigger
from underlay.telemetry.events import Batched

SMALL_SERVER = "http://localhost:8000/v1/embeddings"


def asked(lab: WindowLab) -> list[Any]:
    """The inputs of every request that left."""
    return [held.inputs for held in lab.sent]


def triggers(lab: WindowLab) -> list[str]:
    """What closed every window."""
    return [dispatch.started.trigger for dispatch in lab.recorder.dispatches]


@pytest.mark.parametrize("linger", ["adaptive", "learned"])
def test_a_lone_call_never_waits_and_is_sent_as_it_was_made(crowd: WindowLab, linger: str) -> None:
    """One call after the other: each leaves at once, with the very bytes that it would have without windows,
    and the clock has not moved."""
    crowd.windows(linger=linger)
    wrapped, bare = crowd.client(), crowd.bare(crowd.provider.transport(crowd.family, crowd.kind))
    for number in range(3):
        for client in (wrapped, bare):
            crowd.ask(client, embedding(f"text {number}"))
            crowd.sent[-1].reply()
    received = [held.received for held in crowd.sent]
    assert received[::2] == received[1::2]
    assert crowd.clock.now() == 1000
    assert crowd.recorder.dispatches == []
    assert [call.of(Batched) for call in crowd.recorder.calls] == [[], [], []]


def test_calls_that_come_while_one_is_in_flight_share_the_next_request(crowd: WindowLab) -> None:
    """They leave when it has ended, all at once, and so do those that come while they are in flight."""
    crowd.windows()
    client = crowd.client()
    crowd.ask(client, embedding("a"))
    crowd.ask_all(client, [embedding("b"), embedding(["c", "d"])])
    assert asked(crowd) == [["a"]]
    crowd.sent[0].reply()
    assert asked(crowd) == [["a"], ["b", "c", "d"]]
    crowd.ask_all(client, [embedding("e"), embedding("f")])
    crowd.sent[1].reply()
    assert asked(crowd) == [["a"], ["b", "c", "d"], ["e", "f"]]
    crowd.sent[2].reply()
    crowd.ask(client, embedding("g"))
    assert asked(crowd)[3:] == [["g"]]
    crowd.sent[3].reply()
    assert triggers(crowd) == ["idle", "idle"]


def test_a_call_with_no_company_leaves_as_it_was_made(crowd: WindowLab) -> None:
    """Whoever waited alone for the one in flight goes by itself, byte for byte, and is no dispatch."""
    crowd.windows()
    client, bare = crowd.client(), crowd.bare(crowd.provider.transport(crowd.family, crowd.kind))
    crowd.ask(client, embedding("a"))
    crowd.ask(client, embedding("b"))
    crowd.sent[0].reply()
    crowd.ask(bare, embedding("b"))
    assert crowd.sent[1].received == crowd.sent[2].received
    crowd.provider.release()
    assert crowd.recorder.dispatches == []


def test_a_window_does_not_wait_longer_than_its_time(crowd: WindowLab) -> None:
    """After 50 ms it leaves beside the request that is still in flight."""
    crowd.windows()
    client = crowd.client()
    crowd.ask(client, embedding("a"))
    crowd.ask(client, embedding("b"))
    crowd.advance(0.03)
    crowd.ask(client, embedding("c"))
    crowd.advance(0.0199)
    assert asked(crowd) == [["a"]]
    crowd.advance(0.0002)
    assert asked(crowd) == [["a"], ["b", "c"]]
    crowd.provider.release()
    assert triggers(crowd) == ["time"]
    started = crowd.recorder.dispatches[0].started
    assert (started.wait, started.inputs, started.filled, started.capacity) == (
        pytest.approx(0.05, abs=1e-3),
        2,
        2,
        256,
    )


def test_a_window_that_holds_the_most_inputs_leaves_at_once(crowd: WindowLab) -> None:
    """`merge_max_inputs` inputs are enough; who does not fit sends the window off and opens another."""
    crowd.windows(merge_max_inputs=3)
    client = crowd.client()
    crowd.ask(client, embedding("a"))
    crowd.ask_all(client, [embedding("b"), embedding(["c", "d"])])
    assert asked(crowd) == [["a"], ["b", "c", "d"]]
    crowd.ask_all(client, [embedding(["e", "f"]), embedding(["g", "h"])])
    assert asked(crowd) == [["a"], ["b", "c", "d"], ["e", "f"]]
    crowd.provider.release()
    assert asked(crowd)[3:] == [["g", "h"]]
    assert triggers(crowd) == ["size"]


def test_a_call_that_is_larger_than_the_bound_goes_alone(crowd: WindowLab) -> None:
    """It leaves at once, as it is, and the window that collects stays."""
    crowd.windows(merge_max_inputs=3)
    client = crowd.client()
    crowd.ask_all(client, [embedding("a"), embedding("b")])
    crowd.ask(client, embedding(["c", "d", "e", "f"]))
    assert asked(crowd) == [["a"], ["c", "d", "e", "f"]]
    crowd.provider.release()
    assert asked(crowd)[2:] == [["b"]]


@pytest.mark.parametrize("linger", ["adaptive", "fixed"])
def test_the_providers_own_limits_hold(crowd: WindowLab, linger: str) -> None:
    """A server that is not known takes 32 inputs a request, and 16,384 tokens, whatever the settings."""
    crowd.windows(linger=linger, max_batch_size=1000)
    client = crowd.client()
    crowd.ask(client, embedding("first"), url=SMALL_SERVER)
    crowd.advance(0.05)
    crowd.ask_all(client, [embedding([f"{number}"] * 10) for number in range(4)], url=SMALL_SERVER)
    crowd.ask_all(client, [embedding("x" * 12_000)] * 4, url=SMALL_SERVER)
    crowd.provider.release()
    crowd.advance(0.05)
    sizes = crowd.provider.inputs
    assert max(sizes) == 30
    assert sum(sizes) == 45
    assert all(len(held.received.body) < 16_384 * 3 for held in crowd.sent)


def test_fixed_counts_calls_and_not_inputs(crowd: WindowLab) -> None:
    """Under `fixed` a window holds `max_batch_size` calls, whatever `merge_max_inputs` says."""
    crowd.windows(linger="fixed", max_batch_size=3, merge_max_inputs=2)
    client = crowd.client()
    crowd.ask_all(client, [embedding(["a", "b"]), embedding(["c", "d"]), embedding("e")])
    assert asked(crowd) == [["a", "b", "c", "d", "e"]]
    crowd.provider.release()
    started = crowd.recorder.dispatches[0].started
    assert (started.trigger, started.filled, started.capacity, started.inputs) == ("size", 3, 3, 5)


def test_adaptive_counts_inputs_and_not_calls(crowd: WindowLab) -> None:
    """`max_batch_size` bounds the windows of `fixed` alone."""
    crowd.windows(max_batch_size=2)
    client = crowd.client()
    crowd.ask(client, embedding("a"))
    crowd.ask_all(client, [embedding(f"{number}") for number in range(5)])
    crowd.sent[0].reply()
    assert crowd.provider.inputs == [1, 5]
    crowd.provider.release()


@pytest.mark.parametrize("end", ["error", "status", "closed", "dropped", "cancelled"])
def test_a_lone_call_frees_its_place_however_it_ends(crowd: WindowLab, end: str) -> None:
    """After a call that failed, was refused, was closed unread, dropped or cancelled, the next one goes at once."""
    crowd.windows()
    client = crowd.client()

    async def unread() -> None:
        response = await crowd.open(client, EMBEDDINGS_URL, embedding("a"))
        if end == "closed":
            await crowd.close(response)
        else:
            del response
            gc.collect()

    call = crowd.start(unread) if end in ("closed", "dropped") else crowd.ask(client, embedding("a"))
    held = crowd.sent[0]
    if end == "error":
        held.fail(crowd.module.ConnectError("down"), settle=True)
    elif end == "cancelled":
        crowd.cancel(call)
    else:
        held.reply(refusal(503) if end == "status" else None)
    assert call.done
    if end == "dropped":
        crowd.provider.closed += 1  # left to its owner's collector
    crowd.ask(client, embedding("b"))
    assert len(crowd.sent) == 2
    crowd.provider.release()


def test_off_means_off(crowd: WindowLab) -> None:
    """With windows off every call leaves at once as it was made."""
    crowd.windows(mode="off", linger="fixed")
    client = crowd.client()
    crowd.ask_all(client, [embedding("a"), embedding("b")])
    assert asked(crowd) == [["a"], ["b"]]
    crowd.provider.release()
    assert crowd.recorder.dispatches == []


@pytest.mark.parametrize("linger", ["adaptive", "fixed", "learned"])
def test_observe_touches_nothing_but_tells(crowd: WindowLab, linger: str) -> None:
    """Every call leaves at once with its own bytes, and the events say that it would have been in a window."""
    crowd.windows(mode="observe", linger=linger)
    client, bare = crowd.client(), crowd.bare(crowd.provider.transport(crowd.family, crowd.kind))
    for number in range(4):
        for each in (client, bare):
            crowd.ask(each, embedding(f"{number}"), headers=KEY)
    received = [held.received for held in crowd.sent]
    assert received[::2] == received[1::2]
    assert len(received) == 8
    crowd.provider.release()
    assert crowd.recorder.dispatches == []
    told = [call.of(Batched) for call in crowd.recorder.calls]
    expected = Batched(BatchMode.MERGED, BatchTrigger.TIME, 0.0, 1, observed=True)
    assert told == ([[expected]] * 4 if linger == "fixed" else [[], [expected], [expected], [expected]])


def test_learned_windows_answer_everybody(crowd: WindowLab) -> None:
    """Under `learned` those that come while one is in flight are merged, and each has its own answer."""
    crowd.windows(linger="learned")
    client = crowd.client()
    for turn in range(5):
        calls = crowd.ask_all(client, [embedding(f"{turn} {number}") for number in range(6)])
        while not all(call.done for call in calls):
            crowd.clock.advance(0.02)
            for held in crowd.provider.held:
                held.reply(settle=False)
            crowd.settle()
        assert [call.result().json()["data"][0]["index"] for call in calls] == [0] * 6
    assert sum(crowd.provider.inputs) == 30
    assert len(crowd.sent) < 30
    assert crowd.faults == {}


@pytest.mark.parametrize("linger", ["adaptive", "fixed", "learned"])
def test_windows_by_the_systems_clock(crowd: WindowLab, linger: str) -> None:
    """Nobody lets the time pass here: thirty calls are answered in windows of a millisecond, each with its own."""
    crowd.runtime = Runtime(
        {
            "llm_batch": {"linger": linger, "batch_timeout_ms": 1.0},
            "llm_cache": {"mode": "off"},
            "coalesce": {"mode": "off"},
        },
        listeners=[crowd.recorder],
    )
    crowd.provider.holds = False
    client = crowd.client()
    calls = [
        crowd.ask(client, embedding([f"{number}"] * (number % 3 + 1)), settle=False) for number in range(30)
    ]
    crowd.join()
    assert [len(call.result().json()["data"]) for call in calls] == [number % 3 + 1 for number in range(30)]
    assert sum(crowd.provider.inputs) == 60
    assert all(
        len(dispatch.started.members) <= 10 for dispatch in crowd.recorder.dispatches if linger == "fixed"
    )
