"""The seeded rules for text and tokens.

- The *key* of a request is SHA-256 over the seed, the kind of path and the parsed body with sorted keys,
  without `stream` and `stream_options`: the streamed and the whole answer to one question are the same text.
- *Output*: one word is one token (of JSON output, four characters are one). The words and their number come
  from the key.
- *Input*: the strings of the prompt's fields count ceil(UTF-8 bytes / 4) tokens together, plus 4 for each
  message. Roles, ids, URLs and binary data count nothing; a list of whole numbers (token ids) counts its
  length.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["PROMPT_FIELDS", "compact", "count_text", "pieces_of", "prompt_tokens", "request_key", "words"]

PROMPT_FIELDS: Final = ("system", "instructions", "messages", "input", "tools", "functions")
_SILENT: Final = frozenset(
    [
        *("role", "type", "id", "call_id", "tool_call_id", "tool_use_id", "status", "detail"),
        *("cache_control", "media_type", "url", "image_url", "data", "file_data"),
    ]
)
# fmt: off
_WORDS: Final = (
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school",
    "state", "family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week",
    "company", "system", "program", "question", "work", "government", "number", "night", "point", "home",
    "water", "room", "mother", "area", "money", "story", "fact", "month", "lot", "right", "study", "book",
    "eye", "job", "word", "business", "issue", "side", "kind", "head", "house", "service", "friend",
    "father", "power", "hour", "game", "line", "end", "member", "law", "car", "city", "community", "name",
    "president", "team", "minute", "idea",
)
# fmt: on


def compact(value: object) -> str:
    """JSON as the providers write it: no spaces, text unescaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def request_key(seed: int, path: str, body: Mapping[str, Any]) -> str:
    """The key of a request (see the module's docstring), in hexadecimal."""
    asked = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
    canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{seed}/{path}/{canonical}".encode()).hexdigest()


def count_text(text: str) -> int:
    """Tokens of one text as input: ceil(UTF-8 bytes / 4)."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Input tokens of a body that asks for an answer; at least 1."""
    size, extra = 0, 0
    for field in PROMPT_FIELDS:
        value = body.get(field)
        size += sum(len(text.encode("utf-8", "surrogatepass")) for text in _texts(value))
        if field in ("messages", "input") and isinstance(value, list):
            extra += 4 * len(value)
    return max(1, -(-size // 4) + extra)


def words(rng: random.Random, count: int) -> tuple[str, ...]:
    """An answer of `count` tokens: words that join to a sentence."""
    drawn = [rng.choice(_WORDS) for _ in range(count)]
    drawn[0] = drawn[0].capitalize()
    drawn[-1] += "."
    return (drawn[0], *(f" {word}" for word in drawn[1:]))


def pieces_of(text: str, size: int = 4) -> tuple[str, ...]:
    """JSON output cut into its tokens."""
    return tuple(text[start : start + size] for start in range(0, len(text), size))


def _texts(value: object) -> Iterator[str]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            stack.extend(_heard(item.items()))
        elif isinstance(item, list):
            stack.extend(item)


def _heard(items: Iterable[tuple[str, object]]) -> Iterator[object]:
    return (value for name, value in items if name not in _SILENT)
