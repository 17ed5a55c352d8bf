"""Which calls are ours: known hosts, hosts of the user's, and the strict rule for all others."""

from __future__ import annotations

from typing import cast

import pytest

from underlay.providers.hosts import HOSTS
from underlay.providers.recognise import BASE_URL_VARIABLES, DIALECTS, Candidate, Recogniser

JSON = "application/json"
PLAIN = Recogniser()


def found(
    host: str,
    path: str,
    *,
    port: int | None = None,
    method: str = "POST",
    kind: str | None = JSON,
    by: Recogniser = PLAIN,
) -> tuple[str, str, bool] | None:
    candidate = by.recognise(method, host, port, path, kind)
    return None if candidate is None else (candidate.provider, candidate.dialect.name, candidate.known)


@pytest.mark.parametrize(
    ("host", "path", "provider", "dialect"),
    [
        ("api.openai.com", "/v1/chat/completions", "openai", "openai.chat"),
        ("API.OpenAI.com", "/v1/responses", "openai", "openai.responses"),
        ("api.openai.com", "/v1/embeddings", "openai", "openai.embeddings"),
        ("api.openai.com", "/v1/completions", "openai", "openai.completions"),
        ("api.deepseek.com", "/beta/completions", "deepseek", "openai.completions"),
        ("api.fireworks.ai", "/inference/v1/completions", "fireworks_ai", "openai.completions"),
        ("me.openai.azure.com", "/openai/deployments/x/completions", "azure.ai.openai", "openai.completions"),
        ("api.anthropic.com", "/v1/messages", "anthropic", "anthropic.messages"),
        ("api.anthropic.com", "/v1/messages?beta=true", "anthropic", "anthropic.messages"),
        ("api.anthropic.com", "/messages", "anthropic", "anthropic.messages"),
        ("api.anthropic.com", "/v1/chat/completions", "anthropic", "openai.chat"),
        ("api.groq.com", "/openai/v1/chat/completions", "groq", "openai.chat"),
        ("api.mistral.ai", "/v1/embeddings", "mistral_ai", "openai.embeddings"),
        ("api.deepseek.com", "/chat/completions", "deepseek", "openai.chat"),
        ("api.deepseek.com", "/anthropic/v1/messages", "deepseek", "anthropic.messages"),
        ("api.x.ai", "/v1/chat/completions", "x_ai", "openai.chat"),
        ("api.perplexity.ai", "/chat/completions", "perplexity", "openai.chat"),
        ("openrouter.ai", "/api/v1/chat/completions", "openrouter", "openai.chat"),
        ("api.together.xyz", "/v1/chat/completions", "together_ai", "openai.chat"),
        ("api.fireworks.ai", "/inference/v1/chat/completions", "fireworks_ai", "openai.chat"),
        ("generativelanguage.googleapis.com", "/v1beta/openai/chat/completions", "gcp.gemini", "openai.chat"),
        ("me.openai.azure.com", "/openai/v1/responses", "azure.ai.openai", "openai.responses"),
        ("me.services.ai.azure.com", "/models/chat/completions", "azure.ai.inference", "openai.chat"),
        ("me.services.ai.azure.com", "/openai/v1/chat/completions", "azure.ai.openai", "openai.chat"),
        ("me.services.ai.azure.com", "/anthropic/v1/messages", "azure.ai.inference", "anthropic.messages"),
    ],
)
def test_known_hosts(host: str, path: str, provider: str, dialect: str) -> None:
    """Every dialect of a provider's host is recognised under that provider's name."""
    assert found(host, path) == (provider, dialect, True)


