"""Lets the threads of a process work one at a time, where they would only take the interpreter from each
other.

A thread that sends a request lets go of the interpreter's lock dozens of times (a pool looks at every idle
connection, and writes twice), and each time whoever waits runs on before it may: with a hundred callers no
request leaves before the last of them has come this far. It is a convoy (M. Blasgen, J. Gray, M. Mitoma,
T. Price, "The convoy phenomenon", SIGOPS Operating Systems Review 13(2), 1979).
"""

from __future__ import annotations

from threading import Lock, get_ident

__all__ = ["Baton", "Turn", "hand_on"]


class Turn:
    """A thread has the baton, until it hands it on (`lock` is None then). A call that this thread makes from
    inside of the turn, as a listener may, has the same one: it is over when either of them ends it."""

    __slots__ = ("lock", "thread")

    def __init__(self, lock: Lock) -> None:
        self.lock: Lock | None = lock
        self.thread = get_ident()


class Baton:
    """Who has it works, and hands it on before anything that could have to wait. It guards nothing: who has
    waited for `longest` seconds goes on without it, and takes it to be lost, as it is when a signal's handler
    raised at the wrong moment.

    Whoever comes as it is handed on may have it before the line: given to who sleeps, it would wait until
    that one has the interpreter.
    """

    __slots__ = ("_last", "_lock", "_longest")

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._lock = Lock()
        self._last: Turn | None = None

    def take(self) -> Turn | None:
        """The baton, where nobody else has it: to be handed on."""
        lock = self._lock
        if lock.acquire(blocking=False):
            return self._taken(lock)
        last = self._last
        mine = last is not None and last.lock is lock and last.thread == get_ident()
        return last if mine else None

    def wait(self) -> Turn | None:
        """The baton when those ahead have handed it on. None: they do not, go on without."""
        lock = self._lock
        if lock.acquire(timeout=self._longest):
            return self._taken(lock)
        if lock is self._lock:
            self._lock = Lock()
        return None

    def _taken(self, lock: Lock) -> Turn:
        turn = Turn(lock)
        if lock is self._lock:  # else it was taken to be lost while this thread stood in line for it
            self._last = turn
        return turn


def hand_on(turn: Turn) -> None:
    """The turn is over. Once."""
    lock, turn.lock = turn.lock, None
    if lock is not None:
        lock.release()
