"""One reader's hold on a body, and the body that readers share.

Decisions fall in `core.flight` under the body's lock; pulling, closing and storing happen outside it. Frames
reach a reader as they came, before anything is read off them that could fail.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from underlay.core.flight import WAIT, Flight, Frame, LeftError, Over, Pull
from underlay.telemetry.attributes import Ending, Stage

if TYPE_CHECKING:
    from underlay.core.cache import Entry
    from underlay.pipeline.attempt import Attempt
    from underlay.pipeline.call import Call
    from underlay.pipeline.engine import Engine
    from underlay.pipeline.ports import Mishap, Ports, Upstream

__all__ = ["Body", "Reader"]


_GIVEN_UP = frozenset((Ending.CLOSED, Ending.DROPPED, Ending.CANCELLED))


class Body:
    """A flight with what it needs of the world: its upstream, its books, and who waits for its next frame."""

    __slots__ = ("_attempt", "_engine", "_key", "_waiting", "error_type", "flight", "lock", "upstream")

    def __init__(
        self,
        engine: Engine,
        flight: Flight,
        upstream: Upstream | None = None,
        attempt: Attempt | None = None,
        key: bytes = b"",
    ) -> None:
        self.flight = flight
        self.lock = Lock()
        self.upstream = upstream
        self.error_type = ""
        self._attempt = attempt
        self._engine = engine
        self._key = key
        self._waiting: list[tuple[Ports, object]] = []

    def enlist(self, ports: Ports) -> object:
        """A waiter for the next change. Called under the lock."""
        waiter = ports.waiter()
        self._waiting.append((ports, waiter))
        return waiter

    async def pull(self, ports: Ports) -> None:
        """Bring the next frame, or the end. An exception ends the flight and is raised to whoever pulls
        alone."""
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 only a flight with an upstream asks for a pull
        try:
            data = await ports.pull(upstream)
        except BaseException as error:
            await self._end(ports, Ending.FAILED, error, ports.describe(error))
            raise
        if data is None:
            await self._end(ports, Ending.COMPLETE)
            return
        if self._attempt is not None:
            self._attempt.feed(data)
        with self.lock:
            self.flight.pulled(data)
            deserted = self.flight.deserted
        # Whoever waits on this pull enlisted before it was marked as done: nobody is missed without the lock.
        if self._waiting:
            self._wake()
        if deserted:
            await self.desert(ports)

    async def desert(self, ports: Ports) -> None:
        """The last reader left a body that runs on."""
        await self._end(ports, Ending.CLOSED)

    def dropped(self, now: float) -> None:
        """The last reader was garbage-collected at `now`: the books are closed, the connection is left to its
        owner's collector."""
        self._settle(now, Ending.DROPPED, None)
        with self.lock:
            self.flight.end(Ending.DROPPED)

    async def _end(
        self, ports: Ports, ending: Ending, error: BaseException | None = None, mishap: Mishap | None = None
    ) -> None:
        """Settle the books, store a clean answer, end the flight, wake who waits and let go of upstream: in
        this order, so that a call that comes after the end finds the entry."""
        if mishap is not None:
            ending = mishap.ending
        try:
            ending, entry = self._settle(ports.now(), ending, mishap)
            if entry is not None:
                await self._keep(ports, entry)
        finally:
            with self.lock:
                self.flight.end(ending, error if ending is not Ending.COMPLETE else None)
            self._wake()
            if self.upstream is not None and not isinstance(error, GeneratorExit):
                await self._let_go(ports, self.upstream, quietly=error is not None)

    def _settle(self, now: float, ending: Ending, mishap: Mishap | None) -> tuple[Ending, Entry | None]:
        if self._attempt is None:
            return ending, None
        ending, self.error_type, entry = self._attempt.finish(ending, now, self.flight, mishap)
        return ending, entry

    async def _keep(self, ports: Ports, entry: Entry) -> None:
        try:
            await ports.store(self._key, entry)
        except Exception as error:  # noqa: BLE001 never break the app
            self._engine.faults.report(Stage.RECORD, error)

    async def _let_go(self, ports: Ports, upstream: Upstream, *, quietly: bool) -> None:
        """Close upstream. `quietly`: the reader is about to be given the error that matters, and a second one
        must not hide it.

        A coroutine that is being closed (GeneratorExit) cannot wait, so it never comes here.
        """
        try:
            await ports.close(upstream)
        except Exception:
            if not quietly:
                raise

    def _wake(self) -> None:
        with self.lock:
            waiting, self._waiting = self._waiting, []
        for ports, waiter in waiting:
            ports.wake(waiter)


class Reader:
    """What a transport's body stream holds: `read` until None, `close` at any time and any number of
    times."""

    __slots__ = ("_body", "_call", "_number", "_ports")

    def __init__(self, body: Body, call: Call, ports: Ports) -> None:
        self._body = body
        self._call = call
        self._ports = ports
        with body.lock:
            self._number = body.flight.join()

    async def read(self) -> bytes | None:
        """The next frame, or None at the end. Raises what ended the body, as the client family raised it."""
        body, ports = self._body, self._ports
        while True:
            with body.lock:
                step = body.flight.step(self._number)
                waiter = body.enlist(ports) if step is WAIT else None
            if isinstance(step, Frame):
                if self._call.stream:
                    self._call.chunk(ports.now())
                return step.data
            if isinstance(step, Over):
                self._over(step)
                return None
            try:
                if waiter is not None:
                    await ports.wait(waiter)
                elif isinstance(step, Pull) and step.shared:
                    ports.spawn(_quietly(body, ports))
                else:
                    await body.pull(ports)
            except BaseException as error:
                mishap = ports.describe(error)
                self._call.end(mishap.ending, ports.now(), body.error_type or mishap.name)
                raise

    def _over(self, over: Over) -> None:
        error = over.error
        if over.ending in _GIVEN_UP if error is None else not isinstance(error, Exception):
            # Another reader's cancellation, or its interrupt, is not this one's; and a body that was closed
            # under its reader did not end.
            error = LeftError()
        if error is not None:
            mishap = self._ports.describe(error)
            self._call.end(mishap.ending, self._ports.now(), self._body.error_type or mishap.name)
            raise error
        self._call.end(over.ending, self._ports.now(), self._body.error_type)

    async def close(self) -> None:
        """This reader has done. The last one to leave a running body closes upstream."""
        body, ports = self._body, self._ports
        with body.lock:
            early = body.flight.behind(self._number)
            last = body.flight.leave(self._number)
        try:
            if last:
                await body.desert(ports)
        finally:
            over = body.flight.over
            ending = over.ending if over is not None and not early else Ending.CLOSED
            self._call.end(ending, ports.now(), body.error_type)

    def drop(self, now: float) -> None:
        """This reader was garbage-collected at `now`. Book-keeping only: no I/O from a finaliser."""
        body = self._body
        with body.lock:
            early = body.flight.behind(self._number)
            last = body.flight.leave(self._number)
        if last:
            body.dropped(now)
        over = body.flight.over
        whole = over is not None and over.ending is Ending.COMPLETE and not early
        self._call.end(Ending.COMPLETE if whole else Ending.DROPPED, now, body.error_type)


async def _quietly(body: Body, ports: Ports) -> None:
    """A pull for all readers: what it raises is in the flight, for each of them to meet."""
    try:
        await body.pull(ports)
    except Exception:  # noqa: BLE001 the flight has it
        return
