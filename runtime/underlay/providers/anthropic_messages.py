"""Anthropic's Messages API. Shapes: the API reference, "Messages" and "Streaming messages"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.core.usage import anthropic_billing, anthropic_usage, merge_anthropic
from underlay.providers._ask import SAMPLING, deterministic, foreign_tool, integer, read_fields, word
from underlay.providers._errors import anthropic_body, anthropic_kind
from underlay.providers._observe import JSONObserver, StreamObserver, escapes, named, parsed
from underlay.providers.dialect import COMPLETE, Ask, Outcome
from underlay.telemetry import attributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from underlay.providers.dialect import Observer

__all__ = ["AnthropicMessages"]

_FIELDS = (
    *SAMPLING,
    (attributes.MAX_TOKENS.key, "max_tokens", integer),
    (attributes.TOP_K.key, "top_k", integer),
)
_OWN_TOOLS = frozenset({"function", "custom"})
_OWN_PREFIXES = ("bash_2", "text_editor_2", "memory_2")


class AnthropicMessages:
    """`POST …/v1/messages`. Counting tokens and batches have other paths and are not read."""

    name = "anthropic.messages"
    family = "anthropic"
    suffix = "/v1/messages"
    required: tuple[str, ...] = ("model", "messages", "max_tokens")
    merger = None

    def ask(self, body: Mapping[str, object]) -> Ask | None:
        """What a message asks for; None without a model, a list of messages and `max_tokens`."""
        model, messages = word(body.get("model")), body.get("messages")
        if (
            model is None
            or not isinstance(messages, list)
            or not messages
            or integer(body.get("max_tokens")) is None
        ):
            return None
        return Ask(
            "chat",
            model,
            body.get("stream") is True,
            deterministic(body),
            _uncacheable(body),
            read_fields(body, _FIELDS),
        )

    def observe(self, *, stream: bool, status: int) -> Observer:
        """An observer of one answer: events up to `message_stop`, or one message."""
        return MessageStream() if stream else JSONObserver(status, _read, anthropic_kind)

    def error_body(self, kind: str, message: str) -> bytes:
        """An error in Anthropic's shape."""
        return anthropic_body(kind, message)

    def text(self, body: object) -> str | None:
        """All text blocks, joined; None when there is none (a tool call)."""
        parts = list(_texts(body))
        return "".join(parts) if parts else None


def _uncacheable(body: Mapping[str, object]) -> str:
    if body.get("container"):
        return "container"
    if body.get("mcp_servers") or (
        "tools" in body and foreign_tool(body["tools"], _OWN_TOOLS, _OWN_PREFIXES)
    ):
        return "server_tool"
    return ""


def _texts(body: object) -> Iterator[str]:
    content = body.get("content") if isinstance(body, dict) else None
    for block in content if isinstance(content, list) else []:
        if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str):
            yield block["text"]


def _read(body: dict[str, object]) -> Outcome:
    reason, usage = named(body.get("stop_reason")), body.get("usage")
    return Outcome(
        COMPLETE,
        body.get("type") == "message",
        anthropic_usage(usage),
        anthropic_billing(usage),
        named(body.get("model")),
        named(body.get("id")),
        (reason,) if reason else (),
    )


class MessageStream(StreamObserver):
    """Events of a streamed message. Usage is that of `message_start` overlaid with the cumulative one of
    `message_delta`.

    Only events that tell something are parsed: those about the message, and errors. The same names inside
    text are escaped, and a `\\u` escape, which could spell one, is parsed.
    """

    __slots__ = ("_usage",)

    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, object] | None = None

    def _event(self, data: bytes) -> None:
        if data.find(b'"message_') >= 0 or data.find(b'"error"') >= 0 or escapes(data):
            event = parsed(data)
            if event is not None:
                self._told(event)

    def _told(self, event: dict[str, object]) -> None:
        kind = event.get("type")
        if kind == "message_start":
            message = event.get("message")
            if isinstance(message, dict):
                self.model = named(message.get("model"), self.model)
                self.response_id = named(message.get("id"), self.response_id)
                self._usage = merge_anthropic(self._usage, message.get("usage"))
        elif kind == "message_delta":
            delta = event.get("delta")
            if isinstance(delta, dict) and (reason := named(delta.get("stop_reason"))):
                self.finish[0] = reason
            self._usage = merge_anthropic(self._usage, event.get("usage"))
        elif kind == "message_stop":
            self._end()
        elif kind == "error":
            self._end(anthropic_kind(event))

    def _verdict(self) -> Outcome:
        return self._outcome(anthropic_usage(self._usage), anthropic_billing(self._usage))
