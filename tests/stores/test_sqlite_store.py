"""The store in a SQLite file, in one process: damage, refusals, clocks, faults."""

from __future__ import annotations

import dataclasses
import os
import random
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from store_rigs import Rig, entry

from underlay.errors import StoreError, UnderlayError
from underlay.stores import sqlite_file
from underlay.stores.sqlite import NOTED_SECONDS, SqliteStore
from underlay.stores.store import Held, Lease, StoreCounts
from underlay.testing import FakeClock


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A folder for the file, and a clock."""
    return Rig("sqlite", tmp_path)


@pytest.fixture
def clock(rig: Rig) -> FakeClock:
    """The clock of the stores."""
    return rig.clock


@pytest.fixture
def store(rig: Rig) -> Iterator[SqliteStore]:
    """A store on the file."""
    opened = SqliteStore(rig.path, 10, 1000, wall=rig.clock.wall)
    yield opened
    opened.close()


def log_size(rig: Rig) -> int:
    """Bytes that were written since the file was opened."""
    return os.stat(f"{rig.path}-wal").st_size


DAMAGE = {
    "zeros": "UPDATE records SET record = zeroblob(length(record))",
    "cut": "UPDATE records SET record = substr(record, 1, 40)",
    "empty": "UPDATE records SET record = x''",
    "a byte": "UPDATE records SET record = CAST(substr(record, 1, 60) || x'ee' || substr(record, 62) AS BLOB)",
    "another version": "UPDATE records SET record = CAST(x'09' || substr(record, 2) AS BLOB)",
    "text": "UPDATE records SET record = 'no record'",
    "text that is none": "UPDATE records SET record = CAST(x'fffe' AS TEXT)",
    "a number": "UPDATE records SET record = 5",
    "no record": "DELETE FROM records",
    "time as text": "UPDATE entries SET stored = 'yesterday'",
    "time as bytes": "UPDATE entries SET ttl = x'00'",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_row_is_a_miss_and_goes(
    rig: Rig, store: SqliteStore, clock: FakeClock, damage: str
) -> None:
    """Whatever happened to it: nothing is raised, nothing wrong is served, the books are right, and the next
    answer takes its place."""
    store.put(b"k", entry(clock, 1, size=5), clock.now())
    rig.sql(DAMAGE[damage])
    assert store.get(b"k", clock.now()) is None
    assert rig.sql("SELECT count(*) FROM entries UNION ALL SELECT count(*) FROM records") == [(0,), (0,)]
    assert store.counts() == StoreCounts(0, 0, 0, 0, 0)
    assert store.put(b"k", entry(clock, 2), clock.now())
    assert store.get(b"k", clock.now()) == entry(clock, 2)


def test_a_good_row_that_came_meanwhile_stays(rig: Rig, store: SqliteStore, clock: FakeClock) -> None:
    """Between the look at a damaged row and its removal another process may have put a good one."""
    store.put(b"k", entry(clock), clock.now())
    store._discard(b"k", clock.now(), clock.wall())
    assert store.get(b"k", clock.now()) is not None


def test_books_that_are_wrong_do_not_stop_a_put(rig: Rig, store: SqliteStore, clock: FakeClock) -> None:
    """Sums that somebody changed push out what there is, and no more."""
    store.put(b"a", entry(clock), clock.now())
    rig.sql("UPDATE sums SET entries = 99, size = 10000000")
    assert store.put(b"b", entry(clock), clock.now())
    assert store.get(b"a", clock.now()) is None
    assert store.get(b"b", clock.now()) is not None


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_file_is_the_owners_alone(rig: Rig, clock: FakeClock, umask: int) -> None:
    """Database, log and index have mode 0600 whatever the umask, and no draft is left."""
    before = os.umask(umask)
    try:
        store = rig.open()
        store.put(b"k", entry(clock), clock.now())
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in rig.folder.iterdir()}
    assert modes == {"store.db": 0o600, "store.db-shm": 0o600, "store.db-wal": 0o600}
    store.close()


def refused(path: str) -> str:
    """Open a store that cannot be, and return what is said."""
    with pytest.raises(StoreError) as caught:
        SqliteStore(path, 10, 1000)
    assert isinstance(caught.value, UnderlayError)
    assert caught.value.path == path
    said = str(caught.value)
    assert said.startswith(f"llm_cache.store: {path!r} cannot be used: ")
    return said


def test_the_folder_must_exist(rig: Rig) -> None:
    """A folder is not made: its name may be a slip."""
    assert "the folder" in refused(str(rig.folder / "none" / "store.db"))
    assert not (rig.folder / "none").exists()


def test_a_folder_is_no_file(rig: Rig) -> None:
    """The name of a folder is refused."""
    assert "unable to open" in refused(str(rig.folder))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "not a store of underlay"), (b"# my notes, long enough to have a header\n" * 9, "not a database")],
)
def test_a_file_of_others_is_left_alone(rig: Rig, content: bytes, said: str) -> None:
    """What is not ours is refused and not changed by a byte."""
    Path(rig.path).write_bytes(content)
    assert said in refused(rig.path)
    assert Path(rig.path).read_bytes() == content


def test_a_database_of_others_is_left_alone(rig: Rig) -> None:
    """Another program's SQLite file gets no tables of ours."""
    rig.sql("CREATE TABLE theirs (x)")
    assert "not a store of underlay" in refused(rig.path)
    assert rig.sql("SELECT name FROM sqlite_master") == [("theirs",)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE underlay_meta SET value = 2 WHERE name = 'schema'", "its format is 2, this release reads 1"),
        ("DELETE FROM underlay_meta WHERE name = 'schema'", "its format is unknown"),
        ("ALTER TABLE underlay_meta RENAME COLUMN value TO v", "no such column"),
    ],
)
def test_another_format_is_refused(rig: Rig, store: SqliteStore, change: str, said: str) -> None:
    """A file of a later release is neither read nor changed; the message says what to do."""
    rig.sql(change)
    assert said in refused(rig.path)


