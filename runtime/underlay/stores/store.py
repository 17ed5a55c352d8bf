"""What the pipeline needs of a store: entries by key, and leases on keys whose entry somebody is fetching.

A lease is the right to fetch what is missing. Its token is a fencing token (M. Kleppmann, "How to do
distributed locking", 2016): tokens only grow, and a `put` under a lease is refused unless that lease is still
the one on record. The record of a lease ends when its holder puts, frees, or is replaced by a later holder;
who comes back too late finds no record of itself, also after the later holder has finished. So nothing has to
be remembered of leases that are over.

A lease that runs out stays on record: until another caller takes the key over nobody was hurt, and its holder
may still renew it or put. Leases that ran out and were left there are forgotten as others are granted, none
before `KEPT_GRANTS` later ones.

`now` is always the caller's monotonic clock, in seconds; what is given back is on that clock too.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

from underlay.records import record

__all__ = ["KEPT_GRANTS", "LOOK", "Held", "Lease", "Sized", "Store", "StoreCounts"]

LOOK: Final = 8
"""Oldest entries that are looked at for expiry before a good one is pushed out."""

KEPT_GRANTS: Final = 1024
"""So many later grants make the store forget a lease that ran out and that nobody ended."""


class Sized(Protocol):
    """What a store must know of a value: when it was stored and for how long it lives (seconds), and its size
    (bytes)."""

    @property
    def stored_at(self) -> float: ...
    @property
    def ttl(self) -> float: ...
    @property
    def size(self) -> int: ...


V = TypeVar("V", bound=Sized)


@record(frozen=True, slots=True)
class StoreCounts:
    """State of a store: entries and bytes now, and totals of entries pushed out by each bound or outlived.

    Of a store that processes share, entries and bytes are everybody's and the totals those of this process,
    so that totals add up over processes.
    """

    entries: int
    size: int
    evicted_by_entries: int
    evicted_by_bytes: int
    expired: int

    @property
    def evictions(self) -> int:
        """Entries pushed out by either bound."""
        return self.evicted_by_entries + self.evicted_by_bytes


@record(frozen=True, slots=True)
class Lease:
    """The key is the caller's until `until`, and longer if it renews or if nobody else asks."""

    token: int
    until: float


@record(frozen=True, slots=True)
class Held:
    """The key is not the caller's. Another holder has it until `until`, unless it renews, finishes or dies
    before; a time that is not after `now` says that nobody has it: the caller may ask again for a lease."""

    until: float


class Store(Protocol[V]):
    """Entries and leases by key, within bounds, safe for threads. A store has no policy.

    One that is not `local` does I/O: it may block, and it may raise whatever that I/O raises.
    """

    @property
    def maxsize(self) -> int:
        """Bound of the number of entries."""
        ...

    @property
    def max_bytes(self) -> int:
        """Bound of the sum of the entries' sizes."""
        ...

    @property
    def local(self) -> bool:
        """In this process: answers at once. False: may block, so that event loops ask in a worker thread."""
        ...

    @property
    def poll(self) -> float | None:
        """Seconds between two looks at a lease that somebody else has. None: only this process can have one,
        and its callers are told."""
        ...

    def get(self, key: bytes, now: float) -> V | None:
        """The entry, made the most recently used, or None. One that outlived its time is removed and
        counted."""
        ...

    def put(self, key: bytes, entry: V, now: float, token: int = 0) -> bool:
        """Keep an entry, pushing others out as needed. The lease with `token` ends, whatever the answer.

        False when the entry alone is larger than the store, or when the lease with `token` is not on record
        any more: another caller may have taken the key over. Without a token nothing is asked of leases.
        """
        ...

    def delete(self, key: bytes) -> bool:
        """Remove one entry. Returns whether it was there. Leases stay."""
        ...

    def clear(self) -> int:
        """Remove all entries. Returns how many there were; they count as neither evicted nor expired. Leases
        stay."""
        ...

    def counts(self) -> StoreCounts:
        """State and totals."""
        ...

    def forked(self) -> Store[V]:
        """The store of a fork child, its totals from zero: the same entries, no lock or handle of the
        parent. The parent's leases stay the parent's."""
        ...

    def lease(self, key: bytes, now: float, ttl: float, token: int = 0) -> Lease | Held:
        """Without a token, take the key for `ttl` seconds unless another has it; with one, renew that lease.

        Only a lease that is still on record is renewed (also when it has run out); else the answer is `Held`,
        and what its holder puts will be refused. A holder that is known to be dead has nothing.
        """
        ...

    def free(self, key: bytes, token: int) -> None:
        """End the lease with this token. Idempotent: a token that is not the holder's does nothing."""
        ...

    def secret(self) -> bytes | None:
        """The key of the credential scopes that all who share this store must use; None: it brings none."""
        ...

    def close(self) -> None:
        """Let go of handles. Idempotent. Entries stay where the store outlives the process."""
        ...
