"""Attribute keys, with their type, meaning and (where the set is closed) their values.

Names that start with `gen_ai.`, `server.`, `error.` come from the OpenTelemetry semantic conventions (GenAI:
repository `semantic-conventions-genai`, as released in opentelemetry-util-genai 1.3). Names that start with
`underlay.` are ours, because no convention exists for a client-side response cache, batching, circuit
breaking or price.
"""

from __future__ import annotations

from enum import StrEnum

from underlay.records import record

__all__ = [
    "ALL",
    "OTHER",
    "Attribute",
    "BatchMode",
    "BatchTrigger",
    "CacheResult",
    "CircuitState",
    "Ending",
    "Stage",
    "TokenType",
    "Verdict",
]


OTHER = "other"
"""The label value under which names beyond a bound are counted together: models, kinds of error."""


class CacheResult(StrEnum):
    """How a call was answered."""

    HIT = "hit"
    MISS = "miss"
    COALESCED = "coalesced"
    STALE = "stale"
    BYPASS = "bypass"
    REFUSED = "refused"


class BatchMode(StrEnum):
    """How a call was dispatched."""

    ALONE = "alone"
    MERGED = "merged"
    RELEASED = "released"


class BatchTrigger(StrEnum):
    """What closed a window: it was full, its time was over, nothing was in flight any more, or a member could
    not wait longer."""

    SIZE = "size"
    TIME = "time"
    IDLE = "idle"
    DEADLINE = "deadline"


class CircuitState(StrEnum):
    """State of a circuit breaker (M. Nygard, *Release It!*, 2007, ch. 5.2)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Verdict(StrEnum):
    """What one attempt says about the provider. `nothing`: cancelled, refused, the caller's own fault, or no
    information."""

    SUCCESS = "success"
    FAILURE = "failure"
    NOTHING = "nothing"


class Ending(StrEnum):
    """How a reply's body ended for its reader."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    FAILED = "failed"
    CLOSED = "closed"
    CANCELLED = "cancelled"
    DROPPED = "dropped"


class TokenType(StrEnum):
    """Values of `gen_ai.token.type`."""

    INPUT = "input"
    OUTPUT = "output"


class Stage(StrEnum):
    """The stages of a call's life, in their order. A fault of ours names the one it happened in."""

    RECOGNISE = "recognise"
    CALL = "call"
    POLICY = "policy"
    CACHE = "cache"
    COALESCE = "coalesce"
    CIRCUIT = "circuit"
    BUDGET = "budget"
    QUEUE = "queue"
    ATTEMPT = "attempt"
    STREAM = "stream"
    RECORD = "record"
    LISTENER = "listener"


@record(frozen=True, slots=True)
class Attribute:
    """One attribute key. `type` is the OpenTelemetry value type; `values` is the closed set, empty when
    open."""

    key: str
    type: str
    brief: str
    values: tuple[str, ...] = ()

    @property
    def closed(self) -> bool:
        """True where the values are a closed set."""
        return bool(self.values)


def _values(enum: type[StrEnum]) -> tuple[str, ...]:
    return tuple(member.value for member in enum)


OPERATION = Attribute("gen_ai.operation.name", "string", "What was asked of the model: chat, embeddings, …")
PROVIDER = Attribute("gen_ai.provider.name", "string", "The provider, by the conventions' names")
REQUEST_MODEL = Attribute("gen_ai.request.model", "string", "The model that was asked for")
RESPONSE_MODEL = Attribute("gen_ai.response.model", "string", "The model that answered")
RESPONSE_ID = Attribute("gen_ai.response.id", "string", "The provider's id of the answer")
FINISH_REASONS = Attribute(
    "gen_ai.response.finish_reasons", "string[]", "Why generation ended, one per choice"
)
REQUEST_STREAM = Attribute("gen_ai.request.stream", "boolean", "Whether a stream was asked for")
MAX_TOKENS = Attribute("gen_ai.request.max_tokens", "int", "Most output tokens asked for")
TEMPERATURE = Attribute("gen_ai.request.temperature", "double", "Sampling temperature")
TOP_P = Attribute("gen_ai.request.top_p", "double", "Nucleus sampling mass")
TOP_K = Attribute("gen_ai.request.top_k", "int", "Sampling from the k most likely tokens")
FREQUENCY_PENALTY = Attribute("gen_ai.request.frequency_penalty", "double", "Frequency penalty")
PRESENCE_PENALTY = Attribute("gen_ai.request.presence_penalty", "double", "Presence penalty")
SEED = Attribute("gen_ai.request.seed", "int", "Seed asked for")
CHOICE_COUNT = Attribute("gen_ai.request.choice.count", "int", "Number of choices asked for, when not 1")
ENCODING_FORMATS = Attribute(
    "gen_ai.request.encoding_formats", "string[]", "Encodings asked for (embeddings)"
)
DIMENSION_COUNT = Attribute("gen_ai.embeddings.dimension.count", "int", "Dimensions asked for (embeddings)")
OUTPUT_TYPE = Attribute(
    "gen_ai.output.type", "string", "Kind of output asked for", ("text", "json", "image", "speech")
)
INPUT_TOKENS = Attribute("gen_ai.usage.input_tokens", "int", "Input tokens, cached ones included")
OUTPUT_TOKENS = Attribute("gen_ai.usage.output_tokens", "int", "Output tokens, reasoning included")
CACHE_READ_TOKENS = Attribute(
    "gen_ai.usage.cache_read.input_tokens", "int", "Input tokens read from the provider's prompt cache"
)
CACHE_WRITE_TOKENS = Attribute(
    "gen_ai.usage.cache_write.input_tokens", "int", "Input tokens written to the provider's prompt cache"
)
REASONING_TOKENS = Attribute(
    "gen_ai.usage.reasoning.output_tokens", "int", "Output tokens spent on reasoning"
)
TIME_TO_FIRST_CHUNK = Attribute(
    "gen_ai.response.time_to_first_chunk", "double", "Seconds to the first chunk of a stream"
)
TOKEN_TYPE = Attribute("gen_ai.token.type", "string", "Which tokens are counted", _values(TokenType))
SERVER_ADDRESS = Attribute("server.address", "string", "Host that is called")
SERVER_PORT = Attribute("server.port", "int", "Port that is called")
HTTP_STATUS = Attribute("http.response.status_code", "int", "HTTP status of the reply")
ERROR_TYPE = Attribute(
    "error.type", "string", "Kind of failure: an HTTP status, a provider's error type, or an exception's name"
)

