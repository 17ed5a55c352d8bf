"""OpenAI chat completions: what is asked, and what came back."""

from __future__ import annotations

from typing import Any

import pytest
from replies import CHAT, CHAT_CHUNKS, chunks, dumped

from underlay.core.usage import Billing
from underlay.providers.dialect import Outcome
from underlay.providers.openai_chat import OpenAIChat
from underlay.telemetry.events import Usage

DIALECT = OpenAIChat()
ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def read(*pieces: bytes, stream: bool = True, status: int = 200) -> Outcome:
    observer = DIALECT.observe(stream=stream, status=status)
    for piece in pieces:
        observer.feed(piece)
    return observer.outcome()


def test_a_plain_request() -> None:
    """The least request is a chat with no parameters."""
    ask = DIALECT.ask(ASK)
    assert ask is not None
    assert (ask.operation, ask.model, ask.stream, ask.deterministic) == ("chat", "gpt-4o", False, False)
    assert (ask.uncacheable, ask.parameters) == ("", {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": ASK["messages"]},
        {"model": "gpt-4o"},
        {**ASK, "model": 4},
        {**ASK, "model": ""},
        {**ASK, "messages": []},
        {**ASK, "messages": "hi"},
        {**ASK, "messages": {"role": "user"}},
        {},
    ],
)
def test_another_body_is_not_a_chat(wrong: dict[str, Any]) -> None:
    """Without a model and messages of the right types the call is not ours."""
    assert DIALECT.ask(wrong) is None


def test_parameters_are_those_of_the_conventions_and_well_typed() -> None:
    """Numbers come out as the attribute's type; values of another type are left out; text never comes out."""
    body = {
        **ASK,
        "temperature": 0,
        "top_p": 1,
        "max_tokens": 7,
        "max_completion_tokens": 9,
        "frequency_penalty": "high",
        "presence_penalty": True,
        "seed": 11,
        "n": 2,
        "stop": ["secret"],
        "user": "me",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x"}},
    }
    ask = DIALECT.ask(body)
    assert ask is not None
    assert ask.parameters == {
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.seed": 11,
        "gen_ai.request.choice.count": 2,
        "gen_ai.output.type": "json",
    }
    assert isinstance(ask.parameters["gen_ai.request.temperature"], float)


@pytest.mark.parametrize(
    ("extra", "attribute"),
    [
        ({"n": 1}, None),
        ({"response_format": {"type": "text"}}, "text"),
        ({"response_format": {"type": "tomorrow"}}, None),
        ({"response_format": "json"}, None),
        ({"modalities": ["text", "audio"]}, "speech"),
    ],
)
def test_output_type(extra: dict[str, Any], attribute: str | None) -> None:
    """The kind of output is told where it is one of the conventions'; one choice is not worth telling."""
    ask = DIALECT.ask({**ASK, **extra})
    assert ask is not None
    assert ask.parameters.get("gen_ai.output.type") == attribute
    assert "gen_ai.request.choice.count" not in ask.parameters


@pytest.mark.parametrize(
    ("extra", "deterministic"),
    [
        ({}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": None}, False),
        ({"temperature": False}, False),
        ({"temperature": 1}, False),
        ({"seed": 3}, True),
        ({"seed": None}, False),
    ],
)
def test_deterministic_is_temperature_zero_or_a_seed(extra: dict[str, Any], deterministic: bool) -> None:
    """A missing temperature is the provider's default, which is not 0; false is no number."""
    ask = DIALECT.ask({**ASK, **extra})
    assert ask is not None
    assert ask.deterministic is deterministic


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom"}]}, ""),
        ({"tools": []}, ""),
        ({"tools": None}, ""),
        ({"store": True}, ""),
        ({"tools": [{"type": "openrouter:web_search"}]}, "server_tool"),
        ({"tools": [3]}, "server_tool"),
        ({"tools": "all"}, "server_tool"),
        ({"web_search_options": {"search_context_size": "low"}}, "server_tool"),
        ({"plugins": [{"id": "web"}]}, "server_tool"),
        ({"model": "gpt-4o-search-preview"}, "server_tool"),
        ({"model": "openai/gpt-4o:online"}, "server_tool"),
    ],
)
def test_searches_on_the_providers_side_are_not_cached(extra: dict[str, Any], reason: str) -> None:
    """What the provider looks up anew makes an answer of the day; the caller's own tools do not."""
    ask = DIALECT.ask({**ASK, **extra})
    assert ask is not None
    assert ask.uncacheable == reason


