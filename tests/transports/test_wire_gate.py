"""Threads that send over connections of ours pass a gate: who is inside leaves it before anything that could have to
wait, and nobody waits for a network. Here it has one place."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from replies import CHAT
from transport_lab import CHAT_ASK, EMBEDDINGS, KEY, Lab, dumped
from wire_lab import PATIENCE, REPLY, Act, Peer, Server, answering, client, replied, serving, until

from underlay import Runtime
from underlay.pipeline.gate import Gate
from underlay.pipeline.windows import Windows
from underlay.telemetry.events import AttemptEnded, AttemptStarted, CallEnded, CallStarted, Paced
from underlay.telemetry.listener import QuietHandle
from underlay.testing import Recorder
from underlay.transports.wire import LINUX, has_room, wire

pytestmark = pytest.mark.skipif(not LINUX, reason="connections stay the family's own elsewhere")

HOSTS = {"127.0.0.1": "openai"}


class Looked(Gate):
    """Has one place, and says when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__(1, PATIENCE)
        self.asked = threading.Event()

    @property
    def entered(self) -> int:
        """How often somebody was let in."""
        return self._entered

    @property
    def taken(self) -> bool:
        """Whether somebody is inside."""
        return self._free.empty()

    def wait(self) -> None:
        """Say so, and wait."""
        self.asked.set()
        super().wait()


class Lane(Lab):
    """One family's threads, over real connections."""

    gate: Looked

    def real(self, *, windows: str = "off", **options: Any) -> Any:
        """A client over the family's own transport over underlay; its runtime has a gate that can be looked at."""
        self.setup([], hosts=HOSTS, llm_batch={"mode": windows})
        self.gate = self.runtime.engine.state.pacing.gate = Looked()
        self.own = client(f"sync-{self.family}", wired=False, **options)._transport
        return self.client(self.own, trust_env=False, timeout=PATIENCE)

    def ask(self, given: Any, server: Server, text: str = "Hi", **options: Any) -> Any:
        """One whole call."""
        body = {**CHAT_ASK, "messages": [{"role": "user", "content": text}]}
        return given.post(f"{server.url}v1/chat/completions", json=body, headers=KEY, **options)


@pytest.fixture(params=["httpx", "httpx2"])
def lane(request: pytest.FixtureRequest) -> Iterator[Lane]:
    """One family, whose clients are closed at the end. Then nobody is inside, each call has ended once, and nothing of
    ours failed."""
    lane = Lane(f"sync-{request.param}")
    yield lane
    for each in lane._clients:
        each.close()
    assert not lane.gate.taken
    assert lane.faults == {}
    assert [len(call.of(CallEnded)) for call in lane.recorder.calls] == [1] * len(lane.recorder.calls)


