"""The official OpenAI SDK parses everything that the simulator says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

if TYPE_CHECKING:
    from underlay.simulator import Simulator

MESSAGES: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer", "minimum": 1, "maximum": 3},
                },
                "required": ["city", "days"],
            },
        },
    }
    for name in ("weather", "forecast")
]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["C", "F"]},
        "items": {"type": "array", "items": {"$ref": "#/$defs/part"}},
    },
    "$defs": {"part": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
}


def test_chat_json(gpt: openai.OpenAI) -> None:
    """A chat completion has text, a stop reason and usage that adds up."""
    reply = gpt.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert reply.id.startswith("chatcmpl-")
    assert reply.object == "chat.completion"
    assert reply.choices[0].finish_reason == "stop"
    usage = reply.usage
    assert usage is not None
    assert usage.completion_tokens == len((reply.choices[0].message.content or "").split())
    assert usage.prompt_tokens == -(-len("What is the capital of France?") // 4) + 4
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_chat_stream_is_the_same_text(gpt: openai.OpenAI) -> None:
    """A stream begins with the role, ends with reason and usage, and joins to the text of the JSON reply."""
    whole = gpt.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    with gpt.chat.completions.create(
        model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_chat_stream_wire(sim: Simulator) -> None:
    """Without `include_usage` no chunk has usage, and the terminal event is `data: [DONE]`."""
    body = {"model": "gpt-4o", "messages": MESSAGES, "stream": True}
    reply = httpx.post(f"{sim.url}/v1/chat/completions", json=body)
    events = reply.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])
    assert '"usage"' not in reply.text
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_chat_many_choices(gpt: openai.OpenAI) -> None:
    """`n` gives as many different answers, in JSON and in a stream alike."""
    whole = gpt.chat.completions.create(model="gpt-4o", messages=MESSAGES, n=3)
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    with gpt.chat.completions.create(model="gpt-4o", messages=MESSAGES, n=3, stream=True) as stream:
        parts = [(c.index, c.delta.content or "") for chunk in stream for c in chunk.choices]
    assert ["".join(text for index, text in parts if index == at) for at in range(3)] == texts


@pytest.mark.parametrize("limit", [{"max_tokens": 5}, {"max_completion_tokens": 5}])
def test_chat_limit(gpt: openai.OpenAI, limit: dict[str, Any]) -> None:
    """An answer never has more tokens than allowed, and says when it was cut."""
    reply = gpt.chat.completions.create(model="gpt-4o", messages=MESSAGES, **limit)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 5


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ("required", "weather"),
        ({"type": "function", "function": {"name": "forecast"}}, "forecast"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "forecast"}}],
                },
            },
            "forecast",
        ),
    ],
)
def test_chat_tools(gpt: openai.OpenAI, choice: Any, name: str) -> None:
    """A demanded tool is called, with arguments that fit its schema, streamed or not."""
    reply = gpt.chat.completions.create(model="gpt-4o", messages=MESSAGES, tools=TOOLS, tool_choice=choice)
    assert reply.choices[0].finish_reason == "tool_calls"
    (call,) = reply.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == name
    arguments = json.loads(call.function.arguments)
    assert isinstance(arguments["city"], str)
    assert 1 <= arguments["days"] <= 3
    with gpt.chat.completions.stream(
        model="gpt-4o", messages=MESSAGES, tools=TOOLS, tool_choice=choice
    ) as stream:
        final = stream.get_final_completion()
    (streamed,) = final.choices[0].message.tool_calls or []
    assert streamed.function.arguments == call.function.arguments


def test_chat_tools_auto(gpt: openai.OpenAI) -> None:
    """Offered tools alone are not called."""
    reply = gpt.chat.completions.create(model="gpt-4o", messages=MESSAGES, tools=TOOLS)
    assert reply.choices[0].message.tool_calls is None
    assert reply.choices[0].message.content


def test_structured_output(gpt: openai.OpenAI) -> None:
    """A JSON Schema is followed by both APIs."""
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    chat = gpt.chat.completions.create(model="gpt-4o", messages=MESSAGES, response_format=wanted)
    value = json.loads(chat.choices[0].message.content or "")
    assert set(value) == {"unit", "items"}
    assert value["unit"] in ("C", "F")
    response = gpt.responses.create(
        model="gpt-4o", input="x", text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}
    )
    assert set(json.loads(response.output_text)) == {"unit", "items"}


def test_json_object(gpt: openai.OpenAI) -> None:
    """`json_object` answers with a JSON object."""
    chat = gpt.chat.completions.create(
        model="gpt-4o", messages=MESSAGES, response_format={"type": "json_object"}
    )
    assert isinstance(json.loads(chat.choices[0].message.content or ""), dict)


def test_responses_json(gpt: openai.OpenAI) -> None:
    """A response is completed, with text and usage that adds up."""
    reply = gpt.responses.create(model="gpt-4o", input="hello", instructions="be brief")
    assert reply.status == "completed"
    assert reply.instructions == "be brief"
    assert reply.usage is not None
    assert reply.usage.output_tokens == len(reply.output_text.split())
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens


def test_responses_stream(gpt: openai.OpenAI) -> None:
    """The events come in the documented order, numbered, and end with the whole response."""
    whole = gpt.responses.create(model="gpt-4o", input="hello")
    with gpt.responses.create(model="gpt-4o", input="hello", stream=True) as stream:
        events = list(stream)
    names = [event.type for event in events if event.type != "response.output_text.delta"]
    assert names == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == whole.output_text
    assert last.response.usage == whole.usage


def test_responses_incomplete(gpt: openai.OpenAI) -> None:
    """A response that its limit cut is incomplete, and its stream ends with that event."""
    reply = gpt.responses.create(model="gpt-4o", input="hello", max_output_tokens=4)
    assert reply.status == "incomplete"
    assert reply.incomplete_details is not None
    assert reply.incomplete_details.reason == "max_output_tokens"
    with gpt.responses.create(model="gpt-4o", input="hello", max_output_tokens=4, stream=True) as stream:
        assert list(stream)[-1].type == "response.incomplete"


def test_responses_tools(gpt: openai.OpenAI) -> None:
    """A demanded function is called, streamed or not."""
    tools: list[Any] = [{"type": "function", **tool["function"]} for tool in TOOLS]
    choice: Any = {"type": "function", "name": "forecast"}
    reply = gpt.responses.create(model="gpt-4o", input="x", tools=tools, tool_choice=choice)
    (item,) = reply.output
    assert item.type == "function_call"
    assert item.name == "forecast"
    with gpt.responses.stream(model="gpt-4o", input="x", tools=tools, tool_choice=choice) as stream:
        (streamed,) = stream.get_final_response().output
    assert streamed.type == "function_call"
    assert json.loads(streamed.arguments) == json.loads(item.arguments)


def test_models(gpt: openai.OpenAI) -> None:
    """The models are listed in OpenAI's shape."""
    assert gpt.models.list().data[0].id == "gpt-4o"


