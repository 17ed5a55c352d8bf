"""Events as span attributes. Each function returns two groups: ours (`underlay.*`), and those of the GenAI
conventions.

Only a span of ours takes both; on the span of another instrumentation the conventions' attributes are its own
business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.telemetry import attributes as a
from underlay.telemetry.attributes import BatchMode, CacheResult, Ending

if TYPE_CHECKING:
    from underlay.telemetry.events import (
        AttemptEnded,
        Batched,
        BatchEnded,
        BatchStarted,
        CacheLooked,
        CallEnded,
        CircuitChanged,
        CircuitRefused,
        Coalesced,
        Paced,
        Usage,
    )

__all__ = [
    "Attributes", "attempt", "batched", "changed", "coalesced", "dispatch_ended", "dispatched", "ended",
    "error_of", "looked", "paced", "refused", "usage",
]  # fmt: skip

Attributes = dict[str, object]

_KEY_SHOWN = 16
_ABANDONED = frozenset({Ending.CLOSED, Ending.CANCELLED, Ending.DROPPED})
_HTTP_ERROR = 400


def looked(event: CacheLooked) -> Attributes:
    """Attributes of a look into the cache (all ours)."""
    found: Attributes = {}
    if event.observed:
        # The cache only watched: the call went on as if it were not there.
        found[a.CACHE_OBSERVED.key] = event.result.value
        found[a.CACHE_RESULT.key] = CacheResult.MISS.value
    else:
        found[a.CACHE_RESULT.key] = event.result.value
    if event.key:
        found[a.CACHE_KEY.key] = event.key[:_KEY_SHOWN]
    if event.reason:
        found[a.CACHE_REASON.key] = event.reason
    if event.age is not None:
        found[a.CACHE_AGE.key] = event.age
    if event.saved_usd is not None and not event.observed:
        found[a.SAVED.key] = event.saved_usd
    return found


def coalesced(event: Coalesced) -> Attributes:
    """Attributes of a call that reads another one's answer (all ours)."""
    if event.observed:
        return {a.COALESCE_OBSERVED.key: CacheResult.COALESCED.value}
    return {a.CACHE_RESULT.key: CacheResult.COALESCED.value, a.COALESCE_WAIT.key: event.wait}


def batched(event: Batched) -> Attributes:
    """Attributes of a call that left a window (all ours)."""
    if event.observed:
        return {a.BATCH_OBSERVED.key: event.mode.value}
    return {
        a.BATCH_MODE.key: event.mode.value,
        a.BATCH_TRIGGER.key: event.trigger.value,
        a.BATCH_WAIT.key: event.wait,
        a.BATCH_SIZE.key: event.size,
    }


def paced(event: Paced) -> Attributes:
    """Attributes of a call that waited for its turn (all ours)."""
    return {a.PACING_OBSERVED.key: "held"} if event.observed else {a.PACING_WAIT.key: event.wait}


def refused(event: CircuitRefused) -> Attributes:
    """Attributes of a refusal (all ours)."""
    found: Attributes = {a.CIRCUIT_STATE.key: event.state.value, a.RETRY_AFTER.key: event.retry_after}
    if event.observed:
        found[a.CIRCUIT_OBSERVED.key] = CacheResult.REFUSED.value
    else:
        found[a.CACHE_RESULT.key] = CacheResult.REFUSED.value
    return found


def attempt(event: AttemptEnded) -> tuple[Attributes, Attributes]:
    """Attributes of an answer from the provider: (ours, the conventions')."""
    ours: Attributes = {a.VERDICT.key: event.verdict.value}
    if event.cost_usd is not None:
        ours[a.COST.key] = event.cost_usd
    if event.stored or event.store_reason:
        ours[a.CACHE_STORED.key] = event.stored
    if event.store_reason:
        ours[a.CACHE_REASON.key] = event.store_reason
    theirs: Attributes = {}
    if event.status is not None:
        theirs[a.HTTP_STATUS.key] = event.status
    if event.response_model:
        theirs[a.RESPONSE_MODEL.key] = event.response_model
    if event.response_id:
        theirs[a.RESPONSE_ID.key] = event.response_id
    if event.finish_reasons:
        theirs[a.FINISH_REASONS.key] = event.finish_reasons
    if event.usage is not None:
        theirs.update(usage(event.usage))
    return ours, theirs


def usage(tokens: Usage) -> Attributes:
    """Token attributes; what is unknown is left out."""
    counts = (
        (a.INPUT_TOKENS.key, tokens.input_tokens),
        (a.OUTPUT_TOKENS.key, tokens.output_tokens),
        (a.CACHE_READ_TOKENS.key, tokens.cache_read_tokens),
        (a.CACHE_WRITE_TOKENS.key, tokens.cache_write_tokens),
        (a.REASONING_TOKENS.key, tokens.reasoning_tokens),
    )
    return {key: count for key, count in counts if count is not None}


def ended(event: CallEnded, *, stream: bool) -> tuple[Attributes, Attributes]:
    """Attributes of a call's end: (ours, the conventions')."""
    ours: Attributes = {
        a.CACHE_RESULT.key: event.result.value,
        a.BATCH_MODE.key: event.batch_mode.value,
        a.ENDING.key: event.ending.value,
    }
    if event.saved_usd is not None:
        ours[a.SAVED.key] = event.saved_usd
    theirs: Attributes = {}
    if stream:
        ours[a.CHUNKS.key] = event.chunks
        if event.first_chunk is not None:
            theirs[a.TIME_TO_FIRST_CHUNK.key] = event.first_chunk
    if event.status is not None:
        theirs[a.HTTP_STATUS.key] = event.status
    error = error_of(event)
    if error:
        theirs[a.ERROR_TYPE.key] = error
    return ours, theirs


def error_of(event: CallEnded) -> str:
    """The call's `error.type`, or "" when it did not fail: a reader that left is no error, unless the status
    was one."""
    if event.ending in _ABANDONED and (event.status is None or event.status < _HTTP_ERROR):
        return ""
    return event.error_type


def changed(event: CircuitChanged) -> Attributes:
    """Attributes of a transition's span and log event."""
    return {
        a.PROVIDER.key: event.provider,
        a.REQUEST_MODEL.key: event.model,
        a.CIRCUIT_FROM.key: event.left.value,
        a.CIRCUIT_STATE.key: event.entered.value,
        a.CIRCUIT_REASON.key: event.reason,
        a.CIRCUIT_FAILURES.key: event.failures,
    }


def dispatched(event: BatchStarted) -> Attributes:
    """Attributes of a dispatch's span."""
    found: Attributes = {
        a.OPERATION.key: event.operation,
        a.PROVIDER.key: event.provider,
        a.REQUEST_MODEL.key: event.model,
        a.BATCH_MODE.key: event.mode.value,
        a.BATCH_TRIGGER.key: event.trigger.value,
        a.BATCH_SIZE.key: len(event.members),
        a.BATCH_WAIT.key: event.wait,
    }
    if event.mode is BatchMode.MERGED:
        found[a.BATCH_INPUTS.key] = event.inputs
    if event.capacity > 0:
        # One call may bring more inputs than a window of several is let have.
        found[a.BATCH_FILL.key] = min(1.0, event.filled / event.capacity)
    return found


def dispatch_ended(event: BatchEnded) -> Attributes:
    """Attributes of a dispatch's end."""
    found: Attributes = {}
    if event.status is not None:
        found[a.HTTP_STATUS.key] = event.status
    if event.error_type:
        found[a.ERROR_TYPE.key] = event.error_type
    if event.apart:
        found[a.BATCH_APART.key] = True
    return found