def test_the_log_of_a_removed_file_is_not_read_into_a_new_one(rig: Rig, clock: FakeClock) -> None:
    """SQLite would: who removed only the database is told what else to remove."""
    Path(f"{rig.path}-wal").write_bytes(b"old")
    assert "remove *-wal and *-shm too" in refused(rig.path)
    assert not os.path.exists(rig.path)


def test_a_file_system_without_a_log_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without write-ahead logging readers and writers would block each other."""
    connect = sqlite_file._connect
    monkeypatch.setattr(sqlite_file, "_connect", lambda _uri: connect("file::memory:"))
    assert "write-ahead log" in refused(rig.path)
    assert os.listdir(rig.folder) == []


def test_a_file_system_without_links_is_served(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The draft is moved into place, unless another process was first."""

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    store = rig.open()
    secret = store.secret()
    store.close()
    sqlite_file._create(rig.path)
    store = rig.open()
    assert store.secret() == secret
    store.close()
    assert os.listdir(rig.folder) == ["store.db"]


def test_a_second_maker_leaves_the_first_ones_file(rig: Rig, store: SqliteStore) -> None:
    """Two processes that find no file make two drafts; one wins, and the other's is gone."""
    secret = store.secret()
    sqlite_file._create(rig.path)
    assert store.secret() == secret
    assert not [name for name in os.listdir(rig.folder) if name.endswith(".new")]


