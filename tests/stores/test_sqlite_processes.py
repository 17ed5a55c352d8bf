"""One SQLite file and several real processes: leaders, crashes, forks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import store_workers
from store_rigs import Rig, entry

from underlay.errors import StoreError
from underlay.stores import sqlite_file
from underlay.stores.holder import gone, here
from underlay.stores.sqlite import SqliteStore
from underlay.stores.store import Held, Lease

SPAWN = multiprocessing.get_context("spawn")
PROCESSES = 4
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
linux = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A folder for the file, and a clock."""
    return Rig("sqlite", tmp_path)


def together(work: Callable[..., None], path: str, times: int) -> list[Any]:
    """Run the same work in several new processes on one file and return what they report."""
    barrier, results = SPAWN.Barrier(PROCESSES), SPAWN.Queue()
    processes = [
        SPAWN.Process(target=work, args=(path, number, barrier, times, results))
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=50) for _ in processes]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    return found


def in_child(work: Callable[[], object]) -> str:
    """Fork, run the work in the child, and return what it says or raises."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12: there may be threads
        pid = os.fork()
    if pid == 0:
        try:
            said = repr(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def test_one_leader_a_key_and_generation(rig: Rig) -> None:
    """Four processes that make the file at the same moment and ask for the same keys at the same moment: one
    leads each time, its answer is everybody's on everybody's own clock, and all have one secret."""
    reports = together(store_workers.lead_or_follow, rig.path, 30)
    assert sorted(turn for led, _ in reports for turn in led) == list(range(30))
    secrets = {secret for _, secret in reports}
    assert len(secrets) == 1
    assert [len(secret) for secret in secrets] == [32]
    assert rig.sql("SELECT count(*) FROM leases") == [(0,)]
    assert os.listdir(rig.folder) == ["store.db"]  # no draft, and no log once the last one has closed


def test_four_processes_leave_the_books_right(rig: Rig) -> None:
    """Under everything at once no answer is another key's, the bounds hold at every look, and the sums and
    records are those of the entries."""
    assert together(store_workers.hammer, rig.path, 250) == [0] * PROCESSES
    assert rig.sql("SELECT entries, size FROM sums") == rig.sql(
        "SELECT count(*), coalesce(sum(size), 0) FROM entries"
    )
    assert rig.sql("SELECT id FROM records ORDER BY id") == rig.sql("SELECT id FROM entries ORDER BY id")
    assert rig.sql("PRAGMA integrity_check") == [("ok",)]


@linux
def test_what_a_killed_process_led_is_free_at_once(rig: Rig) -> None:
    """While it lives it has the key; killed, the next one to ask leads, and its token is fenced off."""
    here_end, there_end = SPAWN.Pipe()
    process = SPAWN.Process(target=store_workers.lead_and_hang, args=(rig.path, there_end))
    process.start()
    assert isinstance(here_end, Connection)
    pid, token = here_end.recv()
    store = SqliteStore(rig.path, 10, 1000, wall=lambda: 1e9)
    assert store.lease(b"k", 0.0, 60.0) == Held(1e9)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    answer = store.lease(b"k", 0.0, 60.0)
    assert isinstance(answer, Lease)
    assert answer.token > token
    assert store.put(b"k", entry(rig.clock), 0.0, token) is False
    process.join()
    store.close()


@linux
def test_a_process_number_that_was_given_again_is_another_process() -> None:
    """The start tells two processes with one number apart."""
    pid, _, rest = here().partition(" ")
    started, _, place = rest.partition("@")
    assert not gone(here())
    assert gone(f"{pid} {int(started) + 1}@{place}")


@linux
@forks
def test_a_fork_child_has_a_name_of_its_own() -> None:
    """It is another process than its parent."""
    parent = here()
    assert in_child(lambda: here() != parent and not gone(parent)) == "True"


@linux
@pytest.mark.parametrize(
    "holder",
    ["", "?", "x", "1", "99999999 5@elsewhere", "x 5@{place}", f"{10**30} 5@{{place}}", "1 @", "1 5"],
)
def test_of_what_cannot_be_known_nothing_is_said(holder: str) -> None:
    """A holder of another boot, of another namespace, or without a readable name is not known to be gone."""
    assert gone(holder.format(place=here().partition("@")[2])) is False


@linux
def test_a_number_that_no_process_has_is_gone() -> None:
    """Of the same boot and namespace."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert gone(f"{process.pid} 5@{here().partition('@')[2]}")


def test_without_proc_nothing_is_said(monkeypatch: pytest.MonkeyPatch, rig: Rig) -> None:
    """Where processes cannot be named a lease ends by its time alone."""
    import builtins

    from underlay.stores import holder

    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(holder, "_own", (0, ""))
    monkeypatch.setattr(builtins, "open", refuse)
    assert holder.here() == "?"
    assert gone("1 5@x") is False
    store = rig.open()
    assert isinstance(store.lease(b"k", 0.0, 60.0), Lease)
    assert isinstance(store.lease(b"k", 0.0, 60.0), Held)
    store.close()
    monkeypatch.setattr(holder, "_own", (0, ""))


