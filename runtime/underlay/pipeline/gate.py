"""Lets so many threads of a process send at the same time, and the others after them.

Of a thousand threads most are about to send, and few have their reply: where all run as they come, replies
wait until everybody has sent, each look of a pool at its connections takes longer, and who waits for the
interpreter wakes up two hundred times a second to ask for it.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue

__all__ = ["Gate"]


class Gate:
    """Who is let in sends, and leaves before anything that could have to wait. It guards nothing: when nobody
    is let in for `longest` seconds, those inside are taken to be lost, as when a signal's handler raised at
    the wrong moment, and who waited goes in without a place."""

    __slots__ = ("_entered", "_free", "_longest", "places")

    def __init__(self, places: int, longest: float) -> None:
        self.places = places
        self._longest = longest
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(places):
            self._free.put(None)
        self._entered = 0

    def enter(self) -> bool:
        """Whether there is a place at once."""
        try:
            self._free.get_nowait()
        except Empty:
            return False
        self._entered += 1
        return True

    def wait(self) -> None:
        """Go in when there is a place, behind those who came before."""
        while True:
            entered = self._entered
            try:
                self._free.get(timeout=self._longest)
            except Empty:
                if entered != self._entered:
                    continue  # a long line, and it moves
            self._entered += 1
            return

    def leave(self) -> None:
        """Give the place to who comes next. Who went in without one leaves one: it is the lost one's."""
        if self._free.qsize() < self.places:
            self._free.put(None)
