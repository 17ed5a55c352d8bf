"""What the four adapters share: the parts of the ports that are no client family's business."""

from __future__ import annotations

import copy
import math
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from underlay.core.flight import ReaderError
from underlay.pipeline.ports import NO_TIMEOUTS, Mishap
from underlay.stores.store import Held
from underlay.telemetry.attributes import Ending, Stage, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Sequence
    from contextvars import Token

    from underlay.core.cache import Entry
    from underlay.pipeline.engine import Engine
    from underlay.pipeline.gate import Gate
    from underlay.pipeline.ports import Now, Ports, Timeouts
    from underlay.pipeline.reader import Reader
    from underlay.stores.store import Lease, Store
    from underlay.transports.homes import Home

__all__ = [
    "BasePorts",
    "Sending",
    "Source",
    "content_type",
    "copied",
    "drop",
    "is_sending",
    "kin",
    "sending",
]

R = TypeVar("R")
E = TypeVar("E", bound=Exception)

sending: ContextVar[Sending | None] = ContextVar("underlay_sending", default=None)
"""The attempt of ours that is being sent in this context."""


class Sending:
    """An attempt that is being sent. A transport that forwards through an inner client passes the seam again,
    and must find it open.

    `whole`: the request may leave in one piece, when all of it is written: none of the app's code is told of
    the steps, but for a log's. `held` are the connections that have some of it; `gate` is what this thread is
    inside of until it waits for anything.

    It is made before anything is done, and left in any case: an interrupt may come at any point of it, and
    what stayed open would keep each later call of its thread from being seen.
    """

    __slots__ = ("gate", "held", "open", "token", "whole")

    def __init__(self) -> None:
        self.open = False
        self.whole = False
        self.gate: Gate | None = None
        self.held: list[Any] = []
        self.token: Token[Sending | None] | None = None

    def enter(self) -> None:
        """Open the seam for this context."""
        self.open = True
        self.token = sending.set(self)

    def go_on(self) -> None:
        """The next thread may send."""
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.leave()

    def leave(self) -> None:
        """Close the seam again, for tasks too that were started meanwhile and took the context with them. A
        coroutine that is closed by the garbage collector may end in another context, where there is nothing
        to reset. `open` is false by now: an interrupt may come as this is entered."""
        self.go_on()
        if self.token is not None:
            with suppress(ValueError):
                sending.reset(self.token)
        for connection in self.held:
            connection.left()


def is_sending() -> bool:
    """Whether an attempt of ours is being sent in this context."""
    attempt = sending.get()
    return attempt is not None and attempt.open


class Source:
    """An upstream body and how far it was read. It is the body's, not one call's: each of its readers pulls
    through ports of its own, and with the threads as home of any client family. `plain`: no code of the app's
    runs as it is read."""

    __slots__ = ("iterator", "plain", "stream")

    def __init__(self, stream: object) -> None:
        self.stream = stream
        self.plain = False
        self.iterator: Any = None


