"""Token counts of an answer in one shape, whichever API reported them.

Decides what a provider's `usage` object says; decides nothing about money. A field that is absent, null,
negative, a boolean, a string, a fraction or beyond 2^53 is unknown (None); a zero is a zero. Sources: the
APIs' published references, and for the shape the GenAI semantic conventions (input includes cached tokens,
output includes reasoning).
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from underlay.records import record
from underlay.telemetry.events import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "Billing",
    "anthropic_billing",
    "anthropic_usage",
    "chat_billing",
    "chat_usage",
    "embeddings_usage",
    "merge_anthropic",
    "responses_billing",
    "responses_usage",
    "shares",
    "usage_parts",
    "usage_sums",
]


@record(frozen=True, slots=True)
class Billing:
    """What the price of an answer depends on beside `Usage`. None is unknown.

    The audio tokens are parts of the input, output and cache-read tokens. `context` are words that choose
    among a model's prices, as the answer said them: `service_tier`, `speed`. `cache_write_1h_tokens` is the
    part of the written tokens kept for an hour (dearer at Anthropic).
    """

    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    cache_write_1h_tokens: int | None = None
    web_searches: int | None = None


_TOO_MANY = 2**53  # beyond it a double skips integers, and sums leave the 64 bits that OTLP carries


def _count(value: object) -> int | None:
    if type(value) is int and 0 <= value < _TOO_MANY:
        return value
    if type(value) is float and 0 <= value < _TOO_MANY and value.is_integer():
        return int(value)
    return None


def _part(parent: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _first(*values: object) -> int | None:
    for value in values:
        if (count := _count(value)) is not None:
            return count
    return None


_NO_USAGE = Usage()


def _known(usage: Usage) -> Usage | None:
    return None if usage.input_tokens is None and usage == _NO_USAGE else usage


def chat_usage(raw: object) -> Usage | None:
    """Usage of a chat completion: `prompt_tokens`, `completion_tokens` and their details.

    Two dialect differences are folded in. DeepSeek and Moonshot name cached tokens at the top
    (`prompt_cache_hit_tokens`, `cached_tokens`). xAI reports reasoning beside the completion instead of in
    it, which its own total gives away.
    """
    if not isinstance(raw, dict):
        return None
    prompt, details = _part(raw, "prompt_tokens_details"), _part(raw, "completion_tokens_details")
    entered, produced = _count(raw.get("prompt_tokens")), _count(raw.get("completion_tokens"))
    reasoning = _count(details.get("reasoning_tokens"))
    if (
        reasoning
        and entered is not None
        and produced is not None
        and _count(raw.get("total_tokens")) == entered + produced + reasoning
    ):
        produced += reasoning
    read = _count(prompt.get("cached_tokens"))
    if read is None:
        read = _first(raw.get("prompt_cache_hit_tokens"), raw.get("cached_tokens"))
    written = _count(prompt.get("cache_write_tokens"))
    return _known(Usage(entered, produced, read, written, reasoning))


def responses_usage(raw: object) -> Usage | None:
    """Usage of a response of the Responses API: `input_tokens`, `output_tokens` and their details."""
    if not isinstance(raw, dict):
        return None
    prompt, details = _part(raw, "input_tokens_details"), _part(raw, "output_tokens_details")
    entered, produced = _count(raw.get("input_tokens")), _count(raw.get("output_tokens"))
    read, written = _count(prompt.get("cached_tokens")), _count(prompt.get("cache_write_tokens"))
    return _known(Usage(entered, produced, read, written, _count(details.get("reasoning_tokens"))))


def embeddings_usage(raw: object) -> Usage | None:
    """Usage of embeddings: `prompt_tokens`. Output is unknown unless it is reported: Mistral says
    `completion_tokens: 0`."""
    if not isinstance(raw, dict):
        return None
    return _known(Usage(_count(raw.get("prompt_tokens")), _count(raw.get("completion_tokens"))))


def anthropic_usage(raw: object) -> Usage | None:
    """Usage of an Anthropic message. Its `input_tokens` leaves out what was read from or written to the
    prompt cache: added here."""
    if not isinstance(raw, dict):
        return None
    entered = _count(raw.get("input_tokens"))
    read, written = _count(raw.get("cache_read_input_tokens")), _count(raw.get("cache_creation_input_tokens"))
    if entered is not None:
        entered += (read or 0) + (written or 0)
    reasoning = _count(_part(raw, "output_tokens_details").get("thinking_tokens"))
    return _known(Usage(entered, _count(raw.get("output_tokens")), read, written, reasoning))


def merge_anthropic(start: object, delta: object) -> dict[str, object] | None:
    """The raw usage of `message_start` overlaid with that of `message_delta`, whose counts are cumulative.
    Null does not overlay."""
    if not isinstance(start, dict) and not isinstance(delta, dict):
        return None
    merged: dict[str, object] = dict(start) if isinstance(start, dict) else {}
    if isinstance(delta, dict):
        merged.update((key, value) for key, value in delta.items() if value is not None)
    return merged


def chat_billing(answer: Mapping[str, object]) -> Billing | None:
    """What the price needs beside usage, from a chat completion or the chunk that carries its usage."""
    usage = _part(answer, "usage")
    heard = _count(_part(usage, "prompt_tokens_details").get("audio_tokens"))
    spoken = _count(_part(usage, "completion_tokens_details").get("audio_tokens"))
    return _charged(Billing(heard, spoken, _context(answer, "service_tier")))


def responses_billing(answer: Mapping[str, object]) -> Billing | None:
    """What the price needs beside usage, from a response object."""
    output = answer.get("output")
    searches = sum(map(_is_search, output)) if isinstance(output, list) else 0
    return _charged(Billing(web_searches=searches or None, context=_context(answer, "service_tier")))


def anthropic_billing(usage: object) -> Billing | None:
    """What the price needs beside usage, from the (merged) `usage` of a message."""
    if not isinstance(usage, dict):
        return None
    return _charged(
        Billing(
            cache_write_1h_tokens=_count(_part(usage, "cache_creation").get("ephemeral_1h_input_tokens")),
            web_searches=_count(_part(usage, "server_tool_use").get("web_search_requests")),
            context=_context(usage, "service_tier", "speed"),
        )
    )


def _is_search(item: object) -> bool:
    if not isinstance(item, dict) or item.get("type") != "web_search_call":
        return False
    # Opening a found page and searching inside it are steps of the same call and are not charged.
    return _part(item, "action").get("type", "search") == "search"


def _context(source: Mapping[str, object], *keys: str) -> dict[str, str]:
    context = {}
    for key in keys:
        if isinstance(value := source.get(key), str):
            context[key] = value
    return context


_NO_BILLING = Billing()


def _charged(billing: Billing) -> Billing | None:
    return None if not billing.context and billing == _NO_BILLING else billing


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Whole parts of `total` that add up to it, in proportion to the weights; even ones where no weight is
    above zero.

    The largest remainder method (Hamilton): every part is the exact share rounded down, and what is left goes
    by ones to the largest remainders, the first of equal ones before. No part is more than its exact share
    rounded up.
    """
    whole = sum(weights)
    if whole <= 0:
        weights, whole = [1] * len(weights), len(weights)
    parts, remainders = [], []
    for weight in weights:
        part, remainder = divmod(total * weight, whole)
        parts.append(part)
        remainders.append(remainder)
    order = sorted(range(len(parts)), key=lambda i: -remainders[i])
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    return parts


