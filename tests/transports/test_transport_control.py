"""What a caller's headers ask for, and what is kept of requests."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from transport_lab import (
    CHAT,
    CHAT_ASK,
    CHAT_URL,
    JSON_TYPE,
    KEY,
    Lab,
    dumped,
    json_reply,
)

from underlay.pipeline.recognise import Memo
from underlay.telemetry.events import CacheLooked, CircuitRefused

# httpx leaves a generator of its own behind when a body is left early, which trio points out.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")


def test_an_observing_breaker_has_its_say_once_a_call(lab: Lab) -> None:
    """What would have been refused is reported once for each call, however many stages ask the circuit."""
    lab.setup([json_reply({}, 500)], circuit_breaker={"failure_threshold": 1, "mode": "observe"})

    async def scenario() -> None:
        client = lab.client()
        for _ in range(3):
            await lab.post(client)

    lab.run(scenario)
    assert [len(call.of(CircuitRefused)) for call in lab.recorder.calls] == [0, 1, 1]


def test_an_answer_larger_than_the_whole_store_is_not_said_to_be_kept(lab: Lab) -> None:
    """What the store would not take is passed on, and the books do not claim an entry."""
    lab.setup([json_reply()], llm_cache={"max_bytes": 500})

    async def scenario() -> None:
        assert (await lab.post(lab.client())).json() == CHAT
        assert (lab.attempt.stored, lab.attempt.store_reason) == (False, "too_large")

    lab.run(scenario)
    assert lab.runtime.cache.size == 0


def test_no_store_passes_the_cache_by(lab: Lab) -> None:
    """A call that asked for no-store is told as bypassed for that reason, neither served nor kept."""
    lab.setup([json_reply()])

    async def scenario() -> None:
        client = lab.client()
        for _ in range(2):
            await lab.post(client, headers={**KEY, "cache-control": "no-store"})
            looked = lab.last(CacheLooked)
            assert (looked.result, looked.reason, lab.last().result) == ("bypass", "no_store", "bypass")
            assert (lab.attempt.stored, lab.attempt.store_reason) == (False, "no_store")

    lab.run(scenario)
    assert lab.upstream == 2


def test_a_request_without_control_headers_is_otherwise_the_callers(lab: Lab) -> None:
    """Where control headers are taken off, method, URL, the other headers, the body and the extensions
    (timeouts, trace hooks) of what leaves are those of the caller's request."""
    seen: list[Any] = []

    def handle(request: Any) -> Any:
        seen.append(request)
        return lab.module.Response(200, json=CHAT)

    lab.setup([])

    async def scenario() -> None:
        client = lab.client(lab.transport(handle))
        url, mark = CHAT_URL + "?a=%20b&c", object()
        headers = {**KEY, **JSON_TYPE, "underlay-tag": "x", "content-length": "3"}
        body = dumped(CHAT_ASK)
        request = client.build_request(
            "POST", url, content=body, headers=headers, extensions={"mark": mark, "timeout": {"read": 7.0}}
        )
        await lab.send(client, request)
        (sent,) = seen
        assert sent is not request
        assert (sent.method, str(sent.url), sent.extensions) == ("POST", url, request.extensions)
        assert (sent.extensions["mark"], sent.content) == (mark, body)
        assert sent.headers.raw == [
            pair for pair in request.headers.raw if not pair[0].lower().startswith(b"underlay-")
        ]

    lab.run(scenario)


def test_what_is_remembered_of_requests_is_bounded() -> None:
    """A flood of different requests does not grow the memo for ever, and the latest are still known."""
    memo, known = Memo(), cast("Any", object())
    for number in range(10_000):
        memo.put(b"%d" % number, known)
        memo.get(b"0")
    assert len(memo._known) <= 4096
    assert memo.get(b"9999") is memo.get(b"0") is known
    assert memo.get(b"1") is None


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_a_task_that_outlives_the_send_it_was_started_in_is_covered(family: str) -> None:
    """What a transport starts while it sends passes straight through as long as the send lasts, and is a
    caller like any other afterwards."""
    lab = Lab(f"asyncio-{family}").setup([json_reply()])
    started: list[asyncio.Task[None]] = []
    sent = asyncio.Event()

    async def scenario() -> None:
        inner = lab.client()
        script = lab.script.transport(lab.family, lab.kind)

        async def background() -> None:
            await lab.post(inner, body={**CHAT_ASK, "seed": 1})  # while the send lasts
            sent.set()
            while not answered:
                await asyncio.sleep(0)
            await lab.post(inner, body={**CHAT_ASK, "seed": 2})

        async def handle(request: Any) -> Any:
            started.append(asyncio.ensure_future(background()))
            await sent.wait()
            return await script.handle_async_request(request)

        answered: list[Any] = []
        answered.append(await lab.post(lab.client(lab.transport(handle))))
        await started[0]

    lab.run(scenario)
    assert lab.upstream == 3
    assert len(lab.recorder.calls) == 2
