"""OpenAI chat completions: POST …/chat/completions, JSON and SSE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from underlay.simulator import fields
from underlay.simulator.errors import error_body
from underlay.simulator.replies import Context, Draft, Exchange, Frame, Tool, Usage, draft, sse
from underlay.simulator.text import compact, prompt_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["exchange", "failure"]


def exchange(body: Mapping[str, Any], context: Context) -> Exchange:
    """Answer a chat completion: `n` choices, a tool call when `tool_choice` demands one, JSON when asked for.

    `max_completion_tokens`, else `max_tokens`, bounds each choice. Raises `BadCall` on a body that OpenAI
    would refuse.
    """
    model = fields.text(body, "model")
    fields.listed(body, "messages")
    count = fields.whole(body, "n", most=128) or 1
    limit = fields.whole(body, "max_completion_tokens") or fields.whole(body, "max_tokens")
    tool, schema = _tool(body), _schema(body)
    drafts = [draft(context, limit=limit, tool=tool, schema=schema, index=index) for index in range(count)]
    prompt = prompt_tokens(body)
    usage = Usage(
        input=prompt,
        output=sum(len(each.pieces) for each in drafts),
        cached=int(prompt * context.cached_fraction),
    )
    with_usage = fields.flag(fields.mapping(body, "stream_options"), "include_usage")
    head = {"id": f"chatcmpl-{context.number}", "created": context.now, "model": model}
    return Exchange(
        model=model,
        stream=fields.flag(body, "stream"),
        usage=usage,
        payload=lambda: _payload(head, drafts, usage, context),
        frames=lambda: _frames(head, drafts, usage if with_usage else None, context),
        failure=failure,
        steps=max(len(each.pieces) for each in drafts),
    )


def failure(status: int, _before: int) -> bytes:
    """The error object that OpenAI puts into a stream that has begun."""
    return sse(error_body("openai", status))


def _payload(head: dict[str, Any], drafts: list[Draft], usage: Usage, context: Context) -> bytes:
    choices = [
        {
            "index": index,
            "message": _message(each, context, index),
            "logprobs": None,
            "finish_reason": _finish(each),
        }
        for index, each in enumerate(drafts)
    ]
    tail = {"usage": _usage(usage), "service_tier": "default", "system_fingerprint": "fp_simulator"}
    whole = {"id": head["id"], "object": "chat.completion", **head, "choices": choices, **tail}
    return compact(whole).encode("utf-8", "replace")


def _message(each: Draft, context: Context, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": each.text, "refusal": None, "annotations": []}
    if each.tool:
        function = {"name": each.tool, "arguments": each.text}
        call = {"id": _call_id(context, index), "type": "function", "function": function}
        message |= {"content": None, "tool_calls": [call]}
    return message


def _frames(
    head: dict[str, Any], drafts: list[Draft], usage: Usage | None, context: Context
) -> Iterator[Frame]:
    shared: dict[str, Any] = {"id": head["id"], "object": "chat.completion.chunk", **head}
    shared |= {"service_tier": "default", "system_fingerprint": "fp_simulator"}
    null_usage: dict[str, Any] = {} if usage is None else {"usage": None}

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse({**shared, "choices": [choice], **null_usage})

    longest = max(len(each.pieces) for each in drafts)
    for index, each in enumerate(drafts):
        yield Frame(chunk(index, _opening(each, context, index)), 0)
    parts = [(before, index, size, text) for index, each in enumerate(drafts)
             for before, size, text in each.events(context.options.tokens_per_event)]  # fmt: skip
    for before, index, size, text in sorted(parts):
        yield Frame(chunk(index, _delta(drafts[index], text)), before, size)
    for index, each in enumerate(drafts):
        yield Frame(chunk(index, {}, _finish(each)), longest)
    if usage is not None:
        yield Frame(sse({**shared, "choices": [], "usage": _usage(usage)}), longest)
    yield Frame(sse("[DONE]"), longest)


def _opening(each: Draft, context: Context, index: int) -> dict[str, Any]:
    if not each.tool:
        return {"role": "assistant", "content": "", "refusal": None}
    function = {"name": each.tool, "arguments": ""}
    call = {"index": 0, "id": _call_id(context, index), "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}


def _delta(each: Draft, text: str) -> dict[str, Any]:
    if each.tool:
        return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
    return {"content": text}


def _finish(each: Draft) -> str:
    return "length" if each.cut else "tool_calls" if each.tool else "stop"


def _usage(usage: Usage) -> dict[str, Any]:
    none_of = {"reasoning_tokens": 0, "audio_tokens": 0}
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            **none_of,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _call_id(context: Context, index: int) -> str:
    return f"call_{context.number}_{index}"


def _tool(body: Mapping[str, Any]) -> Tool | None:
    choice = body.get("tool_choice")
    name: str | None = None
    if isinstance(choice, dict):
        allowed = fields.mapping(choice, "allowed_tools")
        if choice.get("type") == "allowed_tools" and allowed.get("mode") != "required":
            return None
        chosen = fields.objects(allowed, "tools")[0] if choice.get("type") == "allowed_tools" else choice
        name = fields.text(fields.mapping(chosen, "function"), "name")
    elif choice != "required":
        return None
    functions = [fields.mapping(tool, "function") for tool in fields.objects(body, "tools")]
    return fields.pick(
        [Tool(fields.text(f, "name"), fields.mapping(f, "parameters")) for f in functions], name
    )


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    wanted = fields.mapping(body, "response_format")
    if wanted.get("type") == "json_schema":
        return fields.mapping(fields.mapping(wanted, "json_schema"), "schema")
    if wanted.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    return None
