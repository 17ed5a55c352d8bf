"""Lets the threads of a process work one at a time, where they would only take the interpreter from each
other.

A thread that sends a request lets go of the interpreter's lock dozens of times (a pool looks at every idle
connection, and writes twice), and each time whoever waits runs on before it may: with a hundred callers no
request leaves before the last of them has come this far. It is a convoy (M. Blasgen, J. Gray, M. Mitoma,
T. Price, "The convoy phenomenon", SIGOPS Operating Systems Review 13(2), 1979).
"""

from __future__ import annotations

import sys
import time
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Baton", "hand_on"]

_STEP: Final = 0.005  # seconds that one place in the line is given, before somebody asks whether it moves
_IDLE: Final = 0.2  # of a processor: a process that uses less is waiting for something else
_LOOK: Final = 0.001  # seconds between two looks at what the holder does, where connections are opened
_CONNECTING: Final = frozenset(("getaddrinfo", "create_connection", "do_handshake"))  # of socket and ssl


def connecting(thread: int) -> bool:
    """Whether that thread is opening a connection."""
    frame = sys._current_frames().get(thread)
    return frame is not None and frame.f_code.co_name in _CONNECTING


class Baton:
    """Who has it works. It guards nothing: who waits in vain goes on without it.

    It is a lock that is replaced where its holder waits for the network instead of working. Where that one
    opens a connection, who comes next has the new one. Where the process uses no processor time (seconds,
    `busy`), or nobody has moved up for five milliseconds times the length of the line, the whole line goes,
    and for `pause` seconds nobody waits. That also heals a baton that nobody hands on, because a signal's
    handler raised at the wrong moment.

    Whoever comes as it is handed on may have it before the line: given to who sleeps, it would wait until
    that one has the interpreter.
    """

    __slots__ = (
        "_busy",
        "_connecting",
        "_free_until",
        "_holder",
        "_lock",
        "_looked",
        "_now",
        "_opening_until",
        "_pause",
        "_since",
        "_waiting",
    )

    def __init__(
        self,
        pause: float,
        now: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = time.process_time,
        connecting: Callable[[int], bool] = connecting,
    ) -> None:
        self._pause = pause
        self._now = now
        self._busy = busy
        self._connecting = connecting
        self._lock = Lock()
        self._holder = 0
        self._since = self._looked = self._free_until = self._opening_until = float("-inf")
        self._waiting: dict[int, None] = {}

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self._waiting)

    def take(self) -> Lock | None:
        """The baton, where nobody has it: to be handed on."""
        lock = self._lock
        return self._taken(lock) if lock.acquire(blocking=False) else None

    def wait(self) -> Lock | None:
        """The baton when those ahead have handed it on. None: they do not, go on without."""
        if self._now() < self._free_until:
            return None
        if self._holder_connects():
            return self._taken_away()
        me = get_ident()
        self._waiting[me] = None
        try:
            return self._wait(_STEP * len(self._waiting))
        finally:
            self._waiting.pop(me, None)

    def _wait(self, patience: float) -> Lock | None:
        moved, seen = self._since, self._now()
        while True:
            lock, used = self._lock, self._busy()
            if lock.acquire(timeout=patience):
                if lock is self._lock:
                    return self._taken(lock)
                lock.release()  # it was replaced: the next who waits for it must hear of that too
            elif lock is self._lock and self._since == moved:
                if self._holder_connects():
                    return self._taken_away()
                stuck = self._now() - seen > _STEP * len(self._waiting)
                if stuck or self._busy() - used < patience * _IDLE:
                    self._let_go(lock)
            if self._now() < self._free_until:
                return None
            if self._since != moved:
                moved, seen = self._since, self._now()

    def _holder_connects(self) -> bool:
        """Looks seldom, because all threads' frames are fetched for it; often once connections are opened."""
        now = self._now()
        if now - max(self._since, self._looked) < (_STEP if now > self._opening_until else _LOOK):
            return False
        self._looked = now
        if not self._connecting(self._holder):
            return False
        self._opening_until = now + self._pause
        return True

    def _taken(self, lock: Lock) -> Lock:
        self._holder = get_ident()
        self._since = self._now()
        return lock

    def _taken_away(self) -> Lock:
        """A new baton, for whoever comes. Those who wait for the old one hear of it at the end of their
        patience, or when it is handed on."""
        lock = Lock()
        lock.acquire()
        self._lock = lock
        return self._taken(lock)

    def _let_go(self, lock: Lock) -> None:
        self._free_until = self._now() + self._pause
        self._lock = Lock()
        hand_on(lock)


def hand_on(lock: Lock) -> None:
    """The turn is over. Harmless where the line has gone meanwhile."""
    try:
        lock.release()
    except RuntimeError:  # it was handed on for this thread
        return
