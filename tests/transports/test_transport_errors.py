"""What an app's own transport raises reaches the app as it was, and what it says about the provider."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import trio
from transport_lab import CHAT_ASK, CHAT_FRAMES, CHAT_URL, Lab, json_reply, stream_reply

from underlay.telemetry.attributes import CircuitState, Ending
from underlay.telemetry.events import AttemptEnded, CallEnded
from underlay.testing import Scripted

ASK = {**CHAT_ASK, "stream": True}


class OwnError(Exception):
    """An exception of the app's own."""


RAISED: dict[str, tuple[str, Ending]] = {
    # exception: verdict, ending
    "ConnectError": ("failure", Ending.FAILED),
    "ConnectTimeout": ("failure", Ending.FAILED),
    "ReadTimeout": ("failure", Ending.FAILED),
    "WriteError": ("failure", Ending.FAILED),
    "RemoteProtocolError": ("failure", Ending.FAILED),
    "PoolTimeout": ("nothing", Ending.FAILED),
    "UnsupportedProtocol": ("nothing", Ending.FAILED),
    "LocalProtocolError": ("nothing", Ending.FAILED),
    "ProxyError": ("nothing", Ending.FAILED),
    "ConnectionResetError": ("failure", Ending.FAILED),
    "OwnError": ("nothing", Ending.FAILED),
    "RuntimeError": ("nothing", Ending.FAILED),
    "KeyboardInterrupt": ("nothing", Ending.CANCELLED),
    "SystemExit": ("nothing", Ending.FAILED),
}


def _exception(lab: Lab, name: str) -> BaseException:
    known = {
        "OwnError": OwnError,
        "RuntimeError": RuntimeError,
        "KeyboardInterrupt": KeyboardInterrupt,
        "SystemExit": SystemExit,
        "ConnectionResetError": ConnectionResetError,
    }
    return known[name]("own") if name in known else getattr(lab.module, name)("own")


@pytest.mark.parametrize("name", list(RAISED))
def test_an_exception_passes_as_it_is(lab: Lab, name: str) -> None:
    """The very exception object reaches the app with its own context and cause, one attempt is counted with the
    right verdict, nothing is sent again, and it is no fault of underlay."""
    verdict, ending = RAISED[name]
    error, first, cause = _exception(lab, name), ValueError("first"), KeyError("cause")
    calls: list[int] = []

    def handle(request: Any) -> Any:
        calls.append(1)
        try:
            raise first
        except ValueError:
            raise error from cause

    lab.setup([])

    async def scenario() -> None:
        client = lab.client(lab.transport(handle))
        try:
            await lab.post(client)
        except BaseException as caught:
            assert caught is error
            assert caught.__context__ is first
            assert caught.__cause__ is cause
        else:
            raise AssertionError("nothing was raised")

    lab.run(scenario)
    assert len(calls) == 1
    (attempt,), (ended,) = lab.recorder.calls[0].of(AttemptEnded), lab.recorder.calls[0].of(CallEnded)
    assert (attempt.verdict, attempt.status) == (verdict, None)
    assert ended.ending is ending
    assert (
        attempt.error_type
        == ended.error_type
        == ("cancelled" if ending is Ending.CANCELLED else type(error).__name__)
    )
    assert lab.faults == {}


def test_stop_iteration_of_a_transport_is_what_a_bare_client_shows(lab: Lab) -> None:
    """A transport that raises StopIteration: the app sees exactly the type that it sees without underlay, with
    the same cause."""

    def handle(request: Any) -> Any:
        raise StopIteration("own")

    lab.setup([])

    async def scenario() -> None:
        seen = []
        request = lab.module.Request("POST", CHAT_URL, json=CHAT_ASK)
        for transport in (lab.transport(handle), lab.wrap(lab.transport(handle))):
            try:  # called here: a helper that is a coroutine would turn it into something else
                answer = lab.inner(transport, request)
                await answer
            except BaseException as error:
                seen.append((type(error), str(error), type(error.__cause__)))
        assert seen[0] == seen[1]
        assert len(seen) == 2
        assert seen[0][0] is (StopIteration if lab.kind == "sync" else RuntimeError)

    lab.run(scenario)
    assert lab.faults == {}


