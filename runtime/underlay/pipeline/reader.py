"""One reader's hold on a body, and the body that readers share.

Decisions fall in `core.flight` under the body's lock; pulling, closing and storing happen outside it. Frames
reach a reader as they came, before anything is read off them that could fail.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from underlay.core.flight import GIVE_WAY, WAIT, Flight, Frame, LeftError, Over, Pull
from underlay.pipeline.flights import wake
from underlay.telemetry.attributes import CacheResult, Ending, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from underlay.core.cache import Entry
    from underlay.pipeline.attempt import Attempt
    from underlay.pipeline.call import Call
    from underlay.pipeline.engine import Engine
    from underlay.pipeline.flights import Lead
    from underlay.pipeline.ports import Mishap, Ports, Upstream
    from underlay.telemetry.events import Usage

__all__ = ["Body", "Reader"]

# A member is slow to reach through its class (CPython 3.11), and every call asks.
_FAILED, _COMPLETE, _CLOSED, _DROPPED = Ending.FAILED, Ending.COMPLETE, Ending.CLOSED, Ending.DROPPED
_COALESCED = CacheResult.COALESCED

# Seconds for which a follower that has had the beginning gives way to those who have had nothing. They need
# their turn, and no more; but a signal's handler may read in the thread of one.
_COURTESY = 1.0


class Body:
    """A flight with what it needs of the world: its upstream, its books, and who waits for its next frame.

    `head` is the reply's; `open_` says that there is an upstream to pull the body from, and to close. `lead`
    is the call that fetches it, where others may join, and `seat` its place in its lane, until it lands.
    `spent` is what the provider charged for it, known at the end. `stop` ends the pull that was last made for
    all, where its home can.
    """

    __slots__ = (
        "_attempt",
        "_engine",
        "_giving_way",
        "_key",
        "_late",
        "_waiting",
        "error_type",
        "flight",
        "head",
        "lead",
        "lock",
        "seat",
        "spent",
        "stop",
        "upstream",
    )

    def __init__(
        self,
        engine: Engine,
        flight: Flight,
        upstream: Upstream | None = None,
        attempt: Attempt | None = None,
        key: bytes = b"",
        *,
        open_: bool = True,
    ) -> None:
        self.flight = flight
        self.lock = Lock()
        self.head = upstream
        self.upstream = upstream if open_ else None
        self.error_type = ""
        self.spent: tuple[float | None, Usage | None] | None = None
        self.lead: Lead | None = None
        self.seat: Call | None = None
        self.stop: Callable[[], object] = _nothing
        self._attempt = attempt
        self._engine = engine
        self._key = key
        self._late: Mishap | None = None
        self._waiting: list[tuple[Ports, object]] = []
        self._giving_way: list[tuple[Ports, object]] | None = None

    @property
    def stream(self) -> bool:
        """Whether the reply is a stream of events."""
        return self._attempt is not None and self._attempt.stream

    @property
    def terminated(self) -> bool:
        """Whether the terminal event of a stream was pulled: what it has to say is here."""
        return self._attempt is not None and self._attempt.terminated

    def so_far(self) -> tuple[float | None, Usage | None] | None:
        """What the provider charges for a stream that has said it, before its books are closed."""
        try:
            return self._attempt.so_far() if self._attempt is not None else None
        except Exception as error:  # noqa: BLE001 never break the app
            self._engine.faults.report(Stage.RECORD, error)
            return None

    def expect(self, followers: Iterable[Ports]) -> None:
        """They wait for the head and are about to join."""
        with self.lock:
            self.flight.expect(followers)

    def arrived(self, follower: Ports) -> None:
        """It has had its first frame, or does not come."""
        with self.lock:
            self.flight.arrived(follower)
        if self._giving_way:
            self.go_on()

    def enlist(self, ports: Ports, *, gives_way: bool = False) -> object:
        """A waiter for the next change, or for when nobody gives way any more. Called under the lock."""
        waiter = ports.waiter()
        if gives_way:
            self._giving_way = self._giving_way or []
            self._giving_way.append((ports, waiter))
        else:
            self._waiting.append((ports, waiter))
        return waiter

    def hurry(self) -> None:
        """Nobody gives way any longer."""
        with self.lock:
            self.flight.hurry()
        self.go_on()

    def go_on(self) -> None:
        """Wake those who gave way, when nobody has to."""
        waiting: list[tuple[Ports, object]] | None = None
        try:
            with self.lock:
                if self.flight.courteous:
                    return
                waiting, self._giving_way = self._giving_way, None
            wake(waiting or ())
        except BaseException:  # an interrupt: nobody else would wake them
            wake(waiting or ())
            raise

    async def pull(self, ports: Ports, alone: int = 0) -> bytes | Over | None:
        """Bring the next frame, or the end. An exception ends the flight and is raised to whoever pulls
        alone: the number of that reader, who is given at once what came. None: there may be others, and each
        asks the flight."""
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 only a flight with an upstream asks for a pull
        given = deserted = False
        data = lead = None
        token = 0  # of the lease that is to be renewed
        try:
            self._late = None
            data = await ports.pull(upstream)
            if data is not None:
                if self._attempt is not None:
                    self._attempt.feed(data)
                lead = self.lead  # read once: after the pull another thread may bring the end
                if lead is not None and (company := lead.company) is not None:
                    company.seen = now = ports.now()
                    if now >= company.renew_at:
                        token = company.token
                with self.lock:
                    # Who is cancelled as it renews has not had the frame.
                    given = self.flight.pulled(data, 0 if token else alone)
                    deserted = self.flight.desert()
        except BaseException as error:  # an interrupt after the frame came must end the pull as well
            if data is not None and self._attempt is not None:
                self._attempt.lose()
            late = self._late if not isinstance(error, Exception) else None
            await self._end(ports, _FAILED, error, late or ports.describe(error))
            raise
        if data is None:
            await self._end(ports, _COMPLETE)
            return self.flight.over if alone else None
        # Whoever waits on this pull enlisted before it was marked as done: nobody is missed without the lock.
        if self._waiting:
            self._wake()
        if self._giving_way:
            self.go_on()
        if deserted:
            await self.desert(ports)
        elif lead is not None:
            if not self.flight.whole:  # too large to be shared or stored: nobody need wait for it
                self.lead = None
                self._engine.state.flights.landed(lead, ports, 0)
            elif token:
                await self._renew(ports, lead, token)
        return data if given else None

    async def _renew(self, ports: Ports, lead: Lead, token: int) -> None:
        """The answer runs on: so does the right to store it. With the token as it was: without one, a lease
        that has ended meanwhile would be taken anew, and given back by nobody."""
        ttl = self._engine.settings.coalesce.wait_timeout
        self._engine.state.flights.meet(lead).renew_at = ports.now() + ttl / 2
        await ports.lease(lead.key, ttl, token)

    def claim(self, reader: int) -> bool:
        """Take the right to end the body."""
        with self.lock:
            return self.flight.claim(reader)

    async def conclude(self, ports: Ports) -> None:
        """The whole body is here: settle, and store it."""
        await self._end(ports, _COMPLETE)

    async def desert(self, ports: Ports) -> None:
        """The last reader left a body that runs on."""
        await self._end(ports, _CLOSED)

    def halt(self) -> None:
        """A reader left while a pull is under way: when it was the last, a pull that was made for all ends
        with it."""
        with self.lock:
            deserted = self.flight.desert()
        if deserted:
            self.stop()

    def late(self, mishap: Mishap) -> None:
        """A reader has waited for the next frame as long as it may. When it is the only one, it is upstream
        that ran out of time, and no reader's whim that ends the pull."""
        with self.lock:
            if self.flight.readers == 1:
                self._late = mishap

    def dropped(self, now: float) -> None:
        """The last reader was garbage-collected at `now`: the books are closed, the connection is left to its
        owner's collector."""
        self._settle(now, _DROPPED, None)
        with self.lock:
            self.flight.end(_DROPPED)
        self._land(now, None, _DROPPED, 0)
        self._wake()

    async def _end(
        self, ports: Ports, ending: Ending, error: BaseException | None = None, mishap: Mishap | None = None
    ) -> None:
        """Settle the books, store a clean answer, end the flight, wake who waits and let go of upstream: in
        this order, so that a call that comes after the end finds the entry."""
        if mishap is not None:
            ending = mishap.ending
        stored = False
        try:
            ending, entry = self._settle(ports.now(), ending, mishap)
            if entry is not None:
                stored = await self._keep(ports, entry)
        finally:
            try:
                await self._ended(ports, ending, error, stored)
            except (KeyboardInterrupt, SystemExit):  # what it struck is done once more
                await self._ended(ports, ending, error, stored)
                raise

    async def _ended(self, ports: Ports, ending: Ending, error: BaseException | None, stored: bool) -> None:
        """Nothing comes any more: say so to all, and let go of upstream. Once, however often."""
        with self.lock:
            self.flight.end(ending, error if ending is not _COMPLETE else None)
        self._land(ports.now(), ports, ending, stored)
        if self._waiting:  # after the end nobody enlists
            self._wake()
        # A coroutine that is being closed (GeneratorExit) cannot wait.
        if self.upstream is not None and not isinstance(error, GeneratorExit):
            try:
                await ports.close(self.upstream)
            except Exception:
                # The reader is about to be given the error that matters: a second must not hide it.
                if error is None:
                    raise

    def _settle(self, now: float, ending: Ending, mishap: Mishap | None) -> tuple[Ending, Entry | None]:
        if self._attempt is None:
            return ending, None
        ending, self.error_type, entry = self._attempt.finish(ending, now, self.flight, mishap)
        self.spent = self._attempt.spent
        return ending, entry

    async def _keep(self, ports: Ports, entry: Entry) -> bool:
        lead = self.lead
        company = lead.company if lead is not None else None
        token = company.token if company is not None else 0
        try:
            stored = await ports.store(self._key, entry, token)
            if stored and company is not None:
                company.token = 0  # the lease ended with it
            return stored
        except Exception as error:  # noqa: BLE001 never break the app
            self._engine.faults.report(Stage.RECORD, error)
            return False

    def _land(self, now: float, ports: Ports | None, ending: Ending, stored: int) -> None:
        """The flight is over: nobody follows it any more, and what waited for it goes on. Once."""
        lead, seat = self.lead, self.seat
        try:
            if lead is not None:
                # From a finaliser's books there are no ports to wait with: the store is asked as it is.
                lender = self._engine if ports is None else ports
                self._engine.state.flights.landed(lead, lender, stored)
            if seat is not None:
                attempt = self._attempt if ending is _COMPLETE else None
                latency = None if attempt is None else now - attempt.left
                self._engine.state.windows.landed(seat, now, latency)
            self.lead = self.seat = None  # last: who is interrupted before does it all again
        except Exception as error:  # noqa: BLE001 never break the app
            self._engine.faults.report(Stage.RECORD, error)

    def _wake(self) -> None:
        waiting: list[tuple[Ports, object]] | None = None
        try:
            with self.lock:
                waiting, self._waiting = self._waiting, []
            wake(waiting or ())
        except BaseException:  # an interrupt: nobody else would wake them
            wake(waiting or ())
            raise

    def give_back(self, reader: int) -> None:
        """This reader was struck before it came to pull, or before it could wake who waits for what it
        pulled."""
        with self.lock:
            self.flight.give_back(reader)
        self._wake()


