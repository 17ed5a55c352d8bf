"""Reads the statistics as samples of the vocabulary's observable metrics: what telemetry exports at each
collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import CircuitState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from underlay.metrics import ModelStats, Statistics
    from underlay.pipeline.engine import Engine

__all__ = ["Sample", "collect"]

Sample = tuple[tuple[str | int, ...], float]
"""Label values in the order of the metric's labels, and the value."""

_COUNTERS: dict[str, Callable[[ModelStats], Iterable[tuple[str, float]]]] = {
    m.CALLS.key: lambda s: s.results.items(),
    m.UPSTREAM.key: lambda s: s.upstream.items(),
    m.ERRORS.key: lambda s: s.errors.items(),
    m.LOOKUPS.key: lambda s: s.lookups.items(),
    m.TOKENS.key: lambda s: s.tokens.items(),
    m.TOKENS_SAVED.key: lambda s: s.tokens_saved.items(),
}
_SINGLES: dict[str, Callable[[ModelStats], float]] = {
    m.REFUSALS.key: lambda s: s.refusals,
    m.COST_TOTAL.key: lambda s: s.cost,
    m.COST_SAVED.key: lambda s: s.cost_saved,
    m.UNPRICED.key: lambda s: s.unpriced,
}


def collect(key: str, engine: Engine, statistics: Statistics) -> Iterable[Sample]:
    """The samples of one observable metric of the vocabulary, named by its `key`. Raises KeyError for any
    other."""
    engine.settle_dropped()
    if key in _COUNTERS:
        read = _COUNTERS[key]
        return [
            ((*name, label), value)
            for name, stats in statistics.models().items()
            for label, value in read(stats)
        ]
    if key in _SINGLES:
        one = _SINGLES[key]
        return [(name, one(stats)) for name, stats in statistics.models().items()]
    if key == m.TRANSITIONS.key:
        return [
            ((*name, left, entered), count)
            for name, stats in statistics.models().items()
            for (left, entered), count in stats.transitions.items()
        ]
    if key == m.FAULTS.key:
        return [((stage,), count) for stage, count in dict(statistics.faults).items()]
    if key == m.CIRCUIT.key:
        return list(_circuits(engine))
    if key == m.QUEUED.key:
        return list(_queued(engine, statistics).items())
    return _store(engine)[key]


def _circuits(engine: Engine) -> Iterator[Sample]:
    for view in engine.state.circuits.views(engine.clock.now()):
        for state in CircuitState:
            yield (*view.name, state.value), float(view.state is state)


def _queued(engine: Engine, statistics: Statistics) -> dict[tuple[str | int, ...], float]:
    # Every known model has a value: one that is left out would stand at its last for minutes, because OTLP
    # does not tell Prometheus that a series has ended.
    waiting: dict[tuple[str | int, ...], float] = dict.fromkeys(statistics.names(), 0)
    for (provider, model), calls in engine.state.windows.queued():
        name = statistics.name_of(provider, model)
        waiting[name] = waiting.get(name, 0) + calls
    return waiting


def _store(engine: Engine) -> dict[str, list[Sample]]:
    store = engine.state.store
    counts = store.counts()
    return {
        m.EVICTIONS.key: [(("entries",), counts.evicted_by_entries), (("bytes",), counts.evicted_by_bytes)],
        m.EXPIRATIONS.key: [((), counts.expired)],
        m.ENTRIES.key: [((), counts.entries)],
        m.ENTRIES_LIMIT.key: [((), store.maxsize)],
        m.BYTES.key: [((), counts.size)],
        m.BYTES_LIMIT.key: [((), store.max_bytes)],
    }
