"""Transports of the app that have read, or closed, the response before they hand it over."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from transport_lab import CHAT, CHAT_FRAMES, JSON_TYPE, SSE_TYPE, Lab, dumped

from underlay.telemetry.events import AttemptEnded, CallEnded
from underlay.testing import Scripted

REPLIES = {
    "json": Scripted(200, JSON_TYPE, [dumped(CHAT)]),
    "gzip": Scripted(200, {**JSON_TYPE, "content-encoding": "gzip"}, [gzip.compress(dumped(CHAT))]),
    "stream": Scripted(200, SSE_TYPE, CHAT_FRAMES),
}


def reading(lab: Lab, made: list[Any], after: str) -> Any:
    """A transport that reads (or closes) what the script's transport gives it."""
    script = lab.script.transport(lab.family, lab.kind)

    def handle(request: Any) -> Any:
        if lab.kind == "sync":
            response = script.handle_request(request)
            made.append(response)
            getattr(response, after)()
            return response

        async def awaited() -> Any:
            response = await script.handle_async_request(request)
            made.append(response)
            await getattr(response, f"a{after}")()
            return response

        return awaited()

    return lab.transport(handle)


@pytest.mark.parametrize("name", list(REPLIES))
def test_a_response_that_was_read_is_recorded_and_replayed(lab: Lab, name: str) -> None:
    """A transport that logs bodies hands over a spent response: the caller gets that very object, its books are
    kept once, and a repeat has the same content."""
    lab.setup([REPLIES[name]])
    made: list[Any] = []

    async def scenario() -> None:
        client = lab.client(reading(lab, made, "read"))
        first = await lab.post(client)
        assert first is made[0]
        assert lab.attempt.stored
        assert lab.attempt.verdict == "success"
        second = await lab.post(client)
        assert second.content == first.content
        assert "content-encoding" not in second.headers

    lab.run(scenario)
    assert lab.upstream == 1
    (call, _) = lab.recorder.calls
    assert (len(call.of(AttemptEnded)), len(call.of(CallEnded))) == (1, 1)
    assert lab.faults == {}


def test_a_response_that_was_closed_unread_passes_as_it_is(lab: Lab) -> None:
    """A response that was closed before it was handed over reaches the caller as it does without underlay, and
    is not kept."""
    lab.setup([REPLIES["json"]])
    made: list[Any] = []

    async def scenario() -> None:
        client = lab.client(reading(lab, made, "close"))
        response = await lab.open(client)
        assert response is made[0]
        try:
            await lab.read(response)
        except lab.module.StreamError as error:
            assert isinstance(error, lab.module.StreamClosed)
        else:
            raise AssertionError("a closed response cannot be read")
        assert lab.runtime.cache.size == 0
        assert len(lab.recorder.calls[0].of(CallEnded)) == 1

    lab.run(scenario)
