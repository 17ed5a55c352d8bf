"""A seeded value for a JSON Schema: what structured output and tool arguments are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from underlay.simulator.text import words

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

__all__ = ["value_for"]

_DEPTH: Final = 8


def value_for(schema: Mapping[str, Any], rng: random.Random) -> Any:
    """A value that fits the schema's types, enums, constants, properties, bounds and references.

    Patterns and formats are not followed. Nesting deeper than eight levels ends in null.
    """
    return _value(schema, rng, schema, _DEPTH)


def _value(schema: Mapping[str, Any], rng: random.Random, root: Mapping[str, Any], depth: int) -> Any:
    schema = _resolve(schema, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(list(schema["enum"]))
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return _value(schema[union][0], rng, root, depth - 1) if depth else None
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        fields: Mapping[str, Any] = schema.get("properties") or {}
        return {name: _value(part, rng, root, depth - 1) for name, part in fields.items()} if depth else {}
    if kind == "array":
        count = max(1, schema.get("minItems", 1)) if depth else 0
        return [_value(schema.get("items") or {}, rng, root, depth - 1) for _ in range(count)]
    return _scalar(kind, schema, rng)


def _scalar(kind: str, schema: Mapping[str, Any], rng: random.Random) -> Any:
    low = schema.get("minimum", 0)
    high = max(low, schema.get("maximum", low + 100))
    if kind == "integer":
        return rng.randint(int(low), int(high))
    if kind == "number":
        return round(rng.uniform(low, high), 3)
    if kind == "boolean":
        return rng.random() < 0.5
    return None if kind == "null" else "".join(words(rng, 2))


def _resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(_DEPTH):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        target: Any = root
        for step in reference.split("/")[1:]:
            target = target.get(step, {})
        schema = target
    return {"type": "null"}
