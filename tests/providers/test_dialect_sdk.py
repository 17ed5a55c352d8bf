"""The official SDKs as oracle: they parse our error bodies and the replies we test with, and their request
fields never upset `ask`."""

from __future__ import annotations

import json
import typing
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic.types import message_create_params
from hypothesis import given
from hypothesis import strategies as st
from openai.types import completion_create_params as text_create_params
from openai.types import embedding_create_params
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params
from replies import (
    CHAT,
    CHAT_CHUNKS,
    COMPLETION,
    COMPLETION_CHUNKS,
    EMBEDDINGS,
    MESSAGE,
    MESSAGE_EVENTS,
    RESPONSE,
    RESPONSE_EVENTS,
    chunks,
    dumped,
    events,
)

from underlay.providers.recognise import (
    ANTHROPIC_MESSAGES,
    DIALECTS,
    OPENAI_CHAT,
    OPENAI_COMPLETIONS,
    Recogniser,
)
from underlay.telemetry import attributes

if typing.TYPE_CHECKING:
    from collections.abc import Callable

LEAST: dict[str, dict[str, Any]] = {
    "openai.chat": {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]},
    "openai.responses": {"model": "gpt-4o", "input": "hi"},
    "openai.embeddings": {"model": "text-embedding-3-small", "input": "hi"},
    "openai.completions": {"model": "gpt-3.5-turbo-instruct", "prompt": "hi"},
    "anthropic.messages": {
        "model": "claude-sonnet-5",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "hi"}],
    },
}
FIELDS: dict[str, list[str]] = {
    "openai.chat": sorted(completion_create_params.CompletionCreateParamsBase.__annotations__),
    "openai.responses": sorted(response_create_params.ResponseCreateParamsBase.__annotations__),
    "openai.embeddings": sorted(embedding_create_params.EmbeddingCreateParams.__annotations__),
    "openai.completions": sorted(text_create_params.CompletionCreateParamsBase.__annotations__),
    "anthropic.messages": sorted(message_create_params.MessageCreateParamsBase.__annotations__),
}
NAMES = st.sampled_from(["type", "format", "x"])
ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=5,
)
KINDS = {"int": int, "double": float, "string": str, "string[]": tuple, "boolean": bool}


def test_the_sdks_name_their_fields() -> None:
    """The type definitions that the property below draws on are there."""
    assert {name: len(fields) > 3 for name, fields in FIELDS.items()} == dict.fromkeys(FIELDS, True)


@given(st.data(), st.sampled_from(DIALECTS))
def test_any_value_in_any_field_is_read_or_left_out(data: st.DataObject, dialect: Any) -> None:
    """`ask` never raises, and every attribute it gives is of the vocabulary, with the vocabulary's type."""
    changed = data.draw(st.dictionaries(st.sampled_from([*FIELDS[dialect.name], "stream"]), ANY, max_size=6))
    ask = dialect.ask({**LEAST[dialect.name], **changed})
    if ask is None:
        assert changed.keys() & set(dialect.required)
        return
    types = {attribute.key: KINDS[attribute.type] for attribute in attributes.ALL}
    assert {key: type(value) for key, value in ask.parameters.items()} == {
        key: types[key] for key in ask.parameters
    }


class Seen:
    """A transport that answers every request with one reply and keeps the request."""

    def __init__(self, body: bytes, status: int = 200, kind: str = "application/json") -> None:
        self.requests: list[httpx2.Request] = []
        self._reply = (status, {"content-type": kind}, body)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        status, headers, body = self._reply
        return httpx2.Response(status, headers=headers, content=body)


def openai_client(seen: Seen) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="k", http_client=httpx2.Client(transport=httpx2.MockTransport(seen)), max_retries=0
    )


def anthropic_client(seen: Seen) -> anthropic.Anthropic:
    http = httpx2.Client(transport=httpx2.MockTransport(seen))
    return anthropic.Anthropic(api_key="k", http_client=http, max_retries=0)


def test_openai_parses_our_error_body() -> None:
    """A refusal in OpenAI's shape becomes the SDK's error with its type, code and message."""
    client = openai_client(Seen(OPENAI_CHAT.error_body("circuit_open", "refused by underlay"), 503))
    with client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**LEAST["openai.chat"])
    assert (caught.value.code, caught.value.type) == ("circuit_open", "circuit_open")
    assert "refused by underlay" in str(caught.value)


def test_anthropic_parses_our_error_body() -> None:
    """A refusal in Anthropic's shape becomes the SDK's error with its type and message."""
    client = anthropic_client(
        Seen(ANTHROPIC_MESSAGES.error_body("overloaded_error", "refused by underlay"), 503)
    )
    with client, pytest.raises(anthropic.InternalServerError) as caught:
        client.messages.create(**LEAST["anthropic.messages"])
    body = typing.cast("dict[str, Any]", caught.value.body)
    assert body["error"] == {"type": "overloaded_error", "message": "refused by underlay"}


def test_error_bodies_read_back() -> None:
    """What every dialect writes as an error, it reads as that error."""
    for dialect in DIALECTS:
        observer = dialect.observe(stream=False, status=503)
        observer.feed(dialect.error_body("circuit_open", 'quotes " and ünicode'))
        assert observer.outcome().error == "circuit_open"