def test_a_deployment_names_the_model() -> None:
    """Azure's path may name the deployment, which stands in for a model that the body leaves out."""
    path = "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"
    candidate = PLAIN.recognise("POST", "me.openai.azure.com", None, path, JSON)
    assert candidate is not None
    assert (candidate.provider, candidate.model) == ("azure.ai.openai", "my-gpt")
    without = candidate.ask({"messages": [{"role": "user", "content": "x"}]})
    within = candidate.ask({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]})
    assert without is not None
    assert within is not None
    assert (without.model, within.model) == ("my-gpt", "gpt-4o")


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("api.openai.com", "/v1/xcompletions"),
        ("api.mistral.ai", "/v1/fim/completions"),
        ("api.openai.com", "/v1/responses/resp_1"),
        ("api.openai.com", "/v1/responses/input_tokens"),
        ("api.openai.com", "/v1/threads/thread_1/messages"),
        ("api.openai.com", "/v1/audio/speech"),
        ("api.openai.com", "/v1/batches"),
        ("api.openai.com", "/v1/embeddings/"),
        ("api.anthropic.com", "/v1/messages/count_tokens"),
        ("api.anthropic.com", "/v1/messages/batches"),
        ("api.anthropic.com", "/v1/complete"),
        ("example.com", "/messages"),
        ("example.com", "/api/messages"),
        ("example.com", "/api/chat"),
        ("example.com", "/completions/x"),
        ("example.com", "/v1/fim/completions"),
        ("example.com", "/xresponses"),
        ("openai.azure.com.evil.example", "/api/v1/messages/x"),
        ("example.com", ""),
        ("example.com", "/"),
    ],
)
def test_other_paths_are_not_ours(host: str, path: str) -> None:
    """Only the exact ends of the APIs' paths are."""
    assert found(host, path) is None


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "post"])
def test_only_posts(method: str) -> None:
    """Listing stored completions has the same path and is another call."""
    assert found("api.openai.com", "/v1/chat/completions", method=method) is None


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_unknown_hosts_need_a_json_post(dialect: object) -> None:
    """A gateway's call is a candidate, named by its family, when it says that it is JSON; never otherwise."""
    path, family, name = (getattr(dialect, key) for key in ("suffix", "family", "name"))
    for host in ("127.0.0.1", "llm.corp.example", "::1"):
        assert found(host, "/gw" + path, port=8080) == (family, name, False)
        assert found(host, path, kind="application/json; charset=utf-8") == (family, name, False)
        for kind in (
            None,
            "",
            "text/plain",
            "multipart/form-data; boundary=x",
            "application/x-www-form-urlencoded",
        ):
            assert found(host, path, kind=kind) is None
        assert found(host, path, by=Recogniser(unknown=False)) is None


def test_known_hosts_may_leave_the_content_type_out() -> None:
    """A provider's host is sure without it; a multipart upload is still not read."""
    assert found("api.openai.com", "/v1/chat/completions", kind=None) is not None
    assert found("api.openai.com", "/v1/chat/completions", kind="multipart/form-data") is None


@pytest.mark.parametrize(
    "body", [None, [], "x", {}, {"model": "m"}, {"messages": [{}]}, {"model": 3, "messages": [{}]}]
)
def test_a_body_without_the_required_fields_is_not_ours(body: object) -> None:
    """Another service's JSON at the same path passes untouched."""
    candidate = PLAIN.recognise("POST", "example.com", None, "/chat/completions", JSON)
    assert candidate is not None
    assert candidate.ask(body) is None


MESSAGES_ONLY = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
PROMPT_ONLY = {"model": "m", "prompt": "x"}


@pytest.mark.parametrize("host", ["example.com", "api.openai.com"])
@pytest.mark.parametrize(
    ("path", "body", "operation"),
    [
        ("/v1/chat/completions", MESSAGES_ONLY, "chat"),
        ("/v1/chat/completions", PROMPT_ONLY, None),
        ("/v1/completions", PROMPT_ONLY, "text_completion"),
        ("/v1/completions", MESSAGES_ONLY, None),
        ("/v1/completions", {"prompt": "x"}, None),
        ("/v1/completions", {"model": "m"}, None),
    ],
)
def test_two_apis_that_end_alike(host: str, path: str, body: object, operation: str | None) -> None:
    """The path says which API is meant and the body that it is: messages at the path of prompts are nobody's."""
    candidate = PLAIN.recognise("POST", host, None, path, JSON)
    assert candidate is not None
    ask = candidate.ask(body)
    assert (None if ask is None else ask.operation) == operation


