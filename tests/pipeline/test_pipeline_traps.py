"""Traps of a shared body: another reader's cancellation, the order of the end, and a coroutine that is closed."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from underlay import Runtime
from underlay.core.flight import Flight, LeftError
from underlay.pipeline.attempt import Attempt
from underlay.pipeline.call import Call
from underlay.pipeline.circuits import Circuits, Name
from underlay.pipeline.driver import drive
from underlay.pipeline.faults import Faults
from underlay.pipeline.perform import perform
from underlay.pipeline.ports import Exchange, Mishap, Upstream, url_of
from underlay.pipeline.reader import Body, Reader
from underlay.pipeline.watch import Watched
from underlay.providers.recognise import OPENAI_CHAT, Candidate
from underlay.telemetry.attributes import Ending, Stage, Verdict
from underlay.telemetry.events import AttemptEnded, CallEnded, CircuitChanged
from underlay.testing import FakeClock, Recorder
from underlay.transports.common import BasePorts
from underlay.transports.homes import THREADS, current_home

FRAMES = [b'data: {"id":"1","model":"m","choices":[]}\n\n', b"data: [DONE]\n\n"]
EXCHANGE = Exchange("POST", b"https", "api.openai.com", None, b"/v1/chat/completions", [(b"authorization", b"k")], b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}')  # fmt: skip
CANDIDATE = Candidate("openai", OPENAI_CHAT, known=True)


class ScriptedPorts(BasePorts):
    """Ports over a list of frames, with a hook before each pull, that keep a log of what was asked of them."""

    def __init__(
        self, runtime: Runtime, home: Any, frames: list[bytes], before: Callable[[int], Awaitable[None]]
    ) -> None:
        super().__init__(runtime.engine, home)
        self.frames = frames
        self.before = before
        self.at = 0
        self.log: list[str] = []
        self.body: Body | None = None

    def describe(self, error: BaseException) -> Mishap:
        """As the adapters do."""
        return self.describe_common(error)

    async def send(self, request: Exchange | None) -> Upstream:
        """A stream of events."""
        self.sent = True
        self.log.append("send")
        return Upstream(200, [(b"content-type", b"text/event-stream")])

    async def pull(self, upstream: Upstream) -> bytes | None:
        """The next frame."""
        at, self.at = self.at, self.at + 1
        await self.before(at)
        return self.frames[at] if at < len(self.frames) else None

    def note(self, word: str) -> None:
        """Remember that this happened, and whether the flight had ended by then."""
        over = self.body is not None and self.body.flight.over is not None
        self.log.append(f"{word} {'after' if over else 'before'} the end")

    async def store(self, key: bytes, entry: Any, token: int = 0) -> bool:
        """Note, and store."""
        self.note("store")
        return await super().store(key, entry, token)

    def wake(self, waiter: object) -> None:
        """Note, and wake."""
        self.note("wake")
        super().wake(waiter)

    async def close(self, upstream: Upstream) -> None:
        """Note."""
        self.note("close")


async def _at_once(_: int) -> None:
    return


def reader_of(body: Body, runtime: Runtime, ports: Any) -> tuple[Reader, Recorder]:
    """Another reader of a body, with a recorder of its own call."""
    recorder = Recorder()
    from underlay.telemetry.events import CallStarted

    handle = recorder.start(CallStarted("openai", "chat", "m", True, "h", None))
    call = Call(Watched([handle], [handle], runtime.engine.faults), 0.0)
    call.stream = True
    return Reader(body, call, ports), recorder


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_follower_is_not_cancelled_with_its_leader(loop: str) -> None:
    """A reader that joined during another's direct pull had no byte when that one was cancelled: it is told that
    the answer was given up, and never gets the cancellation."""

    async def scenario() -> None:
        pulling = asyncio.Event() if loop == "asyncio" else trio.Event()
        for_ever = asyncio.Event() if loop == "asyncio" else trio.Event()
        runtime = Runtime({}, clock=FakeClock())

        async def before(at: int) -> None:
            if at == 1:
                pulling.set()
                await for_ever.wait()

        ports = ScriptedPorts(runtime, current_home(), FRAMES, before)
        body = ports.body = Body(runtime.engine, Flight(10**6), Upstream(200, []))
        leader, leaders = reader_of(body, runtime, ports)
        assert await leader.read() == FRAMES[0]

        async def follow() -> None:
            await pulling.wait()
            follower, followers = reader_of(body, runtime, ports)
            assert await follower.prime() is False
            assert followers.calls[0].of(CallEnded) == []
            followed.append(1)

        followed: list[int] = []
        if loop == "asyncio":
            leading, following = asyncio.ensure_future(leader.read()), asyncio.ensure_future(follow())
            await pulling.wait()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            leading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leading
            await following
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow)
                with trio.CancelScope() as scope:
                    nursery.start_soon(_cancel_once_waited_for, scope, body)
                    await leader.read()
                assert scope.cancelled_caught
        assert followed == [1]
        assert [event.ending for event in leaders.calls[0].of(CallEnded)] == [Ending.CANCELLED]

    asyncio.run(scenario()) if loop == "asyncio" else trio.run(scenario)


async def _cancel_once_waited_for(scope: trio.CancelScope, body: Body) -> None:
    while not body._waiting:
        await trio.lowlevel.checkpoint()
    scope.cancel()


def test_a_thread_is_not_interrupted_with_another() -> None:
    """KeyboardInterrupt in the thread that pulls ends the body for the others as an ordinary error."""
    runtime = Runtime({}, clock=FakeClock())
    started, go = threading.Event(), threading.Event()

    async def before(at: int) -> None:
        started.set()
        go.wait(10)
        raise KeyboardInterrupt

    ports = ScriptedPorts(runtime, THREADS, FRAMES, before)
    body = Body(runtime.engine, Flight(10**6), Upstream(200, []))
    one, _ = reader_of(body, runtime, ports)
    caught: list[BaseException] = []

    def lead() -> None:
        try:
            drive(one.read())
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=lead)
    thread.start()
    started.wait(10)
    two, _ = reader_of(body, runtime, ports)
    go.set()
    with pytest.raises(LeftError):
        drive(two.read())
    thread.join(10)
    assert [type(error) for error in caught] == [KeyboardInterrupt]


def test_a_waiting_reader_that_is_cancelled_ends_as_cancelled() -> None:
    """Cancelled while it waits for another's pull, a call ends as cancelled and the others read on."""

    async def scenario() -> None:
        runtime = Runtime({}, clock=FakeClock())
        gate = asyncio.Event()

        async def before(at: int) -> None:
            await gate.wait()

        ports = ScriptedPorts(runtime, current_home(), FRAMES, before)
        body = Body(runtime.engine, Flight(10**6), Upstream(200, []))
        (one, _), (two, recorder) = reader_of(body, runtime, ports), reader_of(body, runtime, ports)
        first, second = asyncio.ensure_future(one.read()), asyncio.ensure_future(two.read())
        for _ in range(3):
            await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await two.close()
        gate.set()
        assert [await first, await one.read(), await one.read()] == [*FRAMES, None]
        assert [event.ending for event in recorder.calls[0].of(CallEnded)] == [Ending.CANCELLED]

    asyncio.run(scenario())


