"""Decides who reads what of one upstream body: a flight, with any number of readers.

A miss is a flight with one reader, a hit and a refusal are flights that have ended before they are read.
Nobody owns the pull: a reader that lacks a frame while no pull is under way is told to pull. The frames, the
end and the readers' places change here, under the caller's lock; pulling and closing happen outside it.

An iterator that raised is dead: its next item says "finished" although the body was cut. So a flight that
failed stays failed, and whether an answer is whole is never read off the iterator's end.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from underlay.records import record
from underlay.telemetry.attributes import Ending

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "GIVE_WAY",
    "WAIT",
    "Flight",
    "Frame",
    "GiveWay",
    "LagError",
    "LeftError",
    "Over",
    "Pull",
    "ReaderError",
    "Wait",
]


@record(frozen=True, slots=True)
class Frame:
    """The next bytes for this reader."""

    data: bytes


@record(frozen=True, slots=True)
class Pull:
    """This reader must pull the next frame from upstream, now: the flight is marked as being pulled.

    `shared`: others read too, or are about to, so the pull must not die with this reader.
    """

    shared: bool


@record(frozen=True, slots=True)
class Wait:
    """Somebody else is pulling: wait to be woken, then ask again."""


@record(frozen=True, slots=True)
class GiveWay:
    """Others follow too and have had nothing yet, while this reader has had the beginning: they go first, for
    a moment. Wait to be woken, then ask again."""


@record(frozen=True, slots=True)
class Over:
    """Nothing comes any more. `error` is the exception that ended the body, to be raised to this reader."""

    ending: Ending
    error: BaseException | None = None

    @property
    def given_up(self) -> bool:
        """Whether the body ended because of one of its readers, and says nothing about the answer: whoever
        had no byte of it may ask anew."""
        # What is no Exception (SystemExit out of a signal handler, say) came to a reader, not from upstream.
        foreign = self.error is not None and not isinstance(self.error, Exception)
        return foreign or self.ending in _GIVEN_UP


_GIVEN_UP: Final = frozenset((Ending.CLOSED, Ending.DROPPED, Ending.CANCELLED))
WAIT: Final = Wait()
GIVE_WAY: Final = GiveWay()
_PULL_ALONE: Final = Pull(shared=False)
_PULL_SHARED: Final = Pull(shared=True)
_COMPLETE: Final = Over(Ending.COMPLETE)

_LEADER: Final = 1  # the first reader of a body is who brought it
# Frames that each follower is given as it comes: the first word of a stream is in OpenAI's second event, in
# Anthropic's fourth.
_BEGINNING: Final = 4


class Flight:
    """One upstream body. `cap` bounds the bytes that are held for joiners and for the store; beyond it frames
    are dropped once every reader has them, nobody may join, and a reader that lags by more than `cap` is cut
    off instead of holding up the rest."""

    __slots__ = (
        "_alone",
        "_base",
        "_coming",
        "_frames",
        "_held",
        "_left",
        "_next",
        "_over",
        "_pulling",
        "_readers",
        "cap",
        "whole",
    )

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.whole = True
        self._frames: deque[bytes] = deque()
        self._base = 0
        self._held = 0
        self._readers: dict[int, int] = {}
        self._next = 0
        self._pulling = 0  # the reader that was told to pull; less than zero: the one that ends the body
        self._alone = 0  # the reader that pulls by itself, in its own call
        self._coming: set[object] | None = None  # who follows and has had nothing yet
        self._left = False  # nobody reads it any more, and it is about to be closed
        self._over: Over | None = None

    @classmethod
    def finished(cls, frames: tuple[bytes, ...]) -> Flight:
        """A flight whose whole body is known: a hit, or a reply of our own."""
        flight = cls(0)
        flight._frames = deque(frames)
        flight._held = sum(map(len, frames))
        flight._over = _COMPLETE
        return flight

    @property
    def readers(self) -> int:
        """How many readers hold the body."""
        return len(self._readers)

    @property
    def held(self) -> int:
        """Bytes of the frames that are held."""
        return self._held

    @property
    def over(self) -> Over | None:
        """How the body ended, or None while it runs."""
        return self._over

    @property
    def joinable(self) -> bool:
        """True while a new reader could still have every frame from the first."""
        if self._over is not None:
            return self.whole and self._over.ending is Ending.COMPLETE
        return self.whole and not self._left

    def frames(self) -> tuple[bytes, ...] | None:
        """Every frame from the first, or None when some were dropped."""
        return tuple(self._frames) if self.whole else None

    def expect(self, followers: Iterable[object]) -> None:
        """They wait for the head and are about to join: from now on pulls are made for all. They would be
        given nothing while a lone reader, ahead of them, pulls the frame after the next."""
        self._coming = {*(self._coming or ()), *followers}

    def arrived(self, follower: object) -> None:
        """It has had its first frame, or does not come."""
        if self._coming:
            self._coming.discard(follower)

    def hurry(self) -> None:
        """Nobody gives way any longer to those who are expected by now."""
        self._coming = None

    @property
    def courteous(self) -> bool:
        """Whether followers give way to others of whom it is known that they have had nothing yet, and need
        only their turn to have it. Never to the point of being cut off as laggards."""
        return bool(self._coming) and self._held * 2 <= self.cap

    def join(self, follower: object | None = None) -> int:
        """A new reader, placed before the first frame. Returns its number. Who follows says so, until it has
        `arrived`: it has waited for the head, and shares also what went wrong upstream before it came here.

        Raises ValueError when the flight cannot be joined.
        """
        if not self.joinable:
            failed = self._over is not None and not self._over.given_up
            if follower is None or not (failed and self.whole):
                raise ValueError(
                    "this flight cannot be joined: frames were dropped, it has failed or was left"
                )
        if follower is not None and (self._coming is None or follower not in self._coming):
            self.expect((follower,))
        self._next += 1
        self._readers[self._next] = 0
        return self._next

    def step(self, reader: int) -> Frame | Pull | Wait | GiveWay | Over:
        """What this reader does next.

        Who joins while a lone reader pulls is given nothing until that pull has ended: it dies with that
        reader, and those who have had no byte can still ask anew.
        """
        place = self._readers.get(reader)
        if place is None:
            return self._over or Over(Ending.CLOSED)
        if place == 0:
            if self._alone and self._alone != reader:
                return WAIT
            if self._over is not None and self._over.given_up:
                return self._over
        elif self._coming and place >= _BEGINNING and reader != _LEADER and self.courteous:
            return GIVE_WAY
        index = place - self._base
        if index < 0:
            del self._readers[reader]
            return Over(Ending.FAILED, LagError())
        if index < len(self._frames):
            self._readers[reader] = place + 1
            data = self._frames[index]
            if not self.whole:
                self._trim()
            return Frame(data)
        if self._over is not None:
            return self._over
        if self._pulling:
            return WAIT
        self._pulling = reader
        if len(self._readers) > 1 or self._coming:
            return _PULL_SHARED
        self._alone = reader
        return _PULL_ALONE

    def give_back(self, reader: int) -> None:
        """This reader was told to pull and never came to it: who lacks the frame is told next."""
        if self._pulling == reader:
            self._pulling = self._alone = 0

    def pulled(self, data: bytes, reader: int = 0) -> bool:
        """The pull brought a frame. Returns whether `reader`, who pulled alone, is given it with that: it has
        had all that came before."""
        self._pulling = 0
        self._alone = 0
        self._frames.append(data)
        self._held += len(data)
        given = reader in self._readers
        if given:
            self._readers[reader] += 1
        if self._held > self.cap:
            self.whole = False
            self._trim()
        return given

    def end(self, ending: Ending, error: BaseException | None = None) -> bool:
        """The body ended. Only the first end counts: returns whether this was it."""
        self._pulling = 0
        self._alone = 0
        if self._over is not None:
            return False
        clean = error is None and ending is _COMPLETE.ending
        self._over = _COMPLETE if clean else Over(ending, error)
        return True

    def behind(self, reader: int) -> bool:
        """Whether frames are held that this reader has not had yet."""
        place = self._readers.get(reader)
        return place is not None and place < self._base + len(self._frames)

    def leave(self, reader: int) -> bool:
        """This reader is gone. Returns whether upstream must be closed now: nobody reads any more and the
        body has not ended.

        While a pull is under way the puller asks again (`desert`) when it returns.
        """
        self._readers.pop(reader, None)
        return not self._pulling and self.desert()

    @property
    def deserted(self) -> bool:
        """True when the body runs on and nobody reads it."""
        return not self._readers and self._over is None

    def desert(self) -> bool:
        """Give up a body that is deserted, whatever pull is under way: from now on nobody can join what is
        about to be closed. Returns whether it is given up."""
        self._left = self._left or self.deserted
        return self._left and self._over is None

    def claim(self, reader: int) -> bool:
        """Take the right to end the body, which is the right to pull: False when somebody else has it, or
        when it has ended. Who has it may take it again."""
        if self._pulling not in (0, -reader) or self._over is not None:
            return False
        self._pulling = -reader
        return True

    def _trim(self) -> None:
        """Let go of frames that every reader has had, and of those that a reader beyond the cap holds up."""
        slowest = min(self._readers.values(), default=self._base + len(self._frames))
        while self._frames and (self._base < slowest or self._held - len(self._frames[-1]) > self.cap):
            self._held -= len(self._frames.popleft())
            self._base += 1


class ReaderError(Exception):
    """A reader cannot have the rest of a body, for a reason that is not the provider's."""


class LeftError(ReaderError):
    """The body was given up before its end: closed under its reader, or by the cancellation of whoever was
    fetching it."""

    def __init__(self) -> None:
        super().__init__(
            "the answer was closed, or the call that was fetching it was cancelled, before its end"
        )


class LagError(ReaderError):
    """A reader fell further behind a shared body than may be held for it."""

    def __init__(self) -> None:
        super().__init__(
            "this reader fell too far behind a shared answer that is larger than the cache keeps"
        )
