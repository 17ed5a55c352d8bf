"""A network backend under the pools of httpcore and httpcore2, which costs less where many call at once.

A pool looks at each of its idle connections whenever a request comes or goes, whether the server has closed
it, and asks the operating system each time. With a hundred connections that is a third of what a small call
costs an event loop. Here a connection that was looked at says from the kernel's own count of received bytes
that nothing has come since (`TCP_INFO`, Linux; tcp(7)).

And a request of a thread leaves in one piece, head and body, and the interpreter is not let go of before the
call that hands it to the kernel. Threads that send let go of it dozens of times otherwise (a look at each
idle connection, and three times for each write), each time whoever waits for it runs on, and no request of a
hundred leaves before the last of them has come as far. It is a convoy (M. Blasgen, J. Gray, M. Mitoma,
T. Price, "The convoy phenomenon", SIGOPS Operating Systems Review 13(2), 1979).

Everything else stays the family's: it opens connections and does TLS, this only stands before its streams.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from functools import cache, partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from underlay.transports.common import sending

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LINUX", "has_room", "unwire", "wire"]

LINUX: Final = sys.platform == "linux"
_CORES: Final = ("httpcore", "httpcore2")
_READABLE: Final = "is_readable"  # what a pool asks of a stream
_TCP, _TCP_INFO = socket.IPPROTO_TCP, getattr(socket, "TCP_INFO", 0)
_PIECE: Final = 1 << 16  # bytes of a request that are held until it is complete
_INFO: Final = 136  # bytes of `struct tcp_info` (linux/tcp.h) up to and with tcpi_bytes_received
_RECEIVED: Final = 128  # where that is; tcpi_state is the first byte
_ESTABLISHED: Final = 1

_wired: WeakSet[Any] = WeakSet()
_putting = Lock()


def wire(transport: Any) -> bool:
    """Have the connections that a family's own transport opens from now on go through here. HTTP/2, where
    callers share a connection, proxies, and backends of the app's own stay as they are. Returns whether it is
    one of threads, whose requests may leave in one piece."""
    try:
        pool = transport._pool
        if not isinstance(pool._network_backend, _Backend):
            _put(pool)
        return isinstance(pool._network_backend, _Threads)
    except Exception:  # noqa: BLE001 what its pool is called, and is made of, is its own affair
        return False


def has_room(transport: Any, requests: int) -> bool:
    """Whether so many more requests of threads find a connection at once, or may open one, and all that are
    open are ours: who sends over one of the family's says nothing before the answer is there."""
    try:
        pool = transport._pool
        backend = pool._network_backend
        if not pool._connections:
            backend.alone = True
        return bool(backend.alone and len(pool._requests) + requests <= pool._max_connections)
    except Exception:  # noqa: BLE001 as above
        return False


def _put(pool: Any) -> None:
    """Put our backend on a pool's own. Who comes meanwhile goes on without: nobody waits here."""
    kinds = _kinds(pool.__class__)
    if kinds is None or pool._http2 or not _putting.acquire(blocking=False):
        return
    try:
        backend = pool._network_backend
        if type(backend) is kinds[0]:
            ours = kinds[1](backend)
            ours.alone = not pool._connections
            _wired.add(pool)
            pool._network_backend = ours
    finally:
        _putting.release()


def unwire() -> None:
    """Have all pools open connections of their family's own again. Those that are open stay as they are."""
    with suppress(KeyError):  # there is none left
        while True:
            pool = _wired.pop()
            if isinstance(pool._network_backend, _Backend):
                pool._network_backend = pool._network_backend.backend


@cache
def _kinds(pool: type[Any]) -> tuple[type[Any], Callable[[Any], Any]] | None:
    """A pool's own kind of backend, and what makes one of it here; None where nothing is known of it."""
    core: Any = sys.modules.get(pool.__module__.partition(".")[0])
    if (
        not LINUX
        or core is None
        or core.__name__ not in _CORES
        or pool not in (core.ConnectionPool, core.AsyncConnectionPool)
    ):
        return None
    own = type(pool()._network_backend)
    if pool is core.AsyncConnectionPool:
        kind = type("Stream", (_Awaiting, core.AsyncNetworkStream), {})
        return own, partial(type("Backend", (_Loops, core.AsyncNetworkBackend), {}), kind)
    kind = type("Stream", (_Blocking, core.NetworkStream), {"unwritten": core.WriteError})
    return own, partial(type("Backend", (_Threads, core.NetworkBackend), {}), kind)


class _Backend:
    """A family's backend whose streams are ours."""

    def __init__(self, kind: Any, backend: Any) -> None:
        self._kind = kind
        self.backend = backend
        self.alone = True
        """Whether all connections of the pool are ours."""

    def over(self, stream: Any) -> Any:
        """A stream of ours over a family's; the family's own where it was made another, or its socket is not
        of the interpreter's, or none that the kernel counts for."""
        kind, sock = self._kind, stream.get_extra_info("socket")
        try:
            ours = (
                type(stream).write.__module__ == type(stream).__module__
                and (not kind.sockets or type(sock).__module__ in kind.sockets)
                and sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) == _TCP
                and len(sock.getsockopt(_TCP, _TCP_INFO, _INFO)) == _INFO
            )
        except Exception:  # noqa: BLE001 a loop's own kind of socket answers in its own way
            ours = False
        self.alone = self.alone and ours
        return kind(self, stream, sock) if ours else stream