def test_a_relative_path_stays_where_it_was(
    rig: Rig, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that changes its working directory keeps its store, also in a fork child."""
    monkeypatch.chdir(rig.folder)
    store = SqliteStore("a b?c%20#.db", 10, 1000, wall=clock.wall)
    monkeypatch.chdir("/")
    store.put(b"k", entry(clock), clock.now())
    child = store.forked()
    assert child.get(b"k", clock.now()) == entry(clock)
    assert "a b?c%20#.db" in os.listdir(rig.folder)
    assert "a b?c%20#.db" in repr(store)
    child.close()
    store.close()


def test_the_secret_is_the_files(rig: Rig, store: SqliteStore, tmp_path: Path) -> None:
    """All who open the file have one secret; another file has another."""
    second = rig.open()
    other = SqliteStore(str(tmp_path / "other.db"), 10, 1000)
    assert store.secret() == second.secret()
    assert store.secret() != other.secret()
    assert len(store.secret() or b"") == 32
    rig.sql("DELETE FROM underlay_meta WHERE name = 'secret'")
    assert store.secret() is None
    second.close()
    other.close()


def test_tokens_grow_over_the_life_of_the_file(rig: Rig, clock: FakeClock) -> None:
    """A later process never grants a token that an earlier one's leader may still hold."""
    tokens: list[int] = []
    for _ in range(3):
        store = rig.open()
        answer = store.lease(b"k", clock.now(), 60.0)
        assert isinstance(answer, Lease)
        tokens.append(answer.token)
        store.free(b"k", answer.token)
        store.close()
    assert tokens == sorted(set(tokens))


def test_each_process_sees_its_own_clock(rig: Rig, store: SqliteStore, clock: FakeClock) -> None:
    """Monotonic clocks of two processes have nothing in common; ages and ends are told on the reader's."""
    other = rig.open()
    store.put(b"k", entry(clock), clock.now())
    store.lease(b"led", clock.now(), 60.0)
    clock.advance(10.0)
    found = other.get(b"k", 5.0)
    assert found is not None
    assert (found.stored_at, found.ttl) == (-5.0, 100.0)
    assert other.lease(b"led", 5.0, 60.0) == Held(55.0)
    other.close()


def test_a_clock_that_was_set_back_makes_nothing_younger_than_new(rig: Rig, clock: FakeClock) -> None:
    """An entry from the future has age 0."""
    wall = [1e9]
    store = SqliteStore(rig.path, 10, 1000, wall=lambda: wall[0])
    store.put(b"k", entry(clock), clock.now())
    wall[0] -= 3600.0
    found = store.get(b"k", clock.now())
    assert found is not None
    assert found.stored_at == clock.now()
    store.close()


def test_reading_writes_nothing(rig: Rig, store: SqliteStore, clock: FakeClock) -> None:
    """Hits and looks at a lease that somebody has leave the log as it is."""
    store.put(b"k", entry(clock), clock.now())
    token = store.lease(b"led", clock.now(), 60.0)
    assert isinstance(token, Lease)
    before = log_size(rig)
    for _ in range(50):
        assert store.get(b"k", clock.now()) is not None
        assert store.get(b"none", clock.now()) is None
        assert isinstance(store.lease(b"led", clock.now(), 60.0), Held)
        store.free(b"led", token.token + 1)
    assert log_size(rig) == before


@pytest.mark.parametrize("noted", ["by a write", "in time", "by number", "not yet"])
def test_what_one_process_reads_another_keeps(rig: Rig, clock: FakeClock, noted: str) -> None:
    """Use is noted with the reader's next write, with a read some seconds later, or after many entries; until
    then another process may push out what was read."""
    reader, writer = (SqliteStore(rig.path, 300, 10**6, wall=clock.wall) for _ in range(2))
    for number in range(299):
        writer.put(b"%d" % number, entry(clock, ttl=1e6), clock.now())
    reader.put(b"reader", entry(clock, ttl=1e6), clock.now())
    reader.get(b"0", clock.now())
    if noted == "by a write":
        reader.put(b"reader", entry(clock, ttl=1e6), clock.now())
    elif noted == "in time":
        clock.advance(NOTED_SECONDS)
        reader.get(b"5", clock.now())
    elif noted == "by number":
        for number in range(10, 265):
            reader.get(b"%d" % number, clock.now())
    writer.put(b"more", entry(clock, ttl=1e6), clock.now())
    assert (writer.get(b"0", clock.now()) is not None) is (noted != "not yet")
    reader.close()
    writer.close()


def test_totals_are_the_processs_own(rig: Rig, clock: FakeClock) -> None:
    """Entries and bytes are the file's; what was pushed out counts where it was done, so that totals add
    up."""
    first, second = rig.open(1), rig.open(1)
    first.put(b"a", entry(clock, size=3), clock.now())
    second.put(b"b", entry(clock, size=4), clock.now())
    assert first.counts() == StoreCounts(1, 4, 0, 0, 0)
    assert second.counts() == StoreCounts(1, 4, 1, 0, 0)
    first.close()
    second.close()


def test_a_large_answer_comes_back(rig: Rig, clock: FakeClock) -> None:
    """Megabytes in thousands of frames."""
    store = rig.open(10, 2**30)
    put = entry(clock)
    frames = tuple(b"%6d" % number * 100 for number in range(5000))
    large = dataclasses.replace(put, frames=frames, size=3_000_000)
    assert store.put(b"k", large, clock.now())
    assert store.get(b"k", clock.now()) == large
    store.close()


def test_locked_for_too_long_is_an_error_and_a_hit_is_not(
    rig: Rig, store: SqliteStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process writes without end, writes raise, reads answer (also one that would note what was
    used, and looks at leases), and afterwards all is well."""
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.05)
    store.put(b"k", entry(clock), clock.now())
    store.lease(b"led", clock.now(), 60.0)
    other = sqlite3.connect(rig.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        store.put(b"new", entry(clock), clock.now())
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        store.lease(b"new", clock.now(), 60.0)
    clock.advance(NOTED_SECONDS)
    assert store.get(b"k", clock.now()) is not None
    assert store.counts().entries == 1
    assert isinstance(store.lease(b"led", clock.now(), 60.0), Held)
    store.free(b"led", 99)
    other.execute("ROLLBACK")
    other.close()
    assert store.put(b"new", entry(clock), clock.now())
    assert store.counts().entries == 2


def test_a_lock_that_is_let_go_in_time_is_waited_for(
    rig: Rig, store: SqliteStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that finds another at work tries again until that one has ended."""
    other = sqlite3.connect(rig.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    tries: list[float] = []

    def monotonic() -> float:
        tries.append(0.0)
        if len(tries) == 3:
            other.execute("COMMIT")
        return 1.0

    monkeypatch.setattr(sqlite_file, "time", SimpleNamespace(monotonic=monotonic))
    assert store.put(b"k", entry(clock), clock.now())
    assert len(tries) == 3
    other.close()


def test_a_full_disk_is_an_error_and_leaves_the_books_right(
    rig: Rig, store: SqliteStore, clock: FakeClock
) -> None:
    """The put raises, half of it is not there, its lease is still on record, and reading goes on."""
    store.put(b"k", entry(clock), clock.now())
    lease = store.lease(b"big", clock.now(), 60.0)
    assert isinstance(lease, Lease)
    with store._file.writing() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")
    large = dataclasses.replace(entry(clock), frames=(b"x" * 10**6,))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.put(b"big", large, clock.now(), lease.token)
    assert store.get(b"k", clock.now()) is not None
    assert store.counts() == StoreCounts(1, 1, 0, 0, 0)
    assert isinstance(store.lease(b"big", clock.now(), 60.0), Held)
    assert store.put(b"big", large, clock.now(), lease.token)  # with a fresh handle there is room again


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_write_did_not_happen(
    rig: Rig, store: SqliteStore, clock: FakeClock, interrupt: type[BaseException]
) -> None:
    """Whatever ends a transaction in its middle undoes it and lets others write."""

    def work() -> None:
        with store._file.writing() as db:
            db.execute("INSERT INTO entries (key, stored, ttl, size, used) VALUES (x'00', 0, 0, 0, 0)")
            raise interrupt

    with pytest.raises(interrupt):
        work()
    other = rig.open()
    assert other.put(b"k", entry(clock), clock.now())
    assert store.counts() == StoreCounts(1, 1, 0, 0, 0)
    other.close()


def test_a_thread_waits_for_another_only_so_long(
    store: SqliteStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a thread that the file holds up nobody queues for ever."""
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.01)
    with store._file._lock, pytest.raises(StoreError, match="another thread"):
        store.get(b"k", clock.now())
    assert store.get(b"k", clock.now()) is None


def test_other_faults_of_the_file_come_through(
    rig: Rig, store: SqliteStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that is gone raises at once and not after the wait for a lock."""
    rig.sql("DROP TABLE leases")
    monkeypatch.setattr(sqlite_file, "time", None)  # nothing is waited for
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        store.lease(b"k", clock.now(), 60.0)


def test_a_file_that_went_away_is_made_again(rig: Rig, store: SqliteStore, clock: FakeClock) -> None:
    """A store that has no handle open finds no file and makes one; without the folder it is refused."""
    os.unlink(rig.path)
    assert store.put(b"k", entry(clock), clock.now())
    store._file._drop()
    for path in rig.folder.iterdir():
        path.unlink()
    rig.folder.rmdir()
    with pytest.raises(StoreError, match="folder"):
        store.get(b"k", clock.now())


def test_a_closed_store_says_so(store: SqliteStore, clock: FakeClock) -> None:
    """A late caller gets an error and no new handle."""
    store.close()
    store.close()
    with pytest.raises(StoreError, match="was closed"):
        store.get(b"k", clock.now())


def test_sixteen_threads_leave_the_books_right(rig: Rig, clock: FakeClock) -> None:
    """One store for all threads: no answer is another key's, and the sums are those of the entries."""
    store = rig.open(20, 200)

    def work(seed: int) -> int:
        chance = random.Random(seed)
        for _ in range(60):
            tag = chance.randrange(40)
            key, what = b"%d" % tag, chance.random()
            if what < 0.4:
                store.put(key, entry(clock, tag, size=tag), clock.now())
            elif what < 0.6:
                answer = store.lease(key, clock.now(), 60.0)
                if isinstance(answer, Lease):
                    store.free(key, answer.token)
            else:
                found = store.get(key, clock.now())
                assert found is None or found == entry(clock, tag, size=tag)
        return seed

    with ThreadPoolExecutor(16) as threads:
        assert sorted(threads.map(work, range(16))) == list(range(16))
    counts = store.counts()
    assert counts.entries <= 20
    assert counts.size <= 200
    assert rig.sql("SELECT count(*), sum(size) FROM entries") == [(counts.entries, counts.size)]
    assert rig.sql("SELECT count(*) FROM leases") == [(0,)]
    store.close()
