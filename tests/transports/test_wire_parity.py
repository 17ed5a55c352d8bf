"""Whatever a server does, a client whose connections are ours sees what a bare one sees, and so does the server:
(sync, asyncio, trio) x (httpx, httpx2) x (plain, TLS)."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module

import pytest
from transport_lab import WAYS
from wire_lab import (
    LARGE,
    LONG,
    OK,
    PATIENCE,
    Act,
    Caller,
    Peer,
    Server,
    answering,
    client,
    played,
    serving,
    stream_of,
)

from underlay.transports.wire import LINUX

pytestmark = [
    pytest.mark.skipif(not LINUX, reason="connections stay the family's own elsewhere"),
    # httpx leaves the generator of a request's body open, where it could not be written.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
]

Steps = Callable[[Caller, Server], Awaitable[None]]
Case = tuple[list[Act], Steps]

SHORT = 0.01  # seconds: as long as a timeout that must pass in real time takes


def keeps_alive() -> Case:
    async def steps(caller: Caller, server: Server) -> None:
        for _ in range(3):
            await caller.ask(b"hello")

    return [answering()], steps


def asked_by_other_methods() -> Case:
    async def steps(caller: Caller, server: Server) -> None:
        await caller.ask(method="GET")
        await caller.ask(method="DELETE")
        await caller.ask(b"x" * 300_000, method="PUT")

    return [answering()], steps


def closes_when_idle() -> Case:
    async def steps(caller: Caller, server: Server) -> None:
        await caller.ask()
        assert server.ended.acquire(timeout=PATIENCE)
        await caller.ask()

    def act(peer: Peer) -> None:
        peer.request()
        peer.say(OK)

    return [act, answering()], steps


def disturbed(how: Callable[[Peer], None]) -> Case:
    """Something happens on an idle connection before the next request."""
    go, done = threading.Event(), threading.Event()

    def act(peer: Peer) -> None:
        peer.request()
        peer.say(OK)
        assert go.wait(PATIENCE)
        how(peer)
        done.set()
        peer.gone()

    async def steps(caller: Caller, server: Server) -> None:
        await caller.ask()
        go.set()
        assert done.wait(PATIENCE)
        await caller.ask()

    return [act, answering()], steps


def resets_when_idle() -> Case:
    return disturbed(Peer.reset)


def speaks_unasked() -> Case:
    return disturbed(
        lambda peer: peer.say(
            b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
    )


def refuses_before_it_has_read() -> Case:
    def act(peer: Peer) -> None:
        peer.head()
        peer.say(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmuch")
        peer.gone()

    async def steps(caller: Caller, server: Server) -> None:
        await caller.ask(bytes(LARGE))
        await caller.ask(b"small")

    return [act], steps


def takes_a_large_request() -> Case:
    async def steps(caller: Caller, server: Server) -> None:
        await caller.ask(bytes(range(256)) * (LONG // 256))

    return [answering()], steps


def never_reads() -> Case:
    def act(peer: Peer) -> None:
        peer.head()
        over.wait(PATIENCE)

    async def steps(caller: Caller, server: Server) -> None:
        await caller.ask(bytes(LARGE), timeout={"write": SHORT, "read": PATIENCE})
        over.set()

    over = threading.Event()
    return [act], steps


def never_answers() -> Case:
    async def steps(caller: Caller, server: Server) -> None:
        await caller.ask(timeout={"read": SHORT})

    def act(peer: Peer) -> None:
        peer.request()
        peer.gone()

    return [act], steps


def is_waited_for_very_long() -> Case:
    async def steps(caller: Caller, server: Server) -> None:
        await caller.ask(
            b"x" * 100, timeout={"read": 1e7, "write": 1e7}
        )  # seconds: beyond 2**31 milliseconds

    return [answering()], steps


def is_waited_for_without_end() -> Case:
    async def steps(caller: Caller, server: Server) -> None:
        await caller.ask(bytes(LONG), timeout={"read": None, "write": None, "connect": None, "pool": None})

    return [answering()], steps


def stops_in_the_body() -> Case:
    def act(peer: Peer) -> None:
        peer.request()
        peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        peer.gone()

    async def steps(caller: Caller, server: Server) -> None:
        await caller.ask(timeout={"read": SHORT})

    return [act], steps


def said_and_left(*said: bytes) -> Case:
    def act(peer: Peer) -> None:
        peer.request()
        for each in said:
            peer.say(each)

    async def steps(caller: Caller, server: Server) -> None:
        await caller.ask()
        await caller.ask()

    return [act], steps


def says_nothing() -> Case:
    return said_and_left()


def is_cut_in_the_head() -> Case:
    return said_and_left(b"HTTP/1.1 200 O")


def is_cut_in_the_body() -> Case:
    return said_and_left(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")


def speaks_http_1_0() -> Case:
    return said_and_left(b"HTTP/1.0 200 OK\r\n\r\n", b"until it ", b"is closed")


def speaks_nonsense() -> Case:
    return said_and_left(b"SSH-2.0-OpenSSH\r\n\r\n")


def resets_in_the_body() -> Case:
    go = threading.Event()

    def act(peer: Peer) -> None:
        peer.request()
        peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        assert go.wait(PATIENCE)
        peer.reset()

    async def steps(caller: Caller, server: Server) -> None:
        await caller.stream(go.set)

    return [act], steps


def continues_first() -> Case:
    return [
        answering(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK)
    ], asks_twice


async def asks_twice(caller: Caller, server: Server) -> None:
    await caller.ask(b"hello")
    await caller.ask(b"again")


def answers_in_many_pieces() -> Case:
    def act(peer: Peer) -> None:
        while True:
            peer.request()
            peer.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for number in range(200):
                peer.say(b"4\r\n%04d\r\n" % number)
            peer.say(b"0\r\n\r\n")

    return [act], asks_twice


def answers_at_length() -> Case:
    body = bytes(range(256)) * (LONG // 256)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    return [answering(head + body)], asks_twice


def is_given_a_body_bit_by_bit() -> Case:
    def bits() -> Iterator[bytes]:
        yield b"first"
        yield b""
        yield b"second"

    async def steps(caller: Caller, server: Server) -> None:
        await caller.ask(bits)
        await caller.ask(bits)

    return [answering()], steps


def changes_the_protocol() -> Case:
    def act(peer: Peer) -> None:
        peer.head()
        peer.say(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\nhello")
        while True:
            peer.say(b"you said " + peer.take(4))

    async def steps(caller: Caller, server: Server) -> None:
        await caller.upgrade([b"ping", b"pong"])

    return [act], steps


CASES = [
    keeps_alive,
    asked_by_other_methods,
    closes_when_idle,
    resets_when_idle,
    speaks_unasked,
    refuses_before_it_has_read,
    takes_a_large_request,
    never_reads,
    never_answers,
    is_waited_for_very_long,
    is_waited_for_without_end,
    stops_in_the_body,
    says_nothing,
    is_cut_in_the_head,
    is_cut_in_the_body,
    speaks_http_1_0,
    speaks_nonsense,
    resets_in_the_body,
    continues_first,
    answers_in_many_pieces,
    answers_at_length,
    is_given_a_body_bit_by_bit,
    changes_the_protocol,
]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_wired_client_sees_what_a_bare_one_sees(case: Callable[[], Case], way: str, tls: bool) -> None:
    """The same answers and errors, over as many connections, and the server has read the same bytes."""
    saw = []
    for wired in (False, True):
        acts, steps = case()
        with serving(*acts, tls=tls) as server:
            told = played(way, steps, server, client(way, wired=wired))
            saw.append((told, server.connections, server.bodies()))
    assert saw[0][0], "the case tells something"
    assert saw[1] == saw[0]


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_a_closed_streams_errors_are_the_familys(family: str) -> None:
    """What a pool never shows: a stream that is read and written after it was closed."""
    core = import_module(f"httpcore{family.removeprefix('httpx')}")
    for wired in (False, True):
        with serving(answering()) as server:
            stream = stream_of(f"sync-{family}", server, wired=wired)
        stream.close()
        with pytest.raises(core.ReadError):
            stream.read(1, 1.0)
        with pytest.raises(core.WriteError):
            stream.write(b"x", 1.0)
        assert stream.get_extra_info("is_readable") is True
        assert stream.get_extra_info("socket").fileno() == -1
