"""OpenAI responses: POST …/responses, JSON and SSE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from underlay.simulator import fields
from underlay.simulator.errors import error_body
from underlay.simulator.replies import (
    AT_ONCE,
    BadCall,
    Context,
    Draft,
    Exchange,
    Frame,
    Tool,
    Usage,
    draft,
    sse,
)
from underlay.simulator.text import compact, prompt_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["exchange", "failure"]

_ECHOED = (
    "instructions",
    "metadata",
    "previous_response_id",
    "reasoning",
    "safety_identifier",
    "text",
    "user",
)


def exchange(body: Mapping[str, Any], context: Context) -> Exchange:
    """Answer with a message (JSON when `text.format` asks), or a function call that `tool_choice` demands.

    `max_output_tokens` bounds it; an answer that was cut is `incomplete`. Raises `BadCall` on a bad body.
    """
    model = fields.text(body, "model")
    if not isinstance(body.get("input"), str | list):
        raise BadCall(
            "'input' must be a string or an array.", param="input", code="missing_required_parameter"
        )
    answer = draft(
        context, limit=fields.whole(body, "max_output_tokens"), tool=_tool(body), schema=_schema(body)
    )
    prompt = prompt_tokens(body)
    usage = Usage(input=prompt, output=len(answer.pieces), cached=int(prompt * context.cached_fraction))
    base = _base(body, model, context)
    return Exchange(
        model=model,
        stream=fields.flag(body, "stream"),
        usage=usage,
        payload=lambda: compact(_final(base, answer, usage, context)).encode("utf-8", "replace"),
        frames=lambda: _frames(base, answer, usage, context),
        failure=failure,
        steps=len(answer.pieces),
    )


def failure(status: int, before: int) -> bytes:
    """The event `error` that ends a stream which has begun."""
    error = error_body("openai", status)["error"]
    code = error["code"] or error["type"]
    event = {
        "type": "error",
        "code": code,
        "message": error["message"],
        "param": None,
        "sequence_number": before,
    }
    return sse(event, "error")


def _base(body: Mapping[str, Any], model: str, context: Context) -> dict[str, Any]:
    echoed = {name: body.get(name) for name in _ECHOED}
    return {
        "id": f"resp_{context.number}",
        "object": "response",
        "created_at": context.now,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        **echoed,
        "metadata": echoed["metadata"] or {},
        "text": echoed["text"] or {"format": {"type": "text"}},
        "max_output_tokens": body.get("max_output_tokens"),
        "model": model,
        "output": [],
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "service_tier": "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation", "disabled"),
        "usage": None,
    }


def _final(base: dict[str, Any], answer: Draft, usage: Usage, context: Context) -> dict[str, Any]:
    status = _status(answer)
    return {
        **base,
        "status": status,
        "completed_at": None if answer.cut else context.now,
        "incomplete_details": {"reason": "max_output_tokens"} if answer.cut else None,
        "output": [_item(answer, context, status)],
        "usage": {
            "input_tokens": usage.input,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.input + usage.output,
        },
    }


def _item(answer: Draft, context: Context, status: str) -> dict[str, Any]:
    begun = status != "in_progress"
    text = answer.text if begun else ""
    if answer.tool:
        names = {"call_id": f"call_{context.number}", "name": answer.tool}
        return {
            "id": f"fc_{context.number}",
            "type": "function_call",
            "status": status,
            "arguments": text,
            **names,
        }
    content = [_part(text)] if begun else []
    return {
        "id": f"msg_{context.number}",
        "type": "message",
        "status": status,
        "content": content,
        "role": "assistant",
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _frames(base: dict[str, Any], answer: Draft, usage: Usage, context: Context) -> Iterator[Frame]:
    for number, (name, fields_of, after, tokens) in enumerate(_events(base, answer, usage, context)):
        yield Frame(sse({"type": name, "sequence_number": number, **fields_of}, name), after, tokens)


def _events(
    base: dict[str, Any], answer: Draft, usage: Usage, context: Context
) -> Iterator[tuple[str, dict[str, Any], int, int]]:
    total, status, final = len(answer.pieces), _status(answer), _final(base, answer, usage, context)
    item, opened = _item(answer, context, status), _item(answer, context, "in_progress")
    place: dict[str, Any] = {"item_id": item["id"], "output_index": 0}
    yield "response.created", {"response": base}, AT_ONCE, 0
    yield "response.in_progress", {"response": base}, AT_ONCE, 0
    yield "response.output_item.added", {"output_index": 0, "item": opened}, 0, 0
    kind = "response.function_call_arguments" if answer.tool else "response.output_text"
    whole: dict[str, Any] = {"arguments": answer.text, "name": answer.tool}
    extra: dict[str, Any] = {}
    if not answer.tool:
        place["content_index"], whole, extra = 0, {"text": answer.text, "logprobs": []}, {"logprobs": []}
        yield "response.content_part.added", {**place, "part": _part("")}, 0, 0
    for before, size, text in answer.events(context.options.tokens_per_event):
        yield f"{kind}.delta", {**place, "delta": text, **extra}, before, size
    yield f"{kind}.done", {**place, **whole}, total, 0
    if not answer.tool:
        yield "response.content_part.done", {**place, "part": _part(answer.text)}, total, 0
    yield "response.output_item.done", {"output_index": 0, "item": item}, total, 0
    yield f"response.{status}", {"response": final}, total, 0


def _status(answer: Draft) -> str:
    return "incomplete" if answer.cut else "completed"


def _tool(body: Mapping[str, Any]) -> Tool | None:
    choice = body.get("tool_choice")
    name: str | None = None
    if isinstance(choice, dict) and choice.get("type") == "function":
        name = fields.text(choice, "name")
    elif choice != "required":
        return None
    tools = [tool for tool in fields.objects(body, "tools") if tool.get("type") == "function"]
    return fields.pick([Tool(fields.text(t, "name"), fields.mapping(t, "parameters")) for t in tools], name)


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    wanted = fields.mapping(fields.mapping(body, "text"), "format")
    if wanted.get("type") == "json_schema":
        return fields.mapping(wanted, "schema")
    if wanted.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    return None