def test_the_longest_end_wins_in_any_order() -> None:
    """Which of two APIs was asked for first changes nothing."""
    by = Recogniser()
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/completions"):
        name = "openai.chat" if "chat" in path else "openai.completions"
        assert found("example.com", path, by=by) == ("openai", name, False)


@pytest.mark.parametrize("variable", list(BASE_URL_VARIABLES))
def test_base_url_variables_name_known_hosts(variable: str) -> None:
    """A host that an SDK is sent to by its environment is known, at its port."""
    by = Recogniser(environ={variable: "http://gateway.corp.example:4000/v1/"}, unknown=False)
    told = found("gateway.corp.example", "/v1/chat/completions", port=4000, by=by)
    assert told is not None
    assert told[2]
    assert found("gateway.corp.example", "/v1/chat/completions", port=4001, by=by) is None
    assert found("gateway.corp.example", "/v1/chat/completions", by=by) is None


def test_a_schemes_own_port_is_no_port() -> None:
    """Clients leave :443 of https out, so the table does; a host without a port stands for all of them."""
    by = Recogniser({"https://a.example:443": "groq", "b.example": "openai"}, unknown=False)
    assert found("a.example", "/v1/embeddings", by=by) == ("groq", "openai.embeddings", True)
    assert found("b.example", "/v1/embeddings", port=9, by=by) == ("openai", "openai.embeddings", True)


def test_a_gateway_named_for_one_family_serves_both() -> None:
    """The provider's name follows the dialect that the call really speaks."""
    by = Recogniser({"gw.example": "openai"}, {"ANTHROPIC_BASE_URL": "http://gw.example"}, unknown=False)
    assert found("gw.example", "/v1/messages", by=by) == ("anthropic", "anthropic.messages", True)
    assert found("gw.example", "/messages", by=by) == ("anthropic", "anthropic.messages", True)
    assert found("gw.example", "/v1/responses", by=by) == ("openai", "openai.responses", True)


def test_settings_win_over_the_environment_and_providers_keep_their_names() -> None:
    """A base URL of a known provider does not rename it; a setting names a host of the user's own."""
    by = Recogniser(
        {"gw.example": "mistral_ai"},
        {"OPENAI_BASE_URL": "https://api.groq.com/openai/v1", "ANTHROPIC_BASE_URL": "https://gw.example"},
    )
    assert found("api.groq.com", "/openai/v1/chat/completions", by=by) == ("groq", "openai.chat", True)
    assert found("gw.example", "/v1/chat/completions", by=by) == ("mistral_ai", "openai.chat", True)


@pytest.mark.parametrize("value", ["", "   ", "http://", "http://[bad", "http://h:port/", "://"])
def test_a_malformed_base_url_names_nothing(value: str) -> None:
    """Rubbish in the environment breaks nothing and makes nobody known."""
    assert (
        found("", "/v1/responses", by=Recogniser(environ={"OPENAI_BASE_URL": value}, unknown=False)) is None
    )


def test_the_table_is_lower_case_and_made_of_hosts() -> None:
    """Hosts are looked up in lower case, without scheme, port or path."""
    assert all(host == host.lower() and not set(host) & set("/: ") for host in HOSTS)


def test_candidates_are_data() -> None:
    """A candidate compares by value, so that it can be asserted on."""
    expected = Candidate("openai", DIALECTS[0], known=True)
    assert PLAIN.recognise("POST", "api.openai.com", None, "/v1/chat/completions", JSON) == expected


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/responses"), ("POST", "/api/v1/things"), ("POST", "/graphql?query=x")]
)
def test_unrelated_traffic_leaves_before_its_host_is_looked_at(method: str, path: str) -> None:
    """What is not ours costs a look-up or two (under 0.4 us): neither host nor content type is touched."""
    untouched = cast("str", object())
    assert PLAIN.recognise(method, untouched, 443, path, untouched) is None
