"""What a program written with the official SDKs, unchanged, sees of underlay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from underlay.telemetry.attributes import CacheResult, CircuitState
from underlay.telemetry.events import (
    AttemptEnded,
    AttemptStarted,
    CacheLooked,
    CallEnded,
    CircuitChanged,
    CircuitRefused,
)

from .conftest import Bench


def kinds(bench: Bench) -> list[list[str]]:
    """The names of each call's events."""
    return [[type(event).__name__ for event in call.events] for call in bench.recorder.calls]


def ways(bench: Bench) -> dict[str, Callable[[str], Any]]:
    """Both ways to ask."""
    return {"json": bench.sdk.json, "stream": bench.sdk.stream}


@pytest.mark.parametrize("way", ["json", "stream"])
def test_a_repeated_call_reaches_the_provider_once(bench: Bench, way: str) -> None:
    """The SDK's parsed objects, or every stream event, of a repeat are equal to the first ones, and nothing
    is sent."""
    ask = ways(bench)[way]
    first = ask("What is an under-layer?")
    again = ask("What is an under-layer?")
    assert again == first
    assert bench.upstream == 1
    assert kinds(bench) == [
        ["CacheLooked", "AttemptStarted", "AttemptEnded", "CallEnded"],
        ["CacheLooked", "CallEnded"],
    ]
    miss, hit = bench.recorder.calls
    assert miss.of(AttemptEnded)[0].stored
    assert miss.of(CallEnded)[0].result is CacheResult.MISS
    assert hit.of(CallEnded)[0].result is CacheResult.HIT
    assert hit.of(CacheLooked)[0].origin == b"1"


def test_another_question_is_another_call(bench: Bench) -> None:
    """Only the same question is answered from the cache."""
    first, second = bench.sdk.json("One?"), bench.sdk.json("Two?")
    assert first["id"] != second["id"]
    assert bench.upstream == 2


def test_json_and_stream_do_not_answer_each_other(bench: Bench) -> None:
    """A stream is never replayed to a caller who asked for JSON."""
    bench.sdk.json("One?")
    bench.sdk.stream("One?")
    assert bench.upstream == 2


def test_an_outage_leads_to_refusals_without_a_sleep_or_a_retry(bench: Bench) -> None:
    """Once the circuit is open, a call fails at once with the SDK's own error: one transport call, no sleep,
    nothing sent."""
    with bench.simulator.outage(bench.sdk.model):
        with pytest.raises(bench.sdk.error):
            bench.sdk.json("Are you there?")  # three attempts of the SDK: three failures
        assert bench.runtime.circuit(bench.sdk.model).state == "open"
        sent, calls = bench.upstream, len(bench.recorder.calls)
        bench.slept.clear()
        for ask in ways(bench).values():
            with pytest.raises(bench.sdk.error) as refused:
                ask("And now?")
            assert refused.value.status_code == 503  # type: ignore[attr-defined]
            assert "circuit of" in str(refused.value)
    assert bench.slept == []
    assert bench.upstream == sent
    assert kinds(bench)[calls:] == [["CacheLooked", "CircuitRefused", "CallEnded"]] * 2
    assert bench.recorder.calls[-1].of(CircuitRefused)[0].state is CircuitState.OPEN


def test_recovery_closes_the_circuit(bench: Bench) -> None:
    """After the recovery time probes go out one at a time, and two successes close the circuit again."""
    with bench.simulator.outage(bench.sdk.model), pytest.raises(bench.sdk.error):
        bench.sdk.json("Are you there?")
    bench.clock.advance(60)
    assert bench.runtime.circuit(bench.sdk.model).state == "half_open"
    bench.sdk.json("Back?")
    bench.sdk.stream("Really?")
    assert bench.runtime.circuit(bench.sdk.model).state == "closed"
    changed = [event for event in bench.recorder.process if isinstance(event, CircuitChanged)]
    assert [(event.left, event.entered, event.reason, event.lasted) for event in changed] == [
        ("closed", "open", "failures", 0.0),
        ("open", "half_open", "recovery_due", 60.0),
        ("half_open", "closed", "recovered", 0.0),
    ]
    assert changed[0].causes == (b"1", b"2", b"3")


def test_a_bad_request_says_nothing_about_the_provider(bench: Bench) -> None:
    """Errors of the caller's own (4xx) never open a circuit and are never cached."""
    for _ in range(4):
        bench.simulator.fault("400", model=bench.sdk.model, count=1)
        with pytest.raises(Exception, match="400"):
            bench.sdk.json("Bad?")
    assert bench.runtime.circuit(bench.sdk.model).state == "closed"
    assert bench.upstream == 4


def test_usage_and_cost_are_those_that_the_sdk_reports(bench: Bench) -> None:
    """Tokens in the books equal what the SDK's own object says, and they have a price."""
    usage = bench.sdk.json("How much?")["usage"]
    (ended,) = bench.recorder.calls[0].of(AttemptEnded)
    assert ended.usage.input_tokens == usage.get("prompt_tokens", usage.get("input_tokens"))
    assert ended.usage.output_tokens == usage.get("completion_tokens", usage.get("output_tokens"))
    assert ended.cost_usd is not None
    assert ended.cost_usd > 0


@pytest.mark.parametrize("fault", ["cut;after=2", "clean_eof;after=2", "error_event;after=2"])
def test_a_broken_stream_is_neither_kept_nor_forgiven(bench: Bench, fault: str) -> None:
    """A stream that was cut, or ended without its terminal event, or carried an error, is a failure and is
    asked again."""
    bench.simulator.fault(fault, model=bench.sdk.model, count=1)
    try:
        bench.sdk.stream("Tell me")
    except Exception as error:
        assert error is not None
    (ended,) = bench.recorder.calls[0].of(AttemptEnded)
    assert (ended.stored, ended.verdict) == (False, "failure")
    bench.sdk.stream("Tell me")
    assert bench.upstream == 2
    assert len(bench.recorder.calls[0].of(AttemptStarted)) == 1


@pytest.mark.parametrize("kind", ["json", "stream"])
def test_identical_calls_at_once_are_one_request(bench: Bench, kind: str) -> None:
    """Twelve threads ask the same at once, synchronous clients of one home or as many event loops: one
    request, and every SDK parses the same objects."""
    start = Barrier(12)

    def ask(_: int) -> Any:
        start.wait(10)
        return getattr(bench.sdk, kind)("Who goes there?")

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(ask, range(12)))
    assert bench.upstream == 1
    assert answers == [answers[0]] * 12
    results = Counter(str(event.result) for call in bench.recorder.calls for event in call.of(CallEnded))
    assert results["miss"] == 1
    assert results["coalesced"] + results["hit"] == 11
    assert bench.runtime.engine.faults.counts == {}
