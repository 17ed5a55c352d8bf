"""What every dialect of the simulator makes of a request: an `Exchange`, pure data and pure functions.

A dialect reads the body and drafts the answer; `app.py` alone keeps time, sends, breaks and counts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from underlay.simulator.schema import value_for
from underlay.simulator.text import compact, pieces_of, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from underlay.simulator.options import SimulatorOptions

__all__ = ["AT_ONCE", "BadCall", "Context", "Draft", "Exchange", "Frame", "Tool", "Usage", "draft", "sse"]

_MOST_OUTPUT: Final = 128_000
AT_ONCE: Final = -1
"""`Frame.after` of an event that does not wait for the first token."""


class BadCall(Exception):  # noqa: N818 - it is a reply on its way, not a fault of the program
    """A request that the provider would refuse: becomes its error reply."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        status: int = 400,
        code: str | None = None,
        kind: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.code, self.kind = message, param, status, code, kind


@dataclass(frozen=True, slots=True)
class Context:
    """What a dialect may know beside the body: options, key, number, Unix time, share of cached prompt."""

    options: SimulatorOptions
    key: str
    number: int
    now: int
    cached_fraction: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one reply; `cached` (read) and `written` (to the cache) are parts of `input`."""

    input: int = 0
    output: int = 0
    cached: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """One event of a stream: its bytes, the output tokens before it (see `latency`), those it carries."""

    data: bytes
    after: int
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that was understood, with its answer; the bytes are made when they are needed.

    `inputs` is the number of texts to embed or to complete, or 1; `steps` are the output tokens that are made
    one after another (of several choices, the longest); `failure` is the provider's error event within a
    stream, from the status that it stands for and the number of events before it.
    """

    model: str
    stream: bool
    usage: Usage
    payload: Callable[[], bytes]
    frames: Callable[[], Iterator[Frame]]
    failure: Callable[[int, int], bytes]
    inputs: int = 1
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool the request offers: its name and the JSON Schema of its arguments."""

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer without a wire form: its tokens, the tool they are arguments for, whether a limit cut it."""

    pieces: tuple[str, ...]
    tool: str | None
    cut: bool

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(self.pieces)

    def events(self, size: int) -> Iterator[tuple[int, int, str]]:
        """The answer in events of `size` tokens: (tokens before, tokens in it, text)."""
        for start in range(0, len(self.pieces), size):
            part = self.pieces[start : start + size]
            yield start, len(part), "".join(part)


def draft(
    context: Context,
    *,
    limit: int | None,
    tool: Tool | None = None,
    schema: Mapping[str, Any] | None = None,
    index: int = 0,
) -> Draft:
    """Draft answer `index`: arguments of `tool`, a value for `schema`, or words; at most `limit` tokens."""
    rng = random.Random(f"answer/{context.key}/{index}")
    wanted = tool.schema if tool else schema
    if wanted is not None:
        pieces = _json_pieces(wanted, rng)
    elif limit is not None and context.options.length == "max":
        return Draft(words(rng, min(limit, _MOST_OUTPUT)), None, cut=True)
    else:
        pieces = words(rng, rng.randint(*context.options.output_tokens))
    cut = limit is not None and len(pieces) > limit
    return Draft(pieces[:limit] if cut else pieces, tool.name if tool else None, cut)


def _json_pieces(schema: Mapping[str, Any], rng: random.Random) -> tuple[str, ...]:
    try:
        return pieces_of(compact(value_for(schema, rng)))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError):
        raise BadCall(
            "Invalid schema: it is not a JSON Schema that can be followed.", code="invalid_schema"
        ) from None


def sse(data: object, event: str | None = None) -> bytes:
    """One server-sent event; `data` is written as JSON unless it is text already."""
    text = data if isinstance(data, str) else compact(data)
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {text}\n\n".encode("utf-8", "replace")
