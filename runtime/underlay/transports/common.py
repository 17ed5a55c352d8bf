"""What the four adapters share: the parts of the ports that are no client family's business."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from underlay.pipeline.ports import Mishap
from underlay.telemetry.attributes import Ending, Verdict

if TYPE_CHECKING:
    from collections.abc import Coroutine, Hashable, Sequence
    from contextvars import Token

    from underlay.core.cache import Entry
    from underlay.pipeline.engine import Engine
    from underlay.pipeline.reader import Reader
    from underlay.transports.homes import Home

__all__ = ["BasePorts", "drop", "enter_send", "leave_send", "sending"]

sending: ContextVar[Sequence[bool]] = ContextVar("underlay_sending", default=())
"""Not empty while an attempt of ours is being sent in this context: a transport that forwards through an
inner client passes the seam again, and must find it open."""

Sent = tuple["Token[Sequence[bool]]", list[bool]]


def enter_send() -> Sent:
    """Open the seam for this context."""
    open_ = [True]
    return sending.set(open_), open_


def leave_send(sent: Sent) -> None:
    """Close it again, for tasks too that were started meanwhile and took the context with them. A coroutine
    that is closed by the garbage collector may end in another context, where there is nothing to reset."""
    token, open_ = sent
    open_.clear()
    try:
        sending.reset(token)
    except ValueError:
        return


class BasePorts:
    """Time, store and waiting of one call. The families add `send`, `pull`, `close` and their exceptions."""

    __slots__ = ("_engine", "_home", "sent")

    def __init__(self, engine: Engine, home: Home) -> None:
        self._engine = engine
        self._home = home
        self.sent = False

    @property
    def home(self) -> Hashable:
        return self._home.identity

    def now(self) -> float:
        return self._engine.clock.now()

    async def load(self, key: bytes) -> Entry | None:
        return self._engine.state.store.get(key, self._engine.clock.now())

    async def store(self, key: bytes, entry: Entry) -> bool:
        return self._engine.state.store.put(key, entry, self._engine.clock.now())

    def waiter(self) -> object:
        return self._home.waiter()

    async def wait(self, waiter: object) -> None:
        await self._home.wait(waiter)

    def wake(self, waiter: object) -> None:
        self._home.wake(waiter)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._home.spawn(work)

    def describe_common(self, error: BaseException) -> Mishap:
        """What an exception means that belongs to no client family."""
        name = type(error).__name__
        if self._home.cancelled(error) or isinstance(error, KeyboardInterrupt | GeneratorExit):
            return Mishap(Ending.CANCELLED, Verdict.NOTHING, "cancelled")
        # TimeoutError is an OSError; anything else that a foreign transport raises says nothing about the
        # provider.
        return Mishap(Ending.FAILED, Verdict.FAILURE if isinstance(error, OSError) else Verdict.NOTHING, name)


def drop(engine: Engine, reader: Reader) -> None:
    """Called from a finaliser: leave the reader for the next caller to settle. Takes no lock and runs no code
    of others."""
    engine.state.dropped.append((reader, engine.clock.now()))
