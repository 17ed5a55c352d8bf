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
    from collections.abc import Hashable, Iterable, Iterator

    from underlay.pipeline.ports import Ports, Timeouts
    from underlay.pipeline.watch import Watched

__all__ = ["Company", "Fate", "Flights", "Lead", "wake"]


class Lender(Protocol):
    """What a lease was taken from."""

    def free(self, key: bytes, token: int) -> None:
        """Give it back."""
        ...


class Joinable(Protocol):
    """A body that others may read."""

    def expect(self, followers: Iterable[Ports]) -> None:
        """They are about to join."""
        ...

    def arrived(self, follower: Ports) -> None:
        """It has come, or does not come."""
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


class Company:
    """What only a lead has that has met others. `seen`: when a frame came, whoever had it come, or until when
    it waits for its turn. `token` is that of its lease, 0 without one. `leases` false: another call of this
    home has the lease, and nobody waits for a flight that only they may drive. `contended`: others may be
    fetching the same, in another home or in another process. `beside`: the next lead of the same key."""

    __slots__ = ("beside", "contended", "leases", "renew_at", "seen", "token", "waiting")

    def __init__(self) -> None:
        self.seen = 0.0
        self.leases = True
        self.contended = False
        self.token = 0
        self.renew_at = math.inf
        self.waiting: dict[Ports, object] | None = None
        self.beside: Lead | None = None


class Lead:
    """A call that fetches an answer, as others see it: what a call is besides, once it has entered. `last` is
    when its reader was given a frame of a stream, its beginning before. `company` is None while it is
    alone, as almost every call is from its beginning to its end: it is made under the lock of the flights,
    and stays."""

    __slots__ = ("company", "key", "last", "outcome", "ports", "thread", "watched")

    watched: Watched
    last: float
    key: bytes
    ports: Ports
    thread: int
    outcome: Outcome
    company: Company | None

    @property
    def token(self) -> int:
        """That of its lease, 0 without one."""
        return 0 if self.company is None else self.company.token

    def alive(self) -> float:
        """When it gave its last sign of life, or will have."""
        return self.last if self.company is None else max(self.company.seen, self.last)

    def outlasts(self, mine: Timeouts) -> bool:
        """Whether its read timeout is at least the follower's: a shorter one would end the answer for
        both."""
        own = self.ports.timeouts.read
        return own is None or (mine.read is not None and own >= mine.read)


