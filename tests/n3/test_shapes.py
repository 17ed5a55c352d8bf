"""Every name of the contract, with its shape."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from underlay import n3
from underlay.errors import CircuitOpenError
from underlay.settings import load
from underlay.telemetry.attributes import BatchMode, BatchTrigger
from underlay.telemetry.events import BatchStarted

from .conftest import House

CACHE = {"size": int, "hits": int, "misses": int, "hit_rate": float, "evictions": int}
LLM = {"total_calls": int, "cache_hit_rate": float, "by_model": dict}
MODEL = {
    "calls": int,
    "latency_p50": float,
    "latency_p95": float,
    "latency_p99": float,
    "tokens": int,
    "errors": int,
    "errors_by_type": dict,
}
BATCH = {"batches_processed": int, "requests_batched": int, "avg_batch_size": float, "max_batch_size": int}
CIRCUIT = {
    "state": str,
    "total_calls": int,
    "successful_calls": int,
    "failed_calls": int,
    "rejected_calls": int,
    "success_rate": float,
    "state_changes": int,
}


def recorded() -> dict[str, Any]:
    """Statistics of one recorded call."""
    metrics = n3._LLMMetrics()
    metrics.record_call("gpt-4o", 100, 10, False)
    return dict(metrics.get_stats())


SHAPES = [
    pytest.param(n3._get_cache_stats, CACHE, id="_get_cache_stats"),
    pytest.param(lambda: n3._LLMCache().get_stats(), CACHE, id="_LLMCache.get_stats"),
    pytest.param(n3._get_llm_stats, LLM, id="_get_llm_stats"),
    pytest.param(recorded, LLM, id="_LLMMetrics.get_stats"),
    pytest.param(lambda: n3._get_llm_stats()["by_model"]["gpt-4o"], MODEL, id="by_model"),
    pytest.param(lambda: recorded()["by_model"]["gpt-4o"], MODEL, id="_LLMMetrics by_model"),
    pytest.param(n3._get_batch_stats, BATCH, id="_get_batch_stats"),
    pytest.param(lambda: n3._get_circuit_breaker_stats("gpt-4o"), CIRCUIT, id="_get_circuit_breaker_stats"),
    pytest.param(lambda: n3._CircuitBreaker().get_stats(), CIRCUIT, id="_CircuitBreaker.get_stats"),
]


@pytest.mark.parametrize(("read", "shape"), SHAPES)
def test_statistics_have_the_contracts_shape(
    house: House, read: Callable[[], dict[str, Any]], shape: dict[str, type]
) -> None:
    """The keys and the types of their values are the contract's, no more and no fewer."""
    n3._llm_call("Hello", "gpt-4o")
    assert {name: type(value) for name, value in read().items()} == shape


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_llm_call", ["prompt", "model"]),
        ("_get_cache_stats", []),
        ("_get_llm_stats", []),
        ("_get_batch_stats", []),
        ("_get_circuit_breaker", ["model"]),
        ("_reset_circuit_breaker", ["model"]),
        ("_get_circuit_breaker_stats", ["model"]),
        ("_LLMCache", ["maxsize=1000", "ttl=3600"]),
        ("_CircuitBreaker", ["failure_threshold=5", "recovery_timeout=60.0", "success_threshold=2"]),
        ("_LLMMetrics", []),
    ],
)
def test_arguments_are_the_contracts(name: str, parameters: list[str]) -> None:
    """Names, order and defaults of what can be given by position."""
    given = inspect.signature(getattr(n3, name)).parameters.values()
    by_position = [each for each in given if each.kind is each.POSITIONAL_OR_KEYWORD]
    found = [
        each.name if each.default is each.empty or name == "_llm_call" else f"{each.name}={each.default}"
        for each in by_position
    ]
    assert found == parameters


@pytest.mark.parametrize("name", ["_LLMCache", "_CircuitBreaker", "_LLMMetrics"])
def test_the_clock_is_given_by_keyword_only(name: str) -> None:
    """The classic objects take a clock beside the classic arguments."""
    clock = inspect.signature(getattr(n3, name)).parameters["clock"]
    assert (clock.kind, clock.default) == (clock.KEYWORD_ONLY, None)


def test_a_model_that_was_never_called(house: House) -> None:
    """Statistics before the first call are zeros and a closed circuit, with the configured bound."""
    assert n3._get_cache_stats() == {"size": 0, "hits": 0, "misses": 0, "hit_rate": 0.0, "evictions": 0}
    assert n3._get_llm_stats() == {"total_calls": 0, "cache_hit_rate": 0.0, "by_model": {}}
    assert n3._get_circuit_breaker("gpt-4o").get_state() == "closed"
    assert n3._get_circuit_breaker_stats("gpt-4o") == {
        "state": "closed",
        "total_calls": 0,
        "successful_calls": 0,
        "failed_calls": 0,
        "rejected_calls": 0,
        "success_rate": 1.0,
        "state_changes": 0,
    }
    assert n3._get_batch_stats() == {
        "batches_processed": 0,
        "requests_batched": 0,
        "avg_batch_size": 0.0,
        "max_batch_size": 10,
    }


def test_dispatches_of_all_models_are_taken_together(house: House) -> None:
    """Windows that left and the calls in them are summed over models, modes and triggers; the bound stays the
    configured one."""
    for model, mode, calls in (
        ("gpt-4o", BatchMode.RELEASED, 10),
        ("gpt-4o", BatchMode.RELEASED, 4),
        ("text-embedding-3-small", BatchMode.MERGED, 1),
    ):
        house.runtime.engine.watch.dispatch(
            BatchStarted(
                "openai", "chat", model, mode, BatchTrigger.TIME, (b"",) * calls, calls, calls, 10, 0.05
            )
        )
    assert n3._get_batch_stats() == {
        "batches_processed": 3,
        "requests_batched": 15,
        "avg_batch_size": 5.0,
        "max_batch_size": 10,
    }


def test_a_star_import_brings_every_name() -> None:
    """`from underlay.n3 import *` has the underscored names too."""
    namespace: dict[str, Any] = {}
    exec("from underlay.n3 import *", namespace)
    assert set(n3.__all__) <= set(namespace)


def test_the_error_is_the_runtimes_own() -> None:
    """`_CircuitBreakerError` is what `_llm_call` raises when the circuit is open."""
    assert n3._CircuitBreakerError is CircuitOpenError


def test_the_settings_are_the_contract_verbatim() -> None:
    """RUNTIME_SETTINGS has the contract's keys and values, and loads as it stands."""
    assert n3.RUNTIME_SETTINGS == {
        "llm_cache": {"enabled": True, "maxsize": 1000, "ttl": 3600},
        "llm_batch": {"enabled": True, "max_batch_size": 10, "batch_timeout_ms": 50.0},
        "circuit_breaker": {
            "enabled": True,
            "failure_threshold": 5,
            "recovery_timeout": 60.0,
            "success_threshold": 2,
        },
    }
    assert load(n3.RUNTIME_SETTINGS, environ={}).settings == load(environ={}).settings
