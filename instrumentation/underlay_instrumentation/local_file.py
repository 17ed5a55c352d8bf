"""The local telemetry file: OTLP-JSON lines, bounded, rotated, one file per process.

Each line is one `ExportTraceServiceRequest`, `ExportMetricsServiceRequest` or `ExportLogsServiceRequest` in
OTLP-JSON, which is what the Collector's `otlpjsonfile` receiver and otel-tui read. Files are named
`telemetry-<UTC start>-<pid>.jsonl`, so their names sort by age; when one is full the process starts another.
A process holds a lock on the file that it writes: what is not locked, nobody writes.

Nothing here raises: what could not be written is counted, and said once on stderr.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be deleted: that is the lock
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEFAULT_DIRECTORY", "LocalFile"]

DEFAULT_DIRECTORY: Final = ".underlay"

_NAME: Final = re.compile(r"telemetry-\d{8}T\d{9}Z-\d+\.jsonl")
_IGNORE_ALL: Final = "# Made by underlay: local telemetry is not source.\n*\n"


class LocalFile:
    """Appends lines to this process's file in `directory`; safe from several threads and after a fork.

    `max_bytes` bounds one file, `keep` the closed files beside those that are being written, whoever wrote
    them.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        max_bytes: int,
        keep: int,
        clock: Callable[[], float] = time.time,
        stderr: TextIO | None = None,
    ) -> None:
        # Absolute, because the app may change its working directory.
        self.directory = Path(directory).absolute()
        self.lost = 0
        self._max_bytes = max_bytes
        self._keep = keep
        self._clock = clock
        self._stderr = stderr
        self._told = False
        self._reset()
        if hasattr(os, "register_at_fork"):
            reset = weakref.WeakMethod(self._after_fork)
            os.register_at_fork(after_in_child=lambda: (method := reset()) and method())

    @property
    def path(self) -> Path | None:
        """The file being written, or None before the first line."""
        return self._path

    def write(self, line: str, items: int = 1) -> bool:
        """Append one line that carries `items` spans, points or records. False when it could not be written,
        which is counted."""
        data = line.encode() + b"\n"
        with self._lock:
            try:
                if len(data) > self._max_bytes:
                    raise _TooLongError(
                        f"a batch of {len(data)} bytes is larger than telemetry.file_max_bytes"
                    )
                if self._full(len(data)) or self._deleted():
                    self._close()
                if self._fd is None:
                    self._open()
                self._append(data)
            except (OSError, _TooLongError) as error:
                self.lost += items
                self._tell(error)
                return False
            return True

    def close(self) -> None:
        """Close the file. A later write opens a new one."""
        with self._lock:
            self._close()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._path: Path | None = None
        self._size = 0

    def _after_fork(self) -> None:
        """In a fork child: its own file, a fresh lock, and the parent's file closed so that the parent's lock
        on it ends with the parent."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._reset()
        self.lost = 0

    def _open(self) -> None:
        self._make_directory()
        path = self._new_path()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        fd = os.open(path, flags, 0o600)
        if fcntl is not None:
            # A file system without locks makes no file unwritable; its files then look unused to other
            # processes.
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._fd, self._path, self._size = fd, path, 0
        self._prune()

    def _new_path(self) -> Path:
        """The first free name from now on: two files of one process may start in the same millisecond."""
        millis = int(self._clock() * 1000)
        while True:
            stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(millis // 1000))
            path = self.directory / f"telemetry-{stamp}{millis % 1000:03d}Z-{os.getpid()}.jsonl"
            if not path.exists():
                return path
            millis += 1

    def _make_directory(self) -> None:
        if self.directory.is_dir():
            return
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Only in a folder of our own making: one that the user named may hold other things.
        ignore = self.directory / ".gitignore"
        if not ignore.exists():
            ignore.write_text(_IGNORE_ALL, encoding="utf-8")

    def _full(self, more: int) -> bool:
        return self._size > 0 and self._size + more > self._max_bytes

    def _deleted(self) -> bool:
        """Whether somebody deleted the file under us; what is written to it then is nowhere."""
        return self._fd is not None and os.fstat(self._fd).st_nlink == 0

    def _append(self, data: bytes) -> None:
        fd = self._fd
        if fd is None:
            raise OSError("the telemetry file is not open")
        written = 0
        try:
            while written < len(data):
                written += os.write(fd, data[written:])
        except OSError:
            # Half a line would make the file unreadable for others.
            with contextlib.suppress(OSError):
                os.ftruncate(fd, self._size)
            raise
        self._size += len(data)

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._path, self._size = None, None, 0

    def _prune(self) -> None:
        """Delete the oldest files that nobody writes, down to `keep`."""
        files = sorted(entry for entry in self.directory.iterdir() if _NAME.fullmatch(entry.name))
        closed = [entry for entry in files if entry != self._path and not _in_use(entry)]
        for entry in closed[: max(0, len(closed) - self._keep)]:
            # Another process may have pruned it at the same time.
            with contextlib.suppress(OSError):
                entry.unlink()

    def _tell(self, error: Exception) -> None:
        if self._told:
            return
        self._told = True
        reason = error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream = self._stderr or sys.stderr
            stream.write(
                f"underlay: telemetry cannot be written to {self.directory}: {reason}; "
                "the program goes on without it\n"
            )
            stream.flush()


class _TooLongError(Exception):
    """A line would not fit into an empty file."""


def _in_use(path: Path) -> bool:
    """Whether a living process writes the file: then it holds a lock on it."""
    if fcntl is None:
        return False
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
