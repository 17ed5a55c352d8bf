"""The file of a SQLite store: made whole or not at all, opened when needed, never carried through a fork.

SQLite keeps its locks per process and per inode. A child that opens the file while it has inherited the
parent's handle believes in locks that it does not have (https://sqlite.org/howtocorrupt.html §2.6), so a
fresh connection is not enough: the handle must be closed *before* the fork. Hooks around `os.fork` do that;
a child that has inherited one all the same (its fork came from outside Python, or in the middle of a query)
refuses the file. For the same reason the file is not to be removed while a process uses it: `clear` empties
it.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, Final

from underlay.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["BUSY_SECONDS", "SCHEMA_VERSION", "SqliteFile"]

SCHEMA_VERSION: Final = 1
"""Of the tables below. A file of another version is refused, never changed."""

BUSY_SECONDS: Final = 0.5
"""Longest wait for another process's write, and for another thread of this one."""

_LOOKS_SECONDS: Final = 0.005  # SQLite looks three times within it
_WAL_BYTES: Final = 16 * 2**20  # what is left of a log that was once larger

# The answers have a table of their own: changing a column of a row writes the whole row again, so noting that
# an answer was used would write the answer. `used` counts uses, the largest is the latest. Deleting an entry
# anywhere keeps the sums and takes the answer along.
_SCHEMA: Final = """
BEGIN;
CREATE TABLE underlay_meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, stored REAL NOT NULL, ttl REAL NOT NULL,
    size INTEGER NOT NULL, used INTEGER NOT NULL
);
CREATE INDEX entries_used ON entries (used);
CREATE TABLE records (id INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE sums (entries INTEGER NOT NULL, size INTEGER NOT NULL);
INSERT INTO sums VALUES (0, 0);
CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN
    UPDATE sums SET entries = entries + 1, size = size + new.size;
END;
CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
    DELETE FROM records WHERE id = old.id;
    UPDATE sums SET entries = entries - 1, size = size - old.size;
END;
CREATE TABLE leases (
    token INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, until REAL NOT NULL,
    holder TEXT NOT NULL
);
"""


