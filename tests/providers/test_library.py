"""Calls that underlay makes itself: where a model lives, and the request that asks it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from underlay.providers.library import COMPLETION_TOKENS, MAX_TOKENS, Target, resolve_model
from underlay.providers.recognise import (
    ANTHROPIC_MESSAGES,
    OPENAI_CHAT,
    OPENAI_COMPLETIONS,
    OPENAI_EMBEDDINGS,
    Recogniser,
)


@dataclass(frozen=True)
class Route:
    provider: str = "openai"
    base_url: str | None = None
    api_key_env: str | None = None


def target(
    model: str, routes: dict[str, Route] | None = None, environ: dict[str, str] | None = None
) -> Target:
    found = resolve_model(model, routes, environ)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "model", ["gpt-4o", "gpt-6-sol", "o1", "o3-mini", "o4-mini-2025-04-16", "chatgpt-4o-latest"]
)
def test_openai_models(model: str) -> None:
    """OpenAI's names go to OpenAI's chat."""
    assert target(model) == Target("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", OPENAI_CHAT)


def test_embedding_models() -> None:
    """Embedding models are asked for embeddings."""
    found = target("text-embedding-3-small")
    assert found.dialect is OPENAI_EMBEDDINGS
    url, body = found.compose("hello", "text-embedding-3-small")
    assert url == "https://api.openai.com/v1/embeddings"
    assert json.loads(body) == {"model": "text-embedding-3-small", "input": "hello"}


@pytest.mark.parametrize(
    "model", ["gpt-3.5-turbo-instruct", "gpt-3.5-turbo-instruct-0914", "davinci-002", "babbage-002"]
)
def test_completion_models(model: str) -> None:
    """Models that only complete are asked to, with a bound: the API stops after 16 tokens without one."""
    found = target(model)
    assert found == Target("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", OPENAI_COMPLETIONS)
    url, body = found.compose("hello", model)
    assert url == "https://api.openai.com/v1/completions"
    assert json.loads(body) == {"model": model, "prompt": "hello", "max_tokens": COMPLETION_TOKENS}


def test_anthropic_models() -> None:
    """Claude models go to Anthropic's messages, with its headers and a bound on the output."""
    found = target("claude-sonnet-4-5")
    assert found == Target("anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY", ANTHROPIC_MESSAGES)
    assert found.headers("k")["x-api-key"] == "k"
    assert found.headers("k")["anthropic-version"] == "2023-06-01"
    url, body = found.compose("hello", "claude-sonnet-4-5")
    assert url == "https://api.anthropic.com/v1/messages"
    assert json.loads(body) == {
        "model": "claude-sonnet-4-5",
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": "hello"}],
    }


@pytest.mark.parametrize("model", ["llama-3", "mistral-large", "ollama/gpt-4o", "o", "opus", "", "my-gpt-4"])
def test_unknown_models(model: str) -> None:
    """A name that nobody is known to serve has no target."""
    assert resolve_model(model) is None


def test_routes_go_first() -> None:
    """A user who names a model means it: a route also takes names that the built-in rules know."""
    routes = {
        "gpt-oss-*": Route(base_url="https://api.groq.com/openai/v1/"),
        "local-*": Route(base_url="http://127.0.0.1:8000/v1", api_key_env="LOCAL_KEY"),
        "claude-*": Route("anthropic", "https://gw.example"),
        "nomic-embed-*": Route(base_url="http://127.0.0.1:11434/v1"),
    }
    assert target("gpt-oss-120b", routes) == Target(
        "groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", OPENAI_CHAT
    )
    assert target("local-x", routes) == Target("openai", "http://127.0.0.1:8000/v1", "LOCAL_KEY", OPENAI_CHAT)
    assert target("claude-3", routes).base_url == "https://gw.example"
    assert target("nomic-embed-text", routes).dialect is OPENAI_EMBEDDINGS
    assert target("gpt-4o", routes).provider == "openai"
    assert resolve_model("Local-x", routes) is None


def test_base_urls_of_the_environment() -> None:
    """The SDKs' own variables move the built-in providers, and a route with an address stands above them."""
    environ = {"OPENAI_BASE_URL": "http://127.0.0.1:4000/v1/", "ANTHROPIC_BASE_URL": "http://127.0.0.1:4000/"}
    assert (
        target("gpt-4o", environ=environ).compose("x", "gpt-4o")[0]
        == "http://127.0.0.1:4000/v1/chat/completions"
    )
    assert (
        target("claude-3", environ=environ).compose("x", "claude-3")[0] == "http://127.0.0.1:4000/v1/messages"
    )
    routes = {"gpt-4o": Route(base_url="http://127.0.0.1:5000/v1")}
    assert target("gpt-4o", routes, environ).base_url == "http://127.0.0.1:5000/v1"


def test_messages_as_the_api_has_them() -> None:
    """A conversation is sent as it is given, text in UTF-8."""
    messages = [{"role": "system", "content": "Sei höflich"}, {"role": "user", "content": "hi"}]
    found = target("gpt-4o")
    _, body = found.compose(messages, "gpt-4o")
    assert json.loads(body)["messages"] == messages
    assert "höflich".encode() in body
    assert found.headers("k")["authorization"] == "Bearer k"


@pytest.mark.parametrize("model", ["gpt-4o", "claude-3", "text-embedding-3-large", "davinci-002"])
def test_what_is_composed_is_recognised(model: str) -> None:
    """A call of our own is one of ours: it passes the same cache, breaker and books."""
    found = target(model)
    url, body = found.compose("hi", model)
    _, _, rest = url.partition("//")
    host, _, path = rest.partition("/")
    candidate = Recogniser().recognise("POST", host, None, "/" + path, found.headers("k")["content-type"])
    assert candidate is not None
    assert candidate.dialect is found.dialect
    assert candidate.provider == found.provider
    ask = candidate.ask(json.loads(body))
    assert ask is not None
    assert ask.model == model
