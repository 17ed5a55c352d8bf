"""Who holds a lease: a process, told apart from a later one that was given the same number.

A process is named by its number, the tick of the kernel's clock at which it started, and the boot and the
process namespace that both belong to (proc(5), pid_namespaces(7)). Only a process of the same boot and
namespace can be said to be gone; elsewhere, and where there is no /proc, a lease ends by its time alone.
"""

from __future__ import annotations

import os

__all__ = ["gone", "here"]

_UNNAMED = "?"
_own: tuple[int, str] = (0, "")  # process number and name: a fork child has another


def here() -> str:
    """The name of this process; `?` where it cannot be told from others."""
    global _own
    pid = os.getpid()
    if _own[0] != pid:
        _own = (pid, _name(pid))
    return _own[1]


def gone(holder: str) -> bool:
    """Whether the process of this name has certainly ended. False when that cannot be known from here."""
    pid, _, rest = holder.partition(" ")
    own = here()
    place = own.partition("@")[2]
    if holder == own or not place or rest.partition("@")[2] != place or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is there, and somebody else's; or no process has such a number
        pass
    state, started = _state(int(pid))
    # Z: it has ended and nobody has asked how. An unreadable state says nothing.
    return state == "Z" or started not in ("", rest.partition("@")[0])


def _name(pid: int) -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            place = f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except (OSError, ValueError):
        return _UNNAMED
    started = _state(pid)[1]
    return f"{pid} {started}@{place}" if started else _UNNAMED


def _state(pid: int) -> tuple[str, str]:
    """State letter and start tick of a process; empty where they cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, the program's name in brackets, may hold anything.
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode("ascii"), fields[19].decode("ascii")
    except (OSError, IndexError, ValueError):
        return "", ""
