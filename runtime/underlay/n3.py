"""The names that N3 generated back ends call: a thin face over one runtime, with the contract's shapes.

    from underlay.n3 import RUNTIME_SETTINGS, _get_cache_stats, _llm_call

    RUNTIME_SETTINGS["llm_cache"]["ttl"] = 600     # before the first call
    _llm_call("Summarise this", "gpt-4o")

The runtime behind them is the process's own (`underlay.instrument()`) where there is one, else one made from
`RUNTIME_SETTINGS` at the first use. The names keep their leading underscore: generated code is written
against them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from dataclasses import dataclass
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypedDict, TypeVar

from underlay import global_runtime
from underlay.core.circuit_breaker import Circuit, Policy, Refusal
from underlay.errors import CircuitOpenError
from underlay.metrics import percentile
from underlay.runtime import CircuitHandle, Runtime, SystemClock
from underlay.stores.memory import MemoryStore
from underlay.telemetry.attributes import CacheResult, TokenType, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from underlay.metrics import ModelStats
    from underlay.pipeline.engine import Clock
    from underlay.settings import Settings

__all__ = [
    "RUNTIME_SETTINGS",
    "_CircuitBreaker",
    "_CircuitBreakerError",
    "_LLMCache",
    "_LLMMetrics",
    "_get_batch_stats",
    "_get_cache_stats",
    "_get_circuit_breaker",
    "_get_circuit_breaker_stats",
    "_get_llm_stats",
    "_llm_call",
    "_reset_circuit_breaker",
    "configure",
]

P = ParamSpec("P")
R = TypeVar("R")

RUNTIME_SETTINGS: dict[str, dict[str, Any]] = {
    "llm_cache": {"enabled": True, "maxsize": 1000, "ttl": 3600},
    "llm_batch": {"enabled": True, "max_batch_size": 10, "batch_timeout_ms": 50.0},
    "circuit_breaker": {
        "enabled": True,
        "failure_threshold": 5,
        "recovery_timeout": 60.0,
        "success_threshold": 2,
    },
}
"""Settings in the classic shape. Change them before the first call; afterwards use `configure`."""

_CircuitBreakerError = CircuitOpenError
"""What `_llm_call` raises when the model's circuit is open."""

_DEFAULT_MODEL: Final = "gpt-4o"
_lock = RLock()
_runtime: Runtime | None = None


def configure(
    settings: Mapping[str, object] | Settings | None = None, *, clock: Clock | None = None
) -> Runtime:
    """Make the runtime behind these names anew, from `settings` or RUNTIME_SETTINGS, and return it.

    Cache, circuits and statistics start empty. Raises SettingsError for wrong settings.
    """
    global _runtime
    with _lock:
        _runtime = Runtime(RUNTIME_SETTINGS if settings is None else settings, clock=clock)
        return _runtime


def _current() -> Runtime:
    with _lock:
        if _runtime is not None:
            return _runtime
        return global_runtime.current() or configure()


def _llm_call(prompt: str, model: str = _DEFAULT_MODEL) -> str:
    """Ask a model and return the answer's text. A second identical call is answered from the cache.

    Raises _CircuitBreakerError when the model's circuit is open, and CallError (UnknownModelError,
    MissingCredentialError, ProviderError) when there is no answer.
    """
    return _current().call(prompt, model=model).text


class CacheStats(TypedDict):
    """Shape of `_get_cache_stats()`; `hit_rate` is 0..1."""

    size: int
    hits: int
    misses: int
    hit_rate: float
    evictions: int


def _get_cache_stats() -> CacheStats:
    """Entries, lookups, hit rate and evictions of the cache."""
    view = _current().cache
    return {
        "size": view.size,
        "hits": view.hits,
        "misses": view.misses,
        "hit_rate": view.hit_rate,
        "evictions": view.evictions,
    }


class ModelStatsDict(TypedDict):
    """Shape of one model in `_get_llm_stats()["by_model"]`; latencies in milliseconds, 0.0 without a
    sample."""

    calls: int
    latency_p50: float
    latency_p95: float
    latency_p99: float
    tokens: int
    errors: int
    errors_by_type: dict[str, int]


class LLMStats(TypedDict):
    """Shape of `_get_llm_stats()` and `_LLMMetrics.get_stats()`; `cache_hit_rate` is 0..1."""

    total_calls: int
    cache_hit_rate: float
    by_model: dict[str, ModelStatsDict]


