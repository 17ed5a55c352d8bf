"""Token counts of an answer in one shape, whichever API reported them.

Decides what a provider's `usage` object says; decides nothing about money. A field that is absent, null,
negative, a boolean, a string or a fraction is unknown (None); a zero is a zero. Sources: the APIs' published
references, and for the shape the GenAI semantic conventions (input includes cached tokens, output includes
reasoning).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from underlay.telemetry.events import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

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
]


@dataclass(frozen=True, slots=True)
class Billing:
    """What the price of an answer depends on beside `Usage`. None is unknown.

    `cache_write_1h_tokens` is the part of the written tokens kept for an hour (dearer at Anthropic). The
    audio tokens are parts of the input, output and cache-read tokens. `context` are words that choose among a
    model's prices, as the answer said them: `service_tier`, `speed`.
    """

    cache_write_1h_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    web_searches: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)


def _count(value: object) -> int | None:
    if type(value) is int and value >= 0:
        return value
    if type(value) is float and value >= 0 and value.is_integer():
        return int(value)
    return None


def _part(parent: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _first(*values: int | None) -> int | None:
    for value in values:
        if value is not None:
            return value
    return None


_NO_USAGE = Usage()


def _known(usage: Usage) -> Usage | None:
    return None if usage == _NO_USAGE else usage


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
    reasoning, total = _count(details.get("reasoning_tokens")), _count(raw.get("total_tokens"))
    if entered is not None and produced is not None and reasoning and total == entered + produced + reasoning:
        produced += reasoning
    read = (prompt.get("cached_tokens"), raw.get("prompt_cache_hit_tokens"), raw.get("cached_tokens"))
    return _known(
        Usage(
            input_tokens=entered,
            output_tokens=produced,
            cache_read_tokens=_first(*map(_count, read)),
            cache_write_tokens=_count(prompt.get("cache_write_tokens")),
            reasoning_tokens=reasoning,
        )
    )


def responses_usage(raw: object) -> Usage | None:
    """Usage of a response of the Responses API: `input_tokens`, `output_tokens` and their details."""
    if not isinstance(raw, dict):
        return None
    entered, produced = _part(raw, "input_tokens_details"), _part(raw, "output_tokens_details")
    return _known(
        Usage(
            input_tokens=_count(raw.get("input_tokens")),
            output_tokens=_count(raw.get("output_tokens")),
            cache_read_tokens=_count(entered.get("cached_tokens")),
            cache_write_tokens=_count(entered.get("cache_write_tokens")),
            reasoning_tokens=_count(produced.get("reasoning_tokens")),
        )
    )


def embeddings_usage(raw: object) -> Usage | None:
    """Usage of embeddings: `prompt_tokens`. Output is unknown unless it is reported: Mistral says
    `completion_tokens: 0`."""
    if not isinstance(raw, dict):
        return None
    return _known(
        Usage(
            input_tokens=_count(raw.get("prompt_tokens")), output_tokens=_count(raw.get("completion_tokens"))
        )
    )


def anthropic_usage(raw: object) -> Usage | None:
    """Usage of an Anthropic message. Its `input_tokens` leaves out what was read from or written to the
    prompt cache: added here."""
    if not isinstance(raw, dict):
        return None
    entered = _count(raw.get("input_tokens"))
    read, written = _count(raw.get("cache_read_input_tokens")), _count(raw.get("cache_creation_input_tokens"))
    if entered is not None:
        entered += (read or 0) + (written or 0)
    return _known(
        Usage(
            input_tokens=entered,
            output_tokens=_count(raw.get("output_tokens")),
            cache_read_tokens=read,
            cache_write_tokens=written,
            reasoning_tokens=_count(_part(raw, "output_tokens_details").get("thinking_tokens")),
        )
    )


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
    return _charged(
        Billing(
            input_audio_tokens=_count(_part(usage, "prompt_tokens_details").get("audio_tokens")),
            output_audio_tokens=_count(_part(usage, "completion_tokens_details").get("audio_tokens")),
            context=_context(answer, "service_tier"),
        )
    )


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
    return {key: value for key in keys if isinstance(value := source.get(key), str)}


_NO_BILLING = Billing()


def _charged(billing: Billing) -> Billing | None:
    return None if billing == _NO_BILLING else billing
