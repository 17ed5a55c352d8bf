"""The bench of the tests of connections: a server on the loopback interface that does what a test says, step by
step, and clients of every way in, bare and with connections of ours."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib import import_module
from typing import Any

import pytest
import trio
import trustme
from replies import CHAT, dumped

from underlay.transports.common import Sending
from underlay.transports.wire import wire

PATIENCE = 15.0  # seconds of real time after which a test that hangs fails
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
ANSWER = dumped(CHAT)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


def replied(body: bytes) -> bytes:
    """A reply of JSON, as it is on the wire."""
    return _HEAD % len(body) + body


REPLY = replied(ANSWER)
LARGE = 1 << 24  # bytes: more than the kernel takes while nobody reads
LONG = 1 << 22  # bytes: more than it takes at once

Act = Callable[["Peer"], None]


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


@cache
def client_tls() -> ssl.SSLContext:
    """A context that trusts the server."""
    context = ssl.create_default_context()
    _authority().configure_trust(context)
    return context


@cache
def _server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert("127.0.0.1").configure_cert(context)
    return context


@dataclass
class Peer:
    """The server's end of one connection."""

    sock: socket.socket
    bodies: list[bytes]
    """What was read of requests' bodies, digested."""
    read: bytes = b""

    def head(self) -> bytes:
        """Read a request's head."""
        while b"\r\n\r\n" not in self.read:
            self._more()
        head, _, self.read = self.read.partition(b"\r\n\r\n")
        return head

    def request(self) -> bytes:
        """Read a whole request. Returns its body."""
        head = self.head().lower()
        if b"transfer-encoding: chunked" in head:
            while not self.read.endswith(b"0\r\n\r\n"):
                self._more()
            body, self.read = self.read, b""
            self.bodies.append(sha256(body).digest())
            return body
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        body = self.take(length)
        self.bodies.append(sha256(body).digest())
        return body

    def take(self, length: int) -> bytes:
        """Read so many bytes."""
        while len(self.read) < length:
            self._more()
        body, self.read = self.read[:length], self.read[length:]
        return body

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self.sock.sendall(data)

    def reset(self) -> None:
        """Close at once, without a word (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def gone(self) -> None:
        """Wait until the client has closed."""
        with suppress(OSError):
            while self.sock.recv(1 << 16):
                continue

    def _more(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise EOFError
        self.read += data


@dataclass
class Server:
    """Serves each connection by the next of its acts, the last one for all that come after."""

    acts: list[Act]
    tls: bool
    listener: socket.socket = field(init=False)
    connections: int = 0
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Told once for each connection that is over."""
    _bodies: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http{'s' * self.tls}://127.0.0.1:{self.listener.getsockname()[1]}/"

    def bodies(self) -> list[bytes]:
        """Digests of the requests' bodies that were read."""
        return sorted(self._bodies)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                act = self.acts[min(self.connections, len(self.acts) - 1)]
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock, act), daemon=True).start()

    def _serve(self, sock: socket.socket, act: Act) -> None:
        sock.settimeout(PATIENCE)
        with suppress(OSError, EOFError):
            if self.tls:
                sock = _server_tls().wrap_socket(sock, server_side=True)
            act(Peer(sock, self._bodies))
        sock.close()
        self.ended.release()

    def close(self) -> None:
        """No more connections."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@contextmanager
def serving(*acts: Act, tls: bool = False) -> Iterator[Server]:
    """A server for one test."""
    server = Server(list(acts), tls)
    try:
        yield server
    finally:
        server.close()


def answering(reply: bytes = OK) -> Act:
    """Answers every request of the connection alike."""

    def act(peer: Peer) -> None:
        while True:
            peer.request()
            peer.say(reply)

    return act


def client(way: str, *, wired: bool = True, **options: Any) -> Any:
    """A client of a way in (mode-family) over the family's own transport."""
    mode, family = way.split("-")
    module = import_module(family)
    kind = "" if mode == "sync" else "Async"
    transport = getattr(module, f"{kind}HTTPTransport")(verify=client_tls(), trust_env=False, **options)
    if wired:
        wire(transport)
    return getattr(module, f"{kind}Client")(transport=transport, trust_env=False, timeout=PATIENCE)


