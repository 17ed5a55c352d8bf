"""The store of one process: least recently used out first, bounded by entries and by bytes. Thread-safe."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from threading import Lock
from typing import Generic

from underlay.stores.store import KEPT_GRANTS, LOOK, Held, Lease, StoreCounts, V

__all__ = ["MemoryStore"]


class MemoryStore(Generic[V]):
    """Entries by key. `maxsize` bounds their number, `max_bytes` the sum of their sizes. See `Store`."""

    local: bool = True
    poll: float | None = None

    def __init__(self, maxsize: int, max_bytes: int) -> None:
        self.maxsize = maxsize
        self.max_bytes = max_bytes
        self._lock = Lock()
        self._entries: OrderedDict[bytes, V] = OrderedDict()
        self._size = 0
        self._evicted_by_entries = 0
        self._evicted_by_bytes = 0
        self._expired = 0
        self._token = 0  # the last one granted
        self._leases: dict[bytes, Lease] = {}  # oldest grant first; renewing does not move one

    def get(self, key: bytes, now: float) -> V | None:
        """The entry, made the most recently used, or None. One that outlived its time is removed and
        counted."""
        if key not in self._entries:  # nothing is found without the lock as well: see `put`
            return None
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if now - entry.stored_at >= entry.ttl:
                self._remove(key)
                self._expired += 1
                return None
            self._entries.move_to_end(key)
            return entry

    def put(self, key: bytes, entry: V, now: float, token: int = 0) -> bool:
        """Keep an entry, pushing others out as needed, and end the lease with `token`. False when the entry
        alone is larger than the store, or when that lease is not on record any more."""
        with self._lock:
            if token and not self._end(key, token):
                return False
            if entry.size > self.max_bytes:
                return False
            old = self._entries.get(key)
            if old is not None:
                self._size -= old.size
                self._entries.move_to_end(key)
            # In the place of what was there: who looks meanwhile, without the lock, must not miss both.
            self._entries[key] = entry
            self._size += entry.size
            if len(self._entries) > self.maxsize or self._size > self.max_bytes:
                self._make_room(key, now)
            return True

    def delete(self, key: bytes) -> bool:
        """Remove one entry. Returns whether it was there."""
        with self._lock:
            return self._remove(key)

    def clear(self) -> int:
        """Remove everything. Returns how many entries there were; they count as neither evicted nor
        expired."""
        with self._lock:
            removed = len(self._entries)
            self._entries.clear()
            self._size = 0
            return removed

    def counts(self) -> StoreCounts:
        """State and totals."""
        with self._lock:
            return StoreCounts(
                len(self._entries),
                self._size,
                self._evicted_by_entries,
                self._evicted_by_bytes,
                self._expired,
            )

    def forked(self) -> MemoryStore[V]:
        """A copy for a fork child: same entries, a fresh lock, totals from zero, no leases (their holders do
        not exist here; tokens go on from theirs). Never takes the old lock, whose owner may not exist here
        either."""
        child: MemoryStore[V] = MemoryStore(self.maxsize, self.max_bytes)
        child._entries = OrderedDict(self._entries)
        child._size = sum(entry.size for entry in child._entries.values())
        child._token = self._token
        return child

    def lease(self, key: bytes, now: float, ttl: float, token: int = 0) -> Lease | Held:
        """Take the key for `ttl` seconds, or renew the lease with `token`, unless another has the key."""
        with self._lock:
            known = self._leases.get(key)
            if token:
                if known is None or known.token != token:
                    return Held(now) if known is None else Held(known.until)
            else:
                if known is not None:
                    if known.until > now:
                        return Held(known.until)
                    del self._leases[key]  # the new one belongs at the end
                self._token = token = self._token + 1
                if len(self._leases) >= KEPT_GRANTS:
                    self._forget_leases(now)
            lease = self._leases[key] = Lease(token, now + ttl)
            return lease

    def free(self, key: bytes, token: int) -> None:
        """End the lease with this token, if it is on record."""
        with self._lock:
            self._end(key, token)

    def secret(self) -> bytes | None:
        """None: nobody shares this store."""
        return None

    def close(self) -> None:
        """Nothing is held."""

    def _end(self, key: bytes, token: int) -> bool:
        known = self._leases.get(key)
        if known is None or known.token != token:
            return False
        del self._leases[key]
        return True

    def _forget_leases(self, now: float) -> None:
        oldest = self._token - KEPT_GRANTS
        looked = islice(self._leases.items(), LOOK)
        for key in [key for key, lease in looked if lease.token <= oldest and lease.until <= now]:
            del self._leases[key]

    def _remove(self, key: bytes) -> bool:
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self._size -= entry.size
        return True

    def _make_room(self, new: bytes, now: float) -> None:
        """For the new entry, which is the last and fits alone."""
        # What has outlived its time goes before anything that is still good; a scan is linear, so only the
        # oldest are looked at.
        oldest = islice(self._entries.items(), LOOK)
        for key in [key for key, entry in oldest if now - entry.stored_at >= entry.ttl and key != new]:
            self._remove(key)
            self._expired += 1
        while len(self._entries) > self.maxsize:
            self._size -= self._entries.popitem(last=False)[1].size
            self._evicted_by_entries += 1
        while self._size > self.max_bytes:
            self._size -= self._entries.popitem(last=False)[1].size
            self._evicted_by_bytes += 1