class SqliteFile:
    """One connection to the file at `path`, for one thread at a time. Raises `StoreError` when the file
    cannot be made or is not a store of this version, and lets `sqlite3.Error` through."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # the program may change its working directory
        self._reset()
        with self._use():
            self._drop()  # a server that forks its workers now has no handle to hand down

    def _reset(self) -> None:
        self._lock = Lock()
        self._db: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._closed = False
        _files.add(self)

    def read(self, sql: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row of a statement that only reads."""
        with self._use() as db:
            row: tuple[Any, ...] | None = _patiently(db, sql, values).fetchone()
            return row

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection within a transaction that nobody else's write can come between."""
        with self._use() as db:
            _patiently(db, "BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    def close(self) -> None:
        """Close the connection for good. Idempotent."""
        with self._lock:
            self._closed = True
            self._drop()

    def forked(self) -> SqliteFile:
        """The same file for a fork child. Opens nothing and takes no lock."""
        _strand(self)
        child = SqliteFile.__new__(SqliteFile)
        child.path = self.path
        child._reset()
        return child

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        if not self._lock.acquire(timeout=2 * BUSY_SECONDS):
            raise StoreError(self.path, "another thread has been waiting for it too long")
        try:
            yield self._connection()
        except BaseException:
            # Closing ends the transaction, also one that an interrupt left in a state that nobody knows.
            self._drop()
            raise
        finally:
            self._lock.release()

    def _connection(self) -> sqlite3.Connection:
        _strand(self)  # after a fork that ran no hook
        if self._db is None:
            if self._closed:
                raise StoreError(self.path, "it was closed")
            if _inherited:
                raise StoreError(self.path, "this process was forked while the file was open (open it later)")
            self._db = _open(self.path)
        return self._db

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()


def _patiently(db: sqlite3.Connection, sql: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
    """Execute, waiting for others up to `BUSY_SECONDS`. SQLite's own wait looks ever more rarely, up to ten
    times a second, and starves where others write without a pause; begun again it looks every 2 ms."""
    until: float | None = None
    while True:
        try:
            return db.execute(sql, values)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            now = time.monotonic()
            until = until or now + BUSY_SECONDS
            if now >= until:
                raise


def _open(path: str) -> sqlite3.Connection:
    try:
        if not os.path.exists(path):
            _create(path)
        db = _connect(f"{Path(path).as_uri()}?mode=rw")
    except (OSError, sqlite3.Error) as error:
        raise StoreError(path, str(error)) from error
    try:
        _check(path, db)
        db.execute("PRAGMA synchronous = NORMAL")  # a commit that a power cut takes back is a miss
        db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    except sqlite3.Error as error:
        db.close()
        raise StoreError(path, str(error)) from error
    except BaseException:
        db.close()
        raise
    return db


def _connect(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, _LOOKS_SECONDS, isolation_level=None, check_same_thread=False, uri=True)
    db.text_factory = bytes  # a damaged text must not raise when it is read
    return db


def _check(path: str, db: sqlite3.Connection) -> None:
    if not _patiently(db, "SELECT count(*) FROM sqlite_master WHERE name = 'underlay_meta'").fetchone()[0]:
        raise StoreError(path, "it is not a store of underlay")
    row = _patiently(db, "SELECT value FROM underlay_meta WHERE name = 'schema'").fetchone()
    if row is None or row[0] != SCHEMA_VERSION:
        found = "unknown" if row is None else repr(row[0])
        raise StoreError(
            path,
            f"its format is {found}, this release reads {SCHEMA_VERSION}: name another file, or remove this",
        )


def _create(path: str) -> None:
    """Make the file under another name and move it into place, so that nobody sees half of it. It is never
    opened by anything but SQLite under its own name: closing such a handle would end SQLite's locks."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise StoreError(path, f"the folder {folder!r} does not exist")
    if os.path.exists(f"{path}-wal") and not os.path.exists(path):
        # SQLite would read it into the new file.
        raise StoreError(
            path, "the log of a file that was removed lies beside it: remove *-wal and *-shm too"
        )
    draft = f"{path}.{secrets.token_hex(4)}.new"
    # Answers and the secret of the scopes are nobody else's; log and index take over the file's mode.
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        db = _connect(Path(draft).as_uri())
        try:
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != b"wal":
                raise StoreError(path, "its file system does not carry SQLite's write-ahead log")
            db.executescript(_SCHEMA)
            rows = (("schema", SCHEMA_VERSION), ("secret", secrets.token_bytes(32)))
            db.executemany("INSERT INTO underlay_meta VALUES (?, ?)", rows)
            db.execute("COMMIT")
        finally:
            db.close()
        _publish(draft, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)


def _publish(draft: str, path: str) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was first
    except OSError:  # no hard links here
        if not os.path.exists(path):
            os.rename(draft, path)


_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()
_paused: dict[int, list[SqliteFile]] = {}  # by the thread that forks
_inherited: list[sqlite3.Connection] = []  # a handle of the parent must not even be closed here


def _strand(file: SqliteFile) -> None:
    """In a child, put away the handle that the parent opened."""
    if file._pid == os.getpid():
        return
    db, file._db, file._pid = file._db, None, os.getpid()
    if db is not None:
        _inherited.append(db)


def _before_fork() -> None:
    paused = _paused[get_ident()] = []
    for file in list(_files):
        if file._lock.acquire(timeout=2 * BUSY_SECONDS):
            file._drop()
            paused.append(file)


def _after_fork_in_parent() -> None:
    for file in _paused.pop(get_ident(), []):
        file._lock.release()


def _after_fork_in_child() -> None:
    _paused.clear()
    for file in list(_files):
        _strand(file)
        file._lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
