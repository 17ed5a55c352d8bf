"""Anthropic messages: what is asked, and what came back."""

from __future__ import annotations

from typing import Any

import pytest
from replies import MESSAGE, MESSAGE_EVENTS, dumped, events

from underlay.core.usage import Billing
from underlay.providers.anthropic_messages import AnthropicMessages
from underlay.providers.dialect import Outcome
from underlay.telemetry.events import Usage

DIALECT = AnthropicMessages()
ASK: dict[str, Any] = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 1024,
    "messages": [{"role": "user", "content": "Hello"}],
}


def read(*pieces: bytes, stream: bool = True, status: int = 200) -> Outcome:
    observer = DIALECT.observe(stream=stream, status=status)
    for piece in pieces:
        observer.feed(piece)
    return observer.outcome()


def test_a_plain_request() -> None:
    """The least message, with its required bound as an attribute."""
    ask = DIALECT.ask({**ASK, "stream": True, "top_k": 5, "stop_sequences": ["secret"]})
    assert ask is not None
    assert (ask.operation, ask.stream, ask.deterministic, ask.uncacheable) == ("chat", True, False, "")
    assert ask.parameters == {"gen_ai.request.max_tokens": 1024, "gen_ai.request.top_k": 5}


@pytest.mark.parametrize(
    "wrong",
    [
        {**ASK, "max_tokens": None},
        {**ASK, "max_tokens": "9"},
        {**ASK, "max_tokens": True},
        {**ASK, "messages": "x"},
        {**ASK, "model": 1},
        {key: value for key, value in ASK.items() if key != "max_tokens"},
    ],
)
def test_another_body_is_not_a_message(wrong: dict[str, Any]) -> None:
    """Without all three required fields the call (counting tokens, say) is not ours."""
    assert DIALECT.ask(wrong) is None


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"tools": [{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g"}]}, ""),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, ""),
        ({"tools": [{"type": "text_editor_20250728"}, {"type": "memory_20250818"}]}, ""),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, ""),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "server_tool"),
        ({"tools": [{"type": "web_fetch_20250910"}]}, "server_tool"),
        ({"tools": [{"type": "code_execution_20250825"}]}, "server_tool"),
        ({"tools": [{"type": "mcp_toolset"}]}, "server_tool"),
        ({"mcp_servers": [{"type": "url", "url": "https://example.com"}]}, "server_tool"),
        ({"container": "container_1"}, "container"),
        ({"container": {"skills": []}}, "container"),
        ({"mcp_servers": [], "container": None}, ""),
    ],
)
def test_what_runs_on_the_providers_side_is_not_cached(extra: dict[str, Any], reason: str) -> None:
    """Server tools and containers have a state and a date; the caller's own tools have not."""
    ask = DIALECT.ask({**ASK, **extra})
    assert ask is not None
    assert ask.uncacheable == reason


def test_json_answer() -> None:
    """The reference's answer: cached tokens are in the input, hour-long writes are kept for the price."""
    assert read(dumped(MESSAGE), stream=False) == Outcome(
        complete=True,
        usage=Usage(4195, 503, 2000, 100),
        model="claude-sonnet-4-5-20250929",
        response_id="msg_013Zva2CMHLNnXjNJJKqJ2EF",
        finish_reasons=("end_turn",),
        billing=Billing(cache_write_1h_tokens=60, context={"service_tier": "standard"}),
    )
    assert DIALECT.text(MESSAGE) == "Hi! My name is Claude."
    assert DIALECT.text({"content": [{"type": "tool_use"}]}) is None
    assert DIALECT.text([]) is None


@pytest.mark.parametrize("size", [1, 5, 64, 10_000])
def test_stream(size: int) -> None:
    """A stream tells the same in any slicing: start's usage overlaid with the delta's, an end at
    `message_stop`."""
    data = events(MESSAGE_EVENTS)
    observer = DIALECT.observe(stream=True, status=200)
    for i in range(0, len(data), size):
        observer.feed(data[i : i + size])
    assert observer.ended
    assert observer.outcome() == Outcome(
        complete=True,
        usage=Usage(35, 15, 10),
        model="claude-sonnet-4-5-20250929",
        response_id="msg_1nZdL29xx5MUA1yADyHTEsnR8uuvGzszyY",
        finish_reasons=("end_turn",),
    )


def test_a_cut_stream_has_the_usage_of_its_start() -> None:
    """What was told before the cut stays told; nothing may be stored."""
    outcome = read(events(MESSAGE_EVENTS[:4]))
    assert (outcome.complete, outcome.storable, outcome.usage) == (False, False, Usage(35, 1, 10))


def test_a_quoted_terminal_event_in_the_text_ends_nothing() -> None:
    """The letters `"message_stop"` inside an answer are an answer's letters."""
    observer = DIALECT.observe(stream=True, status=200)
    observer.feed(events(MESSAGE_EVENTS[:5]))
    assert not observer.ended


@pytest.mark.parametrize(
    ("kind", "blame"),
    [
        ("overloaded_error", True),
        ("api_error", True),
        ("timeout_error", True),
        ("something_new", True),
        ("rate_limit_error", False),
        ("invalid_request_error", False),
        ("authentication_error", False),
        ("billing_error", False),
        ("permission_error", False),
        ("not_found_error", False),
        ("request_too_large", False),
    ],
)
def test_an_error_event_in_a_stream(kind: str, blame: bool) -> None:
    """An error after a 200 ends the stream, and speaks against the provider unless it is the caller's."""
    error = {"type": "error", "error": {"type": kind, "message": "m"}}
    outcome = read(events([*MESSAGE_EVENTS[:4], error]))
    assert (outcome.complete, outcome.storable, outcome.error, outcome.blame) == (True, False, kind, blame)
    assert outcome.usage == Usage(35, 1, 10)


@pytest.mark.parametrize(
    ("status", "kind", "blame"), [(529, "overloaded_error", True), (429, "rate_limit_error", False)]
)
def test_error_bodies(status: int, kind: str, blame: bool) -> None:
    """An error body tells its type; the status says whose fault it is."""
    body = {"type": "error", "error": {"type": kind, "message": "m"}, "request_id": "req_1"}
    outcome = read(dumped(body), stream=False, status=status)
    assert (outcome.error, outcome.blame, outcome.storable) == (kind, blame, False)


@pytest.mark.parametrize("body", [{"type": "error"}, {"type": "error", "error": {"type": "no name at all"}}])
def test_an_error_without_a_name(body: dict[str, Any]) -> None:
    """An error that has no usable type is an unknown one: never its message."""
    assert read(dumped(body), stream=False, status=500).error == "unknown_error"


@pytest.mark.parametrize(
    "odd", [b'{"type":"message_start","message":null}', b'{"type":"message_new"}', b'{"type":"message_stop"']
)
def test_an_odd_event_is_passed_over(odd: bytes) -> None:
    """An event of another kind, without its message, or that is no JSON, tells nothing."""
    outcome = read(b"data: " + odd + b"\n\n" + events(MESSAGE_EVENTS))
    assert outcome.complete
    assert outcome.usage == Usage(35, 15, 10)
