"""The body fields of the official SDKs' own request types, nested ones included."""

from __future__ import annotations

import functools
import types
import typing
from typing import Any

from anthropic.types import message_create_params
from openai.types import embedding_create_params
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params
from typing_extensions import is_typeddict

__all__ = ["FIELDS", "PATHS"]

_REQUESTS = (
    completion_create_params.CompletionCreateParamsStreaming,
    response_create_params.ResponseCreateParamsStreaming,
    embedding_create_params.EmbeddingCreateParams,
    message_create_params.MessageCreateParamsStreaming,
)
_DEPTH = 3


def _typed_dicts(hint: Any) -> list[Any]:
    """The typed dictionaries that a field's type may hold."""
    if is_typeddict(hint):
        return [hint]
    found: list[Any] = []
    if typing.get_origin(hint) is not None or isinstance(hint, types.UnionType):
        for part in typing.get_args(hint):
            found += _typed_dicts(part)
    return found


@functools.cache
def _fields(request: Any) -> list[tuple[str, list[Any]]]:
    hints = typing.get_type_hints(request)
    return [(name, _typed_dicts(hint)) for name, hint in hints.items()]


def _paths(request: Any, above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for name, nested in _fields(request):
        path = (*above, name)
        found.add(path)
        if len(path) < _DEPTH:
            found.update(*(_paths(each, path) for each in nested))
    return found


PATHS: list[tuple[str, ...]] = sorted(set().union(*(_paths(request) for request in _REQUESTS)))
"""Every field as a path from the top of the body."""

FIELDS: list[str] = sorted({path[0] for path in PATHS})
"""The top-level fields alone."""