@pytest.mark.parametrize("name", ["ReadError", "ReadTimeout", "OwnError", "KeyboardInterrupt"])
def test_an_exception_inside_the_body_passes_as_it_is(lab: Lab, name: str) -> None:
    """A body that raises gives its reader the very exception, upstream is closed, the answer is not kept."""
    error = _exception(lab, name)
    lab.setup([stream_reply([CHAT_FRAMES[0], error])])

    async def scenario() -> None:
        response = await lab.open(lab.client(), body=ASK)
        frames = lab.frames(response)
        assert await frames.next() == CHAT_FRAMES[0]
        try:
            await frames.next()
        except BaseException as caught:
            assert caught is error
        else:
            raise AssertionError("nothing was raised")
        await lab.close(response)
        assert lab.script.closed == 1
        assert not lab.attempt.stored

    lab.run(scenario)
    assert lab.runtime.cache.size == 0


def _open_circuit(lab: Lab, replies: Any = None, **settings: Any) -> Lab:
    return lab.setup(
        replies or [json_reply({"error": {"type": "server_error"}}, 500)] * 2 + [json_reply()],
        circuit_breaker={"failure_threshold": 2, "recovery_timeout": 30, **settings},
    )


@pytest.mark.parametrize("dialect", ["chat", "messages", "responses", "embeddings"])
def test_a_refusal_is_a_reply_in_the_dialects_own_shape(lab: Lab, dialect: str) -> None:
    """An open circuit answers 503 in the API's error shape, tells the SDKs not to retry, and sends nothing."""
    from transport_lab import DIALECTS

    url, ask, _, _ = DIALECTS[dialect]
    _open_circuit(lab)

    async def scenario() -> None:
        client = lab.client()
        for _ in range(2):
            await lab.post(client, url, ask)
        lab.clock.advance(10.5)
        refused = await lab.post(client, url, ask)
        assert refused.status_code == 503
        headers = {
            "content-type": "application/json",
            "retry-after": "20",
            "x-should-retry": "false",
            "underlay-refused": "circuit_open",
            "content-length": str(len(refused.content)),
        }
        assert dict(refused.headers) == headers
        assert refused.json()["error"]["message"].startswith("underlay: circuit of ")
        assert ("type" in refused.json()) is (dialect == "messages")
        assert lab.upstream == 2
        assert (lab.last().result, lab.last().error_type, lab.last().ending) == (
            "refused",
            "circuit_open",
            Ending.COMPLETE,
        )
        assert lab.recorder.calls[-1].of(AttemptEnded) == []

    lab.run(scenario)


def test_recovery_closes_the_circuit(lab: Lab) -> None:
    """After the recovery time one probe goes out at a time; two good ones close the circuit; a stored answer is
    served while it is open."""
    _open_circuit(lab, [json_reply(), *[json_reply({}, 503)] * 2, json_reply()])

    async def scenario() -> None:
        client = lab.client()
        await lab.post(client)
        for seed in (1, 2):
            await lab.post(client, body={**CHAT_ASK, "seed": seed})
        circuit = lab.runtime.circuit("gpt-4o")
        assert circuit.state == "open"
        assert (await lab.post(client)).headers["age"] == "0"
        lab.clock.advance(30)
        assert circuit.state == "half_open"
        probe = await lab.open(client, body={**CHAT_ASK, "seed": 3})
        assert (await lab.post(client, body={**CHAT_ASK, "seed": 4})).status_code == 503
        await lab.read(probe)
        assert circuit.state == "half_open"
        assert (await lab.post(client, body={**CHAT_ASK, "seed": 5})).status_code == 200
        assert circuit.state == "closed"

    lab.run(scenario)


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_a_breaker_that_does_not_enforce_sends_every_call(lab: Lab, mode: str) -> None:
    """In observe mode refusals are only reported, in off mode not even that."""
    from underlay.telemetry.events import CircuitRefused

    _open_circuit(lab, [json_reply({}, 500)], mode=mode)

    async def scenario() -> None:
        client = lab.client()
        for _ in range(4):
            assert (await lab.post(client)).status_code == 500
        assert lab.upstream == 4
        refused = [event for call in lab.recorder.calls for event in call.of(CircuitRefused)]
        assert {event.observed for event in refused} == ({True} if mode == "observe" else set())
        assert lab.runtime.circuit("gpt-4o").state == ("open" if mode == "observe" else "closed")

    lab.run(scenario)


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_an_observed_breaker_recovers_too(lab: Lab, mode: str) -> None:
    """The states that observe mode reports are those that enforce mode would have."""
    _open_circuit(lab, mode=mode)

    async def scenario() -> None:
        client = lab.client()
        for seed in range(2):
            await lab.post(client, body={**CHAT_ASK, "seed": seed})
        lab.clock.advance(30)
        for seed in range(2, 4):
            await lab.post(client, body={**CHAT_ASK, "seed": seed})
        assert lab.runtime.circuit("gpt-4o").state == "closed"

    lab.run(scenario)


