"""OpenAI embeddings, and the servers that speak it. Shapes: the API reference, "Embeddings"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.core.usage import embeddings_usage
from underlay.providers._ask import filled, inputs_of, integer, read_fields, word
from underlay.providers._bounds import EMBEDDINGS
from underlay.providers._errors import openai_body, openai_kind
from underlay.providers._merge import ListMerger
from underlay.providers._observe import JSONObserver, named
from underlay.providers.dialect import COMPLETE, Ask, Outcome
from underlay.telemetry import attributes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from underlay.providers.dialect import Inputs, Observer

__all__ = ["OpenAIEmbeddings"]


def _formats(value: object) -> tuple[str, ...] | None:
    return (value,) if isinstance(value, str) else None


_FIELDS = (
    (attributes.DIMENSION_COUNT.key, "dimensions", integer),
    (attributes.ENCODING_FORMATS.key, "encoding_format", _formats),
)


class OpenAIEmbeddings:
    """`POST …/embeddings`. The answer depends on the input alone, so it is deterministic without a seed."""

    name = "openai.embeddings"
    family = "openai"
    suffix = "/embeddings"
    required: tuple[str, ...] = ("model", "input")
    merger = ListMerger(field="input", answers="data", limits=EMBEDDINGS)

    def ask(self, body: Mapping[str, object]) -> Ask | None:
        """What an embeddings request asks for; None without a model and an input (a string, or a list of
        strings or tokens)."""
        model = word(body.get("model"))
        if model is None or not filled(body.get("input")):
            return None
        return Ask(
            "embeddings",
            model,
            stream=False,
            deterministic=True,
            parameters=read_fields(body, _FIELDS),
            inputs=_inputs(body),
        )

    def observe(self, *, stream: bool, status: int) -> Observer:
        """An observer of one answer. The API has no streams, so whatever comes is read as one object."""
        return JSONObserver(status, _read, openai_kind)

    def error_body(self, kind: str, message: str) -> bytes:
        """An error in OpenAI's shape."""
        return openai_body(kind, message)

    def text(self, body: object) -> str | None:
        """None: vectors have no text."""
        return None


# Jina embeds the inputs of a list as parts of one text: a vector depends on its neighbours.
_TOGETHER = "late_chunking"


def _inputs(body: Mapping[str, object]) -> Inputs | None:
    return None if body.get(_TOGETHER) else inputs_of("input", body.get("input"))


def _read(body: dict[str, object]) -> Outcome:
    data = body.get("data")
    return Outcome(
        COMPLETE,
        isinstance(data, list) and bool(data),
        embeddings_usage(body.get("usage")),
        model=named(body.get("model")),
    )
