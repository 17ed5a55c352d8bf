"""Statistics of a process: one listener among others. Thread-safe; percentiles are exact over a bounded
window.

Totals are monotonic. `reset` moves a baseline of the view that people read; the counters that telemetry
exports go on.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from underlay.telemetry.attributes import OTHER, CacheResult, TokenType, Verdict
from underlay.telemetry.events import (
    AttemptEnded,
    CacheLooked,
    CallEnded,
    CircuitChanged,
    CircuitRefused,
    Faulted,
)
from underlay.telemetry.listener import QuietHandle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from underlay.settings import StatisticsSettings
    from underlay.telemetry.events import BatchStarted, CallEvent, CallStarted, ProcessEvent, Usage

__all__ = ["OTHER", "ModelStats", "Statistics", "percentile"]

_TYPES_LIMIT = 50  # kinds of error told apart per model
_TOLD_LIMIT = 64  # events noted before they are counted: some 30 us of one call in twenty


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which `share` (0..1) of sorted samples lie, by linear interpolation between the closest
    ranks (Hyndman and Fan, *The American Statistician* 50(4), 1996, definition 7). None without samples."""
    if not ordered:
        return None
    rank = (len(ordered) - 1) * share
    low = int(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


@dataclass(slots=True)
class ModelStats:
    """What happened to the calls of one (provider, model). Latencies are seconds and only of calls that a
    provider answered.

    `batches` counts dispatches of windows and `batched` the calls in them, both by (mode, trigger).
    """

    window: int
    results: Counter[str] = field(default_factory=Counter)
    lookups: Counter[str] = field(default_factory=Counter)
    upstream: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    tokens_saved: Counter[str] = field(default_factory=Counter)
    transitions: Counter[tuple[str, str]] = field(default_factory=Counter)
    batches: Counter[tuple[str, str]] = field(default_factory=Counter)
    batched: Counter[tuple[str, str]] = field(default_factory=Counter)
    refusals: int = 0
    cost: float = 0.0
    cost_saved: float = 0.0
    unpriced: int = 0
    latencies: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        self.latencies = deque(maxlen=self.window)

    @property
    def calls(self) -> int:
        """Calls that ended."""
        return sum(self.results.values())

    def latency(self, share: float) -> float | None:
        """A percentile of the latencies in seconds; None without any."""
        return percentile(sorted(self.latencies), share)


_INPUT, _OUTPUT = TokenType.INPUT, TokenType.OUTPUT


def _add_usage(tokens: Counter[str], usage: Usage | None) -> None:
    if usage is not None:
        tokens[_INPUT] += usage.input_tokens or 0
        tokens[_OUTPUT] += usage.output_tokens or 0


class Statistics:
    """Counts what the events say, per (provider, model).

    What a call tells is only noted (`told`) and counted many at a time, by whoever reads or by the call that
    makes the notes too many: counted one by one, each call would pay three locks for it.
    """

    def __init__(self, settings: StatisticsSettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._models: dict[tuple[str, str], ModelStats] = {}
        self.faults: Counter[str] = Counter()
        self.told: deque[tuple[tuple[str, str], CallEvent]] = deque()

    def forked(self) -> None:
        """In a fork child: a fresh lock, and totals from zero, as the child exports under its own instance
        id."""
        self._lock = Lock()
        self._models = {}
        self.faults = Counter()
        self.told = deque()

    def start(self, started: CallStarted) -> _Counting:
        """A call began."""
        return _Counting(self, (started.provider, started.model))

    def counting(self, provider: str, model: str) -> _Counting:
        """What counts the events of a call of this model."""
        return _Counting(self, (provider, model))

    def settle(self) -> None:
        """Count what was noted, unless somebody is at it: a finaliser of the app may come here in the middle
        of it, in the same thread."""
        if self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        told, models = self.told, self._models
        for _ in range(len(told)):
            name, event = told.popleft()
            stats = models.get(name)
            _COUNTED[type(event)](self._of(*name) if stats is None else stats, event)

    def dispatch(self, started: BatchStarted) -> None:
        """A window left. How it ends is counted call by call."""
        if started.again:
            return
        with self._lock:
            self._settle()  # whoever was told of first has its place among `max_models`
            stats = self._of(started.provider, started.model)
            stats.batches[started.mode, started.trigger] += 1
            stats.batched[started.mode, started.trigger] += len(started.members)

    def event(self, event: ProcessEvent) -> None:
        """A transition, or a fault of ours."""
        if isinstance(event, CircuitChanged):
            with self._lock:
                self._settle()
                self._of(event.provider, event.model).transitions[event.left, event.entered] += 1
        elif isinstance(event, Faulted):
            with self._lock:
                self.faults[event.stage] += 1

    def models(self) -> dict[tuple[str, str], ModelStats]:
        """A copy of everything, safe to read at leisure."""
        with self._lock:
            self._settle()
            return {name: _copy(stats) for name, stats in self._models.items()}

    def names(self) -> tuple[tuple[str, str], ...]:
        """The (provider, model) pairs that are told apart so far."""
        with self._lock:
            self._settle()
            return tuple(self._models)

    def name_of(self, provider: str, model: str) -> tuple[str, str]:
        """Under which (provider, model) its calls are counted: its own, or OTHER beyond the bound."""
        with self._lock:
            self._settle()
            return self._named(provider, model)

    def _of(self, provider: str, model: str) -> ModelStats:
        stats = self._models.get((provider, model))
        if stats is None:
            name = self._named(provider, model)
            stats = self._models.get(name)
            if stats is None:
                stats = self._models[name] = ModelStats(self._settings.window)
        return stats

    def _named(self, provider: str, model: str) -> tuple[str, str]:
        known = (provider, model) in self._models or len(self._models) < self._settings.max_models
        return (provider, model) if known else (OTHER, OTHER)


_ANSWERED = frozenset((CacheResult.MISS, CacheResult.BYPASS))


def _call_ended(stats: ModelStats, event: CallEnded) -> None:
    stats.results[event.result] += 1
    if event.error_type:
        known = event.error_type in stats.errors or len(stats.errors) < _TYPES_LIMIT
        stats.errors[event.error_type if known else OTHER] += 1
    if event.status is not None and event.result in _ANSWERED:
        stats.latencies.append(event.duration)
    if event.result is CacheResult.COALESCED:
        _add_usage(stats.tokens_saved, event.saved_usage)
        stats.cost_saved += event.saved_usd or 0.0


def _attempt_ended(stats: ModelStats, event: AttemptEnded) -> None:
    if event.sent:
        stats.upstream[event.verdict] += 1
    _add_usage(stats.tokens, event.usage)
    if event.cost_usd is not None:
        stats.cost += event.cost_usd
    elif event.verdict is Verdict.SUCCESS:
        stats.unpriced += 1


def _cache_looked(stats: ModelStats, event: CacheLooked) -> None:
    stats.lookups[event.result] += 1
    if event.result is CacheResult.HIT and not event.observed:
        _add_usage(stats.tokens_saved, event.saved_usage)
        stats.cost_saved += event.saved_usd or 0.0


def _circuit_refused(stats: ModelStats, event: CircuitRefused) -> None:
    stats.refusals += not event.observed


_COUNTED: Mapping[type, Callable[[ModelStats, Any], None]] = {
    CallEnded: _call_ended,
    AttemptEnded: _attempt_ended,
    CacheLooked: _cache_looked,
    CircuitRefused: _circuit_refused,
}


def _copy(stats: ModelStats) -> ModelStats:
    copy = ModelStats(
        stats.window,
        Counter(stats.results),
        Counter(stats.lookups),
        Counter(stats.upstream),
        Counter(stats.errors),
        Counter(stats.tokens),
        Counter(stats.tokens_saved),
        Counter(stats.transitions),
        Counter(stats.batches),
        Counter(stats.batched),
        stats.refusals,
        stats.cost,
        stats.cost_saved,
        stats.unpriced,
    )
    copy.latencies.extend(stats.latencies)
    return copy


class _Counting(QuietHandle):
    """Statistics' hold on one call."""

    __slots__ = ("_name", "_statistics")

    def __init__(self, statistics: Statistics, name: tuple[str, str]) -> None:
        self._statistics = statistics
        self._name = name

    def event(self, event: CallEvent) -> None:
        if type(event) in _COUNTED:
            told = self._statistics.told
            told.append((self._name, event))
            if len(told) >= _TOLD_LIMIT:
                self._statistics.settle()
