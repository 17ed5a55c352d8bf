"""Reading a request's body: fields by type, and the request attributes of the conventions. Values that are
not of the right type are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.providers.dialect import Inputs
from underlay.telemetry import attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Read = Callable[[object], object]
    Field = tuple[str, str, Read]

__all__ = [
    "GENERATING",
    "SAMPLING",
    "deterministic",
    "filled",
    "foreign_tool",
    "inputs_of",
    "integer",
    "number",
    "read_fields",
    "searches",
    "word",
]


_TWO_TO_63 = 2**63


def number(value: object) -> float | None:
    """A JSON number as a double, else None: JSON has integers that are too large for one."""
    if type(value) is float:
        return value
    if type(value) is not int:
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def integer(value: object) -> int | None:
    """A JSON integer of 64 bits, else None: OTLP carries no larger one, and would lose the whole batch."""
    return value if type(value) is int and -_TWO_TO_63 <= value < _TWO_TO_63 else None


def choice_count(value: object) -> int | None:
    """The number of choices where it is not the usual one: the conventions want it only then."""
    return None if value == 1 else integer(value)


def word(value: object) -> str | None:
    """A non-empty string, else None."""
    return value if isinstance(value, str) and value else None


def filled(value: object) -> bool:
    """True for a non-empty string or list: the shape that required inputs of every API have."""
    return isinstance(value, str | list) and bool(value)


_MARKS = 2


def inputs_of(field: str, value: object) -> Inputs | None:
    """The inputs in a body field: a text, a list of texts, a list of token ids (one input) or a list of such
    lists. None for anything else, mixtures, and where one of them is empty: providers refuse that.

    Token ids are counted. The upper estimate for a text is its UTF-8 bytes and two: every token of a
    byte-level BPE (OpenAI, Mistral, Llama 3) stands for one byte or more, and WordPiece and SentencePiece add
    at most a mark at either end. Plain text has three to five bytes a token.
    """
    if isinstance(value, str):
        return Inputs(field, "text", 1, _most_tokens(value)) if value else None
    if not isinstance(value, list):
        return None
    kinds = set(map(type, value))
    if kinds == {str} and all(value):
        return Inputs(field, "text", len(value), sum(map(_most_tokens, value)))
    if kinds == {int}:
        return Inputs(field, "tokens", 1, len(value))
    if kinds == {list} and all(set(map(type, each)) == {int} for each in value):
        return Inputs(field, "tokens", len(value), sum(map(len, value)))
    return None


def _most_tokens(text: str) -> int:
    return _MARKS + (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))


SAMPLING: tuple[Field, ...] = (
    (attributes.TEMPERATURE.key, "temperature", number),
    (attributes.TOP_P.key, "top_p", number),
)
"""The two sampling fields that every generating API has."""

GENERATING: tuple[Field, ...] = (
    *SAMPLING,
    (attributes.MAX_TOKENS.key, "max_tokens", integer),
    (attributes.FREQUENCY_PENALTY.key, "frequency_penalty", number),
    (attributes.PRESENCE_PENALTY.key, "presence_penalty", number),
    (attributes.SEED.key, "seed", integer),
    (attributes.CHOICE_COUNT.key, "n", choice_count),
    (attributes.TOP_K.key, "top_k", integer),
)
"""The fields that chat and legacy completions share."""


def read_fields(body: Mapping[str, object], fields: Iterable[Field]) -> dict[str, object]:
    """Attributes by key from (attribute key, body field, reader) rows. A later row of the same key wins."""
    found: dict[str, object] = {}
    for key, name, read in fields:
        if name in body:
            value = read(body[name])
            if value is not None:
                found[key] = value
    return found


def deterministic(body: Mapping[str, object]) -> bool:
    """True at temperature 0 or with a seed. A missing temperature is the provider's default: not 0."""
    temperature = body.get("temperature")
    return (temperature == 0 and temperature is not False) or type(body.get("seed")) is int


def foreign_tool(tools: object, own: frozenset[str], prefixes: tuple[str, ...] = ()) -> bool:
    """True when a tool may run on the provider's side: any type but those known to run at the caller, tools
    of tomorrow included."""
    if not isinstance(tools, list):
        return tools is not None
    for tool in tools:
        kind = tool.get("type", "function") if isinstance(tool, dict) else ""
        if not isinstance(kind, str) or (kind not in own and not (prefixes and kind.startswith(prefixes))):
            return True
    return False


_SEARCHES = ("web_search_options", "search_parameters", "plugins")
_OWN_TOOLS = frozenset({"function", "custom"})


def searches(body: Mapping[str, object], model: str) -> bool:
    """True when the answer may be a matter of the day, because the provider searches or runs tools: by a
    field (OpenAI, xAI, OpenRouter), or because the model always does."""
    for field in _SEARCHES:
        if body.get(field):
            return True
    if model.endswith(":online") or "-search-" in model:
        return True
    return "tools" in body and foreign_tool(body["tools"], _OWN_TOOLS)
