"""The behaviour that the contract's tests look at, on the one call path: batching, breaker, cache, metrics."""

from __future__ import annotations

import json

import pytest

from underlay import n3
from underlay.errors import MissingCredentialError, ProviderError, UnknownModelError
from underlay.n3 import (
    _CircuitBreakerError,
    _get_batch_stats,
    _get_cache_stats,
    _get_circuit_breaker,
    _get_circuit_breaker_stats,
    _get_llm_stats,
    _llm_call,
    _reset_circuit_breaker,
)
from underlay.simulator import Simulator
from underlay.telemetry.events import AttemptStarted, CallEnded, CallStarted
from underlay.telemetry.listener import QuietHandle
from underlay.testing import FakeClock

from .conftest import House


def bring_down(house: House, model: str = "gpt-4o") -> None:
    """Five failures."""
    with house.simulator.outage(model):
        for number in range(5):
            with pytest.raises(ProviderError):
                _llm_call(f"Down {number}?", model)


def test_fifty_calls_make_five_dispatches(house: House) -> None:
    """Fifty concurrent calls at a bound of ten are five dispatches of ten, and every call is in one of them."""
    house.together(50, lambda number: _llm_call(f"prompt {number}", "gpt-4o"))
    stats = _get_batch_stats()
    assert (stats["batches_processed"], stats["requests_batched"], stats["avg_batch_size"]) == (5, 50, 10.0)
    left = [dispatch.started for dispatch in house.recorder.dispatches]
    assert {(each.mode, each.trigger, each.filled, each.capacity) for each in left} == {
        ("released", "size", 10, 10)
    }
    assert {member for each in left for member in each.members} == {b"%d" % at for at in range(1, 51)}
    assert house.upstream == 50


def test_models_never_share_a_batch(house: House) -> None:
    """Ten calls each of two models at once are two dispatches, one a model."""
    models = ("gpt-4o", "gpt-4o-mini")
    house.together(20, lambda number: _llm_call(f"prompt {number}", models[number % 2]))
    assert _get_batch_stats()["batches_processed"] == 2
    asked = {b"%d" % at: call.started.model for at, call in enumerate(house.recorder.calls, 1)}
    for dispatch in house.recorder.dispatches:
        assert {asked[member] for member in dispatch.started.members} == {dispatch.started.model}


def test_what_can_be_merged_is_one_request(house: House) -> None:
    """Ten concurrent embeddings are one merged request with ten inputs, and each caller has its own vector."""

    def vector(number: int) -> object:
        body = house.runtime.call(f"text {number}", model="text-embedding-3-small").body
        return json.loads(body)["data"][0]["embedding"]

    merged = house.together(10, vector)
    counts = house.simulator.counts().of("embeddings")
    assert (counts.requests, counts.inputs) == (1, 10)
    house.runtime.close()
    n3.configure(clock=house.clock)
    alone = [
        json.loads(n3._current().call(f"text {number}", model="text-embedding-3-small").body)["data"][0][
            "embedding"
        ]
        for number in range(10)
    ]
    assert merged == alone
    assert house.simulator.counts().of("embeddings").requests == 11


def test_a_lone_call_leaves_when_its_time_is_over(house: House) -> None:
    """One call is one dispatch of one, closed by its time after 50 ms; a quiet spell makes no difference."""
    for _ in range(2):
        began = house.clock.now()
        _llm_call(f"at {began}", "gpt-4o")
        assert house.clock.now() - began == pytest.approx(0.05)
        house.clock.advance(3600)
    assert _get_batch_stats()["requests_batched"] == _get_batch_stats()["batches_processed"] == 2
    assert {dispatch.started.trigger for dispatch in house.recorder.dispatches} == {"time"}


