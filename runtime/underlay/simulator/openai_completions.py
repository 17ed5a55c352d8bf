"""OpenAI's legacy completions: POST …/completions, JSON and SSE.

The answers to a prompt depend on that prompt and on the other fields of the body, not on the prompts beside
it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from underlay.simulator import fields
from underlay.simulator.inputs import Input, count_input, read_inputs
from underlay.simulator.openai_chat import failure
from underlay.simulator.replies import Context, Draft, Exchange, Frame, Usage, draft, sse
from underlay.simulator.text import compact, request_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["exchange"]

_USUAL_TOKENS: Final = 16
"""`max_tokens` of a request that names none, by the API reference."""


def exchange(body: Mapping[str, Any], context: Context) -> Exchange:
    """Complete one text or array of token ids, or many: `n` choices each, in the order of the prompts, after
    the text itself with `echo`. Raises `BadCall` on a body that would be refused."""
    model = fields.text(body, "model")
    prompts = read_inputs(body, "prompt", context.options)
    count = fields.whole(body, "n", most=128) or 1
    limit = fields.whole(body, "max_tokens") or _USUAL_TOKENS
    drafts = [
        draft(_alone(context, body, prompt), limit=limit, index=index)
        for prompt in prompts
        for index in range(count)
    ]
    echo = fields.flag(body, "echo")
    starts = [prompt if echo and isinstance(prompt, str) else "" for prompt in prompts for _ in range(count)]
    entered = sum(map(count_input, prompts))
    usage = Usage(
        input=entered,
        output=sum(len(each.pieces) for each in drafts),
        cached=int(entered * context.cached_fraction),
    )
    with_usage = fields.flag(fields.mapping(body, "stream_options"), "include_usage")
    head: dict[str, Any] = {"id": f"cmpl-{context.number}", "object": "text_completion"}
    head |= {"created": context.now, "model": model}
    return Exchange(
        model=model,
        stream=fields.flag(body, "stream"),
        usage=usage,
        payload=lambda: _payload(head, drafts, starts, usage),
        frames=lambda: _frames(head, drafts, starts, usage if with_usage else None, context),
        failure=failure,
        inputs=len(prompts),
        steps=max(len(each.pieces) for each in drafts),
    )


def _alone(context: Context, body: Mapping[str, Any], prompt: Input) -> Context:
    key = request_key(context.options.seed, "completions", {**body, "prompt": prompt})
    return replace(context, key=key)


def _payload(head: dict[str, Any], drafts: list[Draft], starts: list[str], usage: Usage) -> bytes:
    choices = [
        _choice(index, start + each.text, "length" if each.cut else "stop")
        for index, (start, each) in enumerate(zip(starts, drafts, strict=True))
    ]
    return compact({**head, "choices": choices, "usage": _usage(usage)}).encode("utf-8", "replace")


def _frames(
    head: dict[str, Any], drafts: list[Draft], starts: list[str], usage: Usage | None, context: Context
) -> Iterator[Frame]:
    null_usage: dict[str, Any] = {} if usage is None else {"usage": None}

    def chunk(index: int, text: str, finish: str | None = None) -> bytes:
        return sse({**head, "choices": [_choice(index, text, finish)], **null_usage})

    longest = max(len(each.pieces) for each in drafts)
    for index, start in enumerate(starts):
        if start:
            yield Frame(chunk(index, start), 0)
    parts = [(before, index, size, text) for index, each in enumerate(drafts)
             for before, size, text in each.events(context.options.tokens_per_event)]  # fmt: skip
    for before, index, size, text in sorted(parts):
        yield Frame(chunk(index, text), before, size)
    for index, each in enumerate(drafts):
        yield Frame(chunk(index, "", "length" if each.cut else "stop"), longest)
    if usage is not None:
        yield Frame(sse({**head, "choices": [], "usage": _usage(usage)}), longest)
    yield Frame(sse("[DONE]"), longest)


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }
