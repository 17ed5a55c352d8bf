"""Threads take turns: one at a time sends, and one at a time closes its books. Nobody has a turn while it waits, and
none is left behind."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from replies import CHAT, dumped
from transport_lab import CHAT_ASK, CHAT_FRAMES, CHAT_URL, JSON_TYPE, KEY, Lab, json_reply, stream_reply

from underlay import Runtime
from underlay.pipeline.baton import Baton
from underlay.stores.memory import MemoryStore
from underlay.telemetry.attributes import CacheResult
from underlay.telemetry.events import CallEnded, Paced
from underlay.transports.common import has_idle
from underlay.transports.homes import Threads

PATIENCE = 15.0  # seconds of real time after which a test that hangs fails
FREE, SENDS, CLOSES = (False, False), (True, False), (False, True)  # whether each of the two is taken


class Lane(Lab):
    """One family, synchronous, and what its threads have."""

    @property
    def batons(self) -> tuple[Looked, Looked]:
        """Those who send, and those who close their books."""
        pacing = self.runtime.engine.state.pacing
        assert isinstance(pacing.sending, Looked)
        assert isinstance(pacing.closing, Looked)
        return pacing.sending, pacing.closing

    @property
    def taken(self) -> tuple[bool, bool]:
        """Whether somebody has each of them now."""
        return tuple(baton._lock.locked() for baton in self.batons)  # type: ignore[return-value]

    def setup(self, replies: Any = (), **settings: Any) -> Lane:
        """A runtime with other settings."""
        super().setup(replies, **settings)
        if self.runtime.engine.state.pacing.sending is not None:
            self.look()
        return self

    def look(self, longest: float = PATIENCE) -> None:
        """Batons that say when somebody waits."""
        pacing = self.runtime.engine.state.pacing
        pacing.sending, pacing.closing = Looked(longest), Looked(longest)

    def ask(self, client: Any, text: str = "Hi", **options: Any) -> Any:
        """One whole call."""
        body = {**CHAT_ASK, "messages": [{"role": "user", "content": text}]}
        return client.post(CHAT_URL, json=body, headers=KEY, **options)

    def probing(self, seen: list[tuple[bool, bool]]) -> Any:
        """A client over a transport of the app's own that notes what is taken meanwhile."""
        script = self.script.transport(self.family, "sync")  # type: ignore[arg-type]

        def handle(request: Any) -> Any:
            seen.append(self.taken)
            return self.inner(script, request)

        return self.client(self.transport(handle))

    def pooled(self, handle: Callable[[Any], Any]) -> Any:
        """The family's own transport over a pool that answers like this."""
        transport = self.module.HTTPTransport(verify=False)
        transport._pool.close()
        transport._pool = type("Pool", (Pool,), {"__module__": core_of(self.family).__name__})(handle)
        return transport

    def answer(self, content: Any = None) -> Any:
        """What a pool answers."""
        core = import_module(f"httpcore{self.family.removeprefix('httpx')}")
        headers = [(name.encode(), value.encode()) for name, value in JSON_TYPE.items()]
        return core.Response(200, headers=headers, content=dumped(CHAT) if content is None else content)

    def clean(self) -> None:
        """Both are free, and nothing of ours failed."""
        assert self.taken == FREE
        assert self.faults == {}
        assert self.runtime.engine.state.flights._leads == {}
        assert [len(call.of(CallEnded)) for call in self.recorder.calls] == [1] * len(self.recorder.calls)


def core_of(family: str) -> Any:
    """What a client family's pools are made of."""
    return import_module(f"httpcore{family.removeprefix('httpx')}")


class Pool:
    """A connection pool without connections. Its class says that it is of this module of pools."""

    def __init__(self, handle: Callable[[Any], Any], *, idle: bool = True) -> None:
        self.handle_request = handle
        self.connections = [Connection(idle=each) for each in (False, idle)]

    def close(self) -> None:
        """Nothing is open."""