class Beside(threading.Thread):
    """Work beside the test's own."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._value: Any = None
        self.start()

    def run(self) -> None:
        """Do it."""
        self._value = self._work()

    def result(self) -> Any:
        """What came of it."""
        self.join(PATIENCE)
        assert not self.is_alive()
        return self._value


def noting(lane: Lane, seen: list[bool]) -> Act:
    """Answers, and notes whether somebody is inside when it has the head, and when it has all of a request."""

    def act(peer: Peer) -> None:
        while True:
            head = peer.head()
            seen.append(lane.gate.taken)
            peer.take(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            seen.append(lane.gate.taken)
            peer.say(REPLY)

    return act


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_who_has_sent_has_left_the_gate(lane: Lane, tls: bool) -> None:
    """Over a connection that is opened first, one that was idle, and one that takes a long request in pieces."""
    seen: list[bool] = []
    with serving(noting(lane, seen), tls=tls) as server:
        given = lane.real()
        for text in ("Hi", "Ho", "x" * 300_000):
            assert lane.ask(given, server, text).json() == CHAT
        assert server.connections == 1
    assert seen == [False] * 6
    assert lane.gate.entered == 3


def test_who_is_inside_holds_up_who_comes_next(lane: Lane) -> None:
    """It is sent when there is a place, and says what it waited, from a millisecond on."""
    with serving(answering(REPLY)) as server:
        given = lane.real()
        for wait, told in ((0.5, [Paced(0.5)]), (2**-10, []), (2**-9, [Paced(2**-9)])):
            assert lane.gate.enter()
            lane.gate.asked.clear()
            before = len(server.bodies())
            call = Beside(lambda wait=wait: lane.ask(given, server, f"{wait}"))  # type: ignore[misc]
            assert lane.gate.asked.wait(PATIENCE)
            assert len(server.bodies()) == before
            lane.clock.advance(wait)
            lane.gate.leave()
            assert call.result().json() == CHAT
            assert lane.recorder.calls[-1].of(Paced) == told


def test_a_window_learns_no_wait_for_the_gate(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a lane learns of its provider's latency begins when the request leaves."""
    learned: list[tuple[float, float | None]] = []
    landed = Windows.landed

    def listen(self: Windows, call: Any, now: float, latency: float | None) -> None:
        learned.append((now - call.started, latency))
        landed(self, call, now, latency)

    monkeypatch.setattr(Windows, "landed", listen)
    with serving(answering(replied(dumped(EMBEDDINGS)))) as server:
        given = lane.real(windows="enforce")
        lane.gate.enter()
        ask = {"model": "text-embedding-3-small", "input": "Hi"}
        call = Beside(lambda: given.post(f"{server.url}v1/embeddings", json=ask, headers=KEY))
        assert lane.gate.asked.wait(PATIENCE)
        lane.clock.advance(0.5)
        lane.gate.leave()
        assert call.result().status_code == 200
    assert learned == [(0.5, 0.0)]


def test_who_waited_and_finds_no_room_in_the_pool_is_not_inside(lane: Lane) -> None:
    """It went to the gate when there was some. In the pool it waits by itself."""
    go = threading.Event()

    def act(peer: Peer) -> None:
        peer.request()
        assert go.wait(PATIENCE)
        peer.say(REPLY.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))

    with serving(act, answering(REPLY)) as server:
        given = lane.real(limits=lane.module.Limits(max_connections=1))
        assert lane.gate.enter()
        late = Beside(lambda: lane.ask(given, server, "late"))
        assert lane.gate.asked.wait(PATIENCE)
        # Past the gate as the app's own request, the only connection is taken.
        first = Beside(lambda: lane.bare(lane.own, trust_env=False).post(server.url, timeout=PATIENCE))
        until(lambda: lane.own._pool.connections)
        lane.gate.leave()
        until(lambda: len(lane.own._pool._requests) == 2)
        assert not lane.gate.taken
        go.set()
        assert first.result().json() == CHAT
        assert late.result().json() == CHAT


def test_a_hit_waits_for_nobody(lane: Lane) -> None:
    """The gate is for those who send."""
    with serving(answering(REPLY)) as server:
        given = lane.real()
        lane.ask(given, server)
        assert lane.gate.enter()
        assert lane.ask(given, server).json() == CHAT
        assert not lane.gate.asked.is_set()
        lane.gate.leave()


