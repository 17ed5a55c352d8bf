"""What the runtime tells its listeners: facts about one call, or about the process, that nobody changes.

Durations are seconds on the runtime's own (monotonic) clock, money is US dollars, sizes are bytes. Origins
are opaque bytes that a listener made: they come back with a hit, so that a listener can link a replay to what
generated it.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from underlay.records import record
from underlay.telemetry.attributes import (
    BatchMode,
    BatchTrigger,
    CacheResult,
    CircuitState,
    Ending,
    Stage,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "BatchEnded",
    "BatchStarted",
    "Batched",
    "CacheLooked",
    "CallEnded",
    "CallEvent",
    "CallStarted",
    "CircuitChanged",
    "CircuitRefused",
    "Coalesced",
    "Faulted",
    "Paced",
    "ProcessEvent",
    "Unpriced",
    "Usage",
]


@record(frozen=True, slots=True)
class Usage:
    """Tokens of one answer, by the GenAI conventions: `input_tokens` includes cached ones, `output_tokens`
    includes reasoning.

    None means unknown and is never the same as 0.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def total(self) -> int | None:
        """Input plus output, or None when both are unknown."""
        if self.input_tokens is None and self.output_tokens is None:
            return None
        return (self.input_tokens or 0) + (self.output_tokens or 0)


@record(frozen=True, slots=True)
class CallStarted:
    """A recognised call entered. `parameters` are request attributes of the conventions, ready to be set on a
    span."""

    provider: str
    operation: str
    model: str
    stream: bool
    server_address: str
    server_port: int | None
    parameters: Mapping[str, object] = field(default_factory=dict)


@record(frozen=True, slots=True)
class CacheLooked:
    """The cache was asked. `observed`: the cache only watches, and what it would have served was not served.

    `reason` says why the cache was passed by (result `bypass`). `origin`, `age`, `saved_*` belong to a hit.
    """

    result: CacheResult
    key: str = ""
    reason: str = ""
    observed: bool = False
    age: float | None = None
    origin: bytes = b""
    saved_seconds: float | None = None
    saved_usd: float | None = None
    saved_usage: Usage | None = None


@record(frozen=True, slots=True)
class Coalesced:
    """The call has the first bytes of an answer that another call asked for: `origin` is that call, `wait`
    the seconds it took to get them. `observed`: coalescing only watches, and the call is sent."""

    origin: bytes
    wait: float
    observed: bool = False


@record(frozen=True, slots=True)
class Batched:
    """The call left its window after `wait` seconds, with `size` calls in all. `origin` is the dispatch.
    `observed`: windows only watch, and the call went on at once."""

    mode: BatchMode
    trigger: BatchTrigger
    wait: float
    size: int
    origin: bytes = b""
    observed: bool = False


@record(frozen=True, slots=True)
class Paced:
    """The call waited `wait` seconds for its turn among many that its event loop started at once, or
    threads did. `observed`: pacing only watches, and the call went on at once."""

    wait: float
    observed: bool = False


@record(frozen=True, slots=True)
class CircuitRefused:
    """The circuit did not let the call through. `observed`: the breaker only watches, and the call was
    sent."""

    state: CircuitState
    retry_after: float
    observed: bool = False


@record(frozen=True, slots=True)
class AttemptStarted:
    """A request is about to leave for the provider. `number` counts from 1 within the call."""

    number: int


@record(frozen=True, slots=True)
class AttemptEnded:
    """One upstream body ended, once, however many readers it had.

    `sent` is false for a call whose answer was split off a merged reply that another member asked for: usage
    and cost are this call's part, and the request counts with the member that sent it.
    """

    number: int
    duration: float
    verdict: Verdict
    status: int | None = None
    error_type: str = ""
    usage: Usage | None = None
    cost_usd: float | None = None
    response_model: str = ""
    response_id: str = ""
    finish_reasons: tuple[str, ...] = ()
    stored: bool = False
    store_reason: str = ""
    sent: bool = True


@record(frozen=True, slots=True)
class CallEnded:
    """The call ended for its caller: the last event of a handle.

    `first_chunk` and `chunk_interval` (mean) are seconds and only known for streams. `error_type` is empty on
    success. `trace_id` is 32 hexadecimal digits, empty without a trace. `saved_usd` and `saved_usage` belong
    to a coalesced call: what its own request would have cost.
    """

    result: CacheResult
    ending: Ending
    duration: float
    status: int | None = None
    error_type: str = ""
    chunks: int = 0
    first_chunk: float | None = None
    chunk_interval: float | None = None
    batch_mode: BatchMode = BatchMode.ALONE
    trace_id: str = ""
    saved_usd: float | None = None
    saved_usage: Usage | None = None


@record(frozen=True, slots=True)
class BatchStarted:
    """A window was closed by `trigger` and leaves: `merged` into one upstream request, or `released`, each
    member in its own call.

    `members` are the origins of its calls, in their order. `capacity` is the bound that counts for it, in
    calls or (merged) in inputs, and `filled` how much of it is. `wait` is how long the first member waited,
    in seconds. `again`: the member that sent was cancelled, and another sends in its place; the window counts
    once.
    """

    provider: str
    operation: str
    model: str
    mode: BatchMode
    trigger: BatchTrigger
    members: tuple[bytes, ...]
    inputs: int
    filled: int
    capacity: int
    wait: float
    again: bool = False


@record(frozen=True, slots=True)
class BatchEnded:
    """The dispatch is over: a merged reply was split, or failed; released members are on their way.

    `apart`: the members are sent one by one after all, because the request was refused as a whole or the
    reply does not fit.
    """

    duration: float
    status: int | None = None
    error_type: str = ""
    apart: bool = False


CallEvent = (
    CacheLooked | Coalesced | Batched | Paced | CircuitRefused | AttemptStarted | AttemptEnded | CallEnded
)


@record(frozen=True, slots=True)
class CircuitChanged:
    """A circuit went from one state to another. `lasted` is the time in the state that was left; `causes` are
    origins of the calls that failed."""

    provider: str
    model: str
    left: CircuitState
    entered: CircuitState
    reason: str
    lasted: float
    failures: int = 0
    causes: tuple[bytes, ...] = ()


@record(frozen=True, slots=True)
class Faulted:
    """A fault of underlay itself. The call went on without the stage; `error` is the exception's type name,
    never its text."""

    stage: Stage
    error: str


@record(frozen=True, slots=True)
class Unpriced:
    """A model has no price in the table. Said once per (provider, model)."""

    provider: str
    model: str


ProcessEvent = CircuitChanged | Faulted | Unpriced