class Connection:
    """One of a pool's."""

    def __init__(self, *, idle: bool, expired: bool = False, there: bool = True) -> None:
        self._idle = idle
        self._there = there
        self._expired = expired

    def is_idle(self) -> bool:
        """Whether nobody uses it."""
        return self._idle

    def can_handle_request(self, origin: Any) -> bool:
        """Whether it leads there."""
        return bool(origin.host == b"api.openai.com" and self._there)

    def has_expired(self) -> bool:
        """Whether it was idle for too long, or the server has closed it."""
        return self._expired


class Looked(Baton):
    """Says when somebody waits for it, and does this then."""

    def __init__(self, longest: float = PATIENCE) -> None:
        super().__init__(longest)
        self.asked = threading.Event()
        self.then: Callable[[], object] = lambda: None

    def wait(self) -> Any:
        """Say so, and wait."""
        self.asked.set()
        self.then()
        return super().wait()


class Shared(MemoryStore[Any]):
    """A store that others share: whoever asks it may have to wait."""

    local = False
    poll = 1.0

    def __init__(self, told: Callable[[], object]) -> None:
        super().__init__(10, 1_000_000)
        self._told = told

    def get(self, key: bytes, now: float) -> Any:
        """Look, and tell."""
        self._told()
        return super().get(key, now)

    def put(self, key: bytes, entry: Any, now: float, token: int = 0) -> bool:
        """Keep, and tell."""
        self._told()
        return super().put(key, entry, now, token)

    def lease(self, key: bytes, now: float, ttl: float, token: int = 0) -> Any:
        """Lease, and tell."""
        self._told()
        return super().lease(key, now, ttl, token)

    def free(self, key: bytes, token: int) -> None:
        """Free, and tell."""
        self._told()
        super().free(key, token)


class Beside(threading.Thread):
    """Work beside the test's own."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Do it."""
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """What came of it."""
        self.join(PATIENCE)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error
        return self._value