def test_the_end_comes_in_order() -> None:
    """Books, store, end, wake, close: a call that comes after the end finds the entry, and a waiter that is woken
    finds the end."""
    runtime = Runtime({}, clock=FakeClock(), listeners=[recorder := Recorder()])
    ports = ScriptedPorts(runtime, THREADS, FRAMES, _at_once)
    reply = drive(perform(runtime.engine, EXCHANGE, CANDIDATE, ports))
    assert reply.reader is not None
    body = ports.body = reply.reader._body
    assert [drive(reply.reader.read()) for _ in FRAMES] == FRAMES
    with body.lock:
        body.enlist(ports)
    assert not recorder.calls[0].of(AttemptEnded)
    assert drive(reply.reader.read()) is None
    assert ports.log == ["send", "store before the end", "wake after the end", "close after the end"]
    assert [type(event).__name__ for event in recorder.calls[0].events] == [
        "CacheLooked",
        "AttemptStarted",
        "AttemptEnded",
        "CallEnded",
    ]


def test_a_coroutine_that_is_closed_waits_for_nothing() -> None:
    """GeneratorExit in a pull (a loop that is gone) settles the books with no verdict and awaits nothing more."""
    runtime = Runtime({}, clock=FakeClock(), listeners=[recorder := Recorder()])

    class Forever:
        def __await__(self) -> Any:
            yield None

    async def before(_: int) -> None:
        await Forever()

    ports = ScriptedPorts(runtime, THREADS, FRAMES, before)
    reply = drive(perform(runtime.engine, EXCHANGE, CANDIDATE, ports))
    assert reply.reader is not None
    work = reply.reader.read()
    work.send(None)
    work.close()
    assert ports.log == ["send"]
    (attempt,), (call,) = recorder.calls[0].of(AttemptEnded), recorder.calls[0].of(CallEnded)
    assert (attempt.verdict, attempt.stored, call.ending) == (Verdict.NOTHING, False, Ending.CANCELLED)


