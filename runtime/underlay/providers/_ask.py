"""Reading a request's body: fields by type, and the request attributes of the conventions. Values that are
not of the right type are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.telemetry import attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Read = Callable[[object], object]
    Field = tuple[str, str, Read]

__all__ = [
    "SAMPLING",
    "choice_count",
    "deterministic",
    "filled",
    "foreign_tool",
    "integer",
    "number",
    "read_fields",
    "word",
]


def number(value: object) -> float | None:
    """A JSON number as a double, else None."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def integer(value: object) -> int | None:
    """A JSON integer, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def choice_count(value: object) -> int | None:
    """The number of choices where it is not the usual one: the conventions want it only then."""
    return None if value == 1 else integer(value)


def word(value: object) -> str | None:
    """A non-empty string, else None."""
    return value if isinstance(value, str) and value else None


def filled(value: object) -> bool:
    """True for a non-empty string or list: the shape that required inputs of every API have."""
    return isinstance(value, str | list) and bool(value)


SAMPLING: tuple[Field, ...] = (
    (attributes.TEMPERATURE.key, "temperature", number),
    (attributes.TOP_P.key, "top_p", number),
)
"""The two sampling fields that every generating API has."""


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
    return number(body.get("temperature")) == 0 or integer(body.get("seed")) is not None


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