def _get_llm_stats() -> LLMStats:
    """Calls, latency percentiles of those that a provider answered, tokens and errors, per model."""
    merged: dict[str, list[ModelStats]] = {}
    for (_, model), stats in _current().stats().items():
        merged.setdefault(model, []).append(stats)
    every = [stats for group in merged.values() for stats in group]
    calls = sum(stats.calls for stats in every)
    hits = sum(stats.results[CacheResult.HIT] for stats in every)
    return {
        "total_calls": calls,
        "cache_hit_rate": hits / calls if calls else 0.0,
        "by_model": {model: _model_stats(group) for model, group in merged.items()},
    }


def _model_stats(group: list[ModelStats]) -> ModelStatsDict:
    errors: Counter[str] = sum((stats.errors for stats in group), Counter())
    return _shaped(
        calls=sum(stats.calls for stats in group),
        latencies_ms=[latency * 1000 for stats in group for latency in stats.latencies],
        tokens=sum(stats.tokens[TokenType.INPUT] + stats.tokens[TokenType.OUTPUT] for stats in group),
        errors=dict(errors),
    )


def _shaped(*, calls: int, latencies_ms: list[float], tokens: int, errors: dict[str, int]) -> ModelStatsDict:
    ordered = sorted(latencies_ms)
    return {
        "calls": calls,
        "latency_p50": percentile(ordered, 0.50) or 0.0,
        "latency_p95": percentile(ordered, 0.95) or 0.0,
        "latency_p99": percentile(ordered, 0.99) or 0.0,
        "tokens": tokens,
        "errors": sum(errors.values()),
        "errors_by_type": errors,
    }


class BatchStats(TypedDict):
    """Shape of `_get_batch_stats()`; `max_batch_size` is the configured bound."""

    batches_processed: int
    requests_batched: int
    avg_batch_size: float
    max_batch_size: int


def _get_batch_stats() -> BatchStats:
    """Dispatches of windows. Calls go out one by one yet, so that only the bound is not zero."""
    return {
        "batches_processed": 0,
        "requests_batched": 0,
        "avg_batch_size": 0.0,
        "max_batch_size": _current().settings.llm_batch.max_batch_size,
    }


class _StateReader:
    """What `_get_circuit_breaker` returns."""

    def __init__(self, circuit: CircuitHandle) -> None:
        self._circuit = circuit

    def get_state(self) -> str:
        """`closed`, `open` or `half_open`, by the clock: due means `half_open`."""
        return self._circuit.state


def _get_circuit_breaker(model: str) -> _StateReader:
    """The circuit breaker of a model."""
    return _StateReader(_current().circuit(model))


def _reset_circuit_breaker(model: str) -> None:
    """Close a model's circuit by hand."""
    _current().circuit(model).reset()


class CircuitStats(TypedDict):
    """Shape of `_get_circuit_breaker_stats()`; `success_rate` is 0..1 of the calls that said anything, 1.0
    without one."""

    state: str
    total_calls: int
    successful_calls: int
    failed_calls: int
    rejected_calls: int
    success_rate: float
    state_changes: int


def _get_circuit_breaker_stats(model: str) -> CircuitStats:
    """State and totals of a model's circuit. `total_calls` counts refused calls as well."""
    view = _current().circuit(model).view()
    counts = view.counts
    judged = counts.successes + counts.failures
    return {
        "state": view.state.value,
        "total_calls": judged + counts.nothings + counts.refusals,
        "successful_calls": counts.successes,
        "failed_calls": counts.failures,
        "rejected_calls": counts.refusals,
        "success_rate": counts.successes / judged if judged else 1.0,
        "state_changes": counts.transitions,
    }


@dataclass(frozen=True, slots=True)
class _Kept:
    """One response in `_LLMCache`."""

    response: Any
    stored_at: float
    ttl: float
    size: int = 1


