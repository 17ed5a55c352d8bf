"""Every metric, written once: instruments, dashboards, documentation and tests read this table.

Kinds: `histogram` points are recorded as calls end; `counter` and `gauge` are observable and read from the
statistics when a reader collects, so they cost a call nothing. Counters are monotonic for the life of the
process: resetting the statistics moves a baseline of the view and never the counter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from underlay.records import record
from underlay.telemetry import attributes as a

if TYPE_CHECKING:
    from underlay.telemetry.attributes import Attribute

__all__ = ["ALL", "BY_KEY", "DURATION_BUCKETS", "GENERATIONS", "Generation", "Metric", "metric_name"]

Kind = Literal["histogram", "counter", "gauge"]
Generation = Literal["released", "upcoming"]

DURATION_BUCKETS: tuple[float, ...] = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
"""Seconds. The boundaries of the GenAI conventions for client durations."""

TOKEN_BUCKETS: tuple[float, ...] = tuple(float(4**power) for power in range(14))
"""Tokens. The boundaries of the GenAI conventions for token usage."""

STATE_BUCKETS: tuple[float, ...] = (0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 21600, 86400)
"""Seconds a circuit stays in one state: a probe's round trip up to a day."""

BATCH_BUCKETS: tuple[float, ...] = (1, 2, 3, 5, 8, 10, 15, 20, 30, 50, 100, 200, 500, 1000)
"""Calls of a dispatch."""

WAIT_BUCKETS: tuple[float, ...] = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 20.48,
)  # fmt: skip
"""Seconds in a window: fine around the 50 ms that it stays open."""


@record(frozen=True, slots=True)
class Metric:
    """One instrument: `key` is how code names it, `name` what leaves the process, `unit` in UCUM, `labels`
    its whole label set."""

    key: str
    name: str
    unit: str
    kind: Kind
    brief: str
    labels: tuple[Attribute, ...]
    buckets: tuple[float, ...] = ()


_CALL = (a.OPERATION, a.PROVIDER, a.REQUEST_MODEL, a.RESPONSE_MODEL, a.SERVER_ADDRESS, a.SERVER_PORT)
_MODEL = (a.PROVIDER, a.REQUEST_MODEL)
_RESULTS = (a.CACHE_RESULT, a.BATCH_MODE)

CALL_DURATION = Metric(
    "call_duration", "gen_ai.client.operation.duration", "s", "histogram",
    "Duration of a call as the app saw it, hits and refusals included", (*_CALL, a.ERROR_TYPE, *_RESULTS),
    DURATION_BUCKETS,
)  # fmt: skip
TOKEN_USAGE = Metric(
    "token_usage", "gen_ai.client.token.usage", "{token}", "histogram",
    "Tokens of a call that a provider answered", (*_CALL, a.TOKEN_TYPE), TOKEN_BUCKETS,
)  # fmt: skip
FIRST_CHUNK = Metric(
    "first_chunk", "gen_ai.client.operation.time_to_first_chunk", "s", "histogram",
    "Time to the first chunk of a stream", (*_CALL, *_RESULTS), DURATION_BUCKETS,
)  # fmt: skip
OUTPUT_CHUNK = Metric(
    "output_chunk", "gen_ai.client.operation.time_per_output_chunk", "s", "histogram",
    "Mean time between the chunks of a stream, one point a stream", (*_CALL, *_RESULTS), DURATION_BUCKETS,
)  # fmt: skip
TIME_SAVED = Metric(
    "time_saved", "underlay.cache.time_saved", "s", "histogram",
    "Time that a hit saved: the first answer's duration less the hit's", _MODEL, DURATION_BUCKETS,
)  # fmt: skip
COALESCE_WAIT = Metric(
    "coalesce_wait", "underlay.coalesce.wait.duration", "s", "histogram",
    "Time until a coalesced call had the first bytes of another call's answer", _MODEL, DURATION_BUCKETS,
)  # fmt: skip
BATCH_SIZE = Metric(
    "batch_size", "underlay.batch.size", "{call}", "histogram",
    "Calls that left a window together, one point a dispatch",
    (*_MODEL, a.BATCH_MODE, a.BATCH_TRIGGER), BATCH_BUCKETS,
)  # fmt: skip
BATCH_WAIT = Metric(
    "batch_wait", "underlay.batch.wait.duration", "s", "histogram",
    "Time that a call waited in a window", (*_MODEL, a.BATCH_MODE, a.BATCH_TRIGGER), WAIT_BUCKETS,
)  # fmt: skip
STATE_DURATION = Metric(
    "state_duration", "underlay.circuit_breaker.state.duration", "s", "histogram",
    "Time a circuit spent in the state that it left", (*_MODEL, a.CIRCUIT_STATE), STATE_BUCKETS,
)  # fmt: skip