def test_who_opens_a_connection_has_left_the_gate(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it takes to get there, nobody else waits for."""
    seen: list[bool] = []
    with serving(answering(REPLY)) as server:
        given = lane.real()
        real = lane.own._pool._network_backend.connect_tcp

        def connect(*args: Any, **options: Any) -> Any:
            seen.append(lane.gate.taken)
            return real(*args, **options)

        monkeypatch.setattr(lane.own._pool._network_backend, "connect_tcp", connect)
        assert lane.ask(given, server).json() == CHAT
    assert (seen, lane.gate.entered) == ([False], 1)


def test_who_is_interrupted_in_the_pool_leaves_the_gate(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything was opened or written."""
    seen: list[bool] = []

    def interrupted() -> Any:
        seen.append(lane.gate.taken)
        raise KeyboardInterrupt

    with serving(answering(REPLY)) as server:
        given = lane.real()
        monkeypatch.setattr(lane.own._pool, "_assign_requests_to_connections", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lane.ask(given, server)
    assert seen[0]
    assert lane.gate.entered == 1


def test_an_attempt_that_fails_leaves_the_gate(lane: Lane) -> None:
    """No connection, and one that is cut."""
    with serving(lambda peer: peer.reset()) as server:
        given = lane.real()
        for _ in range(2):
            with pytest.raises(lane.module.TransportError):
                lane.ask(given, server)
        assert lane.gate.entered == 2
    with serving(answering(), tls=True) as server:  # of an authority that this client does not know
        given = lane.client(lane.module.HTTPTransport(), trust_env=False)
        with pytest.raises(lane.module.ConnectError):
            lane.ask(given, server)
    assert lane.gate.entered == 3


def test_a_listener_that_asks_a_model_waits_for_nobody(lane: Lane) -> None:
    """It is told before the gate, and after it: at each word of a call it asks once more."""
    with serving(answering(REPLY)) as server:
        given, inside, told = lane.real(), [False], list[Any]()

        class Asking(QuietHandle):
            def event(self, event: object) -> None:
                if not inside[0]:
                    inside[0] = True
                    told.append((type(event), lane.ask(given, server, f"{len(told)}").json()))
                    inside[0] = False

        class Listener(Recorder):
            def start(self, started: Any) -> Any:
                handle = Asking()
                handle.event(started)
                return handle

        lane.runtime = Runtime({"hosts": HOSTS}, clock=lane.clock, listeners=[Listener()])
        lane.gate = lane.runtime.engine.state.pacing.gate = Looked()
        given = lane.client(lane.own, trust_env=False, timeout=PATIENCE)
        assert lane.ask(given, server).json() == CHAT
    assert [answer for _, answer in told] == [CHAT] * len(told)
    assert {CallStarted, AttemptStarted, AttemptEnded, CallEnded} <= {event for event, _ in told}
    assert not lane.gate.asked.is_set()


# -- who passes no gate


def test_who_would_wait_in_the_pool_passes_no_gate(lane: Lane) -> None:
    """Where no more connections may be opened a thread waits for one, and nobody waits with it."""
    go = threading.Event()

    def act(peer: Peer) -> None:
        peer.request()
        assert go.wait(PATIENCE)
        peer.say(REPLY)
        peer.gone()

    with serving(act, answering(REPLY)) as server:
        given = lane.real(limits=lane.module.Limits(max_connections=1))
        call = Beside(lambda: lane.ask(given, server))
        until(lambda: lane.own._pool.connections)
        with pytest.raises(lane.module.PoolTimeout):
            lane.ask(given, server, "Ho", timeout=lane.module.Timeout(PATIENCE, pool=0.01))
        assert lane.gate.entered == 1
        go.set()
        assert call.result().json() == CHAT


def test_a_pool_that_has_connections_of_its_familys_has_no_gate(lane: Lane) -> None:
    """Who sends over one would be inside until the answer is there."""
    with serving(answering(REPLY)) as server:
        given = lane.real()
        lane.bare(lane.own, trust_env=False).post(server.url)
        for text in ("Hi", "Ho"):
            assert lane.ask(given, server, text).json() == CHAT
        assert (lane.gate.entered, server.connections) == (0, 1)


def test_a_stream_that_is_not_ours_ends_the_gate_of_its_pool(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel counts no more for it: the next call over that pool passes none."""
    with serving(answering(REPLY)) as server:
        given = lane.real()
        monkeypatch.setattr("underlay.transports.wire._INFO", 1 << 10)
        for text in ("Hi", "Ho"):
            assert lane.ask(given, server, text).json() == CHAT
        assert lane.gate.entered == 1
        assert not lane.own._pool._network_backend.alone


def test_a_hook_that_traces_passes_no_gate(lane: Lane) -> None:
    """Of a request that the app traces nobody knows how long its hook takes."""
    seen: list[bool] = []
    with serving(answering(REPLY)) as server:
        given = lane.real()
        hook = {"trace": lambda event, info: seen.append(lane.gate.taken)}
        assert lane.ask(given, server, extensions=hook).json() == CHAT
    assert seen != []
    assert not any(seen)
    assert lane.gate.entered == 0


def test_the_apps_own_transport_passes_no_gate(lane: Lane) -> None:
    """And so does one that is half the family's own."""
    seen: list[bool] = []
    with serving(answering(REPLY)) as server:
        lane.real()
        family = type(lane.own)

        class Half(family):  # type: ignore[misc, valid-type]
            def handle_request(self, request: Any) -> Any:
                seen.append(lane.gate.taken)
                return super().handle_request(request)

        for own in (Half(trust_env=False), lane.transport(lambda request: lane.own.handle_request(request))):
            given = lane.client(own)
            assert lane.ask(given, server, f"{own}").json() == CHAT
    assert seen == [False]  # of the first of the two
    assert lane.gate.entered == 0


def test_a_pool_has_room_for_all_who_could_be_inside(lane: Lane) -> None:
    """Who goes in must not find it full when those have gone who are inside."""
    lane.real(limits=lane.module.Limits(max_connections=10))
    assert wire(lane.own)
    assert [has_room(lane.own, places) for places in (1, 10, 11)] == [True, True, False]
    lane.own._pool._requests += [object()] * 3
    assert [has_room(lane.own, places) for places in (7, 8)] == [True, False]
    lane.own._pool._requests.clear()
    assert not has_room(object(), 1)


def test_a_pool_whose_strange_connections_are_gone_has_a_gate_again(lane: Lane) -> None:
    """Only those that are open say nothing."""
    with serving(lambda peer: (peer.request(), peer.say(REPLY)), answering(REPLY)) as server:  # type: ignore[arg-type, return-value]
        given = lane.real()
        lane.bare(lane.own, trust_env=False).post(server.url, headers={"connection": "close"})
        for text in ("Hi", "Ho"):
            assert lane.ask(given, server, text).json() == CHAT
        assert lane.gate.entered == 2


def test_a_unix_socket_ends_the_gate_of_its_pool(lane: Lane, tmp_path: Path) -> None:
    """No connection of ours is opened there."""
    lane.real()
    assert wire(lane.own)
    assert has_room(lane.own, 1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "there"))
        listener.listen()
        stream = lane.own._pool._network_backend.connect_unix_socket(
            str(tmp_path / "there"), timeout=PATIENCE
        )
        stream.close()
    assert type(stream).__module__ != wire.__module__
    assert not lane.own._pool._network_backend.alone


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_no_gate_unless_pacing_is_on(lane: Lane, mode: str) -> None:
    """Switched off, or told to watch only, threads have no gate."""
    lane.real()
    lane.setup([], pacing={"mode": mode})
    assert lane.runtime.engine.state.pacing.gate is None


@pytest.mark.parametrize("gil", [True, False])
def test_no_gate_where_threads_work_side_by_side(
    lane: Lane, gil: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an interpreter without a global lock no thread takes it from another, and calls are as they were."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: gil, raising=False)
    with serving(answering(REPLY)) as server:
        given = lane.real()
        lane.setup([], hosts=HOSTS)
        assert (lane.runtime.engine.state.pacing.gate is not None) == gil
        lane.gate = lane.runtime.engine.state.pacing.gate = Looked() if gil else None  # type: ignore[assignment]
        given = lane.client(lane.own)
        assert lane.ask(given, server).json() == CHAT
        assert not gil or lane.gate.entered == 1
        lane.gate = Looked()


@pytest.mark.parametrize("way", ["asyncio-httpx", "asyncio-httpx2", "trio-httpx", "trio-httpx2"])
def test_calls_of_a_loop_pass_no_gate(way: str) -> None:
    """With its place taken a loop's calls go on as ever."""
    lane = Lane(way)
    lane.setup([], hosts=HOSTS)
    lane.gate = lane.runtime.engine.state.pacing.gate = Looked()
    assert lane.gate.enter()
    with serving(answering(REPLY)) as server:

        async def scenario() -> list[Any]:
            given = lane.client(client(way, wired=False)._transport, trust_env=False, timeout=PATIENCE)
            url = f"{server.url}v1/chat/completions"
            return [(await lane.post(given, url, {**CHAT_ASK, "seed": seed})).json() for seed in range(2)]

        assert lane.run(scenario) == [CHAT] * 2
    assert not lane.gate.asked.is_set()
    assert [call.of(Paced) for call in lane.recorder.calls] == [[], []]
    lane.gate.leave()