def test_json_answer() -> None:
    """The reference's answer gives its usage, model, id and finish reason."""
    assert read(dumped(CHAT), stream=False) == Outcome(
        complete=True,
        usage=Usage(19, 10, 0, None, 0),
        model="gpt-4.1-2025-04-14",
        response_id="chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        finish_reasons=("stop",),
        billing=Billing(input_audio_tokens=0, output_audio_tokens=0, context={"service_tier": "default"}),
    )
    assert DIALECT.text(CHAT) == "Hello! How can I assist you today?"


@pytest.mark.parametrize("cut", [1, 10, 400])
def test_a_cut_json_answer_is_not_complete(cut: int) -> None:
    """A body that does not parse as one value is not a clean end, however the iterator ended."""
    outcome = read(dumped(CHAT)[:-cut], stream=False)
    assert not outcome.complete
    assert not outcome.storable


@pytest.mark.parametrize("tail", [b"{}", b"x", b"\0"])
def test_two_values_are_not_one(tail: bytes) -> None:
    """Anything after the value makes it no single value; white space does not."""
    assert not read(dumped(CHAT), tail, stream=False).complete
    assert read(dumped(CHAT), b"\n ", stream=False).complete


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b"\xff\xfe", b"[" * 100_000])
def test_strange_bodies_never_raise(body: bytes) -> None:
    """What is no JSON object is incomplete."""
    assert not read(body, stream=False).complete


def test_a_body_beyond_the_bound_is_lost() -> None:
    """Over the bound nothing is held and nothing is claimed."""
    observer = DIALECT.observe(stream=False, status=200)
    piece = b" " * (8 * 1024 * 1024)
    for _ in range(5):
        observer.feed(piece)
    assert observer.outcome() == Outcome(complete=False, storable=False, lost=True)


def test_an_answer_without_choices_is_not_stored() -> None:
    """An object that is no completion is not kept as one."""
    assert not read(dumped({"ok": True}), stream=False).storable


STREAM = chunks(CHAT_CHUNKS)
TOLD = Outcome(
    complete=True,
    usage=Usage(8, 9, 4, None, 2),
    model="gpt-4o-mini-2024-07-18",
    response_id="chatcmpl-123",
    finish_reasons=("stop",),
    billing=Billing(input_audio_tokens=0, output_audio_tokens=0, context={"service_tier": "default"}),
)


@pytest.mark.parametrize("size", [1, 3, 50, 10_000])
def test_stream(size: int) -> None:
    """A stream tells the same in any slicing: usage of its last chunk, and an end at `[DONE]`."""
    observer = DIALECT.observe(stream=True, status=200)
    pieces = [STREAM[i : i + size] for i in range(0, len(STREAM), size)]
    for piece in pieces[:-1]:
        observer.feed(piece)
        assert not observer.ended or piece is pieces[-2]
    observer.feed(pieces[-1])
    assert observer.ended
    assert observer.outcome() == TOLD


def test_a_stream_without_its_terminal_event_is_cut() -> None:
    """The iterator's end is no clean end: what was read stays told, and nothing may be stored."""
    outcome = read(chunks(CHAT_CHUNKS, done=False))
    assert (outcome.complete, outcome.storable, outcome.usage) == (False, False, TOLD.usage)


def test_a_terminal_event_without_its_blank_line_is_one() -> None:
    """Some servers leave out the last blank line."""
    assert read(STREAM.rstrip(b"\n")) == TOLD


def test_a_stream_without_usage_has_none() -> None:
    """Usage that nobody asked for is unknown, not zero."""
    assert read(chunks(CHAT_CHUNKS[:-1])).usage is None


def test_choices_keep_their_order() -> None:
    """Finish reasons are one a choice, by index."""
    first, second = (
        {**CHAT_CHUNKS[0], "choices": [{"index": index, "delta": {}, "finish_reason": reason}]}
        for index, reason in ((1, "length"), (0, "stop"))
    )
    assert read(chunks([first, second])).finish_reasons == ("stop", "length")


