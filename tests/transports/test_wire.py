"""Connections of ours under a family's own pool: what is wired, when an idle one is looked at, and what leaves when."""

from __future__ import annotations

import socket
import threading
from importlib import import_module
from typing import Any

import pytest
from replies import CHAT, dumped
from transport_lab import CHAT_ASK, JSON_TYPE, WAYS, json_reply
from wire_lab import (
    PATIENCE,
    Caller,
    Peer,
    Server,
    answering,
    client,
    played,
    pool_of,
    sending,
    serving,
    stream_of,
)

import underlay
from underlay import Runtime
from underlay.testing import Script
from underlay.transports import wire as wires
from underlay.transports.wire import LINUX, unwire, wire

pytestmark = pytest.mark.skipif(not LINUX, reason="connections stay the family's own elsewhere")

HOSTS = {"hosts": {"127.0.0.1": "openai"}}
FAMILIES = ("httpx", "httpx2")
HEAD, BODY = b"POST / HTTP/1.1\r\n\r\n", b"body"
ANSWER = dumped(CHAT)
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(ANSWER),
    ANSWER,
)


def ours(pool: Any) -> bool:
    """Whether a pool opens connections of ours."""
    return type(pool._network_backend).__module__ == wires.__name__


# -- what is wired


def core_of(family: str) -> Any:
    return import_module(f"httpcore{family.removeprefix('httpx')}")


@pytest.mark.parametrize("way", WAYS)
def test_a_familys_own_transport_is_wired_once(way: str) -> None:
    """Its backend is put under ours, and that stays."""
    given = client(way)
    backend = pool_of(given)._network_backend
    assert ours(pool_of(given))
    wire(given._transport)
    assert pool_of(given)._network_backend is backend


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("way", WAYS)
def test_the_connections_of_a_wired_transport_are_ours(way: str, tls: bool) -> None:
    """Over TLS too, where the family makes another stream of one of ours."""
    given = client(way)
    streams: list[Any] = []

    async def steps(caller: Caller, server: Server) -> None:
        await caller.ask(b"hello")
        streams.extend(each._connection._network_stream for each in pool_of(given).connections)

    with serving(answering(), tls=tls) as server:
        told: list[Any] = played(way, steps, server, given)
    assert [each[0] for each in told] == [200]
    assert [type(each).__module__ for each in streams] == [wires.__name__]
    assert pool_of(given)._network_backend.alone


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "options", [{"http2": True}, {"proxy": "http://127.0.0.1:1"}], ids=["http2", "proxy"]
)
def test_shared_connections_and_proxies_stay_as_they_are(way: str, options: dict[str, Any]) -> None:
    """Over HTTP/2 several callers write to a stream; a proxy's pool opens other connections."""
    assert not ours(pool_of(client(way, **options)))


@pytest.mark.parametrize("way", WAYS)
def test_a_backend_of_the_apps_own_stays(way: str) -> None:
    """Its streams are what it makes them."""
    mode, family = way.split("-")
    own = core_of(family).MockBackend([]) if mode == "sync" else core_of(family).AsyncMockBackend([])
    given = client(way, wired=False)
    pool_of(given)._network_backend = own
    wire(given._transport)
    assert pool_of(given)._network_backend is own


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transport_that_nothing_is_known_of_stays(family: str) -> None:
    """No pool, one of another making, one that looks like it."""
    core = core_of(family)

    class Other:
        _pool = object()

    class Kin:
        _pool = type("Kin", (core.ConnectionPool,), {})()

    assert [wire(transport) for transport in (object(), Other(), Kin())] == [False] * 3
    assert not ours(Kin._pool)


