"""The store that the workers of one host share: one SQLite file.

Bounds and order are those of the memory store, with two liberties. Reading writes nothing: which entries were
used is noted with this process's next write, or with a read some seconds later, so that the order between
processes is right to `NOTED_SECONDS`. And `max_bytes` bounds the entries, not the file, which does not shrink
and has some room on top (pages, index, log).

The file keeps the time of day, because a monotonic clock means nothing to another process. A clock that is
set back makes entries and leases live longer by as much, one that is set forward ends them early; what is
stored stays right, because leases are fenced.
"""

from __future__ import annotations

import copy
import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from underlay.errors import StoreError
from underlay.stores.codec import decode, encode
from underlay.stores.holder import gone, here
from underlay.stores.sqlite_file import SqliteFile
from underlay.stores.store import KEPT_GRANTS, LOOK, Held, Lease, StoreCounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from underlay.core.cache import Entry

__all__ = ["NOTED_SECONDS", "SqliteStore"]

NOTED_SECONDS: Final = 5.0
"""After so many seconds without a write of this process, a read writes down which entries were used."""

_NOTED_KEYS: Final = 256  # or after so many entries
_POLL: Final = 0.05

_FIND: Final = """
SELECT id, stored, ttl, record FROM entries LEFT JOIN records USING (id) WHERE key = ?
"""
_NEXT_USE: Final = "(SELECT coalesce(max(used), 0) + 1 FROM entries)"
_NOTE: Final = f"UPDATE entries SET used = {_NEXT_USE} WHERE key = ?"  # noqa: S608 a constant
_ADD: Final = f"INSERT INTO entries (key, stored, ttl, size, used) VALUES (?, ?, ?, ?, {_NEXT_USE})"  # noqa: S608
_OLDEST: Final = "SELECT id, size FROM entries ORDER BY used LIMIT 1"
_OUTLIVED: Final = f"""
SELECT id, size FROM (SELECT id, size, stored, ttl FROM entries ORDER BY used LIMIT {LOOK})
WHERE ? - stored >= ttl
"""  # noqa: S608
_REMOVE: Final = "DELETE FROM entries WHERE id = ?"
_HOLDER: Final = "SELECT token, until, holder FROM leases WHERE key = ?"
_GRANT: Final = "INSERT OR REPLACE INTO leases (key, until, holder) VALUES (?, ?, ?)"
_RENEW: Final = "UPDATE leases SET until = ? WHERE token = ? AND key = ?"
_END: Final = "DELETE FROM leases WHERE token = ? AND key = ?"
_FORGET: Final = f"""
DELETE FROM leases WHERE until <= ? AND token IN
(SELECT token FROM leases WHERE token <= ? ORDER BY token LIMIT {LOOK})
"""  # noqa: S608


class _Row(NamedTuple):
    """What the file says of a key. `entry` None: it cannot be read."""

    id: int
    entry: Entry | None
    expired: bool