@pytest.fixture(params=["asyncio-httpx", "asyncio-httpx2", "trio-httpx", "trio-httpx2"])
def loop_lab(request: pytest.FixtureRequest) -> Lab:
    """The benches that can be cancelled."""
    return Lab(request.param)


async def _cancelled(lab: Lab, work: Any, started: Any) -> None:
    """Run `work`, wait until it says that it hangs, and cancel it."""
    if lab.mode == "asyncio":
        task = asyncio.ensure_future(work())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await started.wait()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("where", ["send", "body"])
def test_a_cancelled_probe_gives_its_slot_back(loop_lab: Lab, where: str) -> None:
    """Cancelled while it is sent or while its body is read, a probe says nothing about the provider and the next
    call may probe at once; nothing of it is kept."""
    lab = loop_lab
    _open_circuit(lab)

    async def scenario() -> None:
        script = lab.script.transport(lab.family, lab.kind)
        started = asyncio.Event() if lab.mode == "asyncio" else trio.Event()
        forever = asyncio.Event() if lab.mode == "asyncio" else trio.Event()
        closed: list[int] = []

        class Hanging(lab.module.AsyncByteStream):  # type: ignore[misc,name-defined]
            async def __aiter__(self) -> Any:
                yield CHAT_FRAMES[0]
                started.set()
                await forever.wait()

            async def aclose(self) -> None:
                closed.append(1)

        async def handle(request: Any) -> Any:
            if not lab.clock.now() >= 1030 or started.is_set():
                return await script.handle_async_request(request)
            if where == "body":
                return lab.module.Response(
                    200, headers={"content-type": "text/event-stream"}, stream=Hanging()
                )
            started.set()
            await forever.wait()
            return None

        client = lab.client(lab.transport(handle))
        for seed in range(2):
            await lab.post(client, body={**CHAT_ASK, "seed": seed})
        lab.clock.advance(30)
        await _cancelled(lab, lambda: lab.post(client, body=ASK), started)
        cancelled = lab.recorder.calls[-1]
        assert [event.verdict for event in cancelled.of(AttemptEnded)] == ["nothing"]
        assert [event.ending for event in cancelled.of(CallEnded)] == [Ending.CANCELLED]
        assert closed == ([1] if where == "body" else [])
        assert lab.runtime.circuit("gpt-4o").state == CircuitState.HALF_OPEN
        for seed in range(2, 4):
            assert (await lab.post(client, body={**CHAT_ASK, "seed": seed})).status_code == 200
        assert lab.runtime.circuit("gpt-4o").state == CircuitState.CLOSED
        assert lab.runtime.cache.size == 2

    lab.run(scenario)
    assert lab.faults == {}


def test_an_interrupted_probe_gives_its_slot_back(lab: Lab) -> None:
    """KeyboardInterrupt during a probe returns the slot."""
    _open_circuit(
        lab,
        [*[json_reply({}, 500)] * 2, Scripted(error=KeyboardInterrupt()), json_reply()],
        success_threshold=1,
    )

    async def scenario() -> None:
        client = lab.client()
        for _ in range(2):
            await lab.post(client)
        lab.clock.advance(30)
        with contextlib.suppress(KeyboardInterrupt):
            await lab.post(client)
        assert (await lab.post(client)).status_code == 200
        assert lab.runtime.circuit("gpt-4o").state == "closed"

    lab.run(scenario)


def test_a_dropped_probe_gives_its_slot_back(lab: Lab) -> None:
    """A probe whose reply is garbage-collected unread returns the slot to the next caller."""
    import gc

    _open_circuit(lab)

    async def scenario() -> None:
        client = lab.client()
        for _ in range(2):
            await lab.post(client)
        lab.clock.advance(30)
        response = await lab.open(client)
        del response
        gc.collect()
        assert (await lab.post(client)).status_code == 200

    lab.run(scenario)
