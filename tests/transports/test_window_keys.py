"""Which calls share a window: those that differ in nothing but their inputs, in one home."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from transport_lab import CHAT_ASK, CHAT_URL, KEY
from window_lab import WindowLab, embedding
from window_provider import EMBEDDINGS_URL

from underlay.telemetry.attributes import BatchTrigger

HOST = "https://api.openai.com"
DIFFERENCES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    # name: fields of the body, options of the request, URL
    "model": ({"model": "text-embedding-3-large"}, {}, ""),
    "dimensions": ({"dimensions": 3}, {}, ""),
    "encoding_format": ({"encoding_format": "base64"}, {}, ""),
    "user": ({"user": "u"}, {}, ""),
    "a field of tomorrow": ({"input_type": "query"}, {}, ""),
    "kind of input": ({"input": [1, 2]}, {}, ""),
    "header": ({}, {"headers": {"openai-organization": "other"}}, ""),
    "credential": ({}, {"headers": {"authorization": "Bearer other"}}, ""),
    "no credential": ({}, {"headers": {"authorization": ""}}, ""),
    "api-key": ({}, {"headers": {"api-key": "other"}}, ""),
    "cookie": ({}, {"headers": {"cookie": "session=2"}}, ""),
    "read timeout": ({}, {"timeout": 7}, ""),
    "query": ({}, {}, f"{EMBEDDINGS_URL}?api-version=2"),
    "path": ({}, {}, f"{HOST}/other/v1/embeddings"),
    "host": ({}, {}, "https://api.mistral.ai/v1/embeddings"),
    "port": ({}, {}, f"{HOST}:8443/v1/embeddings"),
    "scheme": ({}, {}, "http://api.openai.com/v1/embeddings"),
}
ALIKE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the same but the input": ({}, {}),
    "a list": ({"input": ["b", "c"]}, {}),
    "what the SDK says of itself": ({}, {"headers": {"x-stainless-retry-count": "1", "user-agent": "u"}}),
    "trace context": ({}, {"headers": {"traceparent": "00-1-1-01", "x-request-id": "r"}}),
    "idempotency key": ({}, {"headers": {"idempotency-key": "i"}}),
    "control header": ({}, {"headers": {"underlay-deadline": "60"}}),
}


@pytest.mark.parametrize("difference", list(DIFFERENCES))
def test_what_differs_never_shares_a_request(crowd: WindowLab, difference: str) -> None:
    """Two calls that differ in one thing leave in two requests, each with its own input and as it was made."""
    fields, options, url = DIFFERENCES[difference]
    crowd.windows(linger="fixed", max_batch_size=2)
    client = crowd.client()
    one = crowd.ask(client, embedding("a"))
    other = crowd.ask(client, embedding(**{"inputs": "b", **fields}), url=url or EMBEDDINGS_URL, **options)
    assert crowd.sent == []
    crowd.advance(0.05)
    inputs = embedding(**{"inputs": "b", **fields})["input"]
    assert sorted(str(held.body["input"]) for held in crowd.sent) == sorted(["a", str(inputs)])
    crowd.provider.release()
    assert (one.result().status_code, other.result().status_code) == (200, 200)
    assert {dispatch.started.trigger for dispatch in crowd.recorder.dispatches} == {BatchTrigger.TIME}


def test_a_namespace_shares_answers_and_no_requests(crowd: WindowLab) -> None:
    """Where a namespace stands for several credentials, each is still asked with its own alone: nobody's inputs
    are sent, and paid, by another."""
    crowd.setup(
        llm_batch={"linger": "fixed", "max_batch_size": 2},
        llm_cache={"namespace": "team"},
        coalesce={"mode": "off"},
    )
    client = crowd.client()
    for number, key in enumerate(("Bearer one", "Bearer two") * 2):
        crowd.ask(client, embedding(f"{number}"), headers={"authorization": key})
    assert [(held.headers["authorization"], held.inputs) for held in crowd.sent] == [
        ("Bearer one", ["0", "2"]),
        ("Bearer two", ["1", "3"]),
    ]
    crowd.provider.release()
    hit = crowd.ask(client, embedding("0"), headers={"authorization": "Bearer two"})
    assert hit.result().headers["cache-status"]
    assert len(crowd.sent) == 2


@pytest.mark.parametrize("part", ["connect", "read", "write", "pool"])
def test_a_timeout_that_differs_keeps_calls_apart(crowd: WindowLab, part: str) -> None:
    """Each of the four timeouts is in the key: nobody waits by another's patience."""
    crowd.windows(linger="fixed", max_batch_size=2)
    client = crowd.client()
    usual = {"connect": 5.0, "read": 60.0, "write": 60.0, "pool": 60.0}
    for timeout in (usual, {**usual, part: 61.0}):
        crowd.ask(client, embedding("a"), timeout=crowd.module.Timeout(**timeout))
    crowd.ask(client, embedding("b"), timeout=crowd.module.Timeout(**usual))
    assert [held.inputs for held in crowd.sent] == [["a", "b"]]
    crowd.provider.release()
    crowd.advance(0.05)
    assert [held.inputs for held in crowd.sent] == [["a", "b"], ["a"]]


