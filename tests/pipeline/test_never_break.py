"""Never break the app: raise in every stage in turn. The call goes upstream once, its bytes are equal, nothing
of ours reaches the app, and the fault is counted and said once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import pytest
from transport_lab import CHAT, CHAT_ASK, CHAT_FRAMES, WAYS, Lab, dumped, json_reply, stream_reply

from underlay.pipeline import perform, stages
from underlay.pipeline.attempt import Attempt
from underlay.pipeline.circuits import Circuits
from underlay.pipeline.engine import Engine
from underlay.pipeline.reader import Reader
from underlay.pipeline.recognise import Memo
from underlay.pipeline.watch import Watch
from underlay.stores.memory import MemoryStore
from underlay.telemetry.attributes import Stage
from underlay.telemetry.events import AttemptEnded, CallEnded
from underlay.telemetry.listener import QuietHandle

SECRET = "what was asked"


def broken(*_: Any, **__: Any) -> Any:
    """A fault of ours."""
    raise RuntimeError(SECRET)


class Boom:
    """A context manager that raises on the way in or out."""

    def __init__(self, way: str) -> None:
        self._way = way

    def __enter__(self) -> None:
        if self._way == "enter":
            broken()

    def __exit__(self, *_: object) -> None:
        if self._way == "exit":
            broken()


class BrokenListener:
    """A listener of which one method raises."""

    def __init__(self, method: str) -> None:
        self._method = method

    def start(self, started: Any) -> Any:
        """A handle whose one method raises, or nothing at all."""
        if self._method == "start":
            broken()
        names = {
            "origin": ("origin", broken),
            "trace_id": ("trace_id", broken),
            "event": ("event", broken),
            "attempt": ("attempt", broken),
            "enter": ("attempt", lambda _: Boom("enter")),
            "exit": ("attempt", lambda _: Boom("exit")),
        }
        body: dict[str, Any] = {"event": lambda *_: None, "attempt": lambda _: nullcontext()}
        if self._method in names:
            name, function = names[self._method]
            body[name] = function
        return type("Handle", (QuietHandle,), body)()

    def event(self, event: Any) -> None:
        """Raise, or not."""
        if self._method == "process":
            broken()


def _stage(name: Stage) -> Callable[[pytest.MonkeyPatch, Lab], None]:
    def patch(monkeypatch: pytest.MonkeyPatch, _: Lab) -> None:
        async def step(flow: Any) -> Any:
            broken()

        table = tuple((stage, step if stage is name else run) for stage, run in stages.STAGES)
        monkeypatch.setattr(perform, "STAGES", table)

    return patch


def _attribute(owner: Any, name: str) -> Callable[[pytest.MonkeyPatch, Lab], None]:
    return lambda monkeypatch, _: monkeypatch.setattr(owner, name, broken)


def _observer(name: str) -> Callable[[pytest.MonkeyPatch, Lab], None]:
    def patch(monkeypatch: pytest.MonkeyPatch, _: Lab) -> None:
        from underlay.providers import openai_chat
        from underlay.providers._observe import JSONObserver, StreamObserver

        for owner in (JSONObserver, StreamObserver, openai_chat.ChatStream):
            monkeypatch.setattr(owner, name, broken)

    return patch


def _listener(method: str) -> Callable[[pytest.MonkeyPatch, Lab], None]:
    def patch(_: pytest.MonkeyPatch, lab: Lab) -> None:
        watch = lab.runtime.engine.watch
        watch.listeners = (BrokenListener(method), *watch.listeners)

    return patch


BREAKS: dict[str, tuple[Stage, Callable[[pytest.MonkeyPatch, Lab], None]]] = {
    # where: the stage that the fault names, how it is broken
    "recognise": (Stage.RECOGNISE, _attribute(perform, "recognise")),
    "memo.get": (Stage.RECOGNISE, _attribute(Memo, "get")),
    "settle_dropped": (Stage.RECOGNISE, _attribute(Engine, "settle_dropped")),
    "watch.start": (Stage.CALL, _attribute(Watch, "start")),
    **{f"stage {stage}": (stage, _stage(stage)) for stage, _ in stages.STAGES},
    "store.get": (Stage.CACHE, _attribute(MemoryStore, "get")),
    "circuits.look": (Stage.CIRCUIT, _attribute(Circuits, "look")),
    "circuits.admit": (Stage.ATTEMPT, _attribute(Circuits, "admit")),
    "Attempt": (Stage.ATTEMPT, _attribute(Attempt, "__init__")),
    "Attempt.answered": (Stage.ATTEMPT, _attribute(Attempt, "answered")),
    "Body": (Stage.ATTEMPT, _attribute(perform, "Body")),
    "Reader": (Stage.ATTEMPT, _attribute(Reader, "__init__")),
    "feed": (Stage.STREAM, _observer("feed")),
    "outcome": (Stage.RECORD, _observer("outcome")),
    "cost": (Stage.RECORD, _attribute(Engine, "cost")),
    "store.put": (Stage.RECORD, _attribute(MemoryStore, "put")),
    "circuits.settle": (Stage.RECORD, _attribute(Circuits, "settle")),
    **{
        f"listener {method}": (Stage.LISTENER, _listener(method))
        for method in ("start", "origin", "trace_id", "event", "attempt", "enter", "exit")
    },
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("where", list(BREAKS))
@pytest.mark.parametrize("way", WAYS)
def test_a_fault_of_ours_costs_nothing_but_itself(
    way: str, where: str, stream: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever stage raises: each call is sent exactly once, every byte arrives, the fault is counted under its
    stage, logged once without its text, and the provider is not blamed."""
    lab = Lab(way).setup(
        lambda _: stream_reply() if stream else json_reply(), circuit_breaker={"failure_threshold": 1}
    )
    stage, patch = BREAKS[where]
    wanted = CHAT_FRAMES if stream else [dumped(CHAT)]

    async def scenario() -> None:
        client = lab.client()
        for seed in (1, 2):
            response = await lab.open(client, body={**CHAT_ASK, "seed": seed, "stream": stream})
            assert await lab.frames(response).rest() == list(wanted)
            await lab.close(response)
            assert (lab.upstream, lab.script.closed) == (seed, seed)

    with caplog.at_level(logging.INFO, "underlay"), monkeypatch.context() as patched:
        patch(patched, lab)
        lab.run(scenario)
    assert set(lab.faults) == {stage}
    assert lab.faults[stage] >= 2
    assert [record.getMessage().split(" in stage ")[0] for record in caplog.records] == [
        "underlay: RuntimeError"
    ]
    assert SECRET not in caplog.text
    assert lab.runtime.circuit("gpt-4o").state == "closed"
    for call in lab.recorder.calls:
        assert len(call.of(AttemptEnded)) <= 1
        assert len(call.of(CallEnded)) == 1
    stats = lab.runtime.stats()
    assert sum(entry.calls for entry in stats.values()) == len(lab.recorder.calls)