CACHE_RESULT = Attribute("underlay.cache.result", "string", "How the call was answered", _values(CacheResult))
CACHE_OBSERVED = Attribute(
    "underlay.cache.observed", "string", "What an observing cache would have answered", ("hit", "miss")
)
CACHE_REASON = Attribute(
    "underlay.cache.reason", "string", "Why the cache was passed by, or the answer not stored"
)
CACHE_KEY = Attribute("underlay.cache.key", "string", "First 16 hexadecimal digits of the call's key")
CACHE_AGE = Attribute("underlay.cache.age", "double", "Age of the stored answer in seconds")
CACHE_STORED = Attribute("underlay.cache.stored", "boolean", "Whether the answer was stored")
EVICTION_REASON = Attribute(
    "underlay.cache.eviction.reason", "string", "Which bound was reached", ("entries", "bytes")
)
COALESCE_WAIT = Attribute(
    "underlay.coalesce.wait", "double", "Seconds until the call had the first bytes of another call's answer"
)
COALESCE_OBSERVED = Attribute(
    "underlay.coalesce.observed", "string", "What observed coalescing would have done", ("coalesced",)
)
BATCH_MODE = Attribute("underlay.batch.mode", "string", "How the call was dispatched", _values(BatchMode))
BATCH_OBSERVED = Attribute(
    "underlay.batch.observed",
    "string",
    "How an observed window would have sent the call",
    ("merged", "released"),
)
BATCH_TRIGGER = Attribute("underlay.batch.trigger", "string", "What closed the window", _values(BatchTrigger))
BATCH_SIZE = Attribute("underlay.batch.size", "int", "Calls that left their window together")
BATCH_INPUTS = Attribute("underlay.batch.inputs", "int", "Inputs of the merged request")
BATCH_FILL = Attribute("underlay.batch.fill", "double", "Share of the window's bound that was filled, 0 to 1")
BATCH_WAIT = Attribute(
    "underlay.batch.wait", "double", "Seconds in the window: of a call, or of the dispatch's first member"
)
BATCH_PART = Attribute(
    "underlay.batch.part",
    "int",
    "Number of this span among those of one dispatch, from 1, when it has several",
)
BATCH_APART = Attribute(
    "underlay.batch.apart", "boolean", "True where the merged calls were sent one by one after all"
)
PACING_WAIT = Attribute(
    "underlay.pacing.wait",
    "double",
    "Seconds that the call waited for its turn among many that started at once",
)
PACING_OBSERVED = Attribute(
    "underlay.pacing.observed", "string", "What observed pacing would have done", ("held",)
)
CIRCUIT_STATE = Attribute(
    "underlay.circuit_breaker.state", "string", "State of the circuit", _values(CircuitState)
)
CIRCUIT_FROM = Attribute(
    "underlay.circuit_breaker.from", "string", "State that was left", _values(CircuitState)
)
CIRCUIT_REASON = Attribute(
    "underlay.circuit_breaker.reason",
    "string",
    "Why the state changed",
    ("failures", "recovery_due", "probe_failed", "recovered", "reset"),
)
CIRCUIT_OBSERVED = Attribute(
    "underlay.circuit_breaker.observed", "string", "What an observing breaker would have done", ("refused",)
)
CIRCUIT_FAILURES = Attribute(
    "underlay.circuit_breaker.failures", "int", "Consecutive failures at the transition"
)
RETRY_AFTER = Attribute("underlay.circuit_breaker.retry_after", "double", "Seconds until the next probe")
VERDICT = Attribute(
    "underlay.attempt.verdict", "string", "What the attempt says about the provider", _values(Verdict)
)
ENDING = Attribute("underlay.call.ending", "string", "How the body ended for its reader", _values(Ending))
CHUNKS = Attribute("underlay.call.chunks", "int", "Body chunks that the reader was given")
COST = Attribute("underlay.cost.amount", "double", "What the provider charges for the call, in US dollars")
SAVED = Attribute(
    "underlay.cost.saved", "double", "What the call would have cost without underlay, in US dollars"
)
LINK_ROLE = Attribute(
    "underlay.link.role",
    "string",
    "What a linked span is to this one",
    ("generated", "cause", "leader", "member", "dispatch"),
)
STAGE = Attribute("underlay.stage", "string", "Stage of a call's life", _values(Stage))

ALL: tuple[Attribute, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Attribute)
)
"""Every attribute of the vocabulary, in the order of this page."""
