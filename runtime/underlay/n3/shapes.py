"""The shapes of the N3 statistics, and how the runtime's own numbers are put into them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypedDict

from underlay.metrics import percentile
from underlay.telemetry.attributes import CacheResult, TokenType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from underlay.core.circuit_breaker import Counts
    from underlay.metrics import ModelStats

__all__ = [
    "BatchStats",
    "CacheStats",
    "CircuitStats",
    "LLMStats",
    "ModelCounts",
    "batch_stats",
    "cache_stats",
    "circuit_stats",
    "llm_stats",
]


class CacheStats(TypedDict):
    """Shape of `_get_cache_stats()`: entries now; lookups that hit or missed and entries pushed out, since
    the start; `hit_rate` is hits per lookup, 0..1."""

    size: int
    hits: int
    misses: int
    hit_rate: float
    evictions: int


class ModelCounts(TypedDict):
    """Shape of one model in `_get_llm_stats()["by_model"]`.

    Latencies are milliseconds of the calls that a provider answered, 0.0 without one. `tokens` are input and
    output together.
    """

    calls: int
    latency_p50: float
    latency_p95: float
    latency_p99: float
    tokens: int
    errors: int
    errors_by_type: dict[str, int]


class LLMStats(TypedDict):
    """Shape of `_get_llm_stats()` and `_LLMMetrics.get_stats()`; `cache_hit_rate` is hits per call, 0..1."""

    total_calls: int
    cache_hit_rate: float
    by_model: dict[str, ModelCounts]


class BatchStats(TypedDict):
    """Shape of `_get_batch_stats()`: windows that left, the calls in them, and calls per window (0.0 without
    one); `max_batch_size` is the configured bound, not the largest batch seen."""

    batches_processed: int
    requests_batched: int
    avg_batch_size: float
    max_batch_size: int


class CircuitStats(TypedDict):
    """Shape of `_get_circuit_breaker_stats()`.

    `total_calls` are those that came to the circuit: sent ones, of which some say nothing of the provider (a
    cancel, a 400), and refused ones. `success_rate` is 0..1 of those that say something, 1.0 without one.
    """

    state: str
    total_calls: int
    successful_calls: int
    failed_calls: int
    rejected_calls: int
    success_rate: float
    state_changes: int


def cache_stats(size: int, hits: int, misses: int, evictions: int) -> CacheStats:
    """The shape of a cache's numbers."""
    lookups = hits + misses
    return {
        "size": size,
        "hits": hits,
        "misses": misses,
        "hit_rate": hits / lookups if lookups else 0.0,
        "evictions": evictions,
    }


def batch_stats(models: Iterable[ModelStats], *, bound: int) -> BatchStats:
    """The shape of the dispatches of all models together; `bound` is the configured `max_batch_size`."""
    batches = calls = 0
    for stats in models:
        batches += stats.batches.total()
        calls += stats.batched.total()
    return {
        "batches_processed": batches,
        "requests_batched": calls,
        "avg_batch_size": calls / batches if batches else 0.0,
        "max_batch_size": bound,
    }


def circuit_stats(state: str, counts: Counts) -> CircuitStats:
    """The shape of a circuit's state and totals."""
    judged = counts.successes + counts.failures
    return {
        "state": state,
        "total_calls": judged + counts.nothings + counts.refusals,
        "successful_calls": counts.successes,
        "failed_calls": counts.failures,
        "rejected_calls": counts.refusals,
        "success_rate": counts.successes / judged if judged else 1.0,
        "state_changes": counts.transitions,
    }


def llm_stats(models: Mapping[tuple[str, str], ModelStats], *, milliseconds: float) -> LLMStats:
    """The shape of statistics per (provider, model); the providers of one model are taken together.

    `milliseconds` says how many of them one unit of the latencies is.
    """
    grouped: dict[str, list[ModelStats]] = {}
    for (_, model), stats in models.items():
        grouped.setdefault(model, []).append(stats)
    calls = sum(stats.calls for stats in models.values())
    hits = sum(stats.results[CacheResult.HIT] for stats in models.values())
    return {
        "total_calls": calls,
        "cache_hit_rate": hits / calls if calls else 0.0,
        "by_model": {model: _model_counts(group, milliseconds) for model, group in grouped.items()},
    }


def _model_counts(group: Iterable[ModelStats], milliseconds: float) -> ModelCounts:
    calls = tokens = 0
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    for stats in group:
        calls += stats.calls
        tokens += stats.tokens[TokenType.INPUT] + stats.tokens[TokenType.OUTPUT]
        latencies += [latency * milliseconds for latency in stats.latencies]
        errors += stats.errors
    latencies.sort()
    return {
        "calls": calls,
        "latency_p50": percentile(latencies, 0.50) or 0.0,
        "latency_p95": percentile(latencies, 0.95) or 0.0,
        "latency_p99": percentile(latencies, 0.99) or 0.0,
        "tokens": tokens,
        "errors": errors.total(),
        "errors_by_type": dict(errors),
    }