@pytest.mark.parametrize("likeness", list(ALIKE))
def test_what_says_nothing_about_the_answer_shares_a_request(crowd: WindowLab, likeness: str) -> None:
    """Calls that differ in headers which are in no key are one request, which carries no such promise of one
    call alone."""
    fields, options = ALIKE[likeness]
    crowd.windows(linger="fixed", max_batch_size=2)
    client = crowd.client()
    calls = [crowd.ask(client, embedding("a")), crowd.ask(client, {**embedding("b"), **fields}, **options)]
    (sent,) = crowd.sent
    assert sent.inputs[0] == "a"
    assert not {"idempotency-key", "underlay-deadline"} & set(sent.headers)
    sent.reply()
    assert [call.result().status_code for call in calls] == [200, 200]


def test_clients_of_both_families_share_a_request(crowd: WindowLab) -> None:
    """Threads, or the tasks of a loop, share across clients; each is answered by its own family's response, and
    told of an error by its own family's exception."""
    crowd.windows(linger="fixed", max_batch_size=2)
    name = "httpx2" if crowd.family == "httpx" else "httpx"
    module = import_module(name)
    prefix, made = ("", "Client") if crowd.kind == "sync" else ("async_", "AsyncClient")
    wrap = getattr(crowd.runtime, f"{prefix}{name}_transport")
    other = getattr(module, made)(transport=wrap(crowd.provider.transport(name, crowd.kind)))
    crowd._clients.append(other)
    mine = crowd.client()
    headers = {"accept-encoding": "gzip", "user-agent": "u"}
    for failing in (False, True):
        calls = [
            crowd.ask(client, embedding(str(failing)), headers=headers, timeout=5) for client in (mine, other)
        ]
        held = crowd.sent[-1]
        assert len(held.inputs) == 2
        if failing:
            held.fail(
                module.ReadTimeout("too late"), settle=True
            )  # by the transport of the last, which sends
            errors: list[Any] = [call.error for call in calls]
            assert [type(error) for error in errors] == [crowd.module.ReadTimeout, module.ReadTimeout]
            assert [str(error) for error in errors] == ["too late", "too late"]
            assert isinstance(errors[0].request, crowd.module.Request)
        else:
            held.reply()
            assert [type(call.result()) for call in calls] == [crowd.module.Response, module.Response]


@pytest.mark.parametrize(
    "ask", [{"body": embedding("a")}, {"body": CHAT_ASK, "url": CHAT_URL}], ids=["merged", "released"]
)
def test_homes_never_share_a_window(monkeypatch: pytest.MonkeyPatch, ask: dict[str, Any]) -> None:
    """A thread, an asyncio loop and a trio run with the same runtime: three windows."""
    labs = [WindowLab(f"{mode}-httpx", monkeypatch) for mode in ("sync", "asyncio", "trio")]
    runtime = labs[0].windows(linger="fixed", max_batch_size=2).runtime
    for lab in labs[1:]:
        lab.runtime, lab.clock = runtime, labs[0].clock
    with labs[0].running(), labs[1].running(), labs[2].running():
        for lab in labs:
            lab.provider.holds = False
            lab.ask(lab.client(), **ask)
        assert [len(lab.sent) for lab in labs] == [0, 0, 0]
        labs[0].clock.advance(0.05)
        for lab in labs:
            lab.settle()
        assert [len(lab.sent) for lab in labs] == [1, 1, 1]


def test_loops_never_share_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two asyncio loops of one process are two homes."""
    labs = [WindowLab("asyncio-httpx", monkeypatch) for _ in range(2)]
    labs[0].windows(linger="fixed", max_batch_size=2)
    labs[1].runtime = labs[0].runtime
    with labs[0].running(), labs[1].running():
        for lab in labs:
            lab.provider.holds = False
            lab.ask(lab.client(), embedding("a"))
        assert [len(lab.sent) for lab in labs] == [0, 0]
        labs[0].clock.advance(0.05)
        for lab in labs:
            lab.settle()
        assert [len(lab.sent) for lab in labs] == [1, 1]


def test_models_and_operations_of_released_calls_never_share(crowd: WindowLab) -> None:
    """Chat of two models, and embeddings of one of them that cannot be merged, are three windows; the credential
    and the body do not matter where nothing is merged."""
    crowd.windows(linger="fixed", max_batch_size=2)
    client = crowd.client()
    crowd.ask(client, {**CHAT_ASK, "model": "gpt-4o"}, url=CHAT_URL)
    crowd.ask(client, {**CHAT_ASK, "model": "gpt-4o-mini"}, url=CHAT_URL)
    crowd.ask(client, embedding("a", model="gpt-4o", late_chunking=True))
    assert crowd.sent == []
    crowd.ask(
        client,
        {**CHAT_ASK, "model": "gpt-4o", "temperature": 0},
        url=CHAT_URL,
        headers={**KEY, "x-other": "1"},
    )
    assert [held.body["model"] for held in crowd.sent] == ["gpt-4o", "gpt-4o"]
    crowd.provider.release()
    crowd.advance(0.05)
    assert len(crowd.sent) == 4
