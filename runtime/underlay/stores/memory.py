"""The store of one process: least recently used out first, bounded by entries and by bytes. Thread-safe."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Generic, Protocol, TypeVar

__all__ = ["MemoryStore", "Sized", "StoreCounts"]


class Sized(Protocol):
    """What the store must know of a value: when it was stored and for how long it lives (seconds), and its
    size (bytes)."""

    @property
    def stored_at(self) -> float: ...
    @property
    def ttl(self) -> float: ...
    @property
    def size(self) -> int: ...


V = TypeVar("V", bound=Sized)

_LOOK = 8  # oldest entries that are looked at for expiry before a good one is pushed out


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """State of a store: entries and bytes now, and totals of entries pushed out by each bound or outlived."""

    entries: int
    size: int
    evicted_by_entries: int
    evicted_by_bytes: int
    expired: int

    @property
    def evictions(self) -> int:
        """Entries pushed out by either bound."""
        return self.evicted_by_entries + self.evicted_by_bytes


class MemoryStore(Generic[V]):
    """Entries by key. `maxsize` bounds their number, `max_bytes` the sum of their sizes."""

    def __init__(self, maxsize: int, max_bytes: int) -> None:
        self.maxsize = maxsize
        self.max_bytes = max_bytes
        self._lock = Lock()
        self._entries: OrderedDict[bytes, V] = OrderedDict()
        self._size = 0
        self._evicted_by_entries = 0
        self._evicted_by_bytes = 0
        self._expired = 0

    def get(self, key: bytes, now: float) -> V | None:
        """The entry, made the most recently used, or None. One that outlived its time is removed and
        counted."""
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

    def put(self, key: bytes, entry: V, now: float) -> bool:
        """Keep an entry, pushing others out as needed. False when it alone is larger than the store."""
        if entry.size > self.max_bytes:
            return False
        with self._lock:
            self._remove(key)
            if len(self._entries) >= self.maxsize or self._size + entry.size > self.max_bytes:
                self._make_room(entry.size, now)
            self._entries[key] = entry
            self._size += entry.size
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
        """A copy for a fork child: same entries, a fresh lock, totals from zero. Never takes the old lock,
        whose owner may not exist here."""
        child: MemoryStore[V] = MemoryStore(self.maxsize, self.max_bytes)
        child._entries = OrderedDict(self._entries)
        child._size = sum(entry.size for entry in child._entries.values())
        return child

    def _remove(self, key: bytes) -> bool:
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self._size -= entry.size
        return True

    def _make_room(self, size: int, now: float) -> None:
        # What has outlived its time goes before anything that is still good; a scan is linear, so only the
        # oldest are looked at.
        for key in [k for k, _ in zip(self._entries, range(_LOOK), strict=False)]:
            entry = self._entries[key]
            if now - entry.stored_at >= entry.ttl:
                self._remove(key)
                self._expired += 1
        while self._entries and len(self._entries) >= self.maxsize:
            self._size -= self._entries.popitem(last=False)[1].size
            self._evicted_by_entries += 1
        while self._entries and self._size + size > self.max_bytes:
            self._size -= self._entries.popitem(last=False)[1].size
            self._evicted_by_bytes += 1