class SqliteStore:
    """Entries in the file at `path`, which is made if its folder is there. See `Store`.

    `wall` is the time of day in seconds, the same for all who share the file. Raises `StoreError` when the
    file cannot be used; later also `sqlite3.Error` (disk full, locked for longer than half a second).
    """

    local: bool = False
    poll: float | None = _POLL

    def __init__(
        self, path: str, maxsize: int, max_bytes: int, *, wall: Callable[[], float] = time.time
    ) -> None:
        self.maxsize = maxsize
        self.max_bytes = max_bytes
        self._wall = wall
        self._file = SqliteFile(path)
        self._reset()

    def _reset(self) -> None:
        self._evicted_by_entries = self._evicted_by_bytes = self._expired = 0
        self._used: dict[bytes, None] = {}  # keys since the last note, the latest last
        self._noted = self._wall()

    def __repr__(self) -> str:
        return f"<SqliteStore {self._file.path!r}>"

    def get(self, key: bytes, now: float) -> Entry | None:
        """The entry, or None. One that outlived its time or cannot be read is removed."""
        wall = self._wall()
        row = _understood(self._file.read(_FIND, (key,)), now, wall)
        if row is None:
            return None
        if row.expired or row.entry is None:
            self._discard(key, now, wall)
            return None
        self._used.pop(key, None)
        self._used[key] = None
        if len(self._used) >= _NOTED_KEYS or abs(wall - self._noted) >= NOTED_SECONDS:
            with suppress(sqlite3.Error, StoreError), self._file.writing() as db:  # the answer is at hand
                self._note(db, wall)
        return row.entry

    def put(self, key: bytes, entry: Entry, now: float, token: int = 0) -> bool:
        """Keep an entry and end the lease with `token`. False: too large, or that lease is not on record."""
        record, wall = encode(entry), self._wall()
        with self._file.writing() as db:
            if token and not db.execute(_END, (token, key)).rowcount:
                return False
            if entry.size > self.max_bytes:
                return False
            self._note(db, wall)
            db.execute("DELETE FROM entries WHERE key = ?", (key,))
            self._make_room(db, entry.size, wall)
            stored = wall - (now - entry.stored_at)
            added = db.execute(_ADD, (key, stored, entry.ttl, entry.size))
            db.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (added.lastrowid, record))
            return True

    def delete(self, key: bytes) -> bool:
        """Remove one entry. Returns whether it was there."""
        with self._file.writing() as db:
            return db.execute("DELETE FROM entries WHERE key = ?", (key,)).rowcount > 0

    def clear(self) -> int:
        """Remove the entries of all who share the file. Returns how many there were."""
        with self._file.writing() as db:
            self._used.clear()
            return db.execute("DELETE FROM entries").rowcount

    def counts(self) -> StoreCounts:
        """Entries and bytes of the file; totals of what this process removed."""
        entries, size = self._file.read("SELECT entries, size FROM sums") or (0, 0)
        return StoreCounts(entries, size, self._evicted_by_entries, self._evicted_by_bytes, self._expired)

    def forked(self) -> SqliteStore:
        """The store of a fork child: opens the file anew at its first use."""
        child = copy.copy(self)
        child._file = self._file.forked()
        child._reset()
        return child

    def lease(self, key: bytes, now: float, ttl: float, token: int = 0) -> Lease | Held:
        """Take the key for `ttl` seconds, or renew the lease with `token`, unless another has the key. What a
        process had that has ended on this host is free at once."""
        wall = self._wall()
        if token:
            return self._renew(key, now, wall, ttl, token)
        known = self._file.read(_HOLDER, (key,))  # who looks again and again holds up nobody's write
        dead = 0
        if known is not None and known[1] > wall:
            if not gone(known[2].decode("ascii", "replace")):
                return Held(now + (known[1] - wall))
            dead = known[0]
        with self._file.writing() as db:
            known = db.execute(_HOLDER, (key,)).fetchone()
            if known is not None and known[1] > wall and known[0] != dead:
                return Held(now + (known[1] - wall))
            granted = db.execute(_GRANT, (key, wall + ttl, here())).lastrowid or 0
            db.execute(_FORGET, (wall, granted - KEPT_GRANTS))
        return Lease(granted, now + ttl)

    def free(self, key: bytes, token: int) -> None:
        """End the lease with this token, if it is on record."""
        known = self._file.read(_HOLDER, (key,))  # most often it ended with a put
        if known is not None and known[0] == token:
            with self._file.writing() as db:
                db.execute(_END, (token, key))

    def secret(self) -> bytes | None:
        """32 random bytes that were made with the file."""
        row = self._file.read("SELECT value FROM underlay_meta WHERE name = 'secret'")
        return bytes(row[0]) if row is not None else None

    def close(self) -> None:
        """Close the file for this process; later calls raise `StoreError`."""
        self._file.close()

    def _renew(self, key: bytes, now: float, wall: float, ttl: float, token: int) -> Lease | Held:
        with self._file.writing() as db:
            mine = db.execute(_RENEW, (wall + ttl, token, key)).rowcount
            known = None if mine else db.execute(_HOLDER, (key,)).fetchone()
        if mine:
            return Lease(token, now + ttl)
        return Held(now) if known is None else Held(now + (known[1] - wall))

    def _discard(self, key: bytes, now: float, wall: float) -> None:
        with self._file.writing() as db:
            # Looked at once more: somebody may have put a good one since.
            row = _understood(db.execute(_FIND, (key,)).fetchone(), now, wall)
            if row is not None and (row.expired or row.entry is None):
                db.execute(_REMOVE, (row.id,))
                self._expired += row.expired

    def _note(self, db: sqlite3.Connection, wall: float) -> None:
        used, self._used, self._noted = self._used, {}, wall
        if used:
            # Copied at once: another thread may be adding to what was swapped out.
            db.executemany(_NOTE, [(key,) for key in list(used)])

    def _make_room(self, db: sqlite3.Connection, size: int, wall: float) -> None:
        entries, total = db.execute("SELECT entries, size FROM sums").fetchone()
        if entries < self.maxsize and total + size <= self.max_bytes:
            return
        for identity, freed in db.execute(_OUTLIVED, (wall,)).fetchall():
            db.execute(_REMOVE, (identity,))
            entries, total, self._expired = entries - 1, total - freed, self._expired + 1
        while entries >= self.maxsize or total + size > self.max_bytes:
            oldest = db.execute(_OLDEST).fetchone()
            if oldest is None:
                return
            if entries >= self.maxsize:
                self._evicted_by_entries += 1
            else:
                self._evicted_by_bytes += 1
            db.execute(_REMOVE, oldest[:1])
            entries, total = entries - 1, total - oldest[1]


def _understood(row: tuple[Any, ...] | None, now: float, wall: float) -> _Row | None:
    if row is None:
        return None
    identity, stored, ttl, record = row
    try:
        age = max(0.0, wall - stored)
        return _Row(identity, decode(record, now - age, ttl), age >= ttl)
    except (TypeError, ValueError):
        return _Row(identity, None, expired=False)
