"""The inputs of embeddings and completions: one or many, texts or arrays of token ids, within limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from underlay.simulator.replies import BadCall
from underlay.simulator.text import count_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from underlay.simulator.options import SimulatorOptions

__all__ = ["Input", "count_input", "read_inputs"]

Input = str | list[int]


def count_input(value: Input) -> int:
    """Tokens of one input, at least 1."""
    return max(1, count_text(value)) if isinstance(value, str) else len(value)


def read_inputs(body: Mapping[str, Any], field: str, options: SimulatorOptions) -> list[Input]:
    """The inputs in a body's field. Raises `BadCall` as OpenAI words it: on inputs of another kind or empty
    ones, on too many, and on too many tokens over all of them."""
    value = body.get(field)
    found: Any = [value] if isinstance(value, str) or _tokens(value) else value
    texts = isinstance(found, list) and all(isinstance(each, str) and each for each in found)
    if not found or not (texts or (isinstance(found, list) and all(map(_tokens, found)))):
        raise BadCall(
            f"'$.{field}' must be a text, an array of token ids, or an array of either, none empty.",
            param=field,
            code="invalid_value",
        )
    inputs: list[Input] = list(found)
    if len(inputs) > options.max_inputs:
        raise BadCall(
            f"Invalid '{field}': array too long. Expected an array with maximum length {options.max_inputs}, "
            f"but got an array with length {len(inputs)} instead.",
            param=field,
            code="array_above_max_length",
        )
    tokens, most = sum(map(count_input, inputs)), options.max_request_tokens
    if tokens > most:
        kind = "max_tokens_per_request"
        raise BadCall(f"Requested {tokens} tokens, max {most} tokens per request", code=kind, kind=kind)
    return inputs


def _tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)
