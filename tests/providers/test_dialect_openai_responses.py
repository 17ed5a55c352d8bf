"""OpenAI responses: what is asked, and what came back."""

from __future__ import annotations

from typing import Any

import pytest
from replies import RESPONSE, RESPONSE_EVENTS, dumped, events

from underlay.core.usage import Billing
from underlay.providers.dialect import Outcome
from underlay.providers.openai_responses import OpenAIResponses
from underlay.telemetry.events import Usage

DIALECT = OpenAIResponses()
ASK: dict[str, Any] = {"model": "gpt-4.1", "input": "Tell me a story"}
TOLD = Outcome(
    complete=True,
    usage=Usage(36, 87, 32, 0, 64),
    model="gpt-4.1-2025-04-14",
    response_id="resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
    finish_reasons=("completed",),
    billing=Billing(context={"service_tier": "default"}),
)


def read(*pieces: bytes, stream: bool = True, status: int = 200) -> Outcome:
    observer = DIALECT.observe(stream=stream, status=status)
    for piece in pieces:
        observer.feed(piece)
    return observer.outcome()


@pytest.mark.parametrize("given", ["text", [{"role": "user", "content": "hi"}]])
def test_a_plain_request(given: object) -> None:
    """A text or a list of items is an input."""
    ask = DIALECT.ask({"model": "gpt-4.1", "input": given, "temperature": 0, "max_output_tokens": 5})
    assert ask is not None
    assert (ask.operation, ask.stream, ask.deterministic, ask.uncacheable) == ("chat", False, True, "")
    assert ask.parameters == {"gen_ai.request.temperature": 0.0, "gen_ai.request.max_tokens": 5}


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "gpt-4.1"},
        {"input": "x"},
        {**ASK, "input": ""},
        {**ASK, "input": {}},
        {**ASK, "model": None},
    ],
)
def test_another_body_is_not_a_response(wrong: dict[str, Any]) -> None:
    """Without a model and an input (a stored prompt alone, say) the call passes untouched."""
    assert DIALECT.ask(wrong) is None


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({}, ""),
        ({"store": True}, ""),
        ({"previous_response_id": "resp_1"}, ""),
        ({"background": False, "conversation": None}, ""),
        ({"tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}]}, ""),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "stored_prompt"),
        *(
            ({"tools": [{"type": kind}]}, "server_tool")
            for kind in (
                "web_search",
                "web_search_preview",
                "web_search_2025_08_26",
                "file_search",
                "code_interpreter",
                "computer_use_preview",
                "computer",
                "mcp",
                "image_generation",
                "shell",
                "a_tool_of_tomorrow",
            )
        ),
    ],
)
def test_what_depends_on_the_providers_state_is_not_cached(extra: dict[str, Any], reason: str) -> None:
    """Background work, conversations, stored prompts and tools on the provider's side are answered anew."""
    ask = DIALECT.ask({**ASK, **extra})
    assert ask is not None
    assert ask.uncacheable == reason


@pytest.mark.parametrize(
    ("text", "wanted"),
    [({"format": {"type": "json_schema"}}, "json"), ({"verbosity": "low"}, None), ("json", None)],
)
def test_output_type(text: object, wanted: str | None) -> None:
    """The text format tells the kind of output."""
    ask = DIALECT.ask({**ASK, "text": text})
    assert ask is not None
    assert ask.parameters.get("gen_ai.output.type") == wanted


def test_json_answer() -> None:
    """The reference's answer gives its usage, model, id and status; its text is all output text."""
    assert read(dumped(RESPONSE), stream=False) == TOLD
    assert DIALECT.text(RESPONSE) == "In a peaceful grove, a unicorn."
    assert DIALECT.text({"output": [{"type": "function_call"}]}) is None
    assert DIALECT.text(None) is None
    assert DIALECT.text({"output": [{"type": "message", "content": [{"type": "refusal"}, 3]}]}) is None


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled", "incomplete", None])
def test_an_unfinished_answer_is_complete_and_not_stored(status: str | None) -> None:
    """A background answer that has just begun is one whole JSON value, and nothing to keep."""
    outcome = read(dumped({**RESPONSE, "status": status}), stream=False)
    assert (outcome.complete, outcome.storable, outcome.error) == (True, False, "")


