"""OpenAI chat completions, and the many servers that speak it. Shapes: the API reference, "Chat completions"
and "Streaming"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.core.usage import chat_billing, chat_usage
from underlay.providers._ask import GENERATING, deterministic, integer, read_fields, searches, word
from underlay.providers._errors import openai_body, openai_kind
from underlay.providers._observe import JSONObserver, StreamObserver, escapes, named, parsed
from underlay.providers.dialect import COMPLETE, Ask, Outcome
from underlay.telemetry import attributes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from underlay.core.usage import Billing
    from underlay.providers.dialect import Observer
    from underlay.telemetry.events import Usage

__all__ = ["ChatStream", "OpenAIChat", "choices_of", "read_choices"]

# The later row wins: `max_completion_tokens` takes the place of `max_tokens`.
_FIELDS = (*GENERATING, (attributes.MAX_TOKENS.key, "max_completion_tokens", integer))
_OUTPUT_TYPES = {"text": "text", "json_object": "json", "json_schema": "json"}


class OpenAIChat:
    """`POST …/chat/completions`."""

    name = "openai.chat"
    family = "openai"
    suffix = "/chat/completions"
    required: tuple[str, ...] = ("model", "messages")
    merger = None

    def ask(self, body: Mapping[str, object]) -> Ask | None:
        """What a chat completion asks for; None without a model and a list of messages."""
        model, messages = word(body.get("model")), body.get("messages")
        if model is None or not isinstance(messages, list) or not messages:
            return None
        parameters = read_fields(body, _FIELDS)
        if (output := _output_type(body)) is not None:
            parameters[attributes.OUTPUT_TYPE.key] = output
        return Ask(
            "chat",
            model,
            body.get("stream") is True,
            deterministic(body),
            "server_tool" if searches(body, model) else "",
            parameters,
        )

    def observe(self, *, stream: bool, status: int) -> Observer:
        """An observer of one answer: chunks up to `[DONE]`, or one object."""
        return ChatStream() if stream else JSONObserver(status, read_choices, openai_kind)

    def error_body(self, kind: str, message: str) -> bytes:
        """An error in OpenAI's shape."""
        return openai_body(kind, message)

    def text(self, body: object) -> str | None:
        """The content of the first choice; None when it has none (a tool call)."""
        for choice in choices_of(body):
            message = choice.get("message")
            content = message.get("content") if isinstance(message, dict) else None
            return content if isinstance(content, str) else None
        return None


def _output_type(body: Mapping[str, object]) -> str | None:
    modalities = body.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        return "speech"
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    return _OUTPUT_TYPES.get(kind) if isinstance(kind, str) else None


def choices_of(body: object) -> list[dict[str, object]]:
    """The choices of a parsed answer or chunk, as far as it has any."""
    choices = body.get("choices") if isinstance(body, dict) else None
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _index(choice: Mapping[str, object], position: int) -> int:
    index = integer(choice.get("index"))
    return position if index is None else index


def read_choices(body: dict[str, object]) -> Outcome:
    """What a parsed answer with choices turned out to be."""
    choices = choices_of(body)
    return Outcome(
        COMPLETE,
        bool(choices),
        chat_usage(body.get("usage")),
        chat_billing(body),
        named(body.get("model")),
        named(body.get("id")),
        _finish_reasons(choices),
    )


def _finish_reasons(choices: list[dict[str, object]]) -> tuple[str, ...]:
    """The reasons in order of their choices' indices; of choices with the same index the last one's."""
    if len(choices) == 1:
        reason = named(choices[0].get("finish_reason"))
        return (reason,) if reason else ()
    finish = {_index(choice, i): named(choice.get("finish_reason")) for i, choice in enumerate(choices)}
    return tuple(reason for _, reason in sorted(finish.items()) if reason)


class ChatStream(StreamObserver):
    """Chunks of a streamed completion. Usage rides on the last chunk, if the caller or the provider wanted it
    at all.

    A chunk is parsed only when it can tell something new: most carry a few letters of text between the same
    id and model. Quotes inside JSON strings are escaped, so a quoted name in the bytes is a name or a whole
    string; a `\\u` escape could spell one, and is parsed.
    """

    __slots__ = ("_billing", "_usage")

    def __init__(self) -> None:
        super().__init__()
        self._usage: Usage | None = None
        self._billing: Billing | None = None

    def _event(self, data: bytes) -> None:
        if data.startswith(b"[DONE]"):
            self._end()
        elif not (self.model and self.response_id and _idle(data)):
            self._chunk(parsed(data))

    def _chunk(self, chunk: dict[str, object] | None) -> None:
        if chunk is None:
            return
        self.model = named(chunk.get("model"), self.model)
        self.response_id = named(chunk.get("id"), self.response_id)
        for position, choice in enumerate(choices_of(chunk)):
            if reason := named(choice.get("finish_reason")):
                self.finish[_index(choice, position)] = reason
        usage = chat_usage(chunk.get("usage")) or _groq_usage(chunk)
        if usage is not None:
            self._usage = usage
            self._billing = chat_billing(chunk) or self._billing
        if error := openai_kind(chunk):
            self._end(error)

    def _verdict(self) -> Outcome:
        return self._outcome(self._usage, self._billing)


# Names that tell something unless their value is null, with or without a space before it: servers differ.
_TELLING = tuple((name, name + b":null", name + b": null") for name in (b'"usage"', b'"finish_reason"'))


def _idle(data: bytes) -> bool:
    if data.find(b'"error"') >= 0 or escapes(data):
        return False
    for name, null, spaced in _TELLING:
        told = data.count(name) - data.count(null)
        if told and told != data.count(spaced):
            return False
    return True


def _groq_usage(chunk: Mapping[str, object]) -> Usage | None:
    extra = chunk.get("x_groq")
    return chat_usage(extra.get("usage")) if isinstance(extra, dict) else None