class Flights:
    """The leads of one process, by key: the first that came and, `beside` it, the others. There may be
    several of one home: those whose timeouts were too short for whoever came next. A key is in the table
    while it has a lead, and what stands beside the first is changed under the lock alone. `shared`: other
    processes ask the same store."""

    def __init__(self, *, shared: bool = False) -> None:
        self._lock = Lock()
        self.shared = shared
        """Whether every lead has to see to its own lease."""
        self._leads: dict[bytes, Lead] = {}
        self._elsewhere: dict[bytes, list[tuple[Ports, object]]] = {}
        self.landings = 0
        """Answers that were stored since the start: whoever missed the cache before one came looks again."""

    def enter(self, call: Lead, key: bytes, ports: Ports) -> Lead:
        """The lead of this key in the caller's home. It is the call itself when there is none, or none that
        it may follow."""
        call.key = key
        call.ports = ports
        call.thread = get_ident()
        call.outcome = _SENDING
        call.company = None
        # One step, and never half done: a key that nobody else asks for needs no lock.
        if self._leads.setdefault(key, call) is call:
            return call
        with self._lock:
            last = self._leads.setdefault(key, call)
            if last is call:  # those that were there have ended meanwhile
                return call
            company = Company()
            for lead in _chain(last):
                last = lead
                if lead.ports.home != ports.home:
                    company.contended = True
                elif lead.outlasts(ports.timeouts):
                    _company(lead)  # from now on others may have its frames come
                    return lead
                else:
                    company.leases = company.leases and not _leases(lead)
            call.company = company
            _company(last).beside = call
            return call

    def meet(self, lead: Lead) -> Company:
        """What the lead has because of others, from now on."""
        with self._lock:
            return _company(lead)

    def rival(self, mine: Lead) -> Lead | None:
        """The call of another home that fetches the same and has the right to a lease it did not take, for it
        met nobody. One that is contended sees to its own: it may be waiting for it."""
        if self.shared:
            return None
        with self._lock:
            for lead in _chain(self._leads.get(mine.key)):
                contended = lead.company is not None and lead.company.contended
                if lead.ports.home != mine.ports.home and _leases(lead) and not contended:
                    return lead
            return None

    def lend(self, lead: Lead, token: int, renew_at: float) -> bool:
        """Give a lead the lease that somebody else took for it. False: it has ended, or has one."""
        with self._lock:
            if lead.token or lead not in _chain(self._leads.get(lead.key)):
                return False
            company = _company(lead)
            company.token, company.renew_at = token, renew_at
            return True

    def leads_here(self, key: bytes, home: Hashable) -> bool:
        """Whether a call of another home leads this key in the caller's own thread: until the caller goes on,
        nobody else drives it."""
        thread = get_ident()
        with self._lock:
            leads = _chain(self._leads.get(key))
            return any(lead.thread == thread and lead.ports.home != home for lead in leads)

    def wait(self, lead: Lead, ports: Ports) -> object | None:
        """A waiter for the lead's head, or None when it is sending no more."""
        with self._lock:
            waiter = ports.waiter()
            company = _company(lead)
            if company.waiting is None:
                company.waiting = {}
            company.waiting[ports] = waiter
            # Looked at last: who brings the head says so first, and then looks for those who wait.
            if lead.outcome is _SENDING:
                return waiter
            del company.waiting[ports]
            return None

    def leave(self, lead: Lead, ports: Ports) -> None:
        """Who waited for the lead's head has come to its body, or comes no more: nobody expects it."""
        with self._lock:
            company, outcome = _company(lead), lead.outcome
            if company.waiting is not None:
                company.waiting.pop(ports, None)
        if not isinstance(outcome, Fate | Exception):
            outcome.arrived(ports)

    def held(self, lead: Lead, until: float) -> None:
        """The lead waits for its turn, at most until then: it is alive, and its head is not late."""
        with self._lock:
            _company(lead).seen = until

    def sent(self, lead: Lead, now: float) -> None:
        """Its turn has come: from now on its head can be late, so who waits for that looks anew."""
        with self._lock:
            company = _company(lead)
            company.seen = now
            waiting = list(company.waiting.items()) if company.waiting else ()
        wake(waiting)

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
        """The head came: the body can be joined, and is told who will."""
        lead.outcome = body
        if lead.company is not None:  # else nobody has come, and who comes now finds the body: no lock
            self.tell(lead)

    def ended(self, lead: Lead, outcome: Fate | Exception, lender: Lender) -> None:
        """The lead ends without a body. Its lease goes back to the lender."""
        self.landed(lead, lender, 0)
        lead.outcome = outcome
        self.tell(lead)

    def tell(self, lead: Lead) -> None:
        """Wake those who wait for its head, which is known by now: who comes later finds it. A lead that was
        interrupted as it did does so again."""
        with self._lock:
            company = lead.company
            if company is None or company.waiting is None:
                return
            waiting, outcome = list(company.waiting.items()), lead.outcome
            if waiting and not isinstance(outcome, Fate | Exception):
                outcome.expect(company.waiting)  # in the same step: who leaves is in one of the two
        wake(waiting)
        with self._lock:
            company.waiting = None

    def struck(self, call: Lead) -> Lead | None:
        """The call itself, where it leads: an interrupt may come between its entering and its knowing."""
        key: bytes | None = getattr(call, "key", None)
        if key is None:
            return None
        with self._lock:
            return call if call in _chain(self._leads.get(key)) else None

    def landed(self, lead: Lead, lender: Lender, stored: int) -> None:
        """The lead's body is over, and its answer was stored (1) or not (0). A lease that the store has not
        ended goes back to the lender."""
        with self._lock:
            self.landings += stored
            company = lead.company
            if company is not None or self._leads.get(lead.key) is not lead:
                self._discard(lead)
            else:
                del self._leads[lead.key]
            if not self._elsewhere and company is None:
                return
            elsewhere = self._elsewhere.pop(lead.key, None)
        if company is not None and company.token:
            # From now on it can be lent none. Who came to wait before it was free is woken too.
            token, company.token = company.token, 0
            lender.free(lead.key, token)
            with self._lock:
                elsewhere = [*(elsewhere or ()), *self._elsewhere.pop(lead.key, ())]
        if elsewhere:
            wake(elsewhere)

    def forget(self, lead: Lead) -> None:
        """Nobody can join it any more: the next to ask leads."""
        with self._lock:
            self._discard(lead)

    def _discard(self, lead: Lead) -> None:
        company = lead.company
        beside = company.beside if company is not None else None
        first = self._leads.get(lead.key)
        if first is lead:
            if beside is None:
                del self._leads[lead.key]
            else:  # in one step: who enters without the lock must find the others
                self._leads[lead.key] = beside
        else:
            for other in _chain(first):
                if other.company is not None and other.company.beside is lead:
                    other.company.beside = beside
                    break
        if company is not None:
            company.beside = None


def _company(lead: Lead) -> Company:
    """What it has because of others. Called under the lock."""
    if lead.company is None:
        lead.company = Company()
    return lead.company


def _leases(lead: Lead) -> bool:
    return lead.company is None or lead.company.leases


def _chain(lead: Lead | None) -> Iterator[Lead]:
    """This lead and those beside it, in the order in which they came."""
    while lead is not None:
        yield lead
        lead = lead.company.beside if lead.company is not None else None


def wake(waiting: Iterable[tuple[Ports, object]]) -> None:
    """Wake all of them, from any thread."""
    for ports, waiter in waiting:
        ports.wake(waiter)
