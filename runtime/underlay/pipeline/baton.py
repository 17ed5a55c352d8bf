"""Lets threads send one at a time, where they would only take the interpreter from each other.

Of a thousand threads most are about to send, and few have their reply: where all run as they come, replies
wait until everybody has sent, each look of a pool at its connections takes longer, and who waits for the
interpreter wakes up two hundred times a second to ask for it. One after the other, replies are read in
between.
"""

from __future__ import annotations

from threading import Lock

__all__ = ["Baton"]


class Baton:
    """Who has it sends, and gives it back before anything that could have to wait. It guards nothing: when it
    does not change hands for `longest` seconds, it is taken to be lost, as it is when a signal's handler
    raised at the wrong moment, and who waited goes on without.

    Whoever comes as it is given back may have it before the line: given to who sleeps, it would wait until
    that one has the interpreter.
    """

    __slots__ = ("_lock", "_longest", "_turns")

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._lock = Lock()
        self._turns = 0

    def take(self) -> Lock | None:
        """A lock to be released, where nobody else has it."""
        lock = self._lock
        if not lock.acquire(blocking=False):
            return None
        self._turns += 1
        return lock

    def wait(self) -> Lock | None:
        """A lock to be released, when those ahead have. None: the baton is lost, go on without."""
        while True:
            lock, turns = self._lock, self._turns
            if lock.acquire(timeout=self._longest):
                self._turns += 1
                return lock
            if turns == self._turns:
                if lock is self._lock:
                    self._lock = Lock()
                return None
