"""The classic test list of the N3 contract, each restated with the fake clock."""

from __future__ import annotations

import pytest

from underlay.errors import ProviderError
from underlay.n3 import (
    _CircuitBreaker,
    _CircuitBreakerError,
    _get_batch_stats,
    _get_cache_stats,
    _get_circuit_breaker,
    _get_circuit_breaker_stats,
    _get_llm_stats,
    _llm_call,
    _LLMCache,
    _LLMMetrics,
)
from underlay.telemetry.events import AttemptEnded
from underlay.testing import FakeClock

from .conftest import House


def boom() -> None:
    """A provider that is down."""
    raise ConnectionError("down")


def test_1_cache_hit() -> None:
    """After a put, a get of the same returns it."""
    cache = _LLMCache()
    cache.put("prompt", "gpt-4", {}, "response")
    assert cache.get("prompt", "gpt-4", {}) == "response"


def test_2_cache_ttl() -> None:
    """With a ttl of one second, after two there is nothing."""
    clock = FakeClock()
    cache = _LLMCache(ttl=1, clock=clock)
    cache.put("prompt", "gpt-4", {}, "response")
    clock.advance(2)
    assert cache.get("prompt", "gpt-4", {}) is None


def test_3_metrics_percentiles() -> None:
    """The p50 of 100, 200, 300, 400 and 500 ms is exactly 300."""
    metrics = _LLMMetrics(clock=FakeClock())
    for latency in (100, 200, 300, 400, 500):
        metrics.record_call("gpt-4", latency, 100, False)
    stats = metrics.get_stats()["by_model"]["gpt-4"]
    assert (stats["latency_p50"], stats["latency_p95"], stats["latency_p99"]) == (300, 480, 496)
    assert (stats["calls"], stats["tokens"]) == (5, 500)


def test_4_batching(house: House) -> None:
    """Ten concurrent calls are collected into one dispatch, and the statistics say so."""
    answers = house.together(10, lambda number: _llm_call(f"prompt {number}", "gpt-4o"))
    assert len(set(answers)) == 10
    assert _get_batch_stats() == {
        "batches_processed": 1,
        "requests_batched": 10,
        "avg_batch_size": 10.0,
        "max_batch_size": 10,
    }


def test_5_breaker_opens() -> None:
    """Three raising calls at a threshold of three open the breaker, and then nothing is called."""
    breaker = _CircuitBreaker(failure_threshold=3, clock=FakeClock())
    for _ in range(3):
        assert breaker.get_state() == "closed"
        with pytest.raises(ConnectionError, match="down"):
            breaker.call(boom)
    assert breaker.get_state() == "open"
    with pytest.raises(_CircuitBreakerError):
        breaker.call(boom)


def test_6_breaker_recovers() -> None:
    """After the recovery timeout it is half open, and two successes close it."""
    clock = FakeClock()
    breaker = _CircuitBreaker(failure_threshold=3, recovery_timeout=0.1, clock=clock)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            breaker.call(boom)
    clock.advance(0.1)
    assert breaker.get_state() == "half_open"
    assert [breaker.call(lambda: "ok"), breaker.get_state()] == ["ok", "half_open"]
    assert [breaker.call(lambda: "ok"), breaker.get_state()] == ["ok", "closed"]


def test_7_full_pipeline(house: House) -> None:
    """Cache and breaker in one path; metrics recorded; all statistics right."""
    first = _llm_call("What is a cache?", "gpt-4")
    assert _llm_call("What is a cache?", model="gpt-4") == first
    assert _llm_call("What is a circuit breaker?", "claude-sonnet-5-5")
    assert house.upstream == 2
    assert _get_cache_stats() == {
        "size": 2,
        "hits": 1,
        "misses": 2,
        "hit_rate": pytest.approx(1 / 3),
        "evictions": 0,
    }
    stats = _get_llm_stats()
    assert (stats["total_calls"], stats["cache_hit_rate"]) == (3, pytest.approx(1 / 3))
    used = {
        call.started.model: call.of(AttemptEnded) for call in house.recorder.calls if call.of(AttemptEnded)
    }
    for model, calls in (("gpt-4", 2), ("claude-sonnet-5-5", 1)):
        assert stats["by_model"][model] == {
            "calls": calls,
            "latency_p50": pytest.approx(50),  # what it waited in its window
            "latency_p95": pytest.approx(50),
            "latency_p99": pytest.approx(50),
            "tokens": used[model][0].usage.total,
            "errors": 0,
            "errors_by_type": {},
        }
        assert _get_circuit_breaker_stats(model) == {
            "state": "closed",
            "total_calls": 1,
            "successful_calls": 1,
            "failed_calls": 0,
            "rejected_calls": 0,
            "success_rate": 1.0,
            "state_changes": 0,
        }


def test_7_full_pipeline_batching(house: House) -> None:
    """Batching is in the same path: ten misses leave together, and ten hits need no batch."""
    for _ in range(2):
        house.together(10, lambda number: _llm_call(f"prompt {number}", "gpt-4o"))
    assert (house.upstream, _get_cache_stats()["hits"]) == (10, 10)
    assert _get_circuit_breaker_stats("gpt-4o")["successful_calls"] == 10
    batches = _get_batch_stats()
    assert (batches["batches_processed"], batches["requests_batched"]) == (1, 10)


def test_8_provider_failover(house: House) -> None:
    """An outage opens the circuit, callers are refused without reaching the provider, recovery closes it."""
    with house.simulator.outage("gpt-4o"):
        for number in range(5):
            with pytest.raises(ProviderError):
                _llm_call(f"Down {number}?", "gpt-4o")
        assert _get_circuit_breaker("gpt-4o").get_state() == "open"
        with pytest.raises(_CircuitBreakerError) as refused:
            _llm_call("Still down?", "gpt-4o")
        assert refused.value.retry_after == 60
        assert house.upstream == 5
    assert _llm_call("And you?", "gpt-4o-mini")  # another model is another circuit
    house.clock.advance(60)
    assert _get_circuit_breaker("gpt-4o").get_state() == "half_open"
    assert _llm_call("Back?", "gpt-4o")
    assert _llm_call("Really?", "gpt-4o")
    assert _get_circuit_breaker_stats("gpt-4o") == {
        "state": "closed",
        "total_calls": 8,
        "successful_calls": 2,
        "failed_calls": 5,
        "rejected_calls": 1,
        "success_rate": pytest.approx(2 / 7),
        "state_changes": 3,
    }
    errors = _get_llm_stats()["by_model"]["gpt-4o"]
    assert errors["errors_by_type"] == {"service_unavailable": 5, "circuit_open": 1}
    assert errors["errors"] == 6