def until(true: Callable[[], object]) -> None:
    """Wait until this is so: what nobody tells of, as who stands in a pool."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        threading.Event().wait(0.001)


def sending(*, whole: bool = True) -> Sending:
    """An attempt is being sent in this context."""
    attempt = Sending()
    attempt.enter()
    attempt.whole = whole
    return attempt


def pool_of(given: Any) -> Any:
    """A client's pool."""
    return given._transport._pool


class Caller:
    """A client of a way in, and what it was told."""

    def __init__(self, given: Any, way: str, server: Server, *, sends: bool) -> None:
        self._client = given
        self._sends = sends
        self._sync = way.startswith("sync")
        self._url = server.url
        self.told: list[object] = []

    async def ask(
        self, content: Any = b"", path: str = "", *, method: str = "POST", timeout: Any = None, **options: Any
    ) -> None:
        """One request and its answer, or the class of its error."""
        if callable(content):
            content = content() if self._sync else _awaited(content())
        times = {"connect": PATIENCE, "read": PATIENCE, "write": PATIENCE, "pool": PATIENCE} | (timeout or {})
        extensions = {"timeout": times}
        request = self._client.build_request(
            method, self._url + path, content=content, extensions=extensions, **options
        )
        try:
            response = await self._sent(request)
            self.told.append((response.status_code, response.headers.raw, response.content))
        except Exception as error:
            self.told.append(type(error).__name__)

    async def stream(self, then: Callable[[], object]) -> None:
        """One request whose body is read when `then` was called."""
        request = self._client.build_request("POST", self._url)
        try:
            response = await self._sent(request, stream=True)
            self.told.append(response.status_code)
            then()
            self.told.append(response.read() if self._sync else await response.aread())
        except Exception as error:
            self.told.append(type(error).__name__)

    async def upgrade(self, words: list[bytes]) -> None:
        """Change to another protocol, and speak it on the connection."""
        headers = {"upgrade": "echo", "connection": "upgrade"}
        request = self._client.build_request("GET", self._url, headers=headers)
        response = await self._sent(request, stream=True)
        stream = response.extensions["network_stream"]
        heard = b""
        while len(heard) < len(b"hello"):
            data = stream.read(64, PATIENCE)
            heard += data if self._sync else await data
        for word in words:
            written = stream.write(word, PATIENCE)
            if not self._sync:
                await written
            reply = b""
            while len(reply) < len(b"you said ") + len(word):
                data = stream.read(64, PATIENCE)
                reply += data if self._sync else await data
            self.told.append(reply)
        self.told.append(heard)
        response.close() if self._sync else await response.aclose()

    async def _sent(self, request: Any, **options: Any) -> Any:
        if not self._sync:
            return await self._client.send(request, **options)
        if not self._sends:
            return self._client.send(request, **options)
        token = sending()
        try:
            return self._client.send(request, **options)
        finally:
            token.leave()


def stream_of(way: str, server: Server, *, wired: bool = True) -> Any:
    """A stream of a synchronous pool's backend, connected to a server."""
    with client(way, wired=wired) as given:
        backend = pool_of(given)._network_backend
    return backend.connect_tcp("127.0.0.1", server.listener.getsockname()[1], timeout=PATIENCE)


async def _awaited(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def played(
    way: str, steps: Callable[[Caller, Server], Any], server: Server, given: Any, *, sends: bool = True
) -> list[object]:
    """What a client of a way in was told in these steps. Closes it. `sends`: as where a call of ours is sent."""
    mode = way.partition("-")[0]

    async def play() -> list[object]:
        caller = Caller(given, way, server, sends=sends)
        try:
            await steps(caller, server)
        finally:
            given.close() if mode == "sync" else await given.aclose()
        return caller.told

    if mode == "asyncio":
        return asyncio.run(play())
    if mode == "trio":
        return trio.run(play)
    work = play()
    with pytest.raises(StopIteration) as ended:
        work.send(None)
    told: list[object] = ended.value.value
    return told
