"""Connections of ours: what leaves when, and what an app may do with one."""

from __future__ import annotations

import socket
import threading
from importlib import import_module
from typing import Any

import pytest
from replies import dumped
from transport_lab import CHAT_ASK
from wire_lab import (
    ANSWER,
    PATIENCE,
    REPLY,
    Peer,
    client,
    pool_of,
    sending,
    serving,
)

from underlay import Runtime
from underlay.transports.wire import LINUX

pytestmark = pytest.mark.skipif(not LINUX, reason="connections stay the family's own elsewhere")

HOSTS = {"hosts": {"127.0.0.1": "openai"}}
FAMILIES = ("httpx", "httpx2")
HEAD, BODY = b"POST / HTTP/1.1\r\n\r\n", b"body"


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
