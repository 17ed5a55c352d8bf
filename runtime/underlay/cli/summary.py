"""Numbers from spans: what a run's calls came to, and when its circuits changed. Pure; spans in, frozen
data out.

Unknown is None and never 0: a run whose provider reported no usage has unknown tokens, not none.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from underlay.cli.facts import error_of, http_status
from underlay.cli.span_model import Span, is_call
from underlay.metrics import percentile
from underlay.telemetry import attributes as a
from underlay.telemetry.attributes import BatchMode, CacheResult, CircuitState
from underlay.telemetry.spans import TRANSITION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "CircuitChange",
    "Percentiles",
    "Summary",
    "circuit_timeline",
    "percentiles",
    "summarise",
]

_TRANSITIONS: Final = frozenset(TRANSITION(state=state.value) for state in CircuitState)
_SENT: Final = frozenset((CacheResult.MISS, CacheResult.BYPASS))


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Durations in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What a set of calls came to.

    `upstream_calls` are the requests that left for a provider: one of each call that was sent, and one of
    each merged window. `coalesced` calls read the answer of an identical one. `merged` calls left in
    `merged_requests`, each of several calls; `released` ones left a window side by side. `latency` is over
    all calls as the app saw them, hits and refusals included; `answered_latency` only over those that got an
    answer, so that quick refusals do not flatter it. Money is US dollars; `unpriced` counts the calls a
    provider answered whose cost is unknown. `failed` are the calls that ended in an error and were not
    refused.
    """

    calls: int
    upstream_calls: int
    hits: int
    coalesced: int
    merged: int
    merged_requests: int
    released: int
    refused: int
    failed: int
    latency: Percentiles | None
    answered_latency: Percentiles | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    saved_usd: float | None
    unpriced: int

    @property
    def p50_ms(self) -> float | None:
        """Median duration of all calls, in milliseconds."""
        return self.latency.p50_ms if self.latency else None

    @property
    def p95_ms(self) -> float | None:
        """95th percentile of the duration of all calls, in milliseconds."""
        return self.latency.p95_ms if self.latency else None

    @property
    def p99_ms(self) -> float | None:
        """99th percentile of the duration of all calls, in milliseconds."""
        return self.latency.p99_ms if self.latency else None


@dataclass(frozen=True, slots=True)
class CircuitChange:
    """A circuit's change of state at `time_ns` (nanoseconds since 1970, UTC); `left` and `entered` are
    circuit states.
    """

    time_ns: int
    provider: str
    model: str
    left: str
    entered: str
    reason: str
    failures: int | None


def summarise(spans: Iterable[Span]) -> Summary:
    """Add up the calls among `spans`; other spans are passed by."""
    spans = list(spans)
    calls = [span for span in spans if is_call(span)]
    sent = [span for span in calls if _was_sent(span)]
    by_mode = Counter(span.text(a.BATCH_MODE) for span in calls if span.number(a.BATCH_SIZE) is not None)
    merged_requests = sum(map(_is_merged_request, spans))
    refused = [span for span in calls if span.text(a.CACHE_RESULT) == CacheResult.REFUSED]
    answered = [
        span for span in calls if not error_of(span) and span.text(a.CACHE_RESULT) != CacheResult.REFUSED
    ]
    return Summary(
        calls=len(calls),
        upstream_calls=merged_requests + sum(span.text(a.BATCH_MODE) != BatchMode.MERGED for span in sent),
        hits=sum(span.text(a.CACHE_RESULT) == CacheResult.HIT for span in calls),
        coalesced=sum(span.text(a.CACHE_RESULT) == CacheResult.COALESCED for span in calls),
        merged=by_mode[BatchMode.MERGED],
        merged_requests=merged_requests,
        released=by_mode[BatchMode.RELEASED],
        refused=len(refused),
        failed=len(calls) - len(answered) - len(refused),
        latency=percentiles([span.seconds for span in calls]),
        answered_latency=percentiles([span.seconds for span in answered]),
        input_tokens=_total([span.whole(a.INPUT_TOKENS) for span in calls]),
        output_tokens=_total([span.whole(a.OUTPUT_TOKENS) for span in calls]),
        cost_usd=_money([span.number(a.COST) for span in calls]),
        saved_usd=_money([span.number(a.SAVED) for span in calls]),
        unpriced=sum(not error_of(span) and span.number(a.COST) is None for span in sent),
    )


def _was_sent(span: Span) -> bool:
    """Whether a provider was asked for this call. A leader that leaves before those who share its answer has
    no verdict on its span, but it has a reply."""
    replied = http_status(span) is not None and span.text(a.CACHE_RESULT) in _SENT
    return bool(span.text(a.VERDICT)) or replied


def _is_merged_request(span: Span) -> bool:
    """Whether this span is the one request of several merged calls; a dispatch of many has more spans, and
    the first one stands for it."""
    return (
        not is_call(span)
        and span.text(a.BATCH_MODE) == BatchMode.MERGED
        and span.text(a.BATCH_TRIGGER) != ""
        and span.whole(a.BATCH_PART) in (None, 1)
    )


def circuit_timeline(spans: Iterable[Span]) -> list[CircuitChange]:
    """The changes of state among `spans`, in the order of their time."""
    changes = [
        CircuitChange(
            time_ns=span.start_ns,
            provider=span.text(a.PROVIDER),
            model=span.text(a.REQUEST_MODEL),
            left=span.text(a.CIRCUIT_FROM),
            entered=span.text(a.CIRCUIT_STATE),
            reason=span.text(a.CIRCUIT_REASON),
            failures=span.whole(a.CIRCUIT_FAILURES),
        )
        for span in spans
        if span.name in _TRANSITIONS
    ]
    return sorted(changes, key=lambda change: change.time_ns)


def percentiles(seconds: Sequence[float]) -> Percentiles | None:
    """The 50th, 95th and 99th percentile of durations in seconds, in milliseconds; None when there are
    none.
    """
    ordered = sorted(seconds)
    p50, p95, p99 = (percentile(ordered, share) for share in (0.50, 0.95, 0.99))
    if p50 is None or p95 is None or p99 is None:
        return None
    return Percentiles(p50 * 1000, p95 * 1000, p99 * 1000)


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _money(amounts: Sequence[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return math.fsum(known) if known else None
