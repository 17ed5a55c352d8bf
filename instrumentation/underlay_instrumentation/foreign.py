"""What other instrumentations leave in the context: suppression, util-genai's call data, spans that are GenAI
calls already.

Names in this file belong to others, which is why they are not in the vocabulary.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, cast

from opentelemetry import context as context_api

from underlay.telemetry import attributes as a

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

__all__ = ["OuterCall", "is_call", "outer_call", "suppressed"]

_EMBEDDINGS = "embeddings"
_SUPPRESSED_PLAIN = "suppress_instrumentation"
_SUPPRESSED = cast("str", getattr(context_api, "_SUPPRESS_INSTRUMENTATION_KEY", _SUPPRESSED_PLAIN))

_UTIL_GENAI = "opentelemetry.util.genai.invocation"
_KEYS_OF_UTIL_GENAI = ("CLIENT_INFERENCE_CONTEXT_KEY", "CLIENT_EMBEDDING_CONTEXT_KEY")

_OPENINFERENCE_KIND = "openinference.span.kind"
_OPENINFERENCE_CALLS = frozenset({"LLM", "EMBEDDING"})
_ANTHROPIC_SCOPE = "com.anthropic.sdk"

_WRAPPERS = frozenset(
    {"create_agent", "invoke_agent", "invoke_workflow", "execute_tool", "retrieval", "plan", "create_memory"}
)
"""Operations whose spans hold model calls and are none: a call under them gets a span of its own."""


class OuterCall(Protocol):
    """util-genai's record of the call that is in context: what is put here appears on its span and its metric
    points."""

    attributes: MutableMapping[str, object]
    metric_attributes: MutableMapping[str, object]


def suppressed(context: Context) -> bool:
    """Whether instrumentation is switched off in `context`."""
    return bool(context.get(_SUPPRESSED) or context.get(_SUPPRESSED_PLAIN))


class _UtilGenai:
    """The context keys of util-genai, found once, without importing it: unless the app did, no call of it can
    be in context."""

    def __init__(self) -> None:
        self._keys: tuple[str, str] | None = None

    def keys(self) -> tuple[str, str] | None:
        if self._keys is None:
            module = sys.modules.get(_UTIL_GENAI)
            found = tuple(getattr(module, name, None) for name in _KEYS_OF_UTIL_GENAI)
            # util-genai is a beta: with any other shape it is treated as absent.
            if all(isinstance(key, str) for key in found):
                self._keys = cast("tuple[str, str]", found)
        return self._keys


_util_genai = _UtilGenai()


def outer_call(context: Context, operation: str) -> OuterCall | None:
    """Return the util-genai call of the same kind that is in `context`, if it has the shape that can be
    enriched."""
    keys = _util_genai.keys()
    if keys is None:
        return None
    data = context.get(keys[1] if operation == _EMBEDDINGS else keys[0])
    if data is None:
        return None
    shaped = isinstance(getattr(data, "attributes", None), dict) and isinstance(
        getattr(data, "metric_attributes", None), dict
    )
    return cast("OuterCall", data) if shaped else None


def is_call(span: Span) -> bool:
    """Whether a recording span is a model call of another instrumentation, by attribute or by scope."""
    attributes = cast("Mapping[str, object] | None", getattr(span, "attributes", None))
    if attributes:
        operation = attributes.get(a.OPERATION.key)
        if operation is not None:
            return operation not in _WRAPPERS
        if attributes.get(_OPENINFERENCE_KIND) in _OPENINFERENCE_CALLS:
            return True
    scope = getattr(getattr(span, "instrumentation_scope", None), "name", None)
    return isinstance(scope, str) and scope.startswith(_ANTHROPIC_SCOPE)
