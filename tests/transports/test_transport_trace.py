"""The app's own code that a client's transport runs as a body is read."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest

from underlay import Runtime
from underlay.simulator import Simulator

BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}).encode()


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
@pytest.mark.parametrize("event", ["send_request_body.started", "receive_response_body.started"])
def test_what_a_trace_hook_asks_is_not_joined_to_the_call_that_it_traces(family: str, event: str) -> None:
    """A trace hook that asks the very question of the call whose request or body it is told of gets an answer of its
    own: waiting for that call's it would wait for itself."""
    import_module(family)
    runtime = Runtime()
    asked: list[int] = []

    def trace(name: str, _: dict[str, Any]) -> None:
        if name.endswith(event) and not asked:
            asked.append(0)
            asked[0] = client.post(url, content=BODY, headers=headers).status_code

    headers = {"content-type": "application/json", "authorization": "Bearer sk-any"}
    make: Any = getattr(runtime, f"{family}_client")
    with Simulator() as simulator, make(trust_env=False, timeout=20.0) as client:
        url = f"{simulator.url}/v1/chat/completions"
        traced = client.build_request("POST", url, content=BODY, headers=headers, extensions={"trace": trace})
        assert client.send(traced).status_code == 200
        assert asked == [200]
        assert simulator.counts().total.requests == 2
