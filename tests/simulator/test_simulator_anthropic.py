"""The official Anthropic SDK parses everything that the simulator says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import httpx
import pytest

if TYPE_CHECKING:
    from underlay.simulator import Simulator

MESSAGES: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
TOOLS: list[Any] = [
    {"name": name, "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
    for name in ("weather", "forecast")
]


def test_message_json(claude: anthropic.Anthropic) -> None:
    """A message has one text block, and its output tokens are its words."""
    reply = claude.messages.create(model="claude-sonnet-5-5", max_tokens=500, messages=MESSAGES)
    assert reply.stop_reason == "end_turn"
    (block,) = reply.content
    assert block.type == "text"
    assert reply.usage.output_tokens == len(block.text.split())
    assert reply.usage.input_tokens == -(-len("What is the capital of France?") // 4) + 4


def test_message_wire(sim: Simulator) -> None:
    """The events of a stream come by name in Anthropic's order."""
    body = {"model": "claude-sonnet-5-5", "max_tokens": 3, "messages": MESSAGES, "stream": True}
    text = httpx.post(f"{sim.url}/v1/messages", json=body).text
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert names == [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_message_stream_is_the_same(claude: anthropic.Anthropic) -> None:
    """The SDK's accumulated stream equals the JSON reply in text, reason and usage."""
    whole = claude.messages.create(model="claude-sonnet-5-5", max_tokens=6, messages=MESSAGES)
    with claude.messages.stream(model="claude-sonnet-5-5", max_tokens=6, messages=MESSAGES) as stream:
        final = stream.get_final_message()
    assert whole.content[0].type == "text"
    assert final.content[0].type == "text"
    assert final.content[0].text == whole.content[0].text
    assert final.stop_reason == whole.stop_reason == "max_tokens"
    assert final.usage.output_tokens == whole.usage.output_tokens == 6
    assert final.usage.input_tokens == whole.usage.input_tokens


def test_output_tokens_are_cumulative(claude: anthropic.Anthropic) -> None:
    """`message_start` counts one output token, `message_delta` all of them."""
    with claude.messages.create(model="c", max_tokens=6, messages=MESSAGES, stream=True) as stream:
        events = list(stream)
    assert events[0].type == "message_start"
    assert events[0].message.usage.output_tokens == 1
    assert events[-2].type == "message_delta"
    assert events[-2].usage.output_tokens == 6


@pytest.mark.parametrize(
    ("choice", "name"), [({"type": "any"}, "weather"), ({"type": "tool", "name": "forecast"}, "forecast")]
)
def test_tools(claude: anthropic.Anthropic, choice: Any, name: str) -> None:
    """A demanded tool is used, with the same input streamed or not."""
    ask: dict[str, Any] = {"model": "c", "max_tokens": 500, "messages": MESSAGES, "tools": TOOLS}
    reply = claude.messages.create(**ask, tool_choice=choice)
    assert reply.stop_reason == "tool_use"
    (block,) = reply.content
    assert block.type == "tool_use"
    assert block.name == name
    with claude.messages.stream(**ask, tool_choice=choice) as stream:
        (streamed,) = stream.get_final_message().content
    assert streamed.type == "tool_use"
    assert streamed.input == block.input
    assert set(block.input) == {"city"}


def test_cached_tokens(claude: anthropic.Anthropic) -> None:
    """The three parts of the input are apart, as at Anthropic, and add up to the uncached count."""
    text: list[Any] = [{"type": "text", "text": "word " * 400, "cache_control": {"type": "ephemeral"}}]
    ask: dict[str, Any] = {"model": "c", "max_tokens": 5, "messages": [{"role": "user", "content": text}]}
    usage = claude.messages.create(**ask, extra_headers={"x-sim-cached": "0.5"}).usage
    counted = claude.messages.count_tokens(model="c", messages=ask["messages"]).input_tokens
    assert usage.cache_read_input_tokens == counted // 2
    assert usage.cache_creation_input_tokens
    parts = (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens)
    assert sum(parts) == counted


def test_models_and_headers(claude: anthropic.Anthropic) -> None:
    """The list of models and the headers have Anthropic's shape when its SDK asks."""
    assert claude.models.list().data[0].type == "model"
    raw = claude.messages.with_raw_response.create(model="c", max_tokens=5, messages=MESSAGES)
    assert raw.headers["request-id"].startswith("req_")
    assert raw.headers["anthropic-ratelimit-requests-remaining"]


def test_missing_max_tokens(sim: Simulator) -> None:
    """A message without `max_tokens` is refused in Anthropic's error shape, with the id of the request."""
    reply = httpx.post(f"{sim.url}/v1/messages", json={"model": "c", "messages": MESSAGES})
    assert reply.status_code == 400
    body = reply.json()
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    assert "max_tokens" in body["error"]["message"]
    assert body["request_id"] == reply.headers["request-id"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_async_client(sim: Simulator) -> None:
    """The asynchronous SDK gets the same answers, whole and streamed."""
    async with anthropic.AsyncAnthropic(base_url=sim.url, api_key="k", max_retries=0, timeout=5) as client:
        whole = await client.messages.create(model="c", max_tokens=9, messages=MESSAGES)
        async with client.messages.stream(model="c", max_tokens=9, messages=MESSAGES) as stream:
            text = await stream.get_final_text()
    assert whole.content[0].type == "text"
    assert text == whole.content[0].text