@forks
def test_a_fork_child_has_a_handle_and_locks_of_its_own(rig: Rig) -> None:
    """The child's handle is not the parent's: the kernel knows of locks of the child. Both go on."""
    store = rig.open()
    store.put(b"k", entry(rig.clock, 1), rig.clock.now())

    def work() -> object:
        child = store.forked()
        assert isinstance(child, SqliteStore)
        found = child.get(b"k", rig.clock.now())
        child.put(b"new", entry(rig.clock, 2), rig.clock.now())
        inode, locked = os.stat(rig.path).st_ino, True
        if os.path.exists("/proc/locks"):
            lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
            owned = [fields[5].rpartition(":")[2] for fields in lines if fields[4] == str(os.getpid())]
            locked = str(inode) in owned
        entries = child.counts().entries
        child.close()
        return found == entry(rig.clock, 1), locked, entries

    assert in_child(work) == "(True, True, 2)"
    assert store.get(b"new", rig.clock.now()) == entry(rig.clock, 2)
    assert store.get(b"k", rig.clock.now()) is not None
    store.close()


@forks
def test_a_fork_child_has_no_lease_of_its_parent(rig: Rig) -> None:
    """The parent lives, so the key is held; the child's totals are from zero."""
    store = rig.open(1)
    store.put(b"a", entry(rig.clock), rig.clock.now())
    store.put(b"b", entry(rig.clock), rig.clock.now())
    assert isinstance(store.lease(b"k", rig.clock.now(), 60.0), Lease)
    child = store.forked()
    assert child.counts().evictions == 0
    assert store.counts().evictions == 1
    said = in_child(lambda: store.forked().lease(b"k", rig.clock.now(), 60.0))
    assert said == repr(Held(rig.clock.now() + 60.0))
    child.close()
    store.close()


@forks
def test_forks_while_threads_are_at_work_harm_nobody(rig: Rig) -> None:
    """Twenty children in the middle of other threads' writes: each reads and writes, and the file is whole."""
    store = rig.open(50, 10**6)
    store.put(b"k", entry(rig.clock, 1), rig.clock.now())
    stop = threading.Event()
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            while not stop.is_set():
                store.put(b"%d" % number, entry(rig.clock, number), rig.clock.now())
                store.get(b"%d" % number, rig.clock.now())
        except BaseException as error:
            failed.append(error)

    def child_work() -> object:
        child = store.forked()
        put = child.put(b"child", entry(rig.clock, 3), rig.clock.now())
        return put, child.get(b"k", rig.clock.now()) == entry(rig.clock, 1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    said = [in_child(child_work) for _ in range(20)]
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert said == ["(True, True)"] * 20
    assert store.get(b"child", rig.clock.now()) == entry(rig.clock, 3)
    store.close()
    assert rig.sql("PRAGMA integrity_check") == [("ok",)]


@forks
def test_a_handle_that_was_inherited_all_the_same_is_never_used(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a handle could not be closed before the fork, the child refuses the file, neither using nor closing
    it, also under a fresh store; the parent does not notice."""
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.0)
    store = rig.open()
    store.put(b"k", entry(rig.clock), rig.clock.now())
    assert isinstance(store, SqliteStore)

    def work() -> object:
        kept = list(sqlite_file._inherited)
        said: list[str] = []
        for attempt in (lambda: store.forked().get(b"k", 0.0), lambda: store.get(b"k", 0.0), rig.open):
            try:
                attempt()
            except StoreError as error:
                said.append(str(error))
        usable = kept[0].execute("SELECT 1").fetchone() == (1,)  # closed, it would raise
        return len(kept), usable, ["forked while the file was open" in text for text in said]

    with store._file._lock:  # a query that does not end
        said = in_child(work)
    assert said == "(1, True, [True, True, True])"
    assert store.get(b"k", rig.clock.now()) == entry(rig.clock)
    store.close()


def test_a_fork_that_ran_no_hook_is_noticed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that C code made finds itself by its number."""
    monkeypatch.setattr(sqlite_file, "_inherited", [])
    store = rig.open()
    store.put(b"k", entry(rig.clock), rig.clock.now())
    assert isinstance(store, SqliteStore)
    store._file._pid = -1
    with pytest.raises(StoreError, match="forked while the file was open"):
        store.get(b"k", rig.clock.now())
    (handle,) = sqlite_file._inherited
    assert isinstance(handle, sqlite3.Connection)
    handle.close()


def test_the_hooks_pause_the_file_and_let_it_go(rig: Rig) -> None:
    """Before a fork the handle is closed and nobody can open another; afterwards all goes on."""
    store = rig.open()
    store.put(b"k", entry(rig.clock), rig.clock.now())
    assert isinstance(store, SqliteStore)
    sqlite_file._before_fork()
    try:
        assert store._file._db is None
        assert store._file._lock.locked()
    finally:
        sqlite_file._after_fork_in_parent()
    assert store.get(b"k", rig.clock.now()) == entry(rig.clock)
    store.close()


def test_a_server_that_forks_its_workers_has_no_handle_yet(rig: Rig) -> None:
    """Opening checks the file and closes it again; the first use opens it."""
    store = rig.open()
    assert isinstance(store, SqliteStore)
    assert store._file._db is None
    assert store.get(b"k", rig.clock.now()) is None
    assert store._file._db is not None
    store.close()
