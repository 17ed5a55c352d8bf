"""A finished call leaves nothing to the garbage collector."""

from __future__ import annotations

import gc

import httpx
import pytest

from underlay import Runtime
from underlay.testing import FakeClock, Script, Scripted

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = b'{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}'


@pytest.mark.parametrize("calls", ["a miss", "a hit"])
def test_a_finished_call_leaves_no_cycle(calls: str) -> None:
    """Reference cycles would keep answers in memory until the collector runs, and it runs in the middle of somebody's call."""
    script = Script([Scripted(200, {"content-type": "application/json"}, [ANSWER])])
    runtime = Runtime(clock=FakeClock())
    bare = httpx.Client(transport=script.transport("httpx", "sync"))
    client = httpx.Client(transport=runtime.httpx_transport(script.transport("httpx", "sync")))

    def left(asking: httpx.Client, prompt: str) -> int:
        gc.collect()
        gc.disable()
        try:
            asking.post("https://api.openai.com/v1/chat/completions", json=BODY | {"user": prompt})
            return gc.collect()
        finally:
            gc.enable()

    left(bare, "warm"), left(client, "warm")
    prompt = "warm" if calls == "a hit" else "new"
    assert left(client, prompt) <= left(bare, prompt)