@pytest.mark.parametrize("way", WAYS)
def test_where_the_kernel_does_not_count_the_stream_is_the_familys(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls are as ever."""
    monkeypatch.setattr(wires, "_INFO", 1 << 10)  # of which no kernel says that much
    with serving(answering()) as server:
        kinds = []

        async def steps(caller: Caller, server: Server) -> None:
            await caller.ask()
            await caller.ask()
            streams = [each._connection._network_stream for each in pool_of(given).connections]
            kinds.extend(type(each).__module__ for each in streams)

        given = client(way)
        assert [each[0] for each in played(way, steps, server, given)] == [200, 200]
        assert kinds != []
        assert wires.__name__ not in kinds


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["enforce", "observe", "off"])
def test_calls_go_over_connections_of_ours_where_pacing_acts(way: str, mode: str) -> None:
    """Only calls to a model: what else the app sends changes nothing."""
    runtime = Runtime({**HOSTS, "pacing": {"mode": mode}})
    kind, family = way.split("-")
    prefix = "" if kind == "sync" else "async_"
    inner = client(way, wired=False)._transport
    transport = getattr(runtime, f"{prefix}{family}_transport")(inner)
    name = "Client" if kind == "sync" else "AsyncClient"
    given = getattr(import_module(family), name)(transport=transport, trust_env=False)
    seen = []

    async def steps(caller: Caller, server: Server) -> None:
        for path in ("files", "v1/chat/completions"):
            await caller.ask(dumped(CHAT_ASK), path, headers=JSON_TYPE)
            seen.append(ours(inner._pool))

    with serving(answering(REPLY)) as server:
        told: list[Any] = played(way, steps, server, given, sends=False)
    assert [each[2] for each in told] == [ANSWER, ANSWER]
    assert seen == [False, mode == "enforce"]


def test_an_app_that_is_no_longer_instrumented_opens_its_familys_connections() -> None:
    """Those that are open go on."""
    import httpx

    with serving(answering(REPLY)) as server, httpx.Client(trust_env=False) as given:
        underlay.instrument(HOSTS)
        try:
            given.post(f"{server.url}v1/chat/completions", json=CHAT_ASK)
            assert ours(pool_of(given))
        finally:
            underlay.uninstrument()
        assert not ours(pool_of(given))
        assert given.post(f"{server.url}v1/chat/completions", json=CHAT_ASK).content == ANSWER
        assert server.connections == 1


def test_unwired_pools_can_be_wired_again() -> None:
    """And to unwire twice is to unwire once."""
    given = client("sync-httpx")
    unwire()
    unwire()
    assert not ours(pool_of(given))
    wire(given._transport)
    assert ours(pool_of(given))


# -- when an idle connection is looked at


class Looks:
    """Counts how often a family's own look is taken."""

    def __init__(self, stream: Any) -> None:
        self.taken = 0
        self._look = stream._look
        stream._look = self

    def __call__(self, info: str) -> Any:
        self.taken += 1
        return self._look(info)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_idle_connection_is_looked_at_once(family: str) -> None:
    """Until something comes: then each look is the family's own, until all of it is read."""

    def act(peer: Peer) -> None:
        while True:
            peer.take(1)
            peer.say(b"answer")

    with serving(act) as server:
        stream = stream_of(f"sync-{family}", server)
        looks = Looks(stream)
        for ask in range(1, 3):
            stream.write(b"?", PATIENCE)
            got = stream.read(3, PATIENCE)
            assert stream.get_extra_info("is_readable")
            assert stream.get_extra_info("is_readable")
            while len(got) < 6:
                got += stream.read(64, PATIENCE)
            assert [stream.get_extra_info("is_readable") for _ in range(5)] == [False] * 5
            assert looks.taken == 3 * ask
        stream.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_connection_that_never_received_is_always_looked_at(family: str) -> None:
    """Zero is what a kernel says that does not count."""
    with serving(answering()) as server:
        stream = stream_of(f"sync-{family}", server)
        looks = Looks(stream)
        assert [stream.get_extra_info("is_readable") for _ in range(3)] == [False] * 3
        assert looks.taken == 3
        stream.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pool_of_many_looks_at_each_once(family: str) -> None:
    """What a hundred callers leave: the next requests look at none of them again but at that they used."""
    way, callers = f"sync-{family}", 20
    with serving(answering()) as server, client(way) as given:
        streams = [given.stream("POST", server.url, content=b"x") for _ in range(callers)]
        for response in [stream.__enter__() for stream in streams]:
            response.read()
        for stream in streams:
            stream.__exit__(None, None, None)
        assert server.connections == callers
        looks = [Looks(each._connection._network_stream) for each in pool_of(given).connections]
        for _ in range(5):
            given.post(server.url, content=b"x")
        assert sum(each.taken for each in looks) <= 2 * 5 + 1
        assert server.connections == callers


# -- what leaves when


@pytest.fixture(params=FAMILIES)
def pair(request: pytest.FixtureRequest) -> Any:
    """A stream of ours, and the socket at its other end."""
    listener = socket.create_server(("127.0.0.1", 0))
    backend = pool_of(client(f"sync-{request.param}"))._network_backend
    stream = backend.connect_tcp("127.0.0.1", listener.getsockname()[1], timeout=PATIENCE)
    other, _ = listener.accept()
    listener.close()
    yield stream, other
    other.close()
    stream.close()


def arrived(other: socket.socket, length: int = 0) -> bytes:
    """What has come to the other end: so many bytes, or nothing by now."""
    if not length:
        try:
            return other.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
    other.settimeout(PATIENCE)
    got = b""
    while len(got) < length:
        got += other.recv(1 << 20)
    return got


def test_a_request_leaves_in_one_piece_when_its_answer_is_waited_for(pair: Any) -> None:
    """Nothing of it before, and what is written after the call at once."""
    stream, other = pair
    token = sending()
    try:
        stream.write(HEAD, PATIENCE)
        stream.write(BODY, PATIENCE)
        assert arrived(other) == b""
        other.send(b"early")
        assert stream.read(64, PATIENCE) == b"early"
        assert arrived(other, len(HEAD + BODY)) == HEAD + BODY
    finally:
        token.leave()
    stream.write(b"more", PATIENCE)
    assert arrived(other, len(b"more")) == b"more"


def test_it_is_one_write(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket's own methods in their order: nothing that lets go of the interpreter comes before it is sent."""
    stream, other = pair
    real, did = stream._sock, []

    class Noting:
        def __getattr__(self, name: str) -> Any:
            did.append(name)
            return getattr(real, name)

    stream._sock = Noting()
    other.send(b"answer")
    token = sending()
    try:
        stream.write(HEAD, PATIENCE)
        stream.write(BODY, PATIENCE)
        assert did == []
        stream.read(64, PATIENCE)
    finally:
        token.leave()
    assert did == ["gettimeout", "send", "settimeout"]


@pytest.mark.parametrize("whole", [None, False])
def test_what_may_not_wait_leaves_at_once(pair: Any, whole: bool | None) -> None:
    """Where no call of ours is sent, or one whose steps somebody is told of."""
    stream, other = pair
    token = None if whole is None else sending(whole=whole)
    stream.write(HEAD, PATIENCE)
    assert arrived(other, len(HEAD)) == HEAD
    stream.write(BODY, PATIENCE)
    assert arrived(other, len(BODY)) == BODY
    if token is not None:
        token.leave()


def test_a_long_request_is_not_held(pair: Any) -> None:
    """There is a bound to what is copied."""
    stream, other = pair
    token = sending()
    stream.write(HEAD, PATIENCE)
    stream.write(bytes(1 << 16), PATIENCE)
    token.leave()
    assert arrived(other, len(HEAD) + (1 << 16)) == HEAD + bytes(1 << 16)


def test_what_was_held_leaves_before_what_is_not(pair: Any) -> None:
    """In the order in which it was written."""
    stream, other = pair
    token = sending()
    stream.write(HEAD, PATIENCE)
    token.leave()
    stream.write(BODY, PATIENCE)
    assert arrived(other, len(HEAD + BODY)) == HEAD + BODY


def test_a_request_that_is_traced_leaves_as_it_is_written() -> None:
    """A hook that is told of each step is told when it is so."""
    runtime = Runtime(HOSTS)
    heads: list[bytes] = []

    def act(peer: Peer) -> None:
        heads.append(peer.head())
        told.append("server has the head")
        written.release()
        peer.take(len(dumped(CHAT_ASK)))
        peer.say(REPLY)

    told: list[str] = []
    written = threading.Semaphore(0)

    def hook(event: str, info: dict[str, Any]) -> None:
        del info
        if event == "http11.send_request_headers.complete":
            assert written.acquire(timeout=PATIENCE)
            told.append("hook")

    with serving(act) as server, runtime.httpx_client(trust_env=False) as given:
        url = f"{server.url}v1/chat/completions"
        content = dumped(CHAT_ASK)
        headers = {"content-type": "application/json"}
        answer = given.post(url, content=content, headers=headers, extensions={"trace": hook})
    assert answer.content == ANSWER
    assert told == ["server has the head", "hook"]


def test_a_script_is_no_network() -> None:
    """What tests answer with has no pool, and is served as before."""
    script = Script([json_reply()])
    runtime = Runtime({})
    with runtime.httpx_client(transport=script.transport("httpx", "sync")) as given:
        assert given.post("https://api.openai.com/v1/chat/completions", json=CHAT_ASK).status_code == 200


# -- what an app may do with a connection


def test_whoever_takes_the_socket_finds_it_as_the_family_leaves_it(pair: Any) -> None:
    """It waits as long as the last use said, and what is written from then on leaves at once."""
    stream, other = pair
    token = sending()
    try:
        stream.write(HEAD, PATIENCE)
        other.send(b"answer")
        assert stream.read(64, 7.0) == b"answer"
        assert stream._sock.gettimeout() == 0.0
        sock = stream.get_extra_info("socket")
        assert sock.gettimeout() == 7.0
        assert arrived(other, len(HEAD)) == HEAD
        stream.write(BODY, PATIENCE)
        assert arrived(other, len(BODY)) == BODY
        other.send(b"more")
        assert stream.read(64, 9.0) == b"more"
        assert sock.gettimeout() == 9.0
    finally:
        token.leave()


def test_a_new_socket_that_is_taken_waits_as_it_was_opened(pair: Any) -> None:
    """Nothing was read or written yet."""
    stream, _ = pair
    assert stream.get_extra_info("socket").gettimeout() == PATIENCE


def test_what_else_is_written_meanwhile_leaves_when_the_request_did(pair: Any) -> None:
    """A log handler or a finaliser that runs as a call of ours is sent, and writes to a connection of its own."""
    stream, other = pair
    token = sending()
    stream.write(b"alert", PATIENCE)
    token.leave()
    assert arrived(other, len(b"alert")) == b"alert"


def test_what_was_held_on_a_closed_connection_is_gone(pair: Any) -> None:
    """Half a request is none."""
    stream, other = pair
    token = sending()
    stream.write(HEAD, PATIENCE)
    stream.close()
    token.leave()
    other.settimeout(PATIENCE)
    assert other.recv(64) == b""


def test_nothing_is_held_for_an_attempt_that_is_over(pair: Any) -> None:
    """An interrupt may have left the mark of one in the context of its thread."""
    stream, other = pair
    token = sending()
    token.open = False
    stream.write(HEAD, PATIENCE)
    assert arrived(other, len(HEAD)) == HEAD


def test_who_comes_as_a_pool_is_wired_goes_on_without() -> None:
    """Two backends of ours would know of half of the connections each."""
    given = client("sync-httpx", wired=False)
    assert wires._putting.acquire(blocking=False)
    try:
        assert not wire(given._transport)
        assert not ours(pool_of(given))
    finally:
        wires._putting.release()
    assert wire(given._transport)


def test_an_answer_counts_though_the_connection_is_closed_as_it_is_read(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread, between the read and what is left to do."""
    stream, other = pair
    token = sending()
    stream.write(HEAD, PATIENCE)
    token.leave()
    other.send(b"answer")
    real = stream._stream.read

    def read(*args: Any) -> bytes:
        data: bytes = real(*args)
        stream.close()
        return data

    monkeypatch.setattr(stream._stream, "read", read)
    assert stream.read(64, PATIENCE) == b"answer"


def test_that_a_request_could_not_be_written_is_no_news(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The family looks for an answer all the same: a server may have refused it. That it took too long is an error."""
    stream, other = pair
    core = import_module(type(stream).__mro__[-2].__module__.partition(".")[0])
    other.send(b"refused")
    for error in (core.WriteError, core.WriteTimeout):

        def write(*args: Any, error: Any = error) -> None:
            raise error(*args)

        monkeypatch.setattr(stream, "_sock", Broken())
        monkeypatch.setattr(stream._stream, "write", write)
        token = sending()
        stream.write(HEAD, PATIENCE)
        if error is core.WriteTimeout:
            with pytest.raises(core.WriteTimeout):
                stream.read(64, PATIENCE)
        else:
            assert stream.read(64, PATIENCE) == b"refused"
        token.leave()


class Broken:
    """A socket on which nothing can be sent."""

    def gettimeout(self) -> float:
        """It never waits."""
        return 0.0

    def settimeout(self, timeout: float) -> None:
        """It never will."""

    def send(self, data: bytes) -> int:
        """Fail."""
        raise BrokenPipeError


def test_what_finds_no_room_at_once_is_sent_to_its_end(pair: Any) -> None:
    """By the family, from where the first write came to."""
    stream, other = pair
    stream._sock.setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDBUF, 1
    )  # the kernel makes of it the least it allows
    request = bytes(range(256)) * 255
    got: list[bytes] = []

    def take() -> None:
        while sum(map(len, got)) < len(request):
            got.append(other.recv(1 << 10))
        other.send(b"answer")

    reader = threading.Thread(target=take, daemon=True)
    reader.start()
    token = sending()
    stream.write(request, PATIENCE)
    assert stream.read(64, PATIENCE) == b"answer"
    token.leave()
    reader.join(PATIENCE)
    assert b"".join(got) == request


class Kernel:
    """A socket that says what a kernel says."""

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol

    def getsockopt(self, level: int, option: int, length: int = 0) -> Any:
        """Its protocol, or what it counts."""
        return bytes(length) if level == socket.IPPROTO_TCP else self._protocol

    def gettimeout(self) -> float:
        """It waits."""
        return PATIENCE

    def settimeout(self, timeout: float) -> None:
        """It will not."""


@pytest.mark.parametrize(
    ("module", "protocol", "wired"),
    [
        ("socket", socket.IPPROTO_TCP, True),
        ("ssl", socket.IPPROTO_TCP, True),
        ("gevent._socket3", socket.IPPROTO_TCP, False),  # waits in its own way
        ("socket", 262, False),  # MPTCP: what comes by another path is not counted
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_only_a_plain_socket_over_tcp_is_ours(family: str, module: str, protocol: int, wired: bool) -> None:
    """And one that is not is known of."""

    class Family:
        def write(self) -> None:
            """The family's."""

        def get_extra_info(self, info: str) -> Any:
            assert info == "socket"
            return type("Socket", (Kernel,), {"__module__": module})(protocol)

    given = Family()
    backend = pool_of(client(f"sync-{family}"))._network_backend
    assert (backend.over(given) is not given) == wired
    assert backend.alone == wired


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_that_somebody_patched_stays_as_it_is(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault injection and counters of bytes sit there."""
    with serving(answering()) as server:
        bare = stream_of(f"sync-{family}", server, wired=False)
        bare.close()
        monkeypatch.setattr(type(bare), "write", lambda self, *args: None)
        stream = stream_of(f"sync-{family}", server)
        assert type(stream) is type(bare)
        stream.close()
