"""OpenAI's legacy completions, and the servers that speak them. Shapes: the API reference, "Completions"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.providers._ask import (
    GENERATING,
    deterministic,
    filled,
    inputs_of,
    integer,
    read_fields,
    searches,
    word,
)
from underlay.providers._bounds import COMPLETIONS
from underlay.providers._errors import openai_body, openai_kind
from underlay.providers._merge import ListMerger
from underlay.providers._observe import JSONObserver
from underlay.providers.dialect import Ask
from underlay.providers.openai_chat import ChatStream, choices_of, read_choices

if TYPE_CHECKING:
    from collections.abc import Mapping

    from underlay.providers.dialect import Inputs, Observer

__all__ = ["OpenAICompletions"]


class OpenAICompletions:
    """`POST …/completions`. A reply and its chunks are those of chat, with a `text` in every choice instead
    of a message; choice `p * n + j` is answer `j` to prompt `p`."""

    name = "openai.completions"
    family = "openai"
    suffix = "/completions"
    required: tuple[str, ...] = ("model", "prompt")
    merger = ListMerger(field="prompt", answers="choices", limits=COMPLETIONS, times="n", output="text")

    def ask(self, body: Mapping[str, object]) -> Ask | None:
        """What a completion asks for; None without a model and a prompt (a string, or a list of strings or
        tokens)."""
        model = word(body.get("model"))
        if model is None or not filled(body.get("prompt")):
            return None
        return Ask(
            "text_completion",
            model,
            body.get("stream") is True,
            deterministic(body),
            "server_tool" if searches(body, model) else "",
            read_fields(body, GENERATING),
            _inputs(body),
        )

    def observe(self, *, stream: bool, status: int) -> Observer:
        """An observer of one answer: chunks up to `[DONE]`, or one object."""
        return ChatStream() if stream else JSONObserver(status, read_choices, openai_kind)

    def error_body(self, kind: str, message: str) -> bytes:
        """An error in OpenAI's shape."""
        return openai_body(kind, message)

    def text(self, body: object) -> str | None:
        """The text of the first choice."""
        for choice in choices_of(body):
            text = choice.get("text")
            return text if isinstance(text, str) else None
        return None


def _inputs(body: Mapping[str, object]) -> Inputs | None:
    # The chunks of a stream cannot be told apart before it ends.
    times = body.get("n")
    if body.get("stream") or not (times is None or (integer(times) or 0) > 0):
        return None
    return inputs_of("prompt", body.get("prompt"))