def test_the_environment_names_the_linger(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """`UNDERLAY_LLM_BATCH__LINGER` wins over the classic window: an adaptive lone call waits for nobody."""
    assert house.runtime.settings.llm_batch.linger == "fixed"
    monkeypatch.setenv("UNDERLAY_LLM_BATCH__LINGER", "adaptive")
    house.runtime.close()
    clock = FakeClock(autojump=True)
    assert n3.configure(clock=clock).settings.llm_batch.linger == "adaptive"
    before = clock.now()
    for model in ("gpt-4o", "text-embedding-3-small"):
        _llm_call("Hello", model)
    assert clock.now() == before
    assert _get_batch_stats()["batches_processed"] == 0


def test_code_names_the_linger(simulator: Simulator) -> None:
    """A linger that is given to `configure` is the one in force."""
    assert n3.configure({"llm_batch": {"linger": "adaptive"}}).settings.llm_batch.linger == "adaptive"


def test_reset_closes_an_open_circuit(house: House) -> None:
    """`_reset_circuit_breaker` lets the next call through."""
    bring_down(house)
    _reset_circuit_breaker("gpt-4o")
    assert _get_circuit_breaker("gpt-4o").get_state() == "closed"
    assert _llm_call("Up?", "gpt-4o")


def test_the_state_follows_the_clock(house: House) -> None:
    """One reader sees open, then half open when due, without a call in between."""
    breaker = _get_circuit_breaker("gpt-4o")
    assert breaker.get_state() == "closed"
    bring_down(house)
    assert breaker.get_state() == "open"
    house.clock.advance(59.9)
    assert breaker.get_state() == "open"
    house.clock.advance(0.1)
    assert breaker.get_state() == "half_open"


def test_a_hit_needs_no_provider(house: House) -> None:
    """What is cached is answered while the circuit is open, and says nothing about the provider."""
    answer = _llm_call("Kept", "gpt-4o")
    bring_down(house)
    assert _llm_call("Kept", "gpt-4o") == answer
    assert _get_circuit_breaker_stats("gpt-4o")["total_calls"] == 6


def test_an_answer_is_asked_again_after_its_ttl(house: House) -> None:
    """After 3600 s the second identical call reaches the provider."""
    for _ in range(2):
        _llm_call("Once", "gpt-4o")
    assert house.upstream == 1
    house.clock.advance(3600)
    _llm_call("Once", "gpt-4o")
    assert house.upstream == 2
    assert _get_cache_stats() == {"size": 1, "hits": 1, "misses": 2, "hit_rate": 1 / 3, "evictions": 0}


def test_an_error_is_not_kept(house: House) -> None:
    """A failed call is neither served again nor counted in the size."""
    with house.simulator.outage("gpt-4o"), pytest.raises(ProviderError):
        _llm_call("Hello?", "gpt-4o")
    assert _get_cache_stats()["size"] == 0
    assert _llm_call("Hello?", "gpt-4o")


def test_the_callers_own_fault_says_nothing_of_the_provider(house: House) -> None:
    """A 400 is an error of the model and no failure of its circuit."""
    house.simulator.fault("400", model="gpt-4o", count=1)
    with pytest.raises(ProviderError):
        _llm_call("Hello", "gpt-4o")
    stats = _get_circuit_breaker_stats("gpt-4o")
    assert (stats["total_calls"], stats["failed_calls"], stats["success_rate"]) == (1, 0, 1.0)
    assert _get_llm_stats()["by_model"]["gpt-4o"]["errors"] == 1


def test_a_hit_counts_no_latency_and_no_tokens(house: House) -> None:
    """Percentiles and tokens are those of calls that a provider answered."""
    _llm_call("Once", "gpt-4o")
    before = _get_llm_stats()["by_model"]["gpt-4o"]
    for _ in range(9):
        _llm_call("Once", "gpt-4o")
    after = _get_llm_stats()["by_model"]["gpt-4o"]
    assert (after["calls"], after["tokens"]) == (10, before["tokens"])
    assert len(house.runtime.stats()["openai", "gpt-4o"].latencies) == 1
    assert [call.of(CallEnded)[0].result for call in house.recorder.calls] == ["miss"] + ["hit"] * 9


class Slow(QuietHandle):
    """A listener by which a quarter of a second passes while a provider is asked."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def start(self, _: CallStarted) -> Slow:
        """A call began."""
        return self

    def event(self, event: object) -> None:
        """An attempt takes its time."""
        if isinstance(event, AttemptStarted):
            self._clock.advance(0.25)


def test_latencies_are_milliseconds(house: House) -> None:
    """An answer that took a quarter of a second, after the 50 ms of its window, reads 300, and nine hits at no
    time change nothing."""
    house.runtime.listen(Slow(house.clock))
    for _ in range(10):
        _llm_call("Once", "gpt-4o")
    stats = _get_llm_stats()
    assert stats["cache_hit_rate"] == 0.9
    percentiles = [
        stats["by_model"]["gpt-4o"][name] for name in ("latency_p50", "latency_p95", "latency_p99")
    ]
    assert percentiles == [pytest.approx(300)] * 3


def test_a_refusal_has_no_latency(house: House) -> None:
    """Calls that no provider answered are errors by their type and not in the percentiles."""
    house.runtime.listen(Slow(house.clock))
    bring_down(house)
    for number in range(7):
        with pytest.raises(_CircuitBreakerError):
            _llm_call(f"Refused {number}", "gpt-4o")
    stats = _get_llm_stats()["by_model"]["gpt-4o"]
    assert (stats["calls"], stats["errors_by_type"]["circuit_open"]) == (12, 7)
    assert stats["latency_p50"] == pytest.approx(300)


def test_concurrent_calls_are_all_counted(house: House) -> None:
    """Twenty callers at once: every one answered, sent once and counted."""
    answers = house.together(20, lambda number: _llm_call(f"prompt {number}", "gpt-4o"))
    assert len(set(answers)) == house.upstream == _get_llm_stats()["total_calls"] == 20
    assert _get_cache_stats()["size"] == 20


def test_what_cannot_be_asked_is_said(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown model and a missing key are errors that say what to do."""
    with pytest.raises(UnknownModelError, match="model 'mystery-1'"):
        _llm_call("Hello", "mystery-1")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(MissingCredentialError, match="OPENAI_API_KEY is not set"):
        _llm_call("Hello", "gpt-4o")
    assert house.upstream == 0
