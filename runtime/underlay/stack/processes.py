"""Start servers that outlive this process, and stop exactly those.

A pid alone says nothing: after a crash or a reboot another program may bear it. So a process is remembered
with the moment it was started, and a signal goes out only to a pid whose moment is still the same.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underlay.stack.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

POLL_S = 0.05
KILL_WAIT_S = 5.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# The shell leaves the server to the system at once: it has no parent that would have to wait for it.
_LAUNCH = 'exec 3>&1 >>"$1" 2>&1 </dev/null || exit 1; shift; "$@" 3>&- & echo $! >&3'


@dataclass(frozen=True, slots=True)
class Process:
    """A process that was started: its pid and a mark of the moment it began, unique across reboots."""

    pid: int
    began: str


def start(command: Sequence[str], env: Mapping[str, str], log: Path) -> Process:
    """Start a server in a session of its own, its output appended to `log`.

    `env` is its whole environment. Raises `StackError` when it cannot be started or is gone at once.
    """
    launched = subprocess.run(  # noqa: S603 - the command is ours, never a shell string from outside
        ["/bin/sh", "-c", _LAUNCH, "sh", str(log), *command],
        env=dict(env),
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    if launched.returncode != 0 or not launched.stdout.strip().isdecimal():
        raise StackError(f"could not start {command[0]}: {launched.stderr.strip()}")
    pid = int(launched.stdout)
    began = _beginning(pid)
    if began is None:
        raise StackError(f"{command[0]} ended at once; its last words are in {log}")
    return Process(pid, began)


def is_running(process: Process) -> bool:
    """Say whether this very process lives: its pid is alive and began at the remembered moment."""
    return _beginning(process.pid) == process.began


def stop(
    process: Process,
    grace_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """End a process: politely, and by force after `grace_s` seconds. Say whether it was running.

    A pid that belongs to someone else by now is left alone. Raises `StackError` when even force does not end
    it.
    """
    if not is_running(process):
        return False
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_WAIT_S)):
        _send(process, number)
        until = clock() + wait_s
        while is_running(process):
            if clock() >= until:
                break
            sleep(POLL_S)
        else:
            return True
    raise StackError(f"process {process.pid} does not end")


def _send(process: Process, number: signal.Signals) -> None:
    """Send a signal to this very process, or to nobody."""
    with contextlib.suppress(ProcessLookupError):
        if sys.platform == "linux":
            # the handle keeps the pid from being given away between the look and the signal
            handle = os.pidfd_open(process.pid)
            try:
                if is_running(process):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)
        elif is_running(process):
            os.kill(process.pid, number)


def _beginning(pid: int) -> str | None:
    """Return the mark of the moment a living process began; None when there is none or only its remains."""
    if _BOOT_ID.is_file():
        return _beginning_by_proc(pid)
    return _beginning_by_ps(pid)


def _beginning_by_proc(pid: int) -> str | None:
    """Linux: the boot's id and the start time in ticks since then (field 22 of /proc/PID/stat)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # the command's name stands in brackets and may hold anything, so count from its end
    fields = stat.rpartition(")")[2].split()
    # while other threads of a killed process end, the first shows as dead and ports are not free yet
    if fields[0] in ("Z", "X") and int(fields[17]) <= 1:
        return None
    return f"{_BOOT_ID.read_text(encoding='ascii').strip()}/{fields[19]}"


def _beginning_by_ps(pid: int) -> str | None:
    """Elsewhere: the start time that ps prints, with the year, to the second."""
    answer = subprocess.run(  # noqa: S603 - no word of it comes from outside
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
        env={"LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    state, _, began = answer.stdout.strip().partition(" ")
    if answer.returncode != 0 or not began or state.startswith("Z"):
        return None
    return " ".join(began.split())
