"""Random lives of many calls at once: opened, read in pieces, left, dropped, cut, refused. Whatever happens, the books
add up, every byte that is delivered is right, and no circuit is stuck for ever."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from transport_lab import CHAT, CHAT_ASK, CHAT_URL, JSON_TYPE, KEY, SSE_TYPE, Lab, dumped

from underlay.telemetry.events import AttemptEnded, AttemptStarted, CallEnded
from underlay.testing import Received, Scripted

FATES = [
    "json",
    "stream",
    "cut json",
    "cut stream",
    "error event",
    "500",
    "429",
    "read error",
    "connect error",
]
DONE = b"data: [DONE]\n\n"


class Chaos(RuleBasedStateMachine):
    """One client, a handful of questions, and a provider whose fate is drawn for each request."""

    @initialize(family=st.sampled_from(["httpx", "httpx2"]))
    def start(self, family: str) -> None:
        """A fresh runtime with a nervous breaker."""
        self.lab = Lab(f"sync-{family}")
        breaker = {
            "failure_threshold": 2,
            "recovery_timeout": 10,
            "success_threshold": 1,
            "probe_timeout": 50,
        }
        self.lab.setup(self.answer, circuit_breaker=breaker, llm_cache={"ttl": 40, "maxsize": 3})
        self.client = self.lab.client()
        self.fate = "json"
        self.open: list[tuple[Any, Any, bytes, list[bytes]]] = []
        self.dropped = 0

    def parts(self, received_body: bytes) -> list[bytes]:
        """What the provider says to a question: it repeats it."""
        asked = json.loads(received_body)
        if not asked["stream"]:
            text = dumped({**CHAT, "id": str(asked["seed"])})
            return [text[:40], text[40:]]
        return [b'data: {"id":"%d"}\n\n' % asked["seed"], b'data: {"id":"x"}\n\n', DONE]

    def answer(self, got: Received) -> Scripted:
        """The reply that this request's fate wants."""
        parts: list[Any] = self.parts(got.body)
        kind = SSE_TYPE if json.loads(got.body)["stream"] else JSON_TYPE
        if self.fate == "connect error":
            return Scripted(error=self.lab.module.ConnectError("down"))
        if self.fate in ("500", "429"):
            return Scripted(int(self.fate), JSON_TYPE, [b"{}"])
        if self.fate.startswith("cut"):
            return Scripted(200, kind, parts[:-1])
        if self.fate == "error event":
            return Scripted(200, SSE_TYPE, [parts[0], b'data: {"error":{"type":"server_error"}}\n\n'])
        if self.fate == "read error":
            return Scripted(200, kind, [parts[0], self.lab.module.ReadError("cut")])
        return Scripted(200, kind, parts)

    @rule(fate=st.sampled_from(FATES), seed=st.integers(0, 3), stream=st.booleans())
    def ask(self, fate: str, seed: int, stream: bool) -> None:
        """A call is opened, or fails, or is refused."""
        self.fate = fate
        body = {**CHAT_ASK, "seed": seed, "stream": stream}
        request = self.client.build_request("POST", CHAT_URL, json=body, headers=KEY)
        sent = self.lab.upstream
        try:
            response = self.client.send(request, stream=True)
        except self.lab.module.ConnectError:
            assert fate == "connect error"
            return
        if response.headers.get("underlay-refused"):
            assert self.lab.upstream == sent
            response.close()
            return
        self.open.append((response, iter(response.iter_raw()), request.content, []))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), whole=st.booleans())
    def read(self, data: st.DataObject, whole: bool) -> None:
        """One frame of an open reply is read, or all that is left."""
        at = data.draw(st.integers(0, len(self.open) - 1))
        response, frames, asked, got = self.open[at]
        try:
            for frame in frames:
                got.append(frame)
                if not whole:
                    break
            else:
                del self.open[at]
        except self.lab.module.ReadError:
            del self.open[at]
        if response.status_code == 200:
            right = self.parts(asked)
            assert [part for part in got if b"server_error" not in part] == right[
                : len(got) - (b"server_error" in b"".join(got))
            ]
            if "age" in response.headers and at >= len(self.open):
                assert got == right

    @precondition(lambda self: self.open)
    @rule(data=st.data(), twice=st.booleans())
    def close(self, data: st.DataObject, twice: bool) -> None:
        """An open reply is left."""
        response, *_ = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        for _ in range(1 + twice):
            response.close()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """An open reply is forgotten."""
        at = data.draw(st.integers(0, len(self.open) - 1))
        self.dropped += "age" not in self.open[at][0].headers
        del self.open[at]
        gc.collect()

    @rule(seconds=st.sampled_from([1, 9, 10, 50]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.lab.clock.advance(seconds)

    def teardown(self) -> None:
        """Everybody goes home: the books add up, and the provider that is well again is called again."""
        if not hasattr(self, "lab"):
            return
        for response, *_ in self.open:
            response.close()
        self.open.clear()
        gc.collect()
        self.lab.runtime.stats()
        lab = self.lab
        for call in lab.recorder.calls:
            assert len(call.of(CallEnded)) == 1
            assert len(call.of(AttemptEnded)) == len(call.of(AttemptStarted)) <= 1
        assert sum(len(call.of(AttemptStarted)) for call in lab.recorder.calls) == lab.upstream
        assert 0 <= lab.script.opened - lab.script.closed <= self.dropped
        assert lab.faults == {}
        stats = list(lab.runtime.stats().values())
        assert sum(each.calls for each in stats) == len(lab.recorder.calls)
        lab.clock.advance(1000)
        self.fate = "json"
        for seed in (100, 101):
            assert (
                self.client.post(
                    CHAT_URL, json={**CHAT_ASK, "seed": seed, "stream": False}, headers=KEY
                ).status_code
                == 200
            )
        assert lab.runtime.circuit("gpt-4o").state == "closed"
        self.client.close()


Chaos.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestChaos = pytest.mark.timeout(120)(Chaos.TestCase)
