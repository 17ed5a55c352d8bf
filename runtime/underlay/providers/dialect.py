"""What the pipeline asks of an API dialect: one file per dialect answers it, without I/O."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Final, Protocol

from underlay.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from underlay.core.usage import Billing
    from underlay.telemetry.events import Usage

__all__ = ["COMPLETE", "Ask", "Dialect", "Inputs", "Merger", "Observer", "Outcome"]


@record(frozen=True, slots=True)
class Inputs:
    """The inputs of a request that may leave in one upstream request with those of others.

    `field` is the body field that holds them, `kind` what they are ("text", "tokens"): kinds never mix.
    `tokens` is an upper estimate for all of them.
    """

    field: str
    kind: str
    count: int
    tokens: int


@record(frozen=True, slots=True)
class Ask:
    """What one request body asks for, in neutral terms.

    `operation` is the GenAI operation name. `uncacheable` is why the answer must not be stored or replayed,
    empty when it may be. `deterministic` is true at temperature 0 or with a seed. `parameters` are request
    attributes of the conventions by key. `inputs` is None where the request cannot be merged with others.
    """

    operation: str
    model: str
    stream: bool
    deterministic: bool
    uncacheable: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    inputs: Inputs | None = None


COMPLETE: Final = True
"""The first word of an outcome whose body was read to its end."""


@record(frozen=True, slots=True)
class Outcome:
    """What an answer's body turned out to be, as far as it was read.

    `complete`: the dialect's terminal event was seen, or (JSON) the body parsed as one value. Only a complete
    body without `error` may be stored, and only if `storable` (a failed or unfinished background answer is
    complete and not storable). `billing` is what the price depends on beside `usage`. `error` is the
    provider's error type inside the body ("overloaded_error"), empty when there was none; `blame` is true
    when that error speaks against the provider (a failure), false when it says nothing (rate limit, invalid
    request). `lost`: the observer gave up (too large), so that nothing is known about the end: such a body
    is neither stored nor judged.
    """

    complete: bool
    storable: bool = True
    usage: Usage | None = None
    billing: Billing | None = None
    model: str = ""
    response_id: str = ""
    finish_reasons: tuple[str, ...] = ()
    error: str = ""
    blame: bool = False
    lost: bool = False


class Observer(Protocol):
    """Reads one answer's *decoded* bytes as they pass. Never raises on strange input: what it cannot read
    stays unknown."""

    @property
    def ended(self) -> bool:
        """True once the terminal event has been seen; always false for JSON before `outcome`."""
        ...

    def feed(self, data: bytes) -> None:
        """More bytes, in any slicing."""
        ...

    def outcome(self) -> Outcome:
        """The verdict over what was fed. Called once, when the body has ended or was left."""
        ...


class Merger(Protocol):
    """Makes one request of several that differ in their inputs alone, and several replies of its reply. All
    bodies are JSON text; what is not an input or a position in the reply stays as it was sent, to the byte.
    """

    def bounds(self, provider: str) -> tuple[int, int]:
        """Most inputs and most tokens that this provider takes in one request; "" is any other server."""
        ...

    def merge(self, bodies: Sequence[bytes]) -> bytes:
        """The body of the one request: the first body with everybody's inputs, in order."""
        ...

    def split(self, reply: bytes, bodies: Sequence[bytes]) -> list[bytes] | None:
        """The reply of each, as it would have been alone; None when count or positions do not match the
        inputs."""
        ...

    def singles(self, body: bytes) -> list[tuple[bytes, ...]]:
        """For each input of a list, the bodies that ask for it alone, the likeliest first; empty when the
        body is not a list of several inputs."""
        ...

    def without(self, body: bytes, places: Sequence[int]) -> bytes:
        """The body without the inputs at these places."""
        ...

    def fill(self, singles: Mapping[int, bytes], reply: bytes) -> bytes | None:
        """The reply to the whole list: replies to single inputs by their place, and the reply to what was
        left, empty when nothing was. None when they do not fit together."""
        ...


class Dialect(Protocol):
    """One API of one family: `name` like "openai.chat", `family` "openai" or "anthropic" (the wire shape),
    `suffix` the path's end, `required` the body fields without which a request on an unknown host is not this
    API."""

    name: str
    family: str
    suffix: str
    required: tuple[str, ...]

    @property
    def merger(self) -> Merger | None:
        """How its requests are merged; None where they cannot be."""
        ...

    def ask(self, body: Mapping[str, object]) -> Ask | None:
        """What the request asks for, or None when the body is not one of this API."""
        ...

    def observe(self, *, stream: bool, status: int) -> Observer:
        """An observer for one answer. `stream` is what the reply's content type says, not what was asked."""
        ...

    def error_body(self, kind: str, message: str) -> bytes:
        """An error in this API's own JSON shape, as the SDKs parse it."""
        ...

    def text(self, body: object) -> str | None:
        """The text of a parsed JSON answer, or None where there is none (embeddings)."""
        ...