def test_usage_of_groq_is_found_in_its_own_place() -> None:
    """Groq reports usage under `x_groq` when it was not asked for."""
    last = {
        **CHAT_CHUNKS[3],
        "x_groq": {"id": "req_1", "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
    }
    del last["usage"]
    assert read(chunks([CHAT_CHUNKS[0], last])).usage == Usage(3, 4)


def test_azures_first_chunk_without_names_is_not_the_last_word() -> None:
    """Azure's first chunk has an empty id and model; the next ones name them."""
    first = {"id": "", "model": "", "choices": [], "prompt_filter_results": []}
    outcome = read(chunks([first, *CHAT_CHUNKS]))
    assert (outcome.model, outcome.response_id) == ("gpt-4o-mini-2024-07-18", "chatcmpl-123")


@pytest.mark.parametrize(
    ("error", "kind", "blame"),
    [
        ({"message": "m", "type": "server_error", "code": None}, "server_error", True),
        ({"message": "m", "type": "tokens", "code": "rate_limit_exceeded"}, "rate_limit_exceeded", False),
        ({"message": "Provider disconnected", "code": 502}, "unknown_error", True),
        ({"message": "m", "code": "context_length_exceeded"}, "context_length_exceeded", False),
        ("overloaded", "overloaded", True),
        ("a long sentence with a prompt in it", "unknown_error", True),
    ],
)
def test_an_error_inside_a_stream_ends_it(error: object, kind: str, blame: bool) -> None:
    """The SDK raises on an error object in a chunk: the stream is over, told by type, and never stored."""
    observer = DIALECT.observe(stream=True, status=200)
    observer.feed(chunks([*CHAT_CHUNKS[:2], {"error": error}], done=False))
    assert observer.ended
    observer.feed(b"data: [DONE]\n\n")
    outcome = observer.outcome()
    assert (outcome.complete, outcome.storable, outcome.error, outcome.blame) == (True, False, kind, blame)


@pytest.mark.parametrize(
    ("status", "error", "kind", "blame"),
    [
        (401, {"type": "invalid_request_error", "code": "invalid_api_key"}, "invalid_api_key", False),
        (429, {"type": "insufficient_quota", "code": "insufficient_quota"}, "insufficient_quota", False),
        (429, {"message": "m", "type": "requests", "code": None}, "requests", False),
        (404, {"type": "invalid_request_error", "code": "model_not_found"}, "model_not_found", False),
        (429, {"message": "m", "code": "429"}, "unknown_error", False),
        (500, {"message": "m", "type": "server_error", "code": None}, "server_error", True),
        (503, {"message": "m", "type": "invalid_thing"}, "invalid_thing", True),
        (200, {"message": "m", "type": "server_error"}, "server_error", True),
        (200, {"message": "m", "type": "never_seen_before"}, "never_seen_before", True),
    ],
)  # fmt: skip
def test_error_bodies(status: int, error: dict[str, Any], kind: str, blame: bool) -> None:
    """An error body tells its type; a 4xx never blames the provider, a 5xx always does."""
    outcome = read(dumped({"error": error}), stream=False, status=status)
    assert (outcome.error, outcome.blame, outcome.storable) == (kind, blame, False)


def test_an_error_status_without_a_readable_error() -> None:
    """A gateway's HTML or a foreign object has no type, and is not stored."""
    assert read(b"<html>502</html>", stream=False, status=502).error == ""
    outcome = read(b'{"detail":"x"}', stream=False, status=502)
    assert (outcome.complete, outcome.storable, outcome.error) == (True, False, "")


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"choices": []},
        {"choices": ["x"]},
        {"choices": [{"message": {"content": None, "tool_calls": []}}]},
    ],
)
def test_text_is_none_where_there_is_none(body: object) -> None:
    """A tool call has no text."""
    assert DIALECT.text(body) is None


def test_data_that_is_no_json_is_passed_over() -> None:
    """A chunk that cannot be read stays unknown and does not raise."""
    assert read(b"data: {oops\n\ndata: [1]\n\ndata: [DONE]\n\n").complete
