"""The classic test list of the N3 contract, each restated with the fake clock, and what its tests look at."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from underlay.errors import MissingCredentialError, ProviderError, UnknownModelError
from underlay.n3 import (
    RUNTIME_SETTINGS,
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
    _reset_circuit_breaker,
)
from underlay.settings import load
from underlay.telemetry.events import AttemptEnded, CallEnded
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
    metrics = _LLMMetrics()
    for latency in (100, 200, 300, 400, 500):
        metrics.record_call("gpt-4", latency, 100, False)
    stats = metrics.get_stats()["by_model"]["gpt-4"]
    assert (stats["latency_p50"], stats["latency_p95"], stats["latency_p99"]) == (300, 480, 496)
    assert (stats["calls"], stats["tokens"]) == (5, 500)


@pytest.mark.xfail(reason="windows come with flights and windows", strict=True)
def test_4_batching(house: House) -> None:
    """Ten concurrent calls are collected into one dispatch, and the statistics say so."""
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda n: _llm_call(f"prompt {n}", "gpt-4o"), range(10)))
    assert _get_batch_stats() == {
        "batches_processed": 1,
        "requests_batched": 10,
        "avg_batch_size": 10.0,
        "max_batch_size": 10,
    }


def test_5_breaker_opens() -> None:
    """Three raising calls at a threshold of three open the breaker."""
    breaker = _CircuitBreaker(failure_threshold=3, clock=FakeClock())
    for _ in range(3):
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
    first = _llm_call("What is a cache?", "gpt-4o")
    assert _llm_call("What is a cache?", model="gpt-4o") == first
    other = _llm_call("What is a circuit breaker?", "claude-sonnet-5-5")
    assert other
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
    for model, calls in (("gpt-4o", 2), ("claude-sonnet-5-5", 1)):
        assert stats["by_model"][model] == {
            "calls": calls,
            "latency_p50": 0.0,
            "latency_p95": 0.0,
            "latency_p99": 0.0,
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


@pytest.mark.xfail(reason="windows come with flights and windows", strict=True)
def test_7_full_pipeline_batching(house: House) -> None:
    """Batching is in the same path."""
    _llm_call("What is a window?", "gpt-4o")
    assert _get_batch_stats()["batches_processed"] == 1


def test_8_provider_failover(house: House) -> None:
    """An outage opens the circuit, callers are refused without reaching the provider, recovery closes it."""
    with house.simulator.outage("gpt-4o"):
        for n in range(5):
            with pytest.raises(ProviderError):
                _llm_call(f"Down {n}?", "gpt-4o")
        assert _get_circuit_breaker("gpt-4o").get_state() == "open"
        sent = house.upstream
        with pytest.raises(_CircuitBreakerError) as refused:
            _llm_call("Still down?", "gpt-4o")
        assert refused.value.retry_after == 60
        assert house.upstream == sent == 5
    assert _llm_call("And you?", "gpt-4o-mini")  # another model is another circuit
    house.clock.advance(60)
    assert _get_circuit_breaker("gpt-4o").get_state() == "half_open"
    _llm_call("Back?", "gpt-4o")
    _llm_call("Really?", "gpt-4o")
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


def test_the_least_recently_used_goes_first() -> None:
    """When full, the entry that was not asked for is the one to go."""
    cache = _LLMCache(maxsize=2)
    cache.put("a", "m", {}, 1)
    cache.put("b", "m", {}, 2)
    assert cache.get("a", "m", {}) == 1
    cache.put("c", "m", {}, 3)
    assert [cache.get(name, "m", {}) for name in "abc"] == [1, None, 3]
    assert cache.get_stats() == {"size": 2, "hits": 3, "misses": 1, "hit_rate": 0.75, "evictions": 1}


def test_the_key_is_prompt_model_and_parameters() -> None:
    """Another model or another value is another entry; another order of the parameters is not; 1 and "1" differ."""
    cache = _LLMCache()
    cache.put("p", "m", {"a": 1, "b": 2}, "kept")
    assert cache.get("p", "m", {"b": 2, "a": 1}) == "kept"
    assert cache.get("p", "n", {"a": 1, "b": 2}) is None
    assert cache.get("p", "m", {"a": "1", "b": 2}) is None
    assert cache.get("p", "m", {}) is None


@pytest.mark.parametrize(("settings", "field"), [({"maxsize": 0}, "maxsize = 0"), ({"ttl": 0}, "ttl = 0")])
def test_a_wrong_bound_is_named(settings: dict[str, Any], field: str) -> None:
    """A cache that could hold nothing is an error that names the field and what is allowed."""
    with pytest.raises(ValueError, match=field):
        _LLMCache(**settings)


def test_the_cache_is_safe_under_threads() -> None:
    """Eight threads lose and invent nothing, and the bound holds."""
    cache = _LLMCache(maxsize=50)
    start = threading.Barrier(8)

    def work(thread: int) -> None:
        start.wait()
        for n in range(500):
            cache.put(f"{n % 80}", "m", {}, n % 80)
            found = cache.get(f"{n % 80}", "m", {})
            assert found in (None, n % 80)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    stats = cache.get_stats()
    assert stats["size"] == 50
    assert stats["hits"] + stats["misses"] == 4000


def test_a_half_open_breaker_opens_again_on_one_failure() -> None:
    """One failed probe is enough."""
    clock = FakeClock()
    breaker = _CircuitBreaker(failure_threshold=1, recovery_timeout=60, clock=clock)
    with pytest.raises(ConnectionError):
        breaker.call(boom)
    clock.advance(60)
    with pytest.raises(ConnectionError):
        breaker.call(boom)
    assert breaker.get_state() == "open"


def test_an_interrupted_probe_gives_its_slot_back() -> None:
    """A KeyboardInterrupt in a probe says nothing, and the next caller may probe."""
    clock = FakeClock()
    breaker = _CircuitBreaker(failure_threshold=1, recovery_timeout=60, success_threshold=1, clock=clock)
    with pytest.raises(ConnectionError):
        breaker.call(boom)
    clock.advance(60)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaker.call(interrupted)
    assert breaker.call(lambda: "ok") == "ok"
    assert breaker.get_state() == "closed"


def test_call_passes_arguments_and_returns_the_result() -> None:
    """`call(fn, *args, **kwargs)` is `fn(*args, **kwargs)`."""
    assert _CircuitBreaker().call(int, "ff", base=16) == 255


def test_reset_closes_an_open_circuit(house: House) -> None:
    """`_reset_circuit_breaker` lets the next call through."""
    with house.simulator.outage("gpt-4o"):
        for n in range(5):
            with pytest.raises(ProviderError):
                _llm_call(f"Down {n}?", "gpt-4o")
    _reset_circuit_breaker("gpt-4o")
    assert _get_circuit_breaker("gpt-4o").get_state() == "closed"
    assert _llm_call("Up?", "gpt-4o")


def test_a_hit_counts_no_latency_and_no_tokens(house: House) -> None:
    """Percentiles and tokens are those of calls that a provider answered."""
    _llm_call("Once", "gpt-4o")
    before = _get_llm_stats()["by_model"]["gpt-4o"]
    for _ in range(9):
        _llm_call("Once", "gpt-4o")
    after = _get_llm_stats()["by_model"]["gpt-4o"]
    assert (after["calls"], after["tokens"]) == (10, before["tokens"])
    assert len(next(iter(house.runtime.stats().values())).latencies) == 1
    assert [call.of(CallEnded)[0].result for call in house.recorder.calls] == ["miss"] + ["hit"] * 9


def test_metrics_by_kind_of_error_and_hit_rate() -> None:
    """Errors are counted by kind, hits as a rate between 0 and 1."""
    metrics = _LLMMetrics()
    metrics.record_call("gpt-4", 120, 10, True)
    metrics.record_call("gpt-4", 100, 10, False, error="timeout")
    stats = metrics.get_stats()
    assert (stats["total_calls"], stats["cache_hit_rate"]) == (2, 0.5)
    assert stats["by_model"]["gpt-4"]["errors_by_type"] == {"timeout": 1}
    assert stats["by_model"]["gpt-4"]["tokens"] == 10


def test_batch_stats_show_the_configured_bound(house: House) -> None:
    """`max_batch_size` is the setting."""
    assert _get_batch_stats()["max_batch_size"] == 10


def test_the_settings_are_the_contract_verbatim() -> None:
    """RUNTIME_SETTINGS has the contract's keys and values, and loads as it stands."""
    assert RUNTIME_SETTINGS == {
        "llm_cache": {"enabled": True, "maxsize": 1000, "ttl": 3600},
        "llm_batch": {"enabled": True, "max_batch_size": 10, "batch_timeout_ms": 50.0},
        "circuit_breaker": {
            "enabled": True,
            "failure_threshold": 5,
            "recovery_timeout": 60.0,
            "success_threshold": 2,
        },
    }
    assert load(RUNTIME_SETTINGS, environ={}).settings == load(environ={}).settings


def test_what_cannot_be_asked_is_said(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown model and a missing key are errors that say what to do."""
    with pytest.raises(UnknownModelError, match="model 'mystery-1'"):
        _llm_call("Hello", "mystery-1")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(MissingCredentialError, match="OPENAI_API_KEY is not set"):
        _llm_call("Hello", "gpt-4o")
    assert house.upstream == 0