@pytest.mark.parametrize("way", WAYS)
def test_a_listener_that_fails_on_every_news_is_only_counted(way: str) -> None:
    """A listener that raises even when it is told of a fault does not send us round in circles."""
    lab = Lab(way).setup([json_reply()])
    lab.runtime.listen(BrokenListener("process"))
    lab.runtime.listen(BrokenListener("event"))

    async def scenario() -> None:
        assert (await lab.post(lab.client())).json() == CHAT

    lab.run(scenario)
    assert set(lab.faults) == {Stage.LISTENER}


@pytest.mark.parametrize("way", [way for way in WAYS if way.startswith("sync")])
@pytest.mark.parametrize("stage", [stage for stage, _ in stages.STAGES])
def test_a_stage_that_would_suspend_is_a_fault_of_ours(
    way: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A synchronous call that would have to wait for a loop is closed and sent untouched, once."""

    class Never:
        def __await__(self) -> Any:
            yield

    async def step(flow: Any) -> Any:
        await Never()

    lab = Lab(way).setup([json_reply()], circuit_breaker={"failure_threshold": 1})
    monkeypatch.setattr(
        perform, "STAGES", tuple((name, step if name is stage else run) for name, run in stages.STAGES)
    )

    async def scenario() -> None:
        assert (await lab.post(lab.client())).json() == CHAT

    lab.run(scenario)
    assert lab.upstream == 1
    assert lab.faults == {Stage.CALL: 1}
    assert len(lab.recorder.calls[0].of(CallEnded)) == 1


@pytest.mark.parametrize("way", [way for way in WAYS if way.startswith("sync")])
def test_a_suspension_after_the_send_never_sends_again(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever would suspend once the request has left: the reply that came is handed over, nothing is sent
    twice, and the probe's permit is settled."""

    class Never:
        def __await__(self) -> Any:
            yield

    lab = Lab(way).setup([json_reply()])
    from importlib import import_module

    ports = import_module(f"underlay.transports.{lab.family}_sync").Ports
    send = ports.send

    async def late(self: Any, request: Any) -> Any:
        upstream = await send(self, request)
        await Never()
        return upstream

    monkeypatch.setattr(ports, "send", late)

    async def scenario() -> None:
        assert (await lab.post(lab.client())).json() == CHAT

    lab.run(scenario)
    assert lab.upstream == 1
    assert lab.faults == {Stage.CALL: 1}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", [OSError, TimeoutError, ConnectionError])
def test_a_fault_of_ours_is_never_the_providers(
    way: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OSError of a stage of ours, after the permit was taken, opens no circuit."""

    def raising(*_: Any, **__: Any) -> Any:
        raise error("ours")

    lab = Lab(way).setup([json_reply()], circuit_breaker={"failure_threshold": 1})
    monkeypatch.setattr(Attempt, "answered", raising)

    async def scenario() -> None:
        assert (await lab.post(lab.client())).json() == CHAT

    lab.run(scenario)
    assert lab.runtime.circuit("gpt-4o").state == "closed"
    assert lab.runtime.circuit("gpt-4o").view().counts.failures == 0


@pytest.mark.parametrize("way", WAYS)
def test_the_apps_error_does_not_carry_ours(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a stage of ours has failed and the app's own transport then raises, its exception has no trace of our
    fault."""
    lab = Lab(way).setup([])
    monkeypatch.setattr(Memo, "get", broken)
    error = lab.module.ConnectError("own")

    def handle(request: Any) -> Any:
        raise error

    async def scenario() -> None:
        try:
            await lab.post(lab.client(lab.transport(handle)))
        except lab.module.ConnectError as caught:
            assert caught is error
            assert caught.__context__ is None
        else:
            raise AssertionError("nothing was raised")

    lab.run(scenario)
    assert lab.faults == {Stage.RECOGNISE: 1}


@pytest.mark.parametrize("way", WAYS)
def test_a_failed_call_leaves_no_cycle(way: str) -> None:
    """An exception that was raised on is freed with its last reference, without waiting for the collector."""
    import gc
    import weakref

    class OwnError(Exception):
        pass

    lab = Lab(way).setup([])
    seen: list[Any] = []

    def handle(request: Any) -> Any:
        error = OwnError()
        seen.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    async def scenario() -> None:
        request = lab.module.Request("POST", "https://api.openai.com/v1/chat/completions", json=CHAT_ASK)
        for transport in (lab.transport(handle), lab.wrap(lab.transport(handle))):
            with suppress(OwnError):
                await lab._await(lab.inner(transport, request))

    gc.disable()
    try:
        lab.run(scenario)
        assert [ref() for ref in seen] == [None, None]
    finally:
        gc.enable()