class Reader:
    """What a transport's body stream holds: `read` until None, `close` at any time and any number of
    times."""

    __slots__ = ("_body", "_call", "_follows", "_number", "_ports", "_primed")

    def __init__(self, body: Body, call: Call, ports: Ports, *, follows: bool = False) -> None:
        self._body = body
        self._follows = follows
        self._call = call
        self._ports = ports
        self._primed: bytes | Over | None = None
        if follows:
            with body.lock:
                self._number = body.flight.join(ports)
        else:  # who brings a body is the first that knows it
            self._number = body.flight.join()

    @classmethod
    def joining(cls, body: Body, call: Call, ports: Ports) -> Reader | None:
        """A reader of a body that others read, or None when it can be joined no more."""
        try:
            return cls(body, call, ports, follows=True)
        except ValueError:
            return None

    async def prime(self) -> bool:
        """Have the first bytes, or the end, before anybody is told that there is a reply. False: the answer
        was given up by those who fetched it before this reader had a byte."""
        try:
            self._primed = await self._step()
        except GeneratorExit:
            self.drop(self._ports.now())
            raise
        except BaseException:
            await self.close()
            raise
        if isinstance(self._primed, Over) and self._primed.given_up:
            self._leave()
            return False
        return True

    async def read(self) -> bytes | None:
        """The next frame, or None at the end. Raises what ended the body, as the client family raises it."""
        step = self._primed
        if step is None:
            step = await self._step()
        else:
            self._primed = None
        if isinstance(step, Over):
            self._over(step)
            return None
        if self._call.stream:
            self._call.chunk(self._ports.now())
        return step

    async def _step(self) -> bytes | Over:
        """What comes next, pulled by this reader or awaited from who pulls. Its own read timeout bounds the
        wait."""
        body, ports = self._body, self._ports
        until: float | None = None
        while True:
            waiter = None
            try:
                with body.lock:
                    step = body.flight.step(self._number)
                    gives_way = step is GIVE_WAY
                    waiter = body.enlist(ports, gives_way=gives_way) if step is WAIT or gives_way else None
                if isinstance(step, Frame):
                    return step.data
                if isinstance(step, Over):
                    return step
                if gives_way:
                    await self._give_way(waiter)
                elif waiter is not None:
                    read = ports.timeouts.read
                    if until is None:
                        until = ports.now() + read if read is not None else None
                    elif ports.now() >= until:
                        overdue = ports.timed_out()
                        body.late(ports.describe(overdue))
                        raise overdue
                    await ports.wait(waiter, until)
                elif isinstance(step, Pull) and step.shared:
                    body.stop = ports.spawn(_quietly(body, ports))
                elif (given := await body.pull(ports, self._number)) is not None:
                    return given
            except BaseException as error:
                if waiter is None:
                    body.give_back(self._number)
                mishap = ports.describe(error)
                self._call.end(mishap.ending, ports.now(), body.error_type or mishap.name)
                if self._follows and waiter is None and isinstance(error, Exception):
                    raise ports.adopt(error) from error  # the body may be another client family's
                raise

    async def _give_way(self, waiter: object) -> None:
        """Let those go first who have had nothing of this answer."""
        ports = self._ports
        until = ports.now() + _COURTESY
        await ports.wait(waiter, until)
        if ports.now() >= until:
            self._body.hurry()

    def _over(self, over: Over) -> None:
        """The body's end, as this reader is given it: an exception of its own, for one that several threads
        raise would gather the tracebacks of all."""
        if over.error is None and over.ending is _COMPLETE:
            self._end(_COMPLETE)
            return
        error: Exception | None = None
        if isinstance(over.error, Exception) and not over.given_up:
            error = self._ports.adopt(over.error)
        elif over.error is not None or over.given_up:
            # Another reader's cancellation, or its interrupt, is not this one's; and a body that was closed
            # under its reader did not end.
            error = LeftError()
        if error is not None:
            mishap = self._ports.describe(error)
            self._end(mishap.ending, mishap.name)
            raise error
        self._end(over.ending)

    async def close(self) -> None:
        """This reader has done. The last one to leave a running body closes upstream; one that was given its
        terminal event ends it for all, for the others need nothing more of upstream either."""
        try:
            await self._close()
        except (KeyboardInterrupt, SystemExit):  # struck on its way out: nobody else would end the body
            await self._close()
            raise

    async def _close(self) -> None:
        body, ports = self._body, self._ports
        early, last = self._leave()
        whole = not early and body.terminated
        try:
            if last:
                await body.desert(ports)
            elif whole and body.claim(self._number):
                await body.conclude(ports)
            elif body.flight.over is None:
                body.halt()
        finally:
            over = body.flight.over
            ended = over.ending if over is not None else _COMPLETE if whole else _CLOSED
            self._end(_CLOSED if early else ended)

    def drop(self, now: float) -> None:
        """This reader was garbage-collected at `now`. Book-keeping only: no I/O from a finaliser."""
        body = self._body
        early, last = self._leave()
        if last:
            body.dropped(now)
        over = body.flight.over
        whole = over is not None and over.ending is _COMPLETE and not early
        self._call.end(_COMPLETE if whole else _DROPPED, now, body.error_type)

    def _leave(self) -> tuple[bool, bool]:
        """Whether frames were left unread, and whether upstream must be closed now."""
        body = self._body
        with body.lock:
            unread = self._primed is not None and not isinstance(self._primed, Over)
            early = unread or body.flight.behind(self._number)
            return early, body.flight.leave(self._number)

    def _end(self, ending: Ending, name: str = "") -> None:
        body, call = self._body, self._call
        if call.result is _COALESCED and ending is _COMPLETE:
            call.saved = body.spent or body.so_far() or call.saved
        call.end(ending, self._ports.now(), body.error_type or name)


def _nothing() -> None:
    """There is no pull to end."""


async def _quietly(body: Body, ports: Ports) -> None:
    """A pull for all readers: what it raises is in the flight, for each of them to meet."""
    try:
        await body.pull(ports)
    except Exception:  # noqa: BLE001 the flight has it
        return
