"""Who fetches what, right now: one lead for each key and home, and who waits for it.

Decides under its lock and wakes outside it. A lead is a call that fetches an answer; calls of the same home
that want the same answer follow it. Calls elsewhere (another event loop, another process) meet at the lease
in the store.
"""

from __future__ import annotations

import math
from enum import Enum
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from underlay.pipeline.ports import Ports, Timeouts
    from underlay.pipeline.watch import Watched

__all__ = ["Fate", "Flights", "Lead"]


class Lender(Protocol):
    """What a lease was taken from."""

    def free(self, key: bytes, token: int) -> None:
        """Give it back."""
        ...


class Joinable(Protocol):
    """A body that others may read."""

    def expect(self, readers: int) -> None:
        """So many are about to join, or (less than zero) do not come."""
        ...


class Fate(Enum):
    """Of a lead that has neither body nor error: it is `SENDING` and has no head yet, or it was not sent and
    each follower goes its own way (`APART`), or it is `GONE`, by its own end or because of an entry of the
    store, and followers ask again."""

    SENDING = "sending"
    APART = "apart"
    GONE = "gone"


Outcome = Fate | Joinable | Exception
"""What became of a lead: a body that can be joined, the error that its followers share, or neither."""

# A member is slow to reach through its class (CPython 3.11), and every call asks.
_SENDING = Fate.SENDING
_NEVER = math.inf


class Lead:
    """A call that fetches an answer, as others see it. `token` is that of its lease, 0 without one. `leases`
    false: another call of this home has the lease, and nobody waits for a flight that only they may drive.
    `contended`: others may be fetching the same, in another home or in another process. `seen`: when it gave
    its last sign of life, its beginning or a frame; in the future while it waits for its turn."""

    __slots__ = (
        "__weakref__",
        "contended",
        "home",
        "key",
        "leases",
        "outcome",
        "renew_at",
        "seen",
        "thread",
        "timeouts",
        "token",
        "waiting",
        "watched",
    )

    def __init__(self, key: bytes, ports: Ports, watched: Watched) -> None:
        self.seen = ports.now()
        self.key = key
        self.home: Hashable = ports.home
        self.thread = get_ident()
        self.timeouts: Timeouts = ports.timeouts
        self.watched = watched
        self.leases = True
        self.contended = False
        self.outcome: Outcome = _SENDING
        self.token = 0
        self.renew_at = _NEVER
        self.waiting: dict[Ports, object] | None = None

    def outlasts(self, mine: Timeouts) -> bool:
        """Whether its read timeout is at least the follower's: a shorter one would end the answer for
        both."""
        return self.timeouts.read is None or (mine.read is not None and self.timeouts.read >= mine.read)


