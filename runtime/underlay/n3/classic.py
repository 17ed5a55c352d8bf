"""The classic N3 objects, each over the part of the runtime that does its work: memory store, circuit,
statistics.

All are safe under threads. In a fork child the cache keeps its entries; breaker and counts start anew there,
as those of a runtime do.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import weakref
from collections import Counter
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from underlay.core.circuit_breaker import Circuit, Policy, Refusal
from underlay.errors import CircuitOpenError
from underlay.metrics import Statistics
from underlay.n3.shapes import cache_stats, circuit_stats, llm_stats
from underlay.runtime import SystemClock
from underlay.settings import CacheSettings, CircuitBreakerSettings, StatisticsSettings
from underlay.stores.memory import MemoryStore
from underlay.telemetry.attributes import CacheResult, Ending, Verdict
from underlay.telemetry.events import AttemptEnded, CallEnded, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from underlay.n3.shapes import CacheStats, CircuitStats, LLMStats
    from underlay.pipeline.engine import Clock

__all__ = ["_CircuitBreaker", "_LLMCache", "_LLMMetrics"]

P = ParamSpec("P")
R = TypeVar("R")


class _Forkable(Protocol):
    def _forked(self) -> None: ...


_made: weakref.WeakSet[_Forkable] = weakref.WeakSet()


def _after_fork() -> None:
    for thing in list(_made):
        thing._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True, slots=True)
class _Kept:
    """One response in `_LLMCache`."""

    response: Any
    stored_at: float
    ttl: float
    size: int = 1


class _LLMCache:
    """The classic cache: at most `maxsize` responses, each for `ttl` seconds, least recently used out first.

    The key is the SHA-256 of prompt, model and parameters as a provider would be sent them. Raises
    SettingsError (a ValueError) for a bound that is not allowed.
    """

    def __init__(self, maxsize: int = 1000, ttl: float = 3600, *, clock: Clock | None = None) -> None:
        settings = CacheSettings(maxsize=maxsize, ttl=ttl)
        self._ttl = settings.ttl
        self._clock = clock or SystemClock()
        self._store: MemoryStore[_Kept] = MemoryStore(settings.maxsize, settings.maxsize)
        self._start()
        _made.add(self)

    def put(self, prompt: Any, model: str, params: Mapping[str, Any] | None, response: Any) -> None:
        """Keep a response, the object itself. Raises TypeError for parameters that JSON cannot carry."""
        now = self._clock.now()
        self._store.put(_key(prompt, model, params), _Kept(response, now, self._ttl), now)

    def get(self, prompt: Any, model: str, params: Mapping[str, Any] | None) -> Any:
        """The response, or None when there is none or its time is over. Raises TypeError as `put` does."""
        kept = self._store.get(_key(prompt, model, params), self._clock.now())
        with self._lock:
            self._lookups[kept is not None] += 1
        return kept.response if kept is not None else None

    def get_stats(self) -> CacheStats:
        """Same shape as `_get_cache_stats()`."""
        counts = self._store.counts()
        with self._lock:
            return cache_stats(counts.entries, self._lookups[True], self._lookups[False], counts.evictions)

    def _start(self) -> None:
        self._lock = Lock()
        self._lookups: Counter[bool] = Counter()

    def _forked(self) -> None:
        self._store = self._store.forked()
        self._start()


def _key(prompt: Any, model: str, params: Mapping[str, Any] | None) -> bytes:
    """SHA-256 of the three as JSON. The order of the parameters is irrelevant; within one it counts, because
    structured output follows the order of its schema."""
    named = sorted((params or {}).items(), key=lambda item: str(item[0]))
    try:
        # Not escaped to ASCII: that would write a character and the two halves of its surrogate pair alike.
        text = json.dumps([prompt, model, named], ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"_LLMCache: {_unkeyable(prompt, model, named)}: allowed is what JSON can carry"
        ) from error
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _unkeyable(prompt: Any, model: Any, named: list[tuple[Any, Any]]) -> str:
    """Which argument has no JSON form, by its name and type; values may be private."""
    for name, value in (("prompt", prompt), ("model", model), *((f"params[{n!r}]", v) for n, v in named)):
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return f"{name} = {type(value).__name__}"
    return "params"


class _CircuitBreaker:
    """The classic breaker around any callable. `failure_threshold` failures in a row open it, after
    `recovery_timeout` seconds one probe at a time is let through, `success_threshold` successes close it.

    Raises SettingsError (a ValueError) for a bound that is not allowed.
    """

    def __init__(
        self,
        failure_threshold: int = 5,
        recovery_timeout: float = 60.0,
        success_threshold: int = 2,
        *,
        clock: Clock | None = None,
    ) -> None:
        bounds = CircuitBreakerSettings(
            failure_threshold=failure_threshold,
            recovery_timeout=recovery_timeout,
            success_threshold=success_threshold,
        )
        self._policy = Policy(
            bounds.failure_threshold, bounds.recovery_timeout, bounds.success_threshold, bounds.probe_timeout
        )
        self._clock = clock or SystemClock()
        self._forked()
        _made.add(self)

    def call(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn`. What it raises counts as a failure and is raised on.

        Raises _CircuitBreakerError, without calling, when open; TypeError for a coroutine function, whose
        outcome would go unseen (`Runtime.protect` takes those).
        """
        if inspect.iscoroutinefunction(fn):
            raise TypeError("_CircuitBreaker.call: fn is a coroutine function: allowed is a plain callable")
        circuit = self._circuit
        with self._lock:
            permit, _ = circuit.admit(self._clock.now())
            if isinstance(permit, Refusal):
                circuit.refused()
        if isinstance(permit, Refusal):
            raise CircuitOpenError("callable", getattr(fn, "__qualname__", "callable"), permit.retry_after)
        # Whatever ends the call, the probe's slot comes back: an interrupt says nothing about the callable.
        verdict = Verdict.NOTHING
        try:
            result = fn(*args, **kwargs)
            verdict = Verdict.SUCCESS
        except Exception:
            verdict = Verdict.FAILURE
            raise
        finally:
            with self._lock:
                circuit.settle(permit, verdict, self._clock.now())
        return result

    def get_state(self) -> str:
        """`closed`, `open` or `half_open`, by the clock: due means `half_open`."""
        with self._lock:
            return self._circuit.state(self._clock.now()).value

    def get_stats(self) -> CircuitStats:
        """Same shape as `_get_circuit_breaker_stats()`."""
        with self._lock:
            return circuit_stats(self._circuit.state(self._clock.now()).value, self._circuit.counts)

    def reset(self) -> None:
        """Close it by hand. Calls under way settle nothing afterwards."""
        with self._lock:
            self._circuit.reset(self._clock.now())

    def _forked(self) -> None:
        self._lock = Lock()
        self._circuit = Circuit(self._policy, self._clock.now())


