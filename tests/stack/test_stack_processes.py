"""Servers outlive the command that starts them, and nobody else's process is ever touched."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
from pathlib import Path

import pytest

from underlay.stack import StackError, processes
from underlay.stack.processes import Process, is_running, start, stop

ENV = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a started process writes."""
    return tmp_path / "server.log"


def test_a_started_process_runs_apart_from_us_until_it_is_stopped(log: Path) -> None:
    """It lives in a session of its own, has just the environment it was given, and ends when told."""
    process = start(["/bin/sh", "-c", "env; echo ready >&2; exec sleep 60"], {**ENV, "ONLY": "this"}, log)
    try:
        while "ready" not in log.read_text(encoding="utf-8"):
            assert is_running(process)
        assert os.getsid(process.pid) != os.getsid(0)
    finally:
        assert stop(process, 5)
    assert not is_running(process)
    assert not stop(process, 5)
    words = log.read_text(encoding="utf-8")
    assert "ONLY=this" in words
    assert "HOME=" not in words


def test_a_pid_that_another_process_bears_is_left_alone() -> None:
    """When the remembered moment differs, the pid is somebody else's: not running for us, and no signal goes
    out.
    """
    stranger = Process(os.getpid(), "another boot/1")
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    try:
        assert not is_running(stranger)
        assert not stop(stranger, 1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == []


def test_a_pid_that_changed_hands_between_look_and_signal_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The moment is looked at again when the signal is sent, with the pid held fast."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    marks = iter(["ours", "somebody else's", "somebody else's"])
    monkeypatch.setattr(processes, "_beginning", lambda _pid: next(marks))
    try:
        assert stop(Process(os.getpid(), "ours"), 1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == []


def test_a_process_that_ignores_the_request_is_ended_by_force(log: Path) -> None:
    """After the time of grace a stubborn server is killed."""
    process = start(["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"], ENV, log)
    while "up" not in log.read_text(encoding="utf-8"):
        assert is_running(process)
    assert stop(process, 0)
    assert not is_running(process)


def test_what_cannot_be_started_is_an_error(log: Path) -> None:
    """A program that is missing is not running, at once or a moment later, and the log says why."""
    with contextlib.suppress(StackError):
        process = start(["/no/such/program"], ENV, log)
        while is_running(process):
            assert process.pid
    assert "/no/such/program" in log.read_text(encoding="utf-8")


def test_a_launch_that_the_shell_refuses_is_an_error(tmp_path: Path) -> None:
    """When not even the log can be opened, the error names the program."""
    with pytest.raises(StackError, match="/bin/sleep"):
        start(["/bin/sleep", "60"], ENV, tmp_path / "no" / "such" / "folder.log")


@pytest.mark.skipif(sys.platform != "linux", reason="threads show this way on Linux only")
def test_a_process_whose_first_thread_is_gone_still_runs(log: Path) -> None:
    """While another thread lives, so do the ports: a process runs until its last thread is gone."""
    exit_thread = {"x86_64": 60, "aarch64": 93}[platform.machine()]
    code = (
        "import ctypes, sys, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print('going', flush=True)\n"
        f"ctypes.CDLL(None).syscall({exit_thread}, 0)\n"
    )
    process = start([sys.executable, "-S", "-c", code], ENV, log)
    try:
        while ") Z " not in Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8"):
            assert is_running(process)
        assert is_running(process)
    finally:
        assert stop(process, 5)


def test_the_remains_of_a_process_do_not_run() -> None:
    """A process that has ended and that nobody has collected yet counts as gone."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert processes._beginning(pid) is None
        assert processes._beginning_by_ps(pid) is None
    finally:
        os.waitpid(pid, 0)


@pytest.mark.skipif(not Path("/bin/ps").exists(), reason="this machine has no ps")
def test_both_ways_to_read_the_moment_know_us_and_nobody_else() -> None:
    """/proc and ps each give this process a stable moment, and none to a pid that is free."""
    for read in (processes._beginning_by_proc, processes._beginning_by_ps):
        if read is processes._beginning_by_proc and not Path("/proc/self/stat").exists():
            continue
        assert read(os.getpid()) == read(os.getpid())
        assert read(os.getpid()) is not None
        assert read(2**22 + 7) is None