class Flights:
    """The leads of one process, by key. There may be several of one home: those whose timeouts were too short
    for whoever came next. A list of them is never left empty, and is changed under the lock alone; the first
    of a key comes with its list. `shared`: other processes ask the same store."""

    def __init__(self, *, shared: bool = False) -> None:
        self._lock = Lock()
        self._shared = shared
        self._leads: dict[bytes, list[Lead]] = {}
        self._elsewhere: dict[bytes, list[tuple[Ports, object]]] = {}
        self.landings = 0
        """Answers that were stored since the start: whoever missed the cache before one came looks again."""

    def enter(self, key: bytes, ports: Ports, watched: Watched) -> tuple[Lead, bool]:
        """The lead of this key in the caller's home, and whether it is the caller itself: when there is none,
        or none that it may follow."""
        mine = Lead(key, ports, watched)
        mine.contended = self._shared
        alone = [mine]
        # One step, and never half done: a key that nobody else asks for needs no lock.
        if self._leads.setdefault(key, alone) is alone:
            return mine, True
        with self._lock:
            leads = self._leads.setdefault(key, alone)
            if leads is alone:  # those that were there have ended meanwhile
                return mine, True
            for lead in leads:
                if lead.home != mine.home:
                    mine.contended = True
                elif lead.outlasts(ports.timeouts):
                    return lead, False
                else:
                    mine.leases = mine.leases and not lead.leases
            leads.append(mine)
            return mine, True

    def rival(self, mine: Lead) -> Lead | None:
        """The call of another home that fetches the same and has the right to a lease it did not take, for it
        met nobody. One that is contended sees to its own: it may be waiting for it."""
        with self._lock:
            for lead in self._leads.get(mine.key, ()):
                if lead.home != mine.home and lead.leases and not lead.contended:
                    return lead
            return None

    def lend(self, lead: Lead, token: int, renew_at: float) -> bool:
        """Give a lead the lease that somebody else took for it. False: it has ended, or has one."""
        with self._lock:
            if lead.token or lead not in self._leads.get(lead.key, ()):
                return False
            lead.token, lead.renew_at = token, renew_at
            return True

    def leads_here(self, key: bytes, home: Hashable) -> bool:
        """Whether a call of another home leads this key in the caller's own thread: until the caller goes on,
        nobody else drives it."""
        thread = get_ident()
        with self._lock:
            return any(lead.thread == thread and lead.home != home for lead in self._leads.get(key, ()))

    def wait(self, lead: Lead, ports: Ports) -> object | None:
        """A waiter for the lead's head, or None when it is sending no more."""
        with self._lock:
            waiter = ports.waiter()
            if lead.waiting is None:
                lead.waiting = {}
            lead.waiting[ports] = waiter
            # Looked at last: who brings the head says so first, and then looks for those who wait.
            if lead.outcome is _SENDING:
                return waiter
            del lead.waiting[ports]
            return None

    def leave(self, lead: Lead, ports: Ports) -> None:
        """Who waited for the lead's head comes no more: its body does not expect them."""
        with self._lock:
            if lead.waiting is not None and lead.waiting.pop(ports, None) is not None:
                return
            outcome = lead.outcome
        if not isinstance(outcome, Fate | Exception):
            outcome.expect(-1)

    def held(self, lead: Lead, until: float) -> None:
        """The lead waits for its turn, at most until then: it is alive, and its head is not late."""
        lead.seen = until

    def sent(self, lead: Lead, now: float) -> None:
        """Its turn has come: from now on its head can be late, so who waits for that looks anew."""
        with self._lock:
            lead.seen = now
            waiting = list(lead.waiting.items()) if lead.waiting else ()
        _wake(waiting)

    def wait_elsewhere(self, key: bytes, ports: Ports) -> object:
        """A waiter for the next landing of this key in this process, in whichever home."""
        with self._lock:
            waiter = ports.waiter()
            self._elsewhere.setdefault(key, []).append((ports, waiter))
            return waiter

    def leave_elsewhere(self, key: bytes, waiter: object) -> None:
        """Who waited for a landing waits no more."""
        with self._lock:
            left = [waiting for waiting in self._elsewhere.get(key, ()) if waiting[1] is not waiter]
            if left:
                self._elsewhere[key] = left
            else:
                self._elsewhere.pop(key, None)

    def answered(self, lead: Lead, body: Joinable) -> None:
        """The head came: the body can be joined, and is told how many will."""
        lead.outcome = body
        if lead.waiting is None:  # nobody has come, and who comes now finds the body: no lock
            return
        with self._lock:
            waiting, lead.waiting = lead.waiting, None
        if waiting:
            body.expect(len(waiting))  # before the first of them can come
            _wake(waiting.items())

    def ended(self, lead: Lead, outcome: Fate | Exception, lender: Lender) -> None:
        """The lead ends without a body. Its lease goes back to the lender."""
        self.landed(lead, lender, stored=False)
        with self._lock:
            lead.outcome = outcome
            waiting, lead.waiting = lead.waiting, None
        if waiting:
            _wake(waiting.items())

    def landed(self, lead: Lead, lender: Lender, *, stored: bool) -> None:
        """The lead's body is over. A lease that the store has not ended goes back to the lender."""
        with self._lock:
            self.landings += stored
            if self._leads.get(lead.key) == [lead]:
                del self._leads[lead.key]
            else:
                self._discard(lead)
            if not (self._elsewhere or lead.token):
                return
            elsewhere = self._elsewhere.pop(lead.key, None)
        if lead.token:
            # From now on it can be lent none. Who came to wait before it was free is woken too.
            token, lead.token = lead.token, 0
            lender.free(lead.key, token)
            with self._lock:
                elsewhere = [*(elsewhere or ()), *self._elsewhere.pop(lead.key, ())]
        if elsewhere:
            _wake(elsewhere)

    def forget(self, lead: Lead) -> None:
        """Nobody can join it any more: the next to ask leads."""
        with self._lock:
            self._discard(lead)

    def _discard(self, lead: Lead) -> None:
        # In place: who enters without the lock must find the list that the others are in.
        leads = self._leads.get(lead.key)
        if leads is not None and lead in leads:
            leads.remove(lead)
            if not leads:
                del self._leads[lead.key]


def _wake(waiting: Iterable[tuple[Ports, object]]) -> None:
    for ports, waiter in waiting:
        ports.wake(waiter)
