"""A model that has no price."""

from __future__ import annotations

import logging

import httpx
import pytest

from underlay import Runtime
from underlay.telemetry.events import AttemptEnded, Unpriced
from underlay.testing import FakeClock, Recorder, Script, Scripted

ANSWER = (
    b'{"model": "house-model-1", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],'
    b' "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}'
)


def test_a_model_without_a_price_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Its cost is unknown, never 0, and one event and one log line say so however many calls there are."""
    recorder = Recorder()
    script = Script([Scripted(200, {"content-type": "application/json"}, [ANSWER])])
    runtime = Runtime(clock=FakeClock(), listeners=[recorder])
    client = httpx.Client(transport=runtime.httpx_transport(script.transport("httpx", "sync")))
    with caplog.at_level(logging.WARNING, logger="underlay"):
        for n in range(3):
            body = {"model": "house-model-1", "messages": [{"role": "user", "content": f"question {n}"}]}
            client.post("https://api.openai.com/v1/chat/completions", json=body)
    assert [event for event in recorder.process if isinstance(event, Unpriced)] == [
        Unpriced("openai", "house-model-1")
    ]
    assert [record.getMessage()[:47] for record in caplog.records] == [
        "underlay: no price for openai/house-model-1 in "
    ]
    ended = [call.of(AttemptEnded)[0] for call in recorder.calls]
    assert [(one.usage.total, one.cost_usd) for one in ended] == [(7, None)] * 3
    stats = runtime.stats()["openai", "house-model-1"]
    assert (stats.unpriced, stats.cost) == (3, 0.0)
