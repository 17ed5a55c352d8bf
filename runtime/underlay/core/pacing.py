"""Decides which of many calls that one event loop starts at once may be sent now, and which wait until it has
come round.

A loop that is given a thousand calls starts all of them before it looks for a reply: the first answer waits
in its socket until the last request has left. So once the loop has gone a while without coming round, further
calls wait until it has, and then go a few each time it does, with the replies that came read in between. The
loop is never idle meanwhile: the order of the work changes and not its amount. It is what the pacing of
packets is to a burst (A. Aggarwal, S. Savage, T. Anderson, "Understanding the performance of TCP pacing",
INFOCOM 2000) with the loop's own turns as its clock.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

__all__ = ["Turns"]

W = TypeVar("W")

_LONGEST: Final = 10.0  # seconds that a call is held at most


class Turns(Generic[W]):
    """The calls of one event loop. `turn` is how many seconds it may go on sending without coming round,
    `at_once` how many of those that wait go each time it does. A loop that has not come round for `patience`
    seconds while nobody waited was asked to tell, and did not. Waiters are opaque and hashable.

    Who asks `watch` and is told True has the loop call `came_round` as soon as it comes round. A loop that is
    kept busy by other work comes round seldom: where more come than go, twice as many go from then on, and
    nobody is held for longer than ten seconds.
    """

    __slots__ = (
        "_at",
        "_at_once",
        "_entered",
        "_go",
        "_patience",
        "_stood",
        "_turn",
        "_waiting",
        "_watched",
        "rounds",
    )

    def __init__(self, turn: float, at_once: int, patience: float) -> None:
        self._turn = turn
        self._at_once = self._go = at_once
        self._patience = patience
        self._at = float("-inf")  # when the loop was last watched for coming round
        self._watched = False
        self._waiting: dict[W, float] = {}
        self._entered = 0  # since the loop last came round
        self._stood = False  # whether there was a line when it did
        self.rounds = 0
        """How often the loop came round while it was watched."""

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def holds(self, now: float) -> bool:
        """Whether a call must wait. Those that came before it go first."""
        if self._waiting:
            return True
        late = now - self._at if self._watched else 0.0
        if late > self._patience:
            self._watched = False
        return self._watched and late > self._turn

    def watch(self, now: float) -> bool:
        """A call goes, at `now`. True: nobody is watching for the loop to come round, and it is time to."""
        # A loop that came round lately needs no look: one call after the other is not slowed by it.
        if self._watched or now - self._at < self._turn / 2:
            return False
        self._watched = True
        self._at = now
        return True

    def enter(self, waiter: W, now: float) -> None:
        """Wait, last in line."""
        self._waiting[waiter] = now
        self._entered += 1

    def waits(self, waiter: W) -> bool:
        """Whether its turn is still to come."""
        return waiter in self._waiting

    def leave(self, waiter: W) -> None:
        """Wait no longer: its turn has come, or it gave up."""
        self._waiting.pop(waiter, None)

    def came_round(self, now: float) -> list[W]:
        """The loop came round: those whose turn it is, first come first served. While there are any, it is to
        be watched for the next time."""
        self.rounds += 1
        if self._stood and self._entered > self._go:
            self._go *= 2
        self._entered = 0
        gone: list[W] = []
        for waiter, since in self._waiting.items():
            if len(gone) >= self._go and now - since <= _LONGEST:
                break
            gone.append(waiter)
        for waiter in gone:
            del self._waiting[waiter]
        self._stood = bool(self._waiting)
        if not self._stood:
            self._go = self._at_once
        self._watched = bool(gone)
        return gone

    def released(self) -> list[W]:
        """Everybody who waits, because nobody heard of the loop for too long."""
        gone = list(self._waiting)
        self._waiting.clear()
        self._watched = self._stood = False
        self._entered = 0
        self._go = self._at_once
        return gone