class BasePorts:
    """Time, store and waiting of one call. The families add `send`, `pull`, `close` and their exceptions."""

    __slots__ = ("_engine", "_home", "home", "now", "sent", "timeouts", "waited")

    def __init__(self, engine: Engine, home: Home, timeouts: Timeouts = NO_TIMEOUTS) -> None:
        self._engine = engine
        self._home = home
        self.home: Hashable = home.key
        self.now: Now = engine.clock.now
        self.sent = False
        self.timeouts = timeouts
        self.waited = 0.0

    def pass_gate(self, attempt: Sending, gate: Gate) -> bool:
        """Have threads send first that came before, where there are many. Returns whether there were."""
        at_once = gate.enter()
        if not at_once:
            began = self.now()
            gate.wait()
            self.waited = self.now() - began
        attempt.gate = gate
        return not at_once

    @property
    def deadline(self) -> float:
        remaining = self._home.remaining()
        return math.inf if remaining == math.inf else self.now() + remaining

    @property
    def patient(self) -> bool:
        return self._home.patient()

    def inside(self, ports: Ports) -> bool:
        return False  # what a client sends runs nothing of the app's that could ask through here

    @property
    def _store(self) -> Store[Entry]:
        return self._engine.state.store

    @property
    def poll(self) -> float | None:
        return self._store.poll

    async def load(self, key: bytes) -> Entry | None:
        store, now = self._store, self.now()
        if store.local:
            return store.get(key, now)
        return await self._shared(lambda: store.get(key, now), otherwise=None)

    async def store(self, key: bytes, entry: Entry, token: int = 0) -> bool:
        store, now = self._store, self.now()
        if store.local:
            return store.put(key, entry, now, token)
        return await self._shared(lambda: store.put(key, entry, now, token), otherwise=False)

    async def lease(self, key: bytes, ttl: float, token: int = 0) -> Lease | Held | None:
        store, now = self._store, self.now()
        if store.local:
            return store.lease(key, now, ttl, token)
        wanted = True

        def work() -> Lease | Held:
            leased = store.lease(key, now, ttl, token)
            if not wanted and not token and not isinstance(leased, Held):
                store.free(key, leased.token)  # the caller was cancelled meanwhile, and would never do it
            return leased

        try:
            return await self._shared(work, otherwise=None)
        except BaseException:
            wanted = False
            raise

    def free(self, key: bytes, token: int) -> None:
        store = self._store
        if store.local:
            store.free(key, token)
            return

        async def work() -> None:
            await self._shared(lambda: store.free(key, token), otherwise=None)

        self._home.spawn(work())

    async def _shared(self, work: Callable[[], R], *, otherwise: R) -> R:
        """Ask a store that others share: what it raises is a fault of ours, and the call goes on without
        it."""
        try:
            return await self._home.blocking(work)
        except Exception as error:  # noqa: BLE001 never break the app
            self._engine.faults.report(Stage.CACHE, error)
            return otherwise

    def waiter(self) -> object:
        return self._home.waiter()

    async def wait(self, waiter: object, until: float | None = None) -> None:
        if until is None:
            await self._home.wait(waiter, None)
            return
        clock = self._engine.clock
        call_at = getattr(clock, "call_at", None)
        if call_at is None:
            await self._home.wait(waiter, max(0.0, until - clock.now()))
            return
        cancel = call_at(until, lambda: self._home.wake(waiter))
        try:
            await self._home.wait(waiter, None)
        finally:
            cancel()

    def wake(self, waiter: object) -> None:
        self._home.wake(waiter)

    @property
    def soon(self) -> Callable[[Callable[[], object]], object] | None:
        return self._home.soon

    def spawn(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        return self._home.spawn(work)

    def forget(self) -> None:
        self.sent = False
        self.waited = 0.0

    async def let_go(self) -> None:
        return

    def adopt(self, error: Exception) -> Exception:
        self.sent = True  # the request was sent, by the other call: never twice
        return error if isinstance(error, ReaderError) else copied(error)

    def timed_out(self) -> Exception:
        self.sent = True
        return TimeoutError("underlay: no answer came within the read timeout")

    def describe_common(self, error: BaseException) -> Mishap:
        """What an exception means that belongs to no client family."""
        name = type(error).__name__
        if self._home.cancelled(error) or isinstance(error, KeyboardInterrupt | GeneratorExit):
            return Mishap(Ending.CANCELLED, Verdict.NOTHING, "cancelled")
        # TimeoutError is an OSError; anything else that a foreign transport raises says nothing about the
        # provider.
        return Mishap(Ending.FAILED, Verdict.FAILURE if isinstance(error, OSError) else Verdict.NOTHING, name)


def content_type(raw: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The content type as a family's own `Headers` would give it, which decode every other header first."""
    kind = None
    for name, value in raw:
        if len(name) == 12 and name.lower() == b"content-type":
            kind = value if kind is None else kind + b", " + value
    return None if kind is None else kind.decode("latin-1")


def kin(error: BaseException, base: type[E], family: Any) -> type[E] | None:
    """The class of a client family that says what this exception says: its own, or for one of the other
    family the class of that name. None: it is no transport error. A body may be read through either."""
    if isinstance(error, base):
        return type(error)
    for known in type(error).__mro__:  # an app's own transport may raise a subclass of its own
        if known.__module__.partition(".")[0] in ("httpx", "httpx2"):
            own = getattr(family, known.__name__, None)
            return own if isinstance(own, type) and issubclass(own, base) else None
    return None


def copied(error: Exception) -> Exception:
    """A copy of an exception, or the exception itself where its class cannot be copied: one object that is
    raised in several threads would gather the tracebacks of all."""
    try:
        copy_ = copy.copy(error)
    except Exception:  # noqa: BLE001 any class may refuse, in its own way
        return error
    return copy_ if type(copy_) is type(error) else error


def drop(engine: Engine, reader: Reader) -> None:
    """Called from a finaliser: leave the reader for the next caller to settle. Takes no lock and runs no code
    of others."""
    engine.state.dropped.append((reader, engine.clock.now()))