def test_an_incomplete_answer_tells_why() -> None:
    """The reason is the finish reason."""
    body = {**RESPONSE, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    assert read(dumped(body), stream=False).finish_reasons == ("max_output_tokens",)


@pytest.mark.parametrize(
    ("error", "kind", "blame"),
    [
        ({"code": "server_error", "message": "m"}, "server_error", True),
        ({"code": "invalid_prompt", "message": "m"}, "invalid_prompt", False),
        ({"code": "image_parse_error", "message": "m"}, "image_parse_error", False),
        ({"code": "vector_store_timeout", "message": "m"}, "vector_store_timeout", True),
        (None, "unknown_error", True),
    ],
)
def test_a_failed_answer_is_an_error(error: object, kind: str, blame: bool) -> None:
    """`status: failed` is an error in JSON and in streams, blamed by its code."""
    body = {**RESPONSE, "status": "failed", "error": error}
    for outcome in (
        read(dumped(body), stream=False),
        read(events([*RESPONSE_EVENTS[:-1], {"type": "response.failed", "response": body}])),
    ):
        assert (outcome.complete, outcome.storable, outcome.error, outcome.blame) == (
            True,
            False,
            kind,
            blame,
        )


@pytest.mark.parametrize("size", [1, 7, 200, 10_000])
def test_stream(size: int) -> None:
    """A stream tells the same in any slicing, from the response object of its last event."""
    data = events(RESPONSE_EVENTS)
    observer = DIALECT.observe(stream=True, status=200)
    for i in range(0, len(data), size):
        observer.feed(data[i : i + size])
    assert observer.ended
    assert observer.outcome() == TOLD


def test_a_stream_is_told_by_its_data_not_by_its_event_line() -> None:
    """Servers that leave out the event line are read all the same."""
    data = b"".join(b"data: " + dumped(event) + b"\n\n" for event in RESPONSE_EVENTS)
    assert read(data) == TOLD


def test_a_cut_stream_knows_its_model_and_no_more() -> None:
    """Without the last event there is no usage and no clean end."""
    outcome = read(events(RESPONSE_EVENTS[:-1]))
    assert outcome == Outcome(complete=False, storable=False, model=TOLD.model, response_id=TOLD.response_id)


def test_an_incomplete_stream_ends_and_is_not_stored() -> None:
    """`response.incomplete` is an end, with its usage, but nothing to replay."""
    body = {**RESPONSE, "status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
    outcome = read(events([*RESPONSE_EVENTS[:-1], {"type": "response.incomplete", "response": body}]))
    assert (outcome.complete, outcome.storable, outcome.error) == (True, False, "")
    assert outcome.usage == TOLD.usage
    assert outcome.finish_reasons == ("content_filter",)


@pytest.mark.parametrize(
    ("event", "kind", "blame"),
    [
        ({"type": "error", "code": "server_error", "message": "m", "param": None}, "server_error", True),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "m"}, "rate_limit_exceeded", False),
        ({"type": "error", "code": None, "message": "m"}, "unknown_error", True),
        ({"type": "error", "error": {"type": "server_error", "code": "overloaded"}}, "overloaded", True),
    ],
)
def test_an_error_event_ends_the_stream(event: dict[str, Any], kind: str, blame: bool) -> None:
    """The documented error event, and the nested form that some servers send."""
    outcome = read(events([*RESPONSE_EVENTS[:2], event]))
    assert (outcome.complete, outcome.storable, outcome.error, outcome.blame) == (True, False, kind, blame)


@pytest.mark.parametrize(
    "data", [b'{"type":5,"response":{}}', b'{"type":"response.created","response":null}', b'{"response":oops']
)
def test_an_odd_event_is_passed_over(data: bytes) -> None:
    """An event without a type or a response, or that is no JSON, tells nothing."""
    assert read(b"data: " + data + b"\n\n" + events(RESPONSE_EVENTS)) == TOLD