class _Stream:
    """Stands before a family's stream and its socket, and knows whether it is quiet while nobody uses it:
    open, with nothing to read."""

    def __init__(self, backend: _Backend, stream: Any, sock: Any) -> None:
        self._backend = backend
        self._stream = stream
        self._sock = sock
        self._info: Callable[[int, int, int], bytes] = sock.getsockopt
        self._look: Callable[[str], Any] = stream.get_extra_info
        self._count = b""  # of bytes received when there was nothing to read

    def get_extra_info(self, info: str) -> Any:
        if info != _READABLE:
            return self._look(info)
        try:
            told = self._info(_TCP, _TCP_INFO, _INFO)
        except OSError:
            return self._look(info)
        count = told[_RECEIVED:]
        if count == self._count and told[0] == _ESTABLISHED:
            return False
        readable = self._look(info)
        # Counted before the look: what came in between was there to be seen. A kernel that does not count
        # says zero.
        if not readable and any(count):
            self._count = count
        return readable


class _Awaiting(_Stream):
    """A stream of an event loop: the family's own, but for the look."""

    sockets = ()  # any that counts

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = await self._stream.read(max_bytes, timeout)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(self, *args: Any, **options: Any) -> Any:
        return self._backend.over(await self._stream.start_tls(*args, **options))


class _Blocking(_Stream):
    """A stream of a thread: the family's own, but for the look and for how a request of ours leaves.

    While its exchange is ours the socket is left so that a write never waits: one that waits for room first
    lets go of the interpreter once more. The family sets a socket's timeout before each use.
    """

    sockets = ("socket", "ssl")  # modules whose sockets block as the interpreter's own do
    unwritten: type[Exception]

    def __init__(self, backend: _Backend, stream: Any, sock: Any) -> None:
        super().__init__(backend, stream, sock)
        self._timeout: float | None = sock.gettimeout()
        self._held = b""
        self._ours = False
        self._shared = False
        sock.settimeout(0.0)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._held:
            _go_on()
            self.leave()
        self._timeout = timeout
        data: bytes = self._stream.read(max_bytes, timeout)
        if self._ours:
            try:
                self._sock.settimeout(0.0)
            except OSError:  # another thread has closed it: what was read counts
                self._ours = False
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        held = self._held + buffer if self._held else buffer
        attempt = sending.get()
        self._timeout = timeout
        if (
            attempt is not None
            and attempt.open
            and attempt.whole
            and not self._shared
            and len(held) <= _PIECE
        ):
            if held and not self._held:
                attempt.held.append(self)
            self._held = held
            return
        self._held, self._ours = b"", False
        if attempt is not None:
            attempt.go_on()
        self._stream.write(held, timeout)

    def leave(self) -> None:
        """Send what is held. That it could not be written is no news: the family looks for an answer all the
        same, since a server may refuse a request before it has read it."""
        held, self._held = self._held, b""
        self._ours, sent, sock = True, 0, self._sock
        try:
            if sock.gettimeout() != 0.0:
                sock.settimeout(0.0)
            sent = sock.send(held)
        except OSError:  # no room, or broken: the family waits for it, or says so
            pass
        if sent < len(held):
            with suppress(self.unwritten):
                self._stream.write(held[sent:], self._timeout)

    def left(self) -> None:
        """What held it is over, and it was no request: nobody reads an answer."""
        if self._held:
            with suppress(Exception):
                self.leave()

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *args: Any, **options: Any) -> Any:
        stream = self._stream.start_tls(*args, **options)
        if type(stream) is type(self._stream):
            return self._backend.over(stream)
        # TLS within TLS is a stream of another kind, whose socket carries what it has not decrypted.
        self._backend.alone = False
        return stream

    def get_extra_info(self, info: str) -> Any:
        if info == "socket":  # whoever takes it finds it as the family would have left it, from now on
            self._shared, self._ours = True, False
            with suppress(OSError):  # it is closed
                self._sock.settimeout(self._timeout)
        return super().get_extra_info(info)


class _Loops(_Backend):
    """The backend of event loops."""

    async def connect_tcp(self, *args: Any, **options: Any) -> Any:
        return self.over(await self.backend.connect_tcp(*args, **options))

    async def connect_unix_socket(self, *args: Any, **options: Any) -> Any:
        return await self.backend.connect_unix_socket(*args, **options)

    async def sleep(self, seconds: float) -> None:
        await self.backend.sleep(seconds)


class _Threads(_Backend):
    """The backend of threads."""

    def connect_tcp(self, *args: Any, **options: Any) -> Any:
        _go_on()
        return self.over(self.backend.connect_tcp(*args, **options))

    def connect_unix_socket(self, *args: Any, **options: Any) -> Any:
        _go_on()
        self.alone = False
        return self.backend.connect_unix_socket(*args, **options)

    def sleep(self, seconds: float) -> None:
        self.backend.sleep(seconds)


def _go_on() -> None:
    """Who sends here is about to wait, or to let go of the interpreter: the next thread may send."""
    attempt = sending.get()
    if attempt is not None:
        attempt.go_on()