def test_headers(gpt: openai.OpenAI) -> None:
    """Replies carry the provider's own headers, with an id of their own."""
    ask = gpt.chat.completions.with_raw_response.create
    first, second = (ask(model="gpt-4o", messages=MESSAGES).headers for _ in range(2))
    assert first["x-request-id"] != second["x-request-id"]
    assert first["openai-processing-ms"].isdigit()
    for name in ("date", "openai-version", "x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens"):
        assert first[name]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", {"model": "gpt-4o"}, "messages"),
        ("chat/completions", {"messages": MESSAGES}, "model"),
        ("chat/completions", {"model": "gpt-4o", "messages": MESSAGES, "n": 0}, "n"),
        (
            "chat/completions",
            {"model": "m", "messages": MESSAGES, "tools": [1], "tool_choice": "required"},
            "tools",
        ),
        ("responses", {"model": "gpt-4o"}, "input"),
        ("embeddings", {"model": "e", "input": []}, "input"),
        ("embeddings", {"model": "e", "input": ["a", 1]}, "input"),
        ("embeddings", {"model": "e", "input": "a", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_bad_requests(sim: Simulator, path: str, body: dict[str, Any], param: str) -> None:
    """A request that OpenAI refuses gets a 400 in its error shape that names the field."""
    reply = httpx.post(f"{sim.url}/v1/{path}", json=body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert param in error["message"]


@pytest.mark.parametrize("prefix", ["", "/v1", "/gateway/openai/v1"])
def test_prefixes(sim: Simulator, prefix: str) -> None:
    """The same path answers with, without and under any prefix."""
    reply = httpx.post(f"{sim.url}{prefix}/embeddings", json={"model": "e", "input": "a"})
    assert reply.status_code == 200


def test_unknown_path(sim: Simulator) -> None:
    """An unknown path is a 404 in the provider's error shape."""
    reply = httpx.post(f"{sim.url}/v1/nothing", json={})
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "unknown_url"


# Under trio the SDK leaves its own generators to the garbage collector, with a warning, when it sees [DONE].
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_async_client(sim: Simulator) -> None:
    """The asynchronous SDK gets the same answers, whole and streamed."""
    async with openai.AsyncOpenAI(base_url=sim.url, api_key="k", max_retries=0, timeout=5) as client:
        whole = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        async with await client.chat.completions.create(
            model="gpt-4o", messages=MESSAGES, stream=True
        ) as stream:
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        response = await client.responses.create(model="gpt-4o", input="x")
        vectors = await client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert text == whole.choices[0].message.content
    assert response.output_text
    assert [len(item.embedding) for item in vectors.data] == [1536, 1536]