class _LLMCache:
    """The classic cache as an object: least recently used out first, `ttl` in seconds, safe under threads.

    Raises ValueError for a `maxsize` below 1 or a `ttl` that is not above 0.
    """

    def __init__(self, maxsize: int = 1000, ttl: float = 3600, *, clock: Clock | None = None) -> None:
        if maxsize < 1:
            raise ValueError(f"_LLMCache: maxsize = {maxsize}: allowed is 1 or more")
        if not ttl > 0:
            raise ValueError(f"_LLMCache: ttl = {ttl}: allowed is a number of seconds above 0")
        self._ttl = float(ttl)
        self._clock = clock or SystemClock()
        self._store: MemoryStore[_Kept] = MemoryStore(maxsize, maxsize)
        self._lock = Lock()
        self._lookups: Counter[bool] = Counter()

    def put(self, prompt: str, model: str, params: Mapping[str, Any] | None, response: Any) -> None:
        """Keep a response."""
        now = self._clock.now()
        self._store.put(_key(prompt, model, params), _Kept(response, now, self._ttl), now)

    def get(self, prompt: str, model: str, params: Mapping[str, Any] | None) -> Any:
        """The response, or None when there is none or its time is over."""
        kept = self._store.get(_key(prompt, model, params), self._clock.now())
        with self._lock:
            self._lookups[kept is not None] += 1
        return kept.response if kept is not None else None

    def get_stats(self) -> CacheStats:
        """Same shape as `_get_cache_stats()`."""
        counts = self._store.counts()
        with self._lock:
            hits, misses = self._lookups[True], self._lookups[False]
        rate = hits / (hits + misses) if hits + misses else 0.0
        return {
            "size": counts.entries,
            "hits": hits,
            "misses": misses,
            "hit_rate": rate,
            "evictions": counts.evictions,
        }


def _key(prompt: str, model: str, params: Mapping[str, Any] | None) -> bytes:
    """SHA-256 of prompt, model and parameters; the parameters' order does not matter, their types do."""
    text = json.dumps(
        [prompt, model, dict(params or {})], sort_keys=True, separators=(",", ":"), default=repr
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class _CircuitBreaker:
    """The classic breaker as an object around any callable, safe under threads. Times are seconds."""

    def __init__(
        self,
        failure_threshold: int = 5,
        recovery_timeout: float = 60.0,
        success_threshold: int = 2,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._lock = Lock()
        policy = Policy(failure_threshold, recovery_timeout, success_threshold)
        self._circuit = Circuit(policy, self._clock.now())

    def call(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn`. What it raises is raised on and counts as a failure. Raises _CircuitBreakerError when
        open."""
        with self._lock:
            permit, _ = self._circuit.admit(self._clock.now())
            if isinstance(permit, Refusal):
                self._circuit.refused()
        if isinstance(permit, Refusal):
            raise CircuitOpenError("callable", getattr(fn, "__qualname__", "callable"), permit.retry_after)
        # Whatever ends the call, the probe's slot comes back: a cancel says nothing about the callable.
        verdict = Verdict.NOTHING
        try:
            result = fn(*args, **kwargs)
            verdict = Verdict.SUCCESS
        except Exception:
            verdict = Verdict.FAILURE
            raise
        finally:
            with self._lock:
                self._circuit.settle(permit, verdict, self._clock.now())
        return result

    def get_state(self) -> str:
        """`closed`, `open` or `half_open`, by the clock."""
        with self._lock:
            return self._circuit.state(self._clock.now()).value

    def reset(self) -> None:
        """Close it by hand."""
        with self._lock:
            self._circuit.reset(self._clock.now())


class _LLMMetrics:
    """The classic statistics as an object: record calls, read percentiles. Safe under threads.

    Percentiles are exact over the last `window` latencies of each model; cached calls have none. `clock` is
    taken for symmetry with the other classic objects: nothing here reads the time.
    """

    def __init__(self, *, clock: Clock | None = None, window: int = 2048) -> None:
        self._clock = clock
        self._window = window
        self._lock = Lock()
        self._calls: Counter[str] = Counter()
        self._hits = 0
        self._tokens: Counter[str] = Counter()
        self._latencies: dict[str, deque[float]] = {}
        self._errors: dict[str, Counter[str]] = {}

    def record_call(
        self, model: str, latency_ms: float, tokens: int, cached: bool, error: str | None = None
    ) -> None:
        """One call: its latency in milliseconds, its tokens (input and output), whether the cache answered,
        its kind of error."""
        with self._lock:
            self._calls[model] += 1
            self._hits += bool(cached)
            if not cached:
                self._tokens[model] += tokens
                self._latencies.setdefault(model, deque(maxlen=self._window)).append(float(latency_ms))
            if error is not None:
                self._errors.setdefault(model, Counter())[error] += 1

    def get_stats(self) -> LLMStats:
        """Same shape as `_get_llm_stats()`."""
        with self._lock:
            total = sum(self._calls.values())
            return {
                "total_calls": total,
                "cache_hit_rate": self._hits / total if total else 0.0,
                "by_model": {
                    model: _shaped(
                        calls=calls,
                        latencies_ms=list(self._latencies.get(model, ())),
                        tokens=self._tokens[model],
                        errors=dict(self._errors.get(model, ())),
                    )
                    for model, calls in self._calls.items()
                },
            }
