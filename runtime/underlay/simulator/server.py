"""Runs the simulator: on a thread for tests, in process as an ASGI application, or blocking as a command."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from underlay.errors import MissingExtraError, UnderlayError
from underlay.simulator.app import build_app
from underlay.simulator.counts import Counts, Ledger, Seen
from underlay.simulator.endpoint import State
from underlay.simulator.faults import Fault, FaultBook
from underlay.simulator.options import SimulatorOptions
from underlay.simulator.wire import CLOSE, App

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from underlay.simulator.wire import Receive, Scope, Send

__all__ = ["Simulator", "serve"]

_PATIENCE = 10.0
"""Seconds that starting or stopping may take before it is an error."""


class Simulator:
    """Simulated OpenAI and Anthropic, with their faults and their books.

    `with Simulator(options) as sim:` listens on a free port of the loopback interface: give `sim.url + "/v1"`
    to the OpenAI SDK and `sim.url` to Anthropic's. `sim.app` is the same as an ASGI application, for
    in-process transports on asyncio and trio. Raises `MissingExtraError` when made without the extra
    `simulator`.
    """

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self.options = options or SimulatorOptions()
        self._state = State(self.options, Ledger(self.options.keep_requests), FaultBook(self.options.faults))
        self.app: App = build_app(self._state)
        self._listener: _Listener | None = None

    def __enter__(self) -> Self:
        """Start listening; returns when the server answers."""
        if self._listener is not None:
            raise UnderlayError("this simulator is running already")
        listener = _Listener(self.app)
        listener.start()
        self._listener = listener
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Break what is still connected and stop."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`; an error while the simulator does not run."""
        if self._listener is None:
            raise UnderlayError("the simulator is not running: use it in a `with` statement")
        return self._listener.url

    @property
    def requests(self) -> tuple[Seen, ...]:
        """The latest requests, oldest first, without bodies and credentials."""
        return self._state.ledger.seen()

    def counts(self) -> Counts:
        """A snapshot of what was received and given."""
        return self._state.ledger.counts()

    def wait_until(self, holds: Callable[[Counts], bool], timeout: float = 5.0) -> Counts:
        """Wait until the counts are as wanted, for what ends after the reply; else `TimeoutError`."""
        return self._state.ledger.wait(holds, timeout)

    def fault(self, fault: Fault | str, **scope: Any) -> int:
        """Order a fault, as a `Fault` or as text with `model`, `provider`, `path`, `count`; its number."""
        return self._state.book.add(Fault.parse(fault, **scope) if isinstance(fault, str) else fault)

    def clear_faults(self, number: int | None = None) -> int:
        """Take back one fault, or all; says how many."""
        return self._state.book.clear(number)

    @contextmanager
    def outage(self, model: str | None = None, fault: str = "503") -> Iterator[None]:
        """While inside, one model (None: all) answers with a fault."""
        number = self.fault(fault, model=model)
        try:
            yield
        finally:
            self.clear_faults(number)

    def reset(self) -> None:
        """Counts and requests to nothing, faults back to the options' own; ids go on, so they stay unique."""
        self._state.ledger.reset()
        self._state.book.reset()


def serve(
    options: SimulatorOptions | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    as_json: bool = False,
    out: TextIO | None = None,
) -> None:
    """Run until interrupted (Ctrl+C returns). `port` 0 takes a free one.

    When the server is ready one line goes to `out` (stdout): the addresses for each SDK, or with `as_json`
    `{"schema":1,"url":"http://…"}`. Raises `OSError` when the address cannot be had, `MissingExtraError`
    without the extra.
    """
    stream = out or sys.stdout
    url = ""

    def ready() -> None:
        line = (
            f"simulator ready: OPENAI_BASE_URL={url}/v1 ANTHROPIC_BASE_URL={url} (counts: {url}/_sim/counts)"
        )
        stream.write(
            (json.dumps({"schema": 1, "url": url}, separators=(",", ":")) if as_json else line) + "\n"
        )
        stream.flush()

    server = _server(Simulator(options).app, ready)
    bound = _bind(host, port)
    url = _url(bound)
    try:
        server.run(sockets=[bound])
    except KeyboardInterrupt:
        return
    finally:
        bound.close()


class _Listener:
    """A uvicorn server on a thread of its own."""

    def __init__(self, app: App) -> None:
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        # Before the socket: without uvicorn there is nothing to close.
        self._server = _server(app, self._started)
        self._socket = _bind("127.0.0.1", 0)
        self.url = _url(self._socket)
        self._thread = threading.Thread(target=self._run, name="underlay-simulator", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(_PATIENCE) or self._loop is None:
            raise UnderlayError(f"the simulator did not start within {_PATIENCE:g} s")

    def stop(self) -> None:
        self._server.should_exit = True
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._break_all)
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            raise UnderlayError(f"the simulator did not stop within {_PATIENCE:g} s")

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._ready.set()
            self._socket.close()

    def _started(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready.set()

    def _break_all(self) -> None:
        # A call that hangs would hold the server's end for ever.
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()


def _server(app: App, ready: Callable[[], None]) -> Any:
    """A quiet uvicorn server that calls `ready` once it listens and lets the app close connections."""
    try:
        import uvicorn
        from uvicorn.protocols.http.h11_impl import H11Protocol
    except ImportError as missing:
        raise MissingExtraError("simulator", "uvicorn") from missing

    def protocol(**arguments: Any) -> Any:
        made: Any = H11Protocol(**arguments)
        made.app = _with_close(made.app, lambda: made.transport.close())
        return made

    told = threading.Event()

    async def notify() -> None:
        if not told.is_set():
            told.set()
            ready()

    config = uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]  # a factory serves where a class is named
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
        # Longer than a client keeps a connection: one that both give up in the same second loses a call.
        timeout_keep_alive=75,
        callback_notify=notify,
    )
    return uvicorn.Server(config)


def _with_close(app: App, close: Callable[[], None]) -> App:
    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("extensions", {})[CLOSE] = close
        await app(scope, receive, send)

    return closing


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, because asyncio turns Nagle's algorithm off only then; a call would take 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(2048)
    except BaseException:
        bound.close()
        raise
    return bound


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
