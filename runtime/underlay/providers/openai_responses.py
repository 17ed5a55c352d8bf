"""OpenAI's Responses API. Shapes: the API reference, "Responses" and "Streaming events"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.core.usage import responses_billing, responses_usage
from underlay.providers._ask import SAMPLING, deterministic, filled, foreign_tool, integer, read_fields, word
from underlay.providers._errors import openai_body, openai_kind
from underlay.providers._observe import JSONObserver, StreamObserver, escapes, named, parsed
from underlay.providers.dialect import COMPLETE, Ask, Outcome
from underlay.telemetry import attributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from underlay.providers.dialect import Observer

__all__ = ["OpenAIResponses"]

_FIELDS = (*SAMPLING, (attributes.MAX_TOKENS.key, "max_output_tokens", integer))
_OWN_TOOLS = frozenset({"function", "custom", "local_shell", "apply_patch"})
_OUTPUT_TYPES = {"text": "text", "json_object": "json", "json_schema": "json"}
_LAST_EVENTS = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)


class OpenAIResponses:
    """`POST …/responses`.

    Required are a model and a non-empty input: a string, or a list of items. The API also takes a stored
    `prompt` in place of both, and a bare `previous_response_id`; those are answered from state on the
    provider's side, which may change under the same request, and a body without a model could not be told
    apart on an unknown host. They pass untouched.
    """

    name = "openai.responses"
    family = "openai"
    suffix = "/responses"
    required: tuple[str, ...] = ("model", "input")
    merger = None

    def ask(self, body: Mapping[str, object]) -> Ask | None:
        """What a response asks for; None without a model and an input."""
        model = word(body.get("model"))
        if model is None or not filled(body.get("input")):
            return None
        parameters = read_fields(body, _FIELDS)
        if (output := _output_type(body)) is not None:
            parameters[attributes.OUTPUT_TYPE.key] = output
        return Ask(
            "chat",
            model,
            body.get("stream") is True,
            deterministic(body),
            _uncacheable(body),
            parameters,
        )

    def observe(self, *, stream: bool, status: int) -> Observer:
        """An observer of one answer: events up to the response's end, or one response object."""
        return ResponseStream() if stream else JSONObserver(status, _read, _kind)

    def error_body(self, kind: str, message: str) -> bytes:
        """An error in OpenAI's shape."""
        return openai_body(kind, message)

    def text(self, body: object) -> str | None:
        """All output text, joined as the SDK's `output_text` does; None when there is none (a tool call)."""
        parts = list(_texts(body))
        return "".join(parts) if parts else None


def _uncacheable(body: Mapping[str, object]) -> str:
    if body.get("background"):
        return "background"
    if body.get("conversation"):
        return "conversation"
    if body.get("prompt"):
        return "stored_prompt"
    if "tools" in body and foreign_tool(body["tools"], _OWN_TOOLS):
        return "server_tool"
    return ""


def _output_type(body: Mapping[str, object]) -> str | None:
    text = body.get("text")
    wanted = text.get("format") if isinstance(text, dict) else None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    return _OUTPUT_TYPES.get(kind) if isinstance(kind, str) else None


def _texts(body: object) -> Iterator[str]:
    output = body.get("output") if isinstance(body, dict) else None
    for item in output if isinstance(output, list) else []:
        content = item.get("content") if isinstance(item, dict) and item.get("type") == "message" else None
        for part in content if isinstance(content, list) else []:
            if (
                isinstance(part, dict)
                and part.get("type") == "output_text"
                and isinstance(part.get("text"), str)
            ):
                yield part["text"]


def _kind(body: object) -> str:
    # A response object has `error: null` when it did not fail, and may lack an error object when it did.
    if isinstance(body, dict) and body.get("status") == "failed":
        return openai_kind(body) or "unknown_error"
    return openai_kind(body)


def _finish(body: Mapping[str, object]) -> tuple[str, ...]:
    details = body.get("incomplete_details")
    reason = named(details.get("reason")) if isinstance(details, dict) else ""
    status = reason or named(body.get("status"))
    return (status,) if status else ()


def _read(body: dict[str, object]) -> Outcome:
    return Outcome(
        COMPLETE,
        body.get("status") == "completed",
        responses_usage(body.get("usage")),
        responses_billing(body),
        named(body.get("model")),
        named(body.get("id")),
        _finish(body),
    )


class ResponseStream(StreamObserver):
    """Events of a streamed response. The last one carries the whole response object, so only the first and
    the last are parsed.

    Which event it is says the data's own `type`, as the SDK has it; the `event:` line repeats it and is not
    relied on. Events that tell something have a `response` object or are errors; the same names inside text
    are escaped, and a `\\u` escape is parsed.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        super().__init__()
        self._last: Outcome | None = None

    def _event(self, data: bytes) -> None:
        if data.find(b'"response"') >= 0 or data.find(b'"error"') >= 0 or escapes(data):
            event = parsed(data)
            if event is not None:
                self._told(event)

    def _told(self, event: Mapping[str, object]) -> None:
        kind, response = event.get("type"), event.get("response")
        if kind == "error" or (kind is None and event.get("error")):
            self._end(_event_error(event))
        elif isinstance(kind, str) and isinstance(response, dict):
            self.model = named(response.get("model"), self.model)
            self.response_id = named(response.get("id"), self.response_id)
            if kind in _LAST_EVENTS:
                self.storable = kind == "response.completed"
                self._last = _read(response)
                self.finish = dict(enumerate(self._last.finish_reasons))
                self._end((openai_kind(response) or "unknown_error") if kind == "response.failed" else "")

    def _verdict(self) -> Outcome:
        return self._outcome(self._last.usage, self._last.billing) if self._last else self._outcome()


def _event_error(event: Mapping[str, object]) -> str:
    # The documented error event has `code` at its top; others wrap an error object as the other APIs do.
    return openai_kind(event if event.get("error") else {"error": {"code": event.get("code")}})
