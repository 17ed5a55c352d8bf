"""The names that N3 generated back ends call: a thin face over one runtime, with the contract's shapes.

    from underlay.n3 import RUNTIME_SETTINGS, _get_cache_stats, _llm_call

    RUNTIME_SETTINGS["llm_cache"]["ttl"] = 600     # before the first call
    _llm_call("Summarise this", "gpt-4o")

The runtime behind them is the process's own (`underlay.instrument()`, `underlay run`) where there is one,
else one made from `RUNTIME_SETTINGS` at the first use. The names keep their leading underscore: generated
code is written against them.
"""

from __future__ import annotations

import copy
import logging
import os
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from underlay import global_runtime
from underlay.errors import CircuitOpenError
from underlay.n3.classic import _CircuitBreaker, _LLMCache, _LLMMetrics
from underlay.n3.shapes import batch_stats, cache_stats, circuit_stats, llm_stats
from underlay.runtime import CircuitHandle, Runtime
from underlay.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from underlay.n3.shapes import BatchStats, CacheStats, CircuitStats, LLMStats
    from underlay.pipeline.engine import Clock

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
    "reset",
]

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
"""Settings in the classic shape. Read at the first use; afterwards `configure` makes the runtime anew."""

_CLASSIC: Final = copy.deepcopy(RUNTIME_SETTINGS)

_CircuitBreakerError = CircuitOpenError
"""What `_llm_call` raises when the model's circuit is open."""

_DEFAULT_MODEL: Final = "gpt-4o"
_log = logging.getLogger("underlay")
_lock = RLock()
_runtime: Runtime | None = None
_told = False


def configure(
    settings: Mapping[str, object] | Settings | None = None, *, clock: Clock | None = None
) -> Runtime:
    """Make the runtime behind these names anew, from `settings` or RUNTIME_SETTINGS, and return it.

    Cache, circuits and statistics start empty; calls under way end on the runtime that they began on. What
    RUNTIME_SETTINGS leaves as it was is left to environment and file. Windows are those of the classic
    description (`llm_batch.linger: fixed`) unless a setting says otherwise. Raises SettingsError for wrong
    settings.
    """
    global _runtime
    with _lock:
        _runtime = Runtime(_classic(_changed() if settings is None else settings), clock=clock)
        return _runtime


def reset() -> None:
    """Forget the runtime that `configure` or the first use made, and close its connections: for tests, and
    when no call is under way. The next use chooses anew."""
    global _runtime, _told
    with _lock:
        runtime, _runtime, _told = _runtime, None, False
    if runtime is not None:
        runtime.close()


def _current() -> Runtime:
    """The configured runtime, else the process's own, else one made here and now."""
    if _runtime is not None:
        return _runtime
    with _lock:
        if _runtime is not None:
            return _runtime
        shared = global_runtime.current()
        if shared is None:
            return configure()
        _say_ignored(shared)
        return shared


def _changed() -> dict[str, object]:
    """What the app changed in RUNTIME_SETTINGS: code wins over environment and file, so that whatever it
    leaves alone must not speak."""
    return {
        section: {
            name: value
            for name, value in given.items()
            if name not in _CLASSIC.get(section, {}) or value != _CLASSIC[section][name]
        }
        if isinstance(given, dict)
        else given
        for section, given in RUNTIME_SETTINGS.items()
    }


def _classic(settings: Mapping[str, object] | Settings) -> Mapping[str, object] | Settings:
    """The settings with the classic window, where neither they nor environment and file name a linger."""
    if isinstance(settings, Settings) or load(settings).sources["llm_batch.linger"] != "default":
        return settings
    batch = settings.get("llm_batch", {})
    return {**settings, "llm_batch": {**batch, "linger": "fixed"}} if isinstance(batch, dict) else settings


def _say_ignored(shared: Runtime) -> None:
    """Say once which changes are without effect, because the process's runtime was there before them."""
    global _told
    if _told:
        return
    _told = True
    ignored = [
        f"{section}.{name}"
        for section, given in _changed().items()
        for name, value in (given.items() if isinstance(given, dict) else ())
        if getattr(getattr(shared.settings, section, None), name, None) != value
    ]
    if ignored:
        _log.warning(
            "underlay.n3: RUNTIME_SETTINGS %s: not in force, this process's runtime was there before; "
            "give them to underlay.instrument(), or set them by environment",
            ", ".join(ignored),
        )


def _forked() -> None:
    """In a fork child the lock may be held by a thread that does not exist here."""
    global _lock
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _llm_call(prompt: str | Sequence[Mapping[str, object]], model: str = _DEFAULT_MODEL) -> str:
    """Ask a model and return the answer's text. A second identical call is answered from the cache.

    Raises _CircuitBreakerError when the model's circuit is open, and CallError (UnknownModelError,
    MissingCredentialError, ProviderError) when there is no answer.
    """
    return _current().call(prompt, model=model).text


def _get_cache_stats() -> CacheStats:
    """Entries, lookups, hit rate and evictions of the cache."""
    view = _current().cache
    return cache_stats(view.size, view.hits, view.misses, view.evictions)


def _get_llm_stats() -> LLMStats:
    """Calls, latency percentiles (ms) of those that a provider answered, tokens and errors, per model."""
    return llm_stats(_current().stats(), milliseconds=1000)


def _get_batch_stats() -> BatchStats:
    """Windows that left, the calls in them, their mean size and its bound, over all models."""
    runtime = _current()
    return batch_stats(runtime.stats().values(), bound=runtime.settings.llm_batch.max_batch_size)


class _CircuitReader:
    """What `_get_circuit_breaker` returns."""

    def __init__(self, circuit: CircuitHandle) -> None:
        self._circuit = circuit

    def get_state(self) -> str:
        """`closed`, `open` or `half_open`, by the clock: due means `half_open`."""
        return self._circuit.state

    def __repr__(self) -> str:
        return repr(self._circuit)


def _get_circuit_breaker(model: str) -> _CircuitReader:
    """The circuit of a model; one that was never called reads as closed."""
    return _CircuitReader(_current().circuit(model))


def _reset_circuit_breaker(model: str) -> None:
    """Close a model's circuit by hand."""
    _current().circuit(model).reset()


def _get_circuit_breaker_stats(model: str) -> CircuitStats:
    """State and totals of a model's circuit."""
    view = _current().circuit(model).view()
    return circuit_stats(view.state.value, view.counts)
