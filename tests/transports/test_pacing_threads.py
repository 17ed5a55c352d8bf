"""Threads take turns: one at a time sends. Nobody has a turn while it waits, and none is left behind."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from lane_lab import FREE, PATIENCE, TAKEN, Beside, Connection, Lane, Pool, Shared, core_of, held
from replies import CHAT
from transport_lab import CHAT_ASK, CHAT_FRAMES, CHAT_URL, KEY, json_reply

from underlay import Runtime
from underlay.pipeline.baton import hand_on
from underlay.telemetry.attributes import CacheResult
from underlay.telemetry.events import CallEnded, Paced
from underlay.transports.common import has_idle
from underlay.transports.homes import Threads

# Where a turn ends


def test_the_apps_own_transport_runs_without_a_turn(lane: Lane) -> None:
    """Nobody knows what it does before it sends: others go on meanwhile."""
    seen: list[bool] = []
    assert lane.ask(lane.probing(seen)).status_code == 200
    assert seen == [FREE]
    lane.clean()


def test_a_transport_that_is_half_the_familys_own_runs_without_a_turn(lane: Lane) -> None:
    """A class of the app's that sends with the family's is the app's own, whatever it inherits."""
    seen: list[bool] = []
    core = lane.answer

    class Half(lane.module.HTTPTransport):  # type: ignore[misc,name-defined]
        """Looks at what is taken before it sends."""

        def handle_request(self, request: Any) -> Any:
            """Look, and send."""
            seen.append(lane.taken)
            return super().handle_request(request)

    transport = Half(verify=False)
    transport._pool = Pool(lambda request: core())
    assert lane.ask(lane.client(transport)).json() == CHAT
    assert seen == [FREE]
    lane.clean()


def test_a_transport_that_passes_everything_on_is_served(lane: Lane) -> None:
    """An object that has the method by delegation alone, and not in its class, is a transport like any other."""

    class Proxy:
        """Hands every access on."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    client = lane.client(Proxy(lane.script.transport(lane.family, "sync")))  # type: ignore[arg-type]
    assert lane.ask(client).json() == CHAT
    lane.clean()


def test_a_protected_function_runs_without_a_turn(lane: Lane) -> None:
    """What a function does is the app's: functions of other threads run meanwhile."""
    seen: list[bool] = []

    @lane.runtime.protect(model="m", provider="custom", key=str)
    def work(name: str) -> str:
        seen.append(lane.taken)
        return name

    assert work("a") == "a"
    assert seen == [FREE]
    lane.clean()


