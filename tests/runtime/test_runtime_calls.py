"""`Runtime.call` and `acall`: the answer, and every error by its class and text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import trio
from transport_lab import CHAT, EMBEDDINGS, MESSAGE, Lab, json_reply, sent_body

from underlay import (
    Answer,
    CallError,
    CircuitOpenError,
    MissingCredentialError,
    ProviderError,
    UnknownModelError,
)
from underlay.telemetry.attributes import CacheResult
from underlay.testing import Scripted


class Desk:
    """A runtime whose own clients play a script, asked in one of three ways."""

    def __init__(self, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.way = way
        self.lab = Lab(f"{way}-httpx")
        # Where a client makes its own transport from its options.
        for name, kind in (("HTTPTransport", "sync"), ("AsyncHTTPTransport", "async")):
            monkeypatch.setattr(
                httpx._client, name, lambda kind=kind, **_: self.lab.script.transport("httpx", kind)
            )

    def ask(self, prompt: Any = "Hi", model: str = "gpt-4o") -> Answer:
        """One call."""
        runtime = self.lab.runtime

        async def asked() -> Answer:
            try:
                return await runtime.acall(prompt, model=model)
            finally:
                await runtime.aclose()

        if self.way == "sync":
            return runtime.call(prompt, model=model)
        return asyncio.run(asked()) if self.way == "asyncio" else trio.run(asked)


@pytest.fixture(params=["sync", "asyncio", "trio"])
def desk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """One way to ask; both providers have a key."""
    monkeypatch.setenv("OPENAI_API_KEY", "key-one")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-two")
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    made = Desk(request.param, monkeypatch)
    yield made
    made.lab.runtime.close()


def test_an_answer_has_its_text_usage_and_price(desk: Desk) -> None:
    """The first call is a miss that says what it used; the second is a hit that used nothing."""
    desk.lab.setup([json_reply()])
    first = desk.ask()
    assert (first.text, first.model, first.cache) == (
        CHAT["choices"][0]["message"]["content"],
        CHAT["model"],
        CacheResult.MISS,
    )
    assert first.usage is not None
    assert (first.usage.input_tokens, first.usage.output_tokens) == (19, 10)
    assert first.cost_usd is not None
    assert first.cost_usd > 0
    second = desk.ask()
    assert (second.text, second.body, second.cache) == (first.text, first.body, CacheResult.HIT)
    assert (second.usage, second.cost_usd) == (None, None)
    assert desk.lab.upstream == 1


def test_a_call_is_made_as_the_api_wants_it(desk: Desk) -> None:
    """URL, credential header and body are those of the model's own API."""
    desk.lab.setup([json_reply(), json_reply(MESSAGE), json_reply(EMBEDDINGS)])
    desk.ask()
    desk.ask([{"role": "user", "content": "Hi"}], "claude-sonnet-4-5")
    assert desk.ask("Hi", "text-embedding-3-small").text == ""
    chat, message, embedding = desk.lab.script.sent
    assert (chat.url, dict(chat.headers)[b"authorization"]) == (
        "https://api.openai.com/v1/chat/completions",
        b"Bearer key-one",
    )
    assert (message.url, dict(message.headers)[b"x-api-key"]) == (
        "https://api.anthropic.com/v1/messages",
        b"key-two",
    )
    assert embedding.url == "https://api.openai.com/v1/embeddings"
    assert sent_body(desk.lab, 0) == {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
    assert sent_body(desk.lab, 1)["messages"] == [{"role": "user", "content": "Hi"}]
    assert sent_body(desk.lab, 2) == {"model": "text-embedding-3-small", "input": "Hi"}


def test_a_route_of_the_settings_goes_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that the settings route is asked there, with the key that they name."""
    monkeypatch.setenv("OWN_KEY", "own")
    desk.lab.setup(
        [json_reply()],
        models={
            "llama-*": {"provider": "openai", "base_url": "http://127.0.0.1:1/v1", "api_key_env": "OWN_KEY"}
        },
    )
    desk.ask(model="llama-3")
    assert desk.lab.script.sent[0].url == "http://127.0.0.1:1/v1/chat/completions"
    assert dict(desk.lab.script.sent[0].headers)[b"authorization"] == b"Bearer own"


def test_an_unknown_model_and_a_missing_key_are_said_before_anything_is_sent(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both errors name what is wrong and what would be right; nothing leaves."""
    desk.lab.setup([])
    with pytest.raises(UnknownModelError, match=r"'no-such-model'.*gpt-\*"):
        desk.ask(model="no-such-model")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(MissingCredentialError, match="OPENAI_API_KEY is not set"):
        desk.ask()
    assert desk.lab.upstream == 0


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            400,
            {"error": {"type": "invalid_request_error", "message": "secret text"}},
            "invalid_request_error",
        ),
        (429, {"error": {"type": "rate_limit_exceeded"}}, "rate_limit_exceeded"),
        (500, {}, "500"),
    ],
)
def test_an_error_reply_is_a_provider_error(desk: Desk, status: int, body: Any, kind: str) -> None:
    """Status, the provider's own type and the request's id are there; its message text is not."""
    desk.lab.setup([json_reply(body, status, **{"x-request-id": "req_7"})])
    with pytest.raises(ProviderError) as caught:
        desk.ask()
    error = caught.value
    assert (error.provider, error.model, error.status, error.kind, error.request_id) == (
        "openai",
        "gpt-4o",
        status,
        kind,
        "req_7",
    )
    assert "secret" not in str(error)


def test_a_reply_that_is_no_json_is_a_provider_error(desk: Desk) -> None:
    """A 200 with something else in it is no answer."""
    desk.lab.setup([Scripted(200, {"content-type": "text/html"}, [b"<html>"])])
    with pytest.raises(ProviderError) as caught:
        desk.ask()
    assert (caught.value.status, caught.value.kind) == (200, "not_json")


def test_no_reply_is_a_call_error(desk: Desk) -> None:
    """A transport error is the cause of a CallError that names the provider."""
    reason = httpx.ConnectError("no route")
    desk.lab.setup([Scripted(error=reason)])
    with pytest.raises(CallError, match="openai/gpt-4o did not answer: ConnectError") as caught:
        desk.ask()
    assert caught.value.__cause__ is reason


def test_an_open_circuit_is_an_error_of_its_own(desk: Desk) -> None:
    """A refused call raises CircuitOpenError with the seconds until a probe; nothing is sent."""
    desk.lab.setup([json_reply({}, 500)], circuit_breaker={"failure_threshold": 1, "recovery_timeout": 30})
    with pytest.raises(ProviderError):
        desk.ask()
    desk.lab.clock.advance(10)
    with pytest.raises(CircuitOpenError) as caught:
        desk.ask()
    assert (caught.value.provider, caught.value.model, caught.value.retry_after) == ("openai", "gpt-4o", 20)
    assert desk.lab.upstream == 1
    desk.lab.runtime.circuit("gpt-4o").reset()
    with pytest.raises(ProviderError):
        desk.ask()