def test_a_listener_may_look_at_the_circuit_it_is_told_of() -> None:
    """A transition is told outside the lock: a listener that reads or resets the circuit does not hang."""
    seen: list[Any] = []
    circuits: Circuits

    def tell(event: CircuitChanged) -> None:
        seen.append((event.entered, circuits.view(Name("p", "m"), 0.0).state))

    circuits = Circuits(
        Runtime({"circuit_breaker": {"failure_threshold": 1}}).engine.state.circuits.policy, tell
    )
    permit = circuits.admit(Name("p", "m"), 0.0)
    circuits.settle(Name("p", "m"), permit, Verdict.FAILURE, 0.0, b"")  # type: ignore[arg-type]
    assert seen == [("open", "open")]


def test_an_open_circuit_outlives_a_thousand_misspelt_models() -> None:
    """What is remembered is bounded, and idle circuits are forgotten before one that keeps a provider from being
    called."""
    circuits = Circuits(
        Runtime({"circuit_breaker": {"failure_threshold": 1}}).engine.state.circuits.policy, lambda _: None
    )
    down = Name("p", "down")
    circuits.settle(down, circuits.admit(down, 0.0), Verdict.FAILURE, 0.0, b"")  # type: ignore[arg-type]
    for number in range(3000):
        name = Name("p", f"typo-{number}")
        circuits.settle(name, circuits.admit(name, 0.0), Verdict.NOTHING, 0.0, b"")  # type: ignore[arg-type]
    assert len(circuits.views(0.0)) <= 1000
    assert circuits.look(down, 0.0) is not None


def test_books_of_one_attempt_end_once() -> None:
    """Whoever ends an attempt first has the last word: a later end tells nothing and settles nothing."""
    runtime = Runtime({}, clock=FakeClock(), listeners=[recorder := Recorder()])
    ports = ScriptedPorts(runtime, THREADS, FRAMES, _at_once)
    reply = drive(perform(runtime.engine, EXCHANGE, CANDIDATE, ports))
    assert reply.reader is not None
    body = reply.reader._body
    drive(reply.reader.read())
    attempt = body._attempt
    assert isinstance(attempt, Attempt)
    for _ in range(2):
        drive(reply.reader.close())
        attempt.failed(Mishap(Ending.FAILED, Verdict.FAILURE, "late"), 0.0)
        reply.reader.drop(0.0)
    assert len(recorder.calls[0].of(AttemptEnded)) == len(recorder.calls[0].of(CallEnded)) == 1
    assert runtime.circuit("m", "openai").view().counts.failures == 0


@pytest.mark.parametrize("level", [logging.DEBUG, logging.WARNING])
def test_a_fault_never_logs_what_was_asked(level: int, caplog: pytest.LogCaptureFixture) -> None:
    """An exception's text may hold a prompt: at no level of logging is it written; where it was raised is, for
    those who debug."""
    faults = Faults(lambda _: None)
    with caplog.at_level(level, "underlay"):
        for _ in range(3):
            try:
                raise KeyError("what was asked")
            except KeyError as error:
                faults.report(Stage.CACHE, error)
    assert "what was asked" not in caplog.text.replace('raise KeyError("what was asked")', "")
    assert ("test_a_fault_never_logs_what_was_asked" in caplog.text) is (level == logging.DEBUG)
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 1
    assert faults.counts == {Stage.CACHE: 3}


def test_addresses_that_read_alike_are_two() -> None:
    """An IPv6 address with a port is not the longer address without one."""
    one, two = url_of(b"http", "::1", 8080, b"/x"), url_of(b"http", "::1:8080", None, b"/x")
    assert (one, two) == (b"http://[::1]:8080/x", b"http://[::1:8080]/x")
