"""Replies with the shapes of the providers' published API references (2026), written by hand: bodies by name,
streams as bytes."""

from __future__ import annotations

import json
from typing import Any

__all__ = [
    "CHAT",
    "CHAT_CHUNKS",
    "COMPLETION",
    "COMPLETION_CHUNKS",
    "EMBEDDINGS",
    "MESSAGE",
    "MESSAGE_EVENTS",
    "RESPONSE",
    "RESPONSE_EVENTS",
    "chunks",
    "dumped",
    "events",
]

CHAT: dict[str, Any] = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion",
    "created": 1741569952,
    "model": "gpt-4.1-2025-04-14",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello! How can I assist you today?",
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    },
    "service_tier": "default",
}


def _chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-123",
        "object": "chat.completion.chunk",
        "created": 1694268190,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        "usage": None,
        **more,
    }


CHAT_CHUNKS: list[dict[str, Any]] = [
    _chunk({"role": "assistant", "content": ""}),
    _chunk({"content": "Hello"}),
    _chunk({"content": ' "usage":{"x":1} \\u0022'}),
    _chunk({}, "stop"),
    _chunk(
        {},
        choices=[],
        usage={
            "prompt_tokens": 8,
            "completion_tokens": 9,
            "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
        },
    ),
]

RESPONSE: dict[str, Any] = {
    "id": "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
    "object": "response",
    "created_at": 1741476542,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "model": "gpt-4.1-2025-04-14",
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "id": "msg_67ccd2bf17f0819081ff3bb2cf6508e60bb6a6b452d3795b",
            "status": "completed",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "In a peaceful grove, ", "annotations": []},
                {"type": "output_text", "text": "a unicorn.", "annotations": []},
            ],
        },
    ],
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "store": True,
    "service_tier": "default",
    "text": {"format": {"type": "text"}},
    "usage": {
        "input_tokens": 36,
        "input_tokens_details": {"cached_tokens": 32, "cache_write_tokens": 0},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 64},
        "total_tokens": 123,
    },
    "metadata": {},
}

_STARTED = {**RESPONSE, "status": "in_progress", "output": [], "usage": None}

RESPONSE_EVENTS: list[dict[str, Any]] = [
    {"type": "response.created", "response": _STARTED, "sequence_number": 0},
    {"type": "response.in_progress", "response": _STARTED, "sequence_number": 1},
    {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {
            "id": "msg_1",
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        },
        "sequence_number": 2,
    },
    {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": 'In "response" a \\u0022type',
        "sequence_number": 3,
    },
    {"type": "response.completed", "response": RESPONSE, "sequence_number": 4},
]

EMBEDDINGS: dict[str, Any] = {
    "object": "list",
    "data": [{"object": "embedding", "embedding": [0.0023064255, -0.009327292, -0.0028842222], "index": 0}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}

COMPLETION: dict[str, Any] = {
    "id": "cmpl-uqkvlQyYK7bGYrRHQ0eXlWi7",
    "object": "text_completion",
    "created": 1589478378,
    "model": "gpt-3.5-turbo-instruct",
    "system_fingerprint": "fp_44709d6fcb",
    "choices": [
        {"text": "\n\nThis is indeed a test", "index": 0, "logprobs": None, "finish_reason": "length"}
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
}


def _text_chunk(text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "cmpl-7iA7iJjj8V2zOkCGvWF2hAkWZBQZe",
        "object": "text_completion",
        "created": 1690759702,
        "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": finish}],
        "model": "gpt-3.5-turbo-instruct",
        "system_fingerprint": "fp_44709d6fcb",
        **more,
    }


COMPLETION_CHUNKS: list[dict[str, Any]] = [
    _text_chunk("This"),
    _text_chunk(' "finish_reason":"stop" '),
    _text_chunk("", "length"),
    _text_chunk("", choices=[], usage={"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}),
]

MESSAGE: dict[str, Any] = {
    "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "Hi! My name is "}, {"type": "text", "text": "Claude."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 2095,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 2000,
        "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60},
        "output_tokens": 503,
        "server_tool_use": None,
        "service_tier": "standard",
    },
}

MESSAGE_EVENTS: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1nZdL29xx5MUA1yADyHTEsnR8uuvGzszyY",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": "claude-sonnet-4-5-20250929",
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 25, "cache_read_input_tokens": 10, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": 'a "message_stop" b'},
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "é!"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 15},
    },
    {"type": "message_stop"},
]


def dumped(value: object, *, spaced: bool = False, ascii_only: bool = False) -> bytes:
    """JSON as the servers write it: without spaces and in UTF-8, unless asked otherwise."""
    return json.dumps(value, separators=None if spaced else (",", ":"), ensure_ascii=ascii_only).encode()


def chunks(values: list[dict[str, Any]], *, done: bool = True) -> bytes:
    """A chat stream: data lines, ended by `[DONE]`."""
    return b"".join(b"data: " + dumped(value) + b"\n\n" for value in values) + b"data: [DONE]\n\n" * done


def events(values: list[dict[str, Any]]) -> bytes:
    """A stream of named events."""
    return b"".join(
        b"event: " + value["type"].encode() + b"\ndata: " + dumped(value) + b"\n\n" for value in values
    )
