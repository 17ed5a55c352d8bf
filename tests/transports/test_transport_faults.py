"""Faults of ours around the send and of the store: the app gets its answer all the same."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from transport_lab import (
    CHAT,
    CHAT_ASK,
    CHAT_FRAMES,
    KEY,
    Lab,
    dumped,
    json_reply,
    stream_reply,
)

from underlay.telemetry.events import CallEnded
from underlay.transports.common import BasePorts

# httpx leaves a generator of its own behind when a body is left early, which trio points out.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")
ASK = {**CHAT_ASK, "stream": True}


@pytest.mark.parametrize("where", ["_rebuilt", "_timeouts", "_response", "_body", "_outgoing"])
def test_a_fault_of_ours_around_the_send_never_reaches_the_app(
    lab: Lab, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the adapter itself does before and after the send may fail: the request goes out once, the answer
    comes back, the fault is counted."""
    from underlay.pipeline import perform

    def broken(*_: Any) -> Any:
        raise RuntimeError("ours")

    adapter = import_module(f"underlay.transports.{lab.family}_{lab.kind}")
    monkeypatch.setattr(perform if where == "_outgoing" else adapter, where, broken)
    lab.setup([json_reply()])

    async def scenario() -> None:
        response = await lab.post(lab.client(), headers={**KEY, "underlay-tag": "x"})
        assert response.content == dumped(CHAT)

    lab.run(scenario)
    assert lab.upstream == 1
    assert sum(lab.faults.values()) >= 1
    lab.runtime.stats()
    assert [len(call.of(CallEnded)) for call in lab.recorder.calls] == [1] * len(lab.recorder.calls)
    if where in ("_rebuilt", "_outgoing"):
        assert lab.attempt.error_type == perform._OURS.name


def test_a_fault_after_the_permit_gives_it_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that a fault of ours befalls before it has books of its own frees its slot: the next call
    probes."""
    from underlay.pipeline import perform

    lab.setup(
        [json_reply({}, 500), json_reply()], circuit_breaker={"failure_threshold": 1, "success_threshold": 1}
    )

    def broken(*_: Any) -> Any:
        raise RuntimeError("ours")

    async def scenario() -> None:
        client = lab.client()
        await lab.post(client)
        lab.clock.advance(60)
        with monkeypatch.context() as patch:
            patch.setattr(perform, "Attempt", broken)
            assert (await lab.post(client)).status_code == 200
        assert lab.runtime.circuit("gpt-4o").state == "half_open"
        assert (await lab.post(client)).status_code == 200
        assert lab.runtime.circuit("gpt-4o").state == "closed"

    lab.run(scenario)
    assert lab.upstream == 3


class _Suspends:
    """Something that only a loop can wait for."""

    def __await__(self) -> Any:
        yield None


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_a_store_that_would_suspend_costs_only_the_entry(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a synchronous call a store that has to wait for a loop is a fault of ours: the body is whole,
    nothing is raised, and upstream is closed."""

    async def store(self: BasePorts, key: bytes, entry: Any) -> bool:
        await _Suspends()
        return True

    monkeypatch.setattr(BasePorts, "store", store)
    lab = Lab(f"sync-{family}").setup([json_reply(), stream_reply()])

    async def scenario() -> None:
        client = lab.client()
        assert (await lab.post(client)).content == dumped(CHAT)
        response = await lab.open(client, body=ASK)  # left at its terminal event: stored by the close
        frames = lab.frames(response)
        for frame in CHAT_FRAMES:
            assert await frames.next() == frame
        await lab.close(response)

    lab.run(scenario)
    assert (lab.script.closed, lab.upstream) == (2, 2)
    assert sum(lab.faults.values()) == 2
