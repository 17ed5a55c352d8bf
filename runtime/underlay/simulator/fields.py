"""Reads the fields of a request's body, and refuses as the providers do: naming the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from underlay.simulator.replies import BadCall, Tool

__all__ = ["flag", "listed", "mapping", "objects", "pick", "text", "whole"]


def text(body: Mapping[str, Any], name: str) -> str:
    """A required text that is not empty."""
    value = _required(body, name)
    if not isinstance(value, str) or not value:
        raise BadCall(f"'{name}' must be a string that is not empty.", param=name, code="invalid_type")
    return value


def listed(body: Mapping[str, Any], name: str) -> list[Any]:
    """A required list that is not empty."""
    value = _required(body, name)
    if not isinstance(value, list) or not value:
        raise BadCall(
            f"'{name}' must be an array with at least one element.", param=name, code="invalid_type"
        )
    return value


def objects(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A required list of objects that is not empty."""
    values = listed(body, name)
    if not all(isinstance(value, dict) for value in values):
        raise BadCall(f"Every element of '{name}' must be an object.", param=name, code="invalid_type")
    return values


def mapping(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An optional object; one that is absent or null is empty."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadCall(f"'{name}' must be an object.", param=name, code="invalid_type")
    return value


def flag(body: Mapping[str, Any], name: str) -> bool:
    """An optional boolean, false when absent or null."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadCall(f"'{name}' must be a boolean.", param=name, code="invalid_type")
    return bool(value)


def whole(
    body: Mapping[str, Any], name: str, *, most: int | None = None, required: bool = False
) -> int | None:
    """A whole number from 1, None when it is absent or null and not required."""
    value = _required(body, name) if required else body.get(name)
    if value is None and not required:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < 1
        or (most is not None and value > most)
    ):
        span = "1 or more" if most is None else f"1 to {most}"
        raise BadCall(f"'{name}' must be a whole number, {span}.", param=name, code="integer_out_of_range")
    return value


def pick(tools: list[Tool], name: str | None) -> Tool:
    """The tool that the choice names, or the first for a choice of any."""
    found = next((tool for tool in tools if name in (None, tool.name)), None)
    if found is None:
        raise BadCall(f"Tool choice {name or 'required'!r} was not found in 'tools'.", param="tool_choice")
    return found


def _required(body: Mapping[str, Any], name: str) -> Any:
    if body.get(name) is None:
        raise BadCall(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    return body[name]