class _LLMMetrics:
    """The classic statistics: record calls, read percentiles, exact over the last 2048 answers of a model.

    `clock` is taken as by the other classic objects; nothing here reads the time.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        del clock
        self._statistics = Statistics(StatisticsSettings())
        _made.add(self)

    def record_call(
        self, model: str, latency_ms: float, tokens: int, cached: bool, error: str | None = None
    ) -> None:
        """One call: latency in milliseconds, tokens (input and output), whether the cache answered, the kind
        of error where there was no answer.

        A cached call spends no tokens, and only an answer of the provider has a latency: those of other
        calls are not counted. Raises ValueError for a latency or tokens below 0.
        """
        for name, value in (("latency_ms", latency_ms), ("tokens", tokens)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"_LLMMetrics.record_call: {name} = {value}: allowed is 0 or more")
        counting = self._statistics.counting("", model)
        if not cached:
            verdict = Verdict.SUCCESS if error is None else Verdict.FAILURE
            spent = AttemptEnded(1, latency_ms, verdict, usage=Usage(output_tokens=tokens))
            counting.event(spent)
        result = CacheResult.HIT if cached else CacheResult.MISS
        status = 200 if error is None else None
        ended = CallEnded(result, Ending.COMPLETE, float(latency_ms), status, error or "")
        counting.event(ended)

    def get_stats(self) -> LLMStats:
        """Same shape as `_get_llm_stats()`."""
        # Kept in the unit that they came in: by way of seconds, 1001 would read 1000.9999999999999.
        return llm_stats(self._statistics.models(), milliseconds=1)

    def _forked(self) -> None:
        self._statistics.forked()