_ENTERED = ("prompt", "input", "cached")
_PRODUCED = ("completion", "output", "reasoning")
_Parts = tuple[int | float, ...]


def usage_parts(usage: object, entered: Sequence[int], produced: Sequence[int]) -> list[_Parts | None]:
    """How one reply's raw `usage` divides among those whose requests were merged: for every number in it, in
    the order in which it is written, the part of each; None where all keep it (a duration).

    The weights, one each, are of what entered and of what was produced. Counts stay whole and add up, nested
    ones too, and no part of a detail is more than the part of what it is a detail of; where the total is the
    sum of prompt and completion, so is every part of it. Of fractions only money ("cost") is divided.
    """
    taken = _counted(usage, ("prompt_tokens", "input_tokens"))
    given = _counted(usage, ("completion_tokens", "output_tokens"))
    inputs = list(entered) if taken is None else shares(taken, entered)
    outputs = [0] * len(inputs) if given is None else shares(given, produced)
    both = [a + b for a, b in zip(inputs, outputs, strict=True)]
    found: list[_Parts | None] = []
    for path, value in _leaves(usage):
        kind = path[0]
        if kind.startswith(_ENTERED):
            found.append(_parts(path, value, inputs))
        else:
            found.append(_parts(path, value, outputs if kind.startswith(_PRODUCED) else both))
    return found


def usage_sums(usages: Sequence[object]) -> list[int | float | None]:
    """The other way round: for every number in the first raw `usage`, in the order in which it is written,
    the sum over all of them; None where the first one's stays."""
    others = [dict(_leaves(usage)) for usage in usages[1:]]
    found: list[int | float | None] = []
    for path, value in _leaves(usages[0]):
        adds = _is_count(path, value) or _is_money(path, value)
        found.append(value + sum(other.get(path, 0) for other in others) if adds else None)
    return found


def _counted(usage: object, names: tuple[str, ...]) -> int | None:
    raw = usage if isinstance(usage, dict) else {}
    return _first(*map(raw.get, names))


def _leaves(usage: object) -> Iterator[tuple[tuple[str, ...], int | float]]:
    return _numbers(usage, ()) if isinstance(usage, dict) else iter(())


def _numbers(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int | float]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, (*path, name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _numbers(inner, (*path, str(place)))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def _is_count(path: tuple[str, ...], value: int | float) -> bool:
    # Some servers write counts as 8.0.
    return _count(value) is not None and (type(value) is int or "token" in path[-1])


def _is_money(path: tuple[str, ...], value: int | float) -> bool:
    return value >= 0 and any("cost" in name for name in path)


def _parts(path: tuple[str, ...], value: int | float, weights: Sequence[int]) -> _Parts | None:
    if _is_count(path, value):
        parts = shares(int(value), weights)
        return tuple(parts) if type(value) is int else tuple(map(float, parts))
    if _is_money(path, value):
        whole = sum(weights)
        return tuple(value * weight / whole if whole else value / len(weights) for weight in weights)
    return None
