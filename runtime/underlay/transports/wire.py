"""A network backend under the pools of httpcore and httpcore2, which costs less where many call at once.

A pool looks at each of its idle connections whenever a request comes or goes, whether the server has closed
it, and asks the operating system each time. With a hundred connections that is a third of what a small call
costs an event loop. Here a connection that was looked at says from the kernel's own count of received bytes
that nothing has come since (`TCP_INFO`, Linux; tcp(7)).

And a synchronous request leaves as it stands: head and body in one piece, handed to the kernel before the
interpreter is let go of. Threads that send let go of it dozens of times otherwise (a look at each idle
connection, and three times for each write), each time whoever waits for it runs on, and no request of a
hundred leaves before the last of them has come as far. It is a convoy (M. Blasgen, J. Gray, M. Mitoma,
T. Price, "The convoy phenomenon", SIGOPS Operating Systems Review 13(2), 1979).

Everything else stays the family's: it opens connections and does TLS, this only stands before its streams.
"""

from __future__ import annotations

import math
import select
import socket
import ssl
import sys
from contextlib import suppress
from functools import cache, partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from underlay.transports.common import sending

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LINUX", "unwire", "wire"]

LINUX: Final = sys.platform == "linux"
_CORES: Final = ("httpcore", "httpcore2")
_READABLE: Final = "is_readable"  # what a pool asks of a stream
_TCP, _TCP_INFO = socket.IPPROTO_TCP, getattr(socket, "TCP_INFO", 0)
_PIECE: Final = 1 << 16  # bytes of a request that are held until it is complete
_INFO: Final = 136  # bytes of `struct tcp_info` (linux/tcp.h) up to and with tcpi_bytes_received
_RECEIVED: Final = 128  # where that is; tcpi_state is the first byte
_ESTABLISHED: Final = 1

_wired: WeakSet[Any] = WeakSet()


def wire(transport: Any) -> None:
    """Have the connections that a family's own transport opens from now on go through here. HTTP/2, where
    callers share a connection, proxies, and backends of the app's own stay as they are."""
    try:
        pool = transport._pool
        given = pool._network_backend
        kinds = _kinds(pool.__class__)
        if kinds is not None and type(given) is kinds[0] and not pool._http2:
            pool._network_backend = kinds[1](given)
            _wired.add(pool)
    except Exception:  # noqa: BLE001 what its pool is called, and is made of, is its own affair
        return


def unwire() -> None:
    """Have all pools open connections of their family's own again. Those that are open stay as they are."""
    with suppress(KeyError):  # there is none left
        while True:
            pool = _wired.pop()
            if isinstance(pool._network_backend, _Loops | _Threads):
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
        return own, partial(type("Backend", (_Loops, core.AsyncNetworkBackend), {}), partial(_over, kind))
    errors = {
        "unread": (core.ReadTimeout, core.ReadError),
        "unwritten": (core.WriteTimeout, core.WriteError),
    }
    kind = type("Stream", (_Blocking, core.NetworkStream), errors)
    return own, partial(type("Backend", (_Threads, core.NetworkBackend), {}), partial(_over, kind))


def _over(kind: Any, stream: Any) -> Any:
    """A stream of ours over a family's; the family's own where its socket is none that the kernel counts for,
    or none of the interpreter's."""
    try:
        sock = stream.get_extra_info("socket")
        known = type(sock).__module__ in kind.sockets or not kind.sockets
        counts = known and len(sock.getsockopt(_TCP, _TCP_INFO, _INFO)) == _INFO
    except Exception:  # noqa: BLE001 a loop's own kind of socket answers in its own way
        return stream
    return kind(stream, sock) if counts else stream


class _Stream:
    """Stands before a family's stream and its socket, and knows whether it is quiet while nobody uses it:
    open, with nothing to read."""

    def __init__(self, stream: Any, sock: Any) -> None:
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
        return _over(type(self), await self._stream.start_tls(*args, **options))