@pytest.fixture(params=["httpx", "httpx2"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lane]:
    """One family; its clients are closed at the end."""
    lane = Lane(f"sync-{request.param}")
    lane.setup([json_reply()])
    yield lane
    for client in lane._clients:
        client.close()


def held(baton: Baton) -> Any:
    """Take it, as a thread does that does not give it back."""
    lock = baton.take()
    assert lock is not None
    return lock


# Where a turn ends


def test_the_apps_own_transport_runs_without_a_turn(lab: Lane) -> None:
    """Nobody knows what it does before it sends: others go on meanwhile."""
    seen: list[tuple[bool, bool]] = []
    assert lab.ask(lab.probing(seen)).status_code == 200
    assert seen == [FREE]
    lab.clean()


def test_a_transport_that_is_half_the_familys_own_runs_without_a_turn(lab: Lane) -> None:
    """A class of the app's that sends with the family's is the app's own, whatever it inherits."""
    seen: list[tuple[bool, bool]] = []
    core = lab.answer

    class Half(lab.module.HTTPTransport):  # type: ignore[misc,name-defined]
        """Looks at what is taken before it sends."""

        def handle_request(self, request: Any) -> Any:
            """Look, and send."""
            seen.append(lab.taken)
            return super().handle_request(request)

    transport = Half(verify=False)
    transport._pool = Pool(lambda request: core())
    assert lab.ask(lab.client(transport)).json() == CHAT
    assert seen == [FREE]
    lab.clean()


def test_a_transport_that_passes_everything_on_is_served(lab: Lane) -> None:
    """An object that has the method by delegation alone, and not in its class, is a transport like any other."""

    class Proxy:
        """Hands every access on."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    client = lab.client(Proxy(lab.script.transport(lab.family, "sync")))  # type: ignore[arg-type]
    assert lab.ask(client).json() == CHAT
    lab.clean()


def test_a_protected_function_runs_without_a_turn(lab: Lane) -> None:
    """What a function does is the app's: functions of other threads run meanwhile."""
    seen: list[tuple[bool, bool]] = []

    @lab.runtime.protect(model="m", provider="custom", key=str)
    def work(name: str) -> str:
        seen.append(lab.taken)
        return name

    assert work("a") == "a"
    assert seen == [FREE]
    lab.clean()


def test_a_follower_waits_without_a_turn(lab: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for another's answer does not keep those behind from sending."""
    seen: list[tuple[bool, bool]] = []
    sent, waits, go = threading.Event(), threading.Event(), threading.Event()
    script = lab.script.transport(lab.family, "sync")  # type: ignore[arg-type]

    def handle(request: Any) -> Any:
        sent.set()
        assert go.wait(PATIENCE)
        return lab.inner(script, request)

    async def wait(_: Threads, waiter: threading.Event, seconds: float | None) -> None:
        seen.append(lab.taken)
        waits.set()
        assert waiter.wait(PATIENCE)

    monkeypatch.setattr(Threads, "wait", wait)
    client = lab.client(lab.transport(handle))
    lead = Beside(lambda: lab.ask(client))
    try:
        assert sent.wait(PATIENCE)
        follower = Beside(lambda: lab.ask(client))
        assert waits.wait(PATIENCE)
    finally:
        go.set()
    assert [call.result().json() for call in (lead, follower)] == [CHAT] * 2
    assert lab.upstream == 1
    assert set(seen) == {FREE}
    lab.clean()


def test_a_follower_reads_without_a_turn(lab: Lane) -> None:
    """Whose leader has not read yet pulls the body itself, before it has a reply: that may take as long as it likes."""
    seen: list[tuple[bool, bool]] = []

    class Own(lab.module.SyncByteStream):  # type: ignore[misc,name-defined]
        """A body that looks at what is taken as it is read."""

        def __iter__(self) -> Iterator[bytes]:
            for frame in CHAT_FRAMES:
                seen.append(lab.taken)
                yield frame

    client = lab.client(
        lab.transport(
            lambda request: lab.module.Response(
                200, headers={"content-type": "text/event-stream"}, stream=Own()
            )
        )
    )
    body = {**CHAT_ASK, "stream": True}
    with client.stream("POST", CHAT_URL, json=body, headers=KEY) as lead:
        follower = client.post(CHAT_URL, json=body, headers=KEY)
        assert seen
        assert follower.content == lead.read()
    assert [call.of(CallEnded)[0].result for call in lab.recorder.calls].count(CacheResult.COALESCED) == 1
    assert set(seen) == {FREE}
    lab.clean()


def test_a_store_of_others_is_asked_without_a_turn(lab: Lane) -> None:
    """It may block: neither a look, a lease nor an answer that is kept holds up another thread."""
    seen: list[tuple[bool, bool]] = []
    store = Shared(lambda: seen.append(lab.taken))
    lab.runtime = Runtime({}, clock=lab.clock, store=store, listeners=[lab.recorder])
    lab.look()
    client = lab.client()
    assert [lab.ask(client).json() for _ in range(2)] == [CHAT] * 2
    assert lab.upstream == 1
    assert len(seen) >= 3
    assert set(seen) == {FREE}
    lab.clean()


@pytest.mark.parametrize("control", [{}, {"underlay-cache": "bypass"}], ids=["as made", "rebuilt"])
def test_the_familys_own_transport_has_the_turn_until_the_body_is_taken(
    lab: Lane, control: dict[str, str]
) -> None:
    """The turn ends with the last of the body, also where the request leaves without our own headers; the answer is
    waited for without."""
    seen: list[tuple[bool, bool]] = []
    bodies: list[bytes] = []

    def handle(request: Any) -> Any:
        seen.append(lab.taken)
        body = b""
        for part in request.stream:
            seen.append(lab.taken)
            body += part
        seen.append(lab.taken)
        bodies.append(body)
        return lab.answer()

    client = lab.client(lab.pooled(handle))
    request = client.build_request("POST", CHAT_URL, json=CHAT_ASK, headers={**KEY, **control})
    original = request.stream
    assert client.send(request).json() == CHAT
    assert seen == [SENDS, SENDS, FREE]
    assert bodies == [request.content]
    assert request.stream is original
    lab.clean()


def test_who_has_to_open_a_connection_has_no_turn(lab: Lane) -> None:
    """Where no connection is idle, or nobody can tell, the others do not wait for one to be opened."""
    seen: list[tuple[bool, bool]] = []

    def handle(request: Any) -> Any:
        seen.append(lab.taken)
        return lab.answer()

    expired = Connection(idle=True, expired=True)
    elsewhere = Connection(idle=True, there=False)
    for connections in ([], [Connection(idle=False), expired], [elsewhere], None):
        transport = lab.pooled(handle)
        transport._pool.connections = connections
        assert lab.ask(lab.client(transport), str(connections)).json() == CHAT
    assert seen == [FREE] * 4
    lab.clean()


def test_the_familys_pools_say_what_is_idle(lab: Lane) -> None:
    """The names that a pool and its connections are asked by are those of the installed release."""
    core = core_of(lab.family)
    here, elsewhere = lab.module.URL("http://host/v1"), lab.module.URL("http://other/v1")
    with lab.module.HTTPTransport(verify=False) as transport:
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


def test_a_body_that_is_taken_again_is_the_same(lab: Lane) -> None:
    """A pool may write a request a second time: the body is whole, and no turn of another is given back with it."""
    bodies: list[bytes] = []

    def handle(request: Any) -> Any:
        bodies.append(b"".join(request.stream))
        other = held(lab.batons[0])
        bodies.append(b"".join(request.stream))
        assert lab.taken == SENDS
        other.release()
        return lab.answer()

    client = lab.client(lab.pooled(handle))
    response = lab.ask(client)
    assert bodies == [response.request.content] * 2
    lab.clean()


@pytest.mark.parametrize("takes", [True, False], ids=["after the body", "before the body"])
@pytest.mark.parametrize("fails", [True, False], ids=["fails", "answers"])
def test_the_request_is_the_apps_again(lab: Lane, takes: bool, fails: bool) -> None:
    """However the send ends, and whether the body was taken or not, the request has the stream that the app gave it, and
    the turn is over."""
    core = import_module(f"httpcore{lab.family.removeprefix('httpx')}")

    def handle(request: Any) -> Any:
        assert not takes or list(request.stream)
        if fails:
            raise core.ConnectError("scripted")
        return lab.answer()

    client = lab.client(lab.pooled(handle))
    request = client.build_request("POST", CHAT_URL, json=CHAT_ASK, headers=KEY)
    original = request.stream
    if fails:
        with pytest.raises(lab.module.ConnectError):
            client.send(request)
    else:
        assert client.send(request).json() == CHAT
    assert request.stream is original
    lab.clean()


def test_a_request_that_the_transport_changed_stays_so(lab: Lane) -> None:
    """What the app's transport puts in the place of a body is not taken back."""
    ours = lab.module.ByteStream(b"other")

    def handle(request: Any) -> Any:
        sent.stream = ours
        return lab.answer()

    client = lab.client(lab.pooled(handle))
    sent = client.build_request("POST", CHAT_URL, json=CHAT_ASK, headers=KEY)
    assert client.send(sent).json() == CHAT
    assert sent.stream is ours
    lab.clean()


def test_a_hook_that_traces_runs_without_a_turn(lab: Lane) -> None:
    """Of a request that the app traces nobody knows how long its hook takes."""
    seen: list[tuple[bool, bool]] = []

    def handle(request: Any) -> Any:
        request.extensions["trace"]("connection.connect_tcp.started", {})
        return lab.answer()

    client = lab.client(lab.pooled(handle))
    assert lab.ask(client, extensions={"trace": lambda *_: seen.append(lab.taken)}).json() == CHAT
    assert seen == [FREE]
    lab.clean()


# The end of a reply


def test_books_are_closed_and_an_answer_is_kept_in_a_turn(lab: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread at a time keeps its answer in this process's store, and others send meanwhile."""
    seen: list[tuple[bool, bool]] = []
    store = lab.runtime.engine.state.store
    put = store.put

    def probing(*given: Any) -> bool:
        seen.append(lab.taken)
        return put(*given)

    monkeypatch.setattr(store, "put", probing)
    assert lab.ask(lab.client()).json() == CHAT
    assert seen == [CLOSES]
    lab.clean()


def test_a_stream_of_the_apps_own_is_closed_without_a_turn(lab: Lane) -> None:
    """Nobody knows what it does as it is closed."""
    seen: list[tuple[bool, bool]] = []

    class Own(lab.module.SyncByteStream):  # type: ignore[misc,name-defined]
        """A body that looks at what is taken as it is closed."""

        def __iter__(self) -> Iterator[bytes]:
            yield dumped(CHAT)

        def close(self) -> None:
            """Look."""
            seen.append(lab.taken)

    client = lab.client(
        lab.transport(lambda request: lab.module.Response(200, headers=JSON_TYPE, stream=Own()))
    )
    assert lab.ask(client).json() == CHAT
    assert seen
    assert set(seen) == {FREE}
    lab.clean()


def test_the_familys_own_body_is_closed_in_a_turn(lab: Lane) -> None:
    """It gives its connection back to the pool, which is work and no waiting."""
    seen: list[tuple[bool, bool]] = []

    class Content:
        """A connection's body."""

        def __iter__(self) -> Iterator[bytes]:
            yield dumped(CHAT)

        def close(self) -> None:
            """Look at what is taken."""
            seen.append(lab.taken)

    client = lab.client(lab.pooled(lambda request: list(request.stream) and lab.answer(Content())))
    assert lab.ask(client).json() == CHAT
    assert seen[0] == CLOSES
    lab.clean()


# Every ending


def answered(lab: Lane) -> None:
    """An answer."""
    assert lab.ask(lab.client()).json() == CHAT


def erred(lab: Lane) -> None:
    """An error status."""
    lab.setup([json_reply({"error": {"message": "down"}}, 500)])
    assert lab.ask(lab.client()).status_code == 500


def failed(lab: Lane) -> None:
    """No connection."""

    def handle(request: Any) -> Any:
        raise lab.module.ConnectError("scripted", request=request)

    with pytest.raises(lab.module.ConnectError):
        lab.ask(lab.client(lab.transport(handle)))


def interrupted(lab: Lane) -> None:
    """An interrupt in the app's own transport."""

    def handle(request: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.ask(lab.client(lab.transport(handle)))


def interrupted_in_its_turn(lab: Lane) -> None:
    """An interrupt in the family's own transport, before the body was taken."""

    def handle(request: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.ask(lab.client(lab.pooled(handle)))


def known(lab: Lane) -> None:
    """A hit."""
    client = lab.client()
    assert [lab.ask(client).json() for _ in range(2)] == [CHAT] * 2
    assert lab.upstream == 1


def refused(lab: Lane) -> None:
    """An open circuit."""
    lab.setup([json_reply({"error": {"message": "down"}}, 500)], circuit_breaker={"failure_threshold": 1})
    client = lab.client()
    assert [lab.ask(client).status_code for _ in range(2)] == [500, 503]
    assert lab.upstream == 1


def cut(lab: Lane) -> None:
    """A body that is cut off."""
    lab.setup([stream_reply([CHAT_FRAMES[0], lab.module.ReadError("scripted")])])
    with pytest.raises(lab.module.ReadError):
        lab.ask(lab.client())


def interrupted_in_its_body(lab: Lane) -> None:
    """An interrupt as the body is read."""
    lab.setup([stream_reply([CHAT_FRAMES[0], KeyboardInterrupt()])])
    with pytest.raises(KeyboardInterrupt):
        lab.ask(lab.client())


def left(lab: Lane) -> None:
    """A body that is closed before its end."""
    lab.setup([stream_reply()])
    client = lab.client()
    with client.stream("POST", CHAT_URL, json=CHAT_ASK, headers=KEY) as response:
        assert next(response.iter_raw()) == CHAT_FRAMES[0]


def passed(lab: Lane) -> None:
    """A request that is none of ours after all."""
    response = lab.client().post(CHAT_URL, content=b"no JSON", headers={**KEY, **JSON_TYPE})
    assert response.json() == CHAT
    assert lab.recorder.calls == []


@pytest.mark.parametrize(
    "ending",
    [answered, erred, failed, interrupted, interrupted_in_its_turn, known, refused, cut, interrupted_in_its_body, left, passed],
    ids=lambda ending: str(ending.__name__),
)  # fmt: skip
def test_no_turn_is_left_behind(lab: Lane, ending: Callable[[Lane], None]) -> None:
    """However a call ends, both batons are free afterwards, and nobody waits for one."""
    ending(lab)
    lab.clean()
    assert lab.script.opened == lab.script.closed


def test_who_is_interrupted_as_it_waits_to_send_has_not_sent(lab: Lane) -> None:
    """The interrupt is the caller's, its books are closed, and its place in the line is gone."""
    sending, _ = lab.batons
    lock = held(sending)

    def interrupted() -> None:
        raise KeyboardInterrupt

    sending.then = interrupted
    with pytest.raises(KeyboardInterrupt):
        lab.ask(lab.client())
    lock.release()
    assert lab.upstream == 0
    lab.clean()


def test_who_is_interrupted_as_it_waits_to_close_lets_go_of_its_reply(lab: Lane) -> None:
    """Its books are closed and so is its body, as for any interrupt; nobody follows it for ever."""
    _, closing = lab.batons
    lock = held(closing)

    def interrupted() -> None:
        raise KeyboardInterrupt

    closing.then = interrupted
    with pytest.raises(KeyboardInterrupt):
        lab.ask(lab.client())
    lock.release()
    assert lab.script.opened == lab.script.closed == 1
    lab.clean()


def test_a_call_from_inside_of_a_turn_goes_on(lab: Lane) -> None:
    """A listener that asks a model itself, as a call of the same thread begins, would wait for itself: it is answered
    like anybody who waits in vain, and so is the call."""
    client = lab.client()
    lab.look(longest=0.01)
    inner: list[Any] = []

    class Asking:
        """Asks as the first call begins."""

        asks = True

        def start(self, _: Any) -> None:
            """Ask."""
            if self.asks:
                self.asks = False
                inner.append(lab.ask(client, "another").json())

        def event(self, _: Any) -> None:
            """Nothing."""

    lab.runtime.listen(Asking())
    assert [lab.ask(client).json(), *inner] == [CHAT] * 2
    assert lab.batons[0].asked.is_set()
    assert lab.upstream == 2
    lab.clean()


# Where there are no turns


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_no_turns_unless_pacing_is_on(lab: Lane, mode: str) -> None:
    """Switched off, or told to watch only, threads have no batons, and calls are as they were."""
    lab.setup([json_reply()], pacing={"mode": mode})
    pacing = lab.runtime.engine.state.pacing
    assert (pacing.sending, pacing.closing) == (None, None)
    client = lab.client()
    assert [lab.ask(client).json() for _ in range(2)] == [CHAT] * 2
    assert lab.recorder.calls[0].started.waited == 0.0
    assert [call.of(Paced) for call in lab.recorder.calls] == [[], []]


@pytest.mark.parametrize("gil", [True, False])
def test_no_turns_where_threads_work_side_by_side(
    lab: Lane,
    gil: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On an interpreter without a global lock no thread takes it from another, and calls are as they were."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: gil, raising=False)
    lab.setup([json_reply()])
    pacing = lab.runtime.engine.state.pacing
    assert (pacing.sending is not None, pacing.closing is not None) == (gil, gil)
    client = lab.client()
    assert [lab.ask(client).json() for _ in range(2)] == [CHAT] * 2
    assert lab.upstream == 1


@pytest.mark.parametrize("way", ["asyncio-httpx", "asyncio-httpx2", "trio-httpx", "trio-httpx2"])
def test_calls_of_a_loop_never_touch_a_baton(way: str) -> None:
    """With both of them taken a loop's calls go on as ever: sent, read, kept, and answered from memory."""
    lane = Lane(way)
    lane.setup([json_reply()])
    locks = [held(baton) for baton in lane.batons]
    waits = [baton.asked for baton in lane.batons]

    async def scenario() -> list[Any]:
        client = lane.client()
        return [(await lane.post(client)).json() for _ in range(2)]

    assert lane.run(scenario) == [CHAT] * 2
    assert lane.upstream == 1
    assert lane.taken == (True, True)
    assert [event.is_set() for event in waits] == [False, False]
    assert [call.of(Paced) for call in lane.recorder.calls] == [[], []]
    for lock in locks:
        lock.release()
    lane.clean()


# What is told


@pytest.mark.parametrize(
    ("wait", "told"), [(0.5, [Paced(0.5)]), (2**-10, []), (2**-9, [Paced(2**-9)]), (0.0, [])], ids=str
)
def test_a_call_says_what_it_waited(lab: Lane, wait: float, told: list[Paced]) -> None:
    """Its books begin when it came, and the first word of it is the wait, from a millisecond on."""
    sending, _ = lab.batons
    script = lab.script.transport(lab.family, "sync")  # type: ignore[arg-type]

    def handle(request: Any) -> Any:
        lab.clock.advance(0.25)
        return lab.inner(script, request)

    client = lab.client(lab.transport(handle))
    lock, waits = held(sending), sending.asked
    call = Beside(lambda: lab.ask(client))
    try:
        assert waits.wait(PATIENCE)
        lab.clock.advance(wait)
    finally:
        lock.release()
    assert call.result().json() == CHAT
    (recorded,) = lab.recorder.calls
    assert recorded.started.waited == wait
    assert recorded.of(Paced) == told
    assert recorded.events[: len(told)] == told
    assert lab.last().duration == 0.25 + wait
    lab.clean()


def test_a_call_that_did_not_wait_says_nothing(lab: Lane) -> None:
    """Alone it has its turn at once, whatever time passes as it is sent and read."""
    script = lab.script.transport(lab.family, "sync")  # type: ignore[arg-type]

    def handle(request: Any) -> Any:
        lab.clock.advance(0.25)
        return lab.inner(script, request)

    assert lab.ask(lab.client(lab.transport(handle))).json() == CHAT
    (recorded,) = lab.recorder.calls
    assert (recorded.started.waited, recorded.of(Paced)) == (0.0, [])
    assert lab.last().duration == 0.25
    lab.clean()


def test_a_wait_to_close_is_part_of_the_call(lab: Lane) -> None:
    """Who waits to close its books was answered all the same: nothing is told of it but the time."""
    _, closing = lab.batons
    client = lab.client()
    lock, waits = held(closing), closing.asked
    call = Beside(lambda: lab.ask(client))
    try:
        assert waits.wait(PATIENCE)
        lab.clock.advance(0.5)
    finally:
        lock.release()
    assert call.result().json() == CHAT
    (recorded,) = lab.recorder.calls
    assert (recorded.started.waited, recorded.of(Paced)) == (0.0, [])
    assert lab.last().duration == 0.5
    lab.clean()
