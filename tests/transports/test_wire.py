"""Connections of ours under a family's own pool: what is wired, and when an idle one is looked at."""

from __future__ import annotations

import socket
from importlib import import_module
from typing import Any

import pytest
from replies import dumped
from transport_lab import CHAT_ASK, JSON_TYPE, WAYS, json_reply
from wire_lab import (
    ANSWER,
    PATIENCE,
    REPLY,
    Caller,
    Peer,
    Server,
    answering,
    client,
    played,
    pool_of,
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


def test_a_script_is_no_network() -> None:
    """What tests answer with has no pool, and is served as before."""
    script = Script([json_reply()])
    runtime = Runtime({})
    with runtime.httpx_client(transport=script.transport("httpx", "sync")) as given:
        assert given.post("https://api.openai.com/v1/chat/completions", json=CHAT_ASK).status_code == 200


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