class _Blocking(_Stream):
    """A stream of a thread. Its socket never blocks: what could have to wait is tried first, and waited for
    here."""

    sockets = ("socket", "ssl")  # modules whose sockets block as the interpreter's own do
    unread: tuple[type[Exception], type[Exception]]
    unwritten: tuple[type[Exception], type[Exception]]

    def __init__(self, stream: Any, sock: Any) -> None:
        super().__init__(stream, sock)
        self._held = b""
        self._patience: float | None = None
        sock.settimeout(0.0)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._held:
            self._leave()
        sock = self._sock
        data: bytes = _tried(sock.recv, max_bytes, sock, select.POLLIN, timeout, self.unread)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        held = self._held + buffer if self._held else buffer
        opened = sending.get()
        if opened and opened[0] and len(held) <= _PIECE:
            self._held, self._patience = held, timeout
            return
        self._held = b""
        self._send(held, timeout)

    def _leave(self) -> None:
        """Send what was held. That it could not be written is no news: the family looks for an answer all the
        same, since a server may refuse a request before it has read it."""
        held, self._held = self._held, b""
        with suppress(self.unwritten[1]):
            self._send(held, self._patience)

    def _send(self, data: bytes, timeout: float | None) -> None:
        sock, view = self._sock, memoryview(data)
        while view:
            view = view[_tried(sock.send, view, sock, select.POLLOUT, timeout, self.unwritten) :]

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *args: Any, **options: Any) -> Any:
        stream = self._stream.start_tls(*args, **options)
        # TLS within TLS is a stream of another kind, whose socket carries what it has not decrypted.
        return _over(type(self), stream) if type(stream) is type(self._stream) else stream


def _tried(
    work: Callable[[Any], Any],
    what: object,
    sock: socket.socket,
    event: int,
    timeout: float | None,
    errors: tuple[type[Exception], type[Exception]],
) -> Any:
    """What `work` makes of `what` as soon as the socket lets it. Raises the first error when that takes
    longer than `timeout` seconds, and the second when the connection fails."""
    until = math.inf if timeout is None else None
    try:
        while True:
            try:
                return work(what)
            except BlockingIOError:
                wanted = event
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            if until is None:
                until = monotonic() + (timeout or 0.0)
            if not _ready(sock, wanted, until):
                break
    except (OSError, ValueError) as error:  # a socket that another thread closed has no number any more
        raise errors[1](str(error)) from error
    raise errors[0]("timed out")


def _ready(sock: socket.socket, event: int, until: float) -> bool:
    """Wait for a socket; False: it was not ready by then."""
    poll = select.poll()
    poll.register(sock, event)
    left = None if until == math.inf else max(0, math.ceil((until - monotonic()) * 1e3))
    return bool(poll.poll(left))


class _Loops:
    """A family's backend of event loops whose streams are ours."""

    def __init__(self, over: Callable[[Any], Any], backend: Any) -> None:
        self._over = over
        self.backend = backend

    async def connect_tcp(self, *args: Any, **options: Any) -> Any:
        return self._over(await self.backend.connect_tcp(*args, **options))

    async def connect_unix_socket(self, *args: Any, **options: Any) -> Any:
        return await self.backend.connect_unix_socket(*args, **options)

    async def sleep(self, seconds: float) -> None:
        await self.backend.sleep(seconds)


class _Threads:
    """A family's backend of threads whose streams are ours."""

    def __init__(self, over: Callable[[Any], Any], backend: Any) -> None:
        self._over = over
        self.backend = backend

    def connect_tcp(self, *args: Any, **options: Any) -> Any:
        return self._over(self.backend.connect_tcp(*args, **options))

    def connect_unix_socket(self, *args: Any, **options: Any) -> Any:
        return self.backend.connect_unix_socket(*args, **options)

    def sleep(self, seconds: float) -> None:
        self.backend.sleep(seconds)