def test_the_sdks_accept_our_replies() -> None:
    """The hand-written replies are real ones to the SDKs: objects parse, streams end."""
    sse = "text/event-stream"
    with openai_client(Seen(dumped(CHAT))) as client:
        assert client.chat.completions.create(**LEAST["openai.chat"]).choices[
            0
        ].message.content == OPENAI_CHAT.text(CHAT)
    with openai_client(Seen(chunks(CHAT_CHUNKS), kind=sse)) as client:
        assert len(list(client.chat.completions.create(**LEAST["openai.chat"], stream=True))) == len(
            CHAT_CHUNKS
        )
    with openai_client(Seen(dumped(RESPONSE))) as client:
        assert client.responses.create(**LEAST["openai.responses"]).output_text == DIALECTS[1].text(RESPONSE)
    with openai_client(Seen(events(RESPONSE_EVENTS), kind=sse)) as client:
        assert len(list(client.responses.create(**LEAST["openai.responses"], stream=True))) == len(
            RESPONSE_EVENTS
        )
    with openai_client(Seen(dumped(EMBEDDINGS))) as client:
        assert client.embeddings.create(**LEAST["openai.embeddings"]).usage.prompt_tokens == 8
    with openai_client(Seen(dumped(COMPLETION))) as client:
        text = client.completions.create(**LEAST["openai.completions"]).choices[0].text
        assert text == OPENAI_COMPLETIONS.text(COMPLETION)
    with openai_client(Seen(chunks(COMPLETION_CHUNKS), kind=sse)) as client:
        texts = list(client.completions.create(**LEAST["openai.completions"], stream=True))
        assert len(texts) == len(COMPLETION_CHUNKS)
    with anthropic_client(Seen(dumped(MESSAGE))) as client:
        assert client.messages.create(**LEAST["anthropic.messages"]).usage.output_tokens == 503
    with anthropic_client(Seen(events(MESSAGE_EVENTS), kind=sse)) as client:
        kinds = [event.type for event in client.messages.create(**LEAST["anthropic.messages"], stream=True)]
        assert kinds[-1] == "message_stop"


@pytest.mark.parametrize("name", list(LEAST))
def test_what_the_sdks_send_is_recognised(name: str) -> None:
    """The SDKs' own requests are recognised and read, by their real method, host, path and content type."""
    seen = Seen(b"{}", 500)
    with openai_client(seen) as first, anthropic_client(seen) as second:
        create: dict[str, Callable[..., object]] = {
            "openai.chat": first.chat.completions.create,
            "openai.responses": first.responses.create,
            "openai.embeddings": first.embeddings.create,
            "openai.completions": first.completions.create,
            "anthropic.messages": second.messages.create,
        }
        with pytest.raises((openai.APIError, anthropic.APIError)):
            create[name](**LEAST[name])
    request = seen.requests[0]
    candidate = Recogniser().recognise(
        request.method,
        request.url.host,
        request.url.port,
        request.url.raw_path.decode(),
        request.headers["content-type"],
    )
    assert candidate is not None
    assert (candidate.dialect.name, candidate.known) == (name, True)
    ask = candidate.ask(json.loads(request.content))
    assert ask is not None
    assert ask.model == LEAST[name]["model"]


def test_other_calls_of_the_sdks_are_left_alone() -> None:
    """Counting tokens, batches, models, files and stored responses are not ours."""
    seen = Seen(b"{}", 500)
    with openai_client(seen) as first, anthropic_client(seen) as second:
        calls: list[Callable[[], object]] = [
            lambda: first.models.list(),
            lambda: first.responses.retrieve("resp_1"),
            lambda: first.responses.cancel("resp_1"),
            lambda: first.chat.completions.list(),
            lambda: first.batches.create(
                completion_window="24h", endpoint="/v1/embeddings", input_file_id="f"
            ),
            lambda: first.files.create(file=b"x", purpose="batch"),
            lambda: first.audio.speech.create(input="x", model="tts-1", voice="alloy"),
            lambda: first.moderations.create(input="x"),
            lambda: second.messages.count_tokens(
                model="claude-sonnet-5", messages=[{"role": "user", "content": "x"}]
            ),
            lambda: second.messages.batches.create(requests=[]),
            lambda: second.models.list(),
        ]
        for call in calls:
            with pytest.raises((openai.APIError, anthropic.APIError)):
                call()
    assert len(seen.requests) == len(calls)
    recogniser = Recogniser()
    for request in seen.requests:
        where = (request.method, request.url.host, request.url.port, request.url.raw_path.decode())
        assert recogniser.recognise(*where, request.headers.get("content-type")) is None


@pytest.mark.parametrize("field", ["temperature", "top_p", "max_tokens", "seed", "n"])
def test_numbers_beyond_64_bits_are_left_out(field: str) -> None:
    """JSON has integers that no double and no OTLP value holds: the parameter stays unknown, the call is ours."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    asked = OPENAI_CHAT.ask({**body, field: 10**400})
    assert asked is not None
    assert [value for value in asked.parameters.values() if isinstance(value, int | float)] == []
    for huge in (-(2**63) - 1, 2**63):
        asked = OPENAI_CHAT.ask({**body, "max_tokens": huge})
        assert asked is not None
        assert asked.parameters == {}
