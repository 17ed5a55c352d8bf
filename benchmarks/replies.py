"""Replies out of memory: the transports of both client families, sync and async, without a network."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["JSON_REPLY", "OTHER_REPLY", "Reply", "stream_reply", "transport"]

_TEXT = "The capital of France is Paris, which lies on the Seine and has about two million inhabitants. " * 4
_HEAD = {"id": "chatcmpl-bench0001", "created": 1_750_000_000, "model": "gpt-4o-mini-2024-07-18"}
_USAGE = {
    "prompt_tokens": 120,
    "completion_tokens": 84,
    "total_tokens": 204,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: the content type and the frames in which the body comes, one event a frame."""

    kind: str
    frames: tuple[bytes, ...]


JSON_REPLY = Reply(
    "application/json",
    (
        json.dumps(
            {
                **_HEAD,
                "object": "chat.completion",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": _TEXT, "refusal": None},
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
                "usage": _USAGE,
                "service_tier": "default",
                "system_fingerprint": "fp_bench",
            }
        ).encode(),
    ),
)

OTHER_REPLY = Reply(
    "application/json",
    (b'{"id":"modr-1","model":"omni-moderation-latest","results":[]}',),
)
"""The answer of an API that is none of underlay's dialects."""


def stream_reply(chunks: int) -> Reply:
    """A streamed chat completion in `chunks` frames, `[DONE]` among them. Raises ValueError below 4."""
    if chunks < 4:
        raise ValueError(f"stream_reply: chunks = {chunks}: allowed is 4 or more")
    head = {**_HEAD, "object": "chat.completion.chunk", "service_tier": "default", "system_fingerprint": "fp"}

    def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**head, "choices": [choice], "usage": None}

    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"content": f" word{number}"}) for number in range(chunks - 4)]
    events += [chunk({}, "stop"), {**head, "choices": [], "usage": _USAGE}]
    lines = [json.dumps(event, separators=(",", ":")) for event in events] + ["[DONE]"]
    return Reply("text/event-stream; charset=utf-8", tuple(f"data: {line}\n\n".encode() for line in lines))


def _headers(reply: Reply) -> list[tuple[str, str]]:
    headers = [
        ("date", "Mon, 16 Jun 2025 12:00:00 GMT"),
        ("content-type", reply.kind),
        ("openai-processing-ms", "312"),
        ("openai-version", "2020-10-01"),
        ("x-request-id", "req_bench"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("server", "memory"),
    ]
    if len(reply.frames) == 1:
        headers.append(("content-length", str(len(reply.frames[0]))))
    return headers


def transport(family: Any, reply: Reply, *, asynchronous: bool) -> Any:
    """A transport of `family` (the module httpx or httpx2) that gives `reply` to every request, as a body
    that is read frame by frame."""
    headers = _headers(reply)
    if asynchronous:
        return _async_transport(family, reply, headers)

    class Stream(family.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            yield from reply.frames

    class Memory(family.BaseTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            return family.Response(200, headers=headers, stream=Stream())

    return Memory()


def _async_transport(family: Any, reply: Reply, headers: list[tuple[str, str]]) -> Any:
    class Stream(family.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for frame in reply.frames:
                yield frame

    class Memory(family.AsyncBaseTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            return family.Response(200, headers=headers, stream=Stream())

    return Memory()