CALLS = Metric(
    "calls",
    "underlay.calls",
    "{call}",
    "counter",
    "Calls by how they were answered",
    (*_MODEL, a.CACHE_RESULT),
)
UPSTREAM = Metric(
    "upstream", "underlay.upstream.requests", "{request}", "counter",
    "Requests that left for a provider, by what they said about it", (*_MODEL, a.VERDICT),
)  # fmt: skip
ERRORS = Metric(
    "errors", "underlay.errors", "{error}", "counter", "Calls that failed, by kind", (*_MODEL, a.ERROR_TYPE)
)
LOOKUPS = Metric(
    "lookups",
    "underlay.cache.lookups",
    "{lookup}",
    "counter",
    "Lookups of the response cache by result",
    (*_MODEL, a.CACHE_RESULT),
)
EVICTIONS = Metric(
    "evictions",
    "underlay.cache.evictions",
    "{entry}",
    "counter",
    "Entries pushed out by a bound",
    (a.EVICTION_REASON,),
)
EXPIRATIONS = Metric(
    "expirations",
    "underlay.cache.expirations",
    "{entry}",
    "counter",
    "Entries that outlived their time to live",
    (),
)
ENTRIES = Metric("entries", "underlay.cache.entries", "{entry}", "gauge", "Entries in the response cache", ())
ENTRIES_LIMIT = Metric(
    "entries_limit", "underlay.cache.entries.limit", "{entry}", "gauge", "Most entries the cache keeps", ()
)
BYTES = Metric("bytes", "underlay.cache.size", "By", "gauge", "Bytes in the response cache", ())
BYTES_LIMIT = Metric(
    "bytes_limit", "underlay.cache.size.limit", "By", "gauge", "Most bytes the cache keeps", ()
)
QUEUED = Metric(
    "queued", "underlay.batch.queued", "{call}", "gauge", "Calls that wait in an open window", _MODEL
)
CIRCUIT = Metric(
    "circuit", "underlay.circuit_breaker.state", "1", "gauge",
    "1 for the state that a circuit is in, 0 for the others", (*_MODEL, a.CIRCUIT_STATE),
)  # fmt: skip
TRANSITIONS = Metric(
    "transitions", "underlay.circuit_breaker.transitions", "{transition}", "counter",
    "State changes, by the state that was left and the one that was entered",
    (*_MODEL, a.CIRCUIT_FROM, a.CIRCUIT_STATE),
)  # fmt: skip
REFUSALS = Metric(
    "refusals",
    "underlay.circuit_breaker.refusals",
    "{call}",
    "counter",
    "Calls refused by an open circuit",
    _MODEL,
)
TOKENS = Metric(
    "tokens",
    "underlay.tokens",
    "{token}",
    "counter",
    "Tokens that providers answered with",
    (*_MODEL, a.TOKEN_TYPE),
)
TOKENS_SAVED = Metric(
    "tokens_saved",
    "underlay.tokens.saved",
    "{token}",
    "counter",
    "Tokens of answers that came from the cache or from another call",
    (*_MODEL, a.TOKEN_TYPE),
)
COST_TOTAL = Metric(
    "cost", "underlay.cost", "USD", "counter", "Cost of calls that a provider answered", _MODEL
)
COST_SAVED = Metric(
    "cost_saved",
    "underlay.cost.saved",
    "USD",
    "counter",
    "Cost of answers that came from the cache or from another call",
    _MODEL,
)
UNPRICED = Metric(
    "unpriced", "underlay.cost.unpriced", "{call}", "counter",
    "Answered calls without a cost: the model has no price or the usage is unknown", _MODEL,
)  # fmt: skip
FAULTS = Metric(
    "faults",
    "underlay.faults",
    "{fault}",
    "counter",
    "Faults of underlay itself, by stage; the call went on",
    (a.STAGE,),
)

ALL: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""Every metric, in the order of this page."""

BY_KEY: dict[str, Metric] = {metric.key: metric for metric in ALL}

GENERATIONS: dict[Generation, dict[str, str]] = {
    "released": {},
    "upcoming": {
        CALL_DURATION.name: "gen_ai.client.inference.duration",
        FIRST_CHUNK.name: "gen_ai.client.inference.time_to_first_chunk",
        OUTPUT_CHUNK.name: "gen_ai.client.inference.time_per_output_chunk",
    },
}
"""GenAI metric names by generation of the conventions: `released` is what published packages emit, `upcoming`
what the conventions' repository has (pull request 521). A name that is absent stays."""


def metric_name(metric: Metric, generation: Generation = "released") -> str:
    """The name under which `metric` leaves the process."""
    return GENERATIONS[generation].get(metric.name, metric.name)
