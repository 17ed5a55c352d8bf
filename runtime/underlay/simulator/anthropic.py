"""Anthropic messages: POST …/v1/messages, JSON and SSE, and …/v1/messages/count_tokens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from underlay.simulator import fields
from underlay.simulator.errors import error_body
from underlay.simulator.replies import AT_ONCE, Context, Draft, Exchange, Frame, Tool, Usage, draft, sse
from underlay.simulator.text import compact, prompt_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["count_tokens", "exchange", "failure"]


def exchange(body: Mapping[str, Any], context: Context) -> Exchange:
    """Answer a message: one text block, or one `tool_use` block when `tool_choice` is `any` or names a tool.

    `max_tokens` is required and bounds it. A share `cached_fraction` of the prompt is reported as read from
    the cache; when the body marks something with `cache_control`, all of the rest but its last four tokens is
    reported as written to it. `input_tokens` is what then remains, as at Anthropic. Raises `BadCall` on a
    body that would be refused.
    """
    model = fields.text(body, "model")
    fields.listed(body, "messages")
    limit = fields.whole(body, "max_tokens", required=True)
    answer = draft(context, limit=limit, tool=_tool(body), schema=_schema(body))
    prompt = prompt_tokens(body)
    cached = int(prompt * context.cached_fraction)
    written = max(0, prompt - cached - 4) if _marked(body) else 0
    usage = Usage(input=prompt, output=len(answer.pieces), cached=cached, written=written)
    message: dict[str, Any] = {
        "id": f"msg_{context.number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(usage, 1),
    }
    return Exchange(
        model=model,
        stream=fields.flag(body, "stream"),
        usage=usage,
        payload=lambda: _payload(message, answer, usage, context),
        frames=lambda: _frames(message, answer, usage, context),
        failure=failure,
        steps=len(answer.pieces),
    )


def count_tokens(body: Mapping[str, Any], _context: Context) -> Exchange:
    """Say how many input tokens a message would have."""
    model = fields.text(body, "model")
    fields.listed(body, "messages")
    counted = compact({"input_tokens": prompt_tokens(body)}).encode()
    return Exchange(
        model=model,
        stream=False,
        usage=Usage(),
        payload=lambda: counted,
        frames=lambda: iter(()),
        failure=failure,
    )


def failure(status: int, _before: int) -> bytes:
    """The event `error` within a stream; the default status becomes `overloaded_error`, as documented."""
    return sse(error_body("anthropic", 529 if status == 500 else status), "error")


def _payload(message: dict[str, Any], answer: Draft, usage: Usage, context: Context) -> bytes:
    block = _block(answer, context)
    if answer.tool:
        # A call that the limit cut has no arguments that parse: Anthropic's `input` is an object all the
        # same.
        block["input"] = {} if answer.cut else _parsed(answer)
    else:
        block["text"] = answer.text
    whole = {
        **message,
        "content": [block],
        "stop_reason": _stop(answer),
        "usage": _usage(usage, usage.output),
    }
    return compact(whole).encode("utf-8", "replace")


def _frames(message: dict[str, Any], answer: Draft, usage: Usage, context: Context) -> Iterator[Frame]:
    def event(name: str, **content: Any) -> bytes:
        return sse({"type": name, **content}, name)

    total = len(answer.pieces)
    yield Frame(event("message_start", message=message), AT_ONCE)
    yield Frame(event("content_block_start", index=0, content_block=_block(answer, context)), 0)
    yield Frame(event("ping"), 0)
    for before, size, text in answer.events(context.options.tokens_per_event):
        delta = {"type": "text_delta", "text": text}
        if answer.tool:
            delta = {"type": "input_json_delta", "partial_json": text}
        yield Frame(event("content_block_delta", index=0, delta=delta), before, size)
    yield Frame(event("content_block_stop", index=0), total)
    ending = {"stop_reason": _stop(answer), "stop_sequence": None}
    counted = {**_tokens(usage), "output_tokens": usage.output}
    yield Frame(event("message_delta", delta=ending, usage=counted), total)
    yield Frame(event("message_stop"), total)


def _block(answer: Draft, context: Context) -> dict[str, Any]:
    if answer.tool:
        return {"type": "tool_use", "id": f"toolu_{context.number}", "name": answer.tool, "input": {}}
    return {"type": "text", "text": ""}


def _parsed(answer: Draft) -> Any:
    return json.loads(answer.text)


def _stop(answer: Draft) -> str:
    return "max_tokens" if answer.cut else "tool_use" if answer.tool else "end_turn"


def _tokens(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input - usage.cached - usage.written,
        "cache_creation_input_tokens": usage.written,
        "cache_read_input_tokens": usage.cached,
    }


def _usage(usage: Usage, output: int) -> dict[str, Any]:
    written = {"ephemeral_5m_input_tokens": usage.written, "ephemeral_1h_input_tokens": 0}
    return {**_tokens(usage), "cache_creation": written, "output_tokens": output, "service_tier": "standard"}


def _marked(value: object) -> bool:
    if isinstance(value, dict):
        return value.get("cache_control") is not None or any(_marked(each) for each in value.values())
    return isinstance(value, list) and any(_marked(each) for each in value)


def _tool(body: Mapping[str, Any]) -> Tool | None:
    choice = fields.mapping(body, "tool_choice")
    if choice.get("type") not in ("any", "tool"):
        return None
    name = fields.text(choice, "name") if choice["type"] == "tool" else None
    tools = fields.objects(body, "tools")
    return fields.pick([Tool(fields.text(t, "name"), fields.mapping(t, "input_schema")) for t in tools], name)


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    wanted = fields.mapping(fields.mapping(body, "output_config"), "format")
    return fields.mapping(wanted, "schema") if wanted.get("type") == "json_schema" else None