def test_a_follower_waits_without_a_turn(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for another's answer does not keep those behind from sending."""
    seen: list[bool] = []
    sent, waits, go = threading.Event(), threading.Event(), threading.Event()
    script = lane.script.transport(lane.family, "sync")  # type: ignore[arg-type]

    def handle(request: Any) -> Any:
        sent.set()
        assert go.wait(PATIENCE)
        return lane.inner(script, request)

    async def wait(_: Threads, waiter: threading.Event, seconds: float | None) -> None:
        seen.append(lane.taken)
        waits.set()
        assert waiter.wait(PATIENCE)

    monkeypatch.setattr(Threads, "wait", wait)
    client = lane.client(lane.transport(handle))
    lead = Beside(lambda: lane.ask(client))
    try:
        assert sent.wait(PATIENCE)
        follower = Beside(lambda: lane.ask(client))
        assert waits.wait(PATIENCE)
    finally:
        go.set()
    assert [call.result().json() for call in (lead, follower)] == [CHAT] * 2
    assert lane.upstream == 1
    assert set(seen) == {FREE}
    lane.clean()


def test_a_follower_reads_without_a_turn(lane: Lane) -> None:
    """Whose leader has not read yet pulls the body itself, before it has a reply: that may take as long as it likes."""
    seen: list[bool] = []

    class Own(lane.module.SyncByteStream):  # type: ignore[misc,name-defined]
        """A body that looks at what is taken as it is read."""

        def __iter__(self) -> Iterator[bytes]:
            for frame in CHAT_FRAMES:
                seen.append(lane.taken)
                yield frame

    client = lane.client(
        lane.transport(
            lambda request: lane.module.Response(
                200, headers={"content-type": "text/event-stream"}, stream=Own()
            )
        )
    )
    body = {**CHAT_ASK, "stream": True}
    with client.stream("POST", CHAT_URL, json=body, headers=KEY) as lead:
        follower = client.post(CHAT_URL, json=body, headers=KEY)
        assert seen
        assert follower.content == lead.read()
    assert [call.of(CallEnded)[0].result for call in lane.recorder.calls].count(CacheResult.COALESCED) == 1
    assert set(seen) == {FREE}
    lane.clean()


def test_a_store_of_others_is_asked_without_a_turn(lane: Lane) -> None:
    """It may block: neither a look, a lease nor an answer that is kept holds up another thread."""
    seen: list[bool] = []
    store = Shared(lambda: seen.append(lane.taken))
    lane.runtime = Runtime({}, clock=lane.clock, store=store, listeners=[lane.recorder])
    lane.look()
    client = lane.client()
    assert [lane.ask(client).json() for _ in range(2)] == [CHAT] * 2
    assert lane.upstream == 1
    assert len(seen) >= 3
    assert set(seen) == {FREE}
    lane.clean()


@pytest.mark.parametrize("control", [{}, {"underlay-cache": "bypass"}], ids=["as made", "rebuilt"])
def test_the_familys_own_transport_has_the_turn_until_the_body_is_taken(
    lane: Lane, control: dict[str, str]
) -> None:
    """The turn ends with the last of the body, also where the request leaves without our own headers; the answer is
    waited for without."""
    seen: list[bool] = []
    bodies: list[bytes] = []

    def handle(request: Any) -> Any:
        seen.append(lane.taken)
        body = b""
        for part in request.stream:
            seen.append(lane.taken)
            body += part
        seen.append(lane.taken)
        bodies.append(body)
        return lane.answer()

    client = lane.client(lane.pooled(handle))
    request = client.build_request("POST", CHAT_URL, json=CHAT_ASK, headers={**KEY, **control})
    original = request.stream
    assert client.send(request).json() == CHAT
    assert seen == [TAKEN, TAKEN, FREE]
    assert bodies == [request.content]
    assert request.stream is original
    lane.clean()


def test_who_has_to_open_a_connection_has_no_turn(lane: Lane) -> None:
    """Where no connection is idle, or nobody can tell, the others do not wait for one to be opened."""
    seen: list[bool] = []

    def handle(request: Any) -> Any:
        seen.append(lane.taken)
        return lane.answer()

    expired = Connection(idle=True, expired=True)
    elsewhere = Connection(idle=True, there=False)
    for connections in ([], [Connection(idle=False), expired], [elsewhere], None):
        transport = lane.pooled(handle)
        transport._pool.connections = connections
        assert lane.ask(lane.client(transport), str(connections)).json() == CHAT
    assert seen == [FREE] * 4
    lane.clean()


def test_the_familys_pools_say_what_is_idle(lane: Lane) -> None:
    """The names that a pool and its connections are asked by are those of the installed release."""
    core = core_of(lane.family)
    here, elsewhere = lane.module.URL("http://host/v1"), lane.module.URL("http://other/v1")
    with lane.module.HTTPTransport(verify=False) as transport:
        assert transport._pool.connections == []
        assert not has_idle(transport, here)
        stream = core.MockStream([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"])
        connection = core.HTTP11Connection(origin=core.Origin(b"http", b"host", 80), stream=stream)
        transport._pool._connections.append(connection)
        assert not has_idle(transport, here)
        with connection.stream("GET", "http://host/") as response:
            assert not has_idle(transport, here)
            response.read()
        assert has_idle(transport, here)
        assert not has_idle(transport, elsewhere)


def test_a_pool_is_asked_from_its_idle_end(lane: Lane) -> None:
    """The first idle connection is the one that a pool gives away, so of a hundred those in use are in front."""
    asked = []

    class Asked(Connection):
        def is_idle(self) -> bool:
            asked.append(self)
            return super().is_idle()

    transport = lane.pooled(lambda request: lane.answer())
    transport._pool.connections = [*(Asked(idle=False) for _ in range(3)), idle := Asked(idle=True)]
    assert has_idle(transport, lane.module.URL("https://api.openai.com/v1"))
    assert asked == [idle]


def test_a_body_that_is_taken_again_is_the_same(lane: Lane) -> None:
    """A pool may write a request a second time: the body is whole, and no turn of another is given back with it."""
    bodies: list[bytes] = []

    def handle(request: Any) -> Any:
        bodies.append(b"".join(request.stream))
        other = held(lane.baton)
        bodies.append(b"".join(request.stream))
        assert lane.taken == TAKEN
        hand_on(other)
        return lane.answer()

    client = lane.client(lane.pooled(handle))
    response = lane.ask(client)
    assert bodies == [response.request.content] * 2
    lane.clean()


@pytest.mark.parametrize("takes", [True, False], ids=["after the body", "before the body"])
@pytest.mark.parametrize("fails", [True, False], ids=["fails", "answers"])
def test_the_request_is_the_apps_again(lane: Lane, takes: bool, fails: bool) -> None:
    """However the send ends, and whether the body was taken or not, the request has the stream that the app gave it, and
    the turn is over."""
    core = import_module(f"httpcore{lane.family.removeprefix('httpx')}")

    def handle(request: Any) -> Any:
        assert not takes or list(request.stream)
        if fails:
            raise core.ConnectError("scripted")
        return lane.answer()

    client = lane.client(lane.pooled(handle))
    request = client.build_request("POST", CHAT_URL, json=CHAT_ASK, headers=KEY)
    original = request.stream
    if fails:
        with pytest.raises(lane.module.ConnectError):
            client.send(request)
    else:
        assert client.send(request).json() == CHAT
    assert request.stream is original
    lane.clean()


def test_a_request_that_the_transport_changed_stays_so(lane: Lane) -> None:
    """What the app's transport puts in the place of a body is not taken back."""
    ours = lane.module.ByteStream(b"other")

    def handle(request: Any) -> Any:
        sent.stream = ours
        return lane.answer()

    client = lane.client(lane.pooled(handle))
    sent = client.build_request("POST", CHAT_URL, json=CHAT_ASK, headers=KEY)
    assert client.send(sent).json() == CHAT
    assert sent.stream is ours
    lane.clean()


def test_a_hook_that_traces_runs_without_a_turn(lane: Lane) -> None:
    """Of a request that the app traces nobody knows how long its hook takes."""
    seen: list[bool] = []

    def handle(request: Any) -> Any:
        request.extensions["trace"]("connection.connect_tcp.started", {})
        return lane.answer()

    client = lane.client(lane.pooled(handle))
    assert lane.ask(client, extensions={"trace": lambda *_: seen.append(lane.taken)}).json() == CHAT
    assert seen == [FREE]
    lane.clean()


# Where there are no turns


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_no_turns_unless_pacing_is_on(lane: Lane, mode: str) -> None:
    """Switched off, or told to watch only, threads have no baton, and calls are as they were."""
    lane.setup([json_reply()], pacing={"mode": mode})
    assert lane.runtime.engine.state.pacing.sending is None
    client = lane.client()
    assert [lane.ask(client).json() for _ in range(2)] == [CHAT] * 2
    assert lane.recorder.calls[0].started.waited == 0.0
    assert [call.of(Paced) for call in lane.recorder.calls] == [[], []]


@pytest.mark.parametrize("gil", [True, False])
def test_no_turns_where_threads_work_side_by_side(
    lane: Lane,
    gil: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On an interpreter without a global lock no thread takes it from another, and calls are as they were."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: gil, raising=False)
    lane.setup([json_reply()])
    assert (lane.runtime.engine.state.pacing.sending is not None) == gil
    client = lane.client()
    assert [lane.ask(client).json() for _ in range(2)] == [CHAT] * 2
    assert lane.upstream == 1


@pytest.mark.parametrize("way", ["asyncio-httpx", "asyncio-httpx2", "trio-httpx", "trio-httpx2"])
def test_calls_of_a_loop_never_touch_the_baton(way: str) -> None:
    """With it taken a loop's calls go on as ever: sent, read, kept, and answered from memory."""
    lane = Lane(way)
    lane.setup([json_reply()])
    turn, waits = held(lane.baton), lane.baton.asked

    async def scenario() -> list[Any]:
        client = lane.client()
        return [(await lane.post(client)).json() for _ in range(2)]

    assert lane.run(scenario) == [CHAT] * 2
    assert lane.upstream == 1
    assert lane.taken
    assert not waits.is_set()
    assert [call.of(Paced) for call in lane.recorder.calls] == [[], []]
    hand_on(turn)
    lane.clean()


# What is told


@pytest.mark.parametrize(
    ("wait", "told"), [(0.5, [Paced(0.5)]), (2**-10, []), (2**-9, [Paced(2**-9)]), (0.0, [])], ids=str
)
def test_a_call_says_what_it_waited(lane: Lane, wait: float, told: list[Paced]) -> None:
    """Its books begin when it came, and the first word of it is the wait, from a millisecond on."""
    script = lane.script.transport(lane.family, "sync")  # type: ignore[arg-type]

    def handle(request: Any) -> Any:
        lane.clock.advance(0.25)
        return lane.inner(script, request)

    client = lane.client(lane.transport(handle))
    turn, waits = held(lane.baton), lane.baton.asked
    call = Beside(lambda: lane.ask(client))
    try:
        assert waits.wait(PATIENCE)
        lane.clock.advance(wait)
    finally:
        hand_on(turn)
    assert call.result().json() == CHAT
    (recorded,) = lane.recorder.calls
    assert recorded.started.waited == wait
    assert recorded.of(Paced) == told
    assert recorded.events[: len(told)] == told
    assert lane.last().duration == 0.25 + wait
    lane.clean()


def test_a_call_that_did_not_wait_says_nothing(lane: Lane) -> None:
    """Alone it has its turn at once, whatever time passes as it is sent and read."""
    script = lane.script.transport(lane.family, "sync")  # type: ignore[arg-type]

    def handle(request: Any) -> Any:
        lane.clock.advance(0.25)
        return lane.inner(script, request)

    assert lane.ask(lane.client(lane.transport(handle))).json() == CHAT
    (recorded,) = lane.recorder.calls
    assert (recorded.started.waited, recorded.of(Paced)) == (0.0, [])
    assert lane.last().duration == 0.25
    lane.clean()
