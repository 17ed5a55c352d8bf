"""Which native servers are at hand: built in the cache folder, or on PATH and fitting the pins."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from underlay.stack.pins import Pins

VERSION_TIMEOUT_S = 20.0
_VERSION = re.compile(r"\bv?(\d+\.\d+\.\d+)\b")


@dataclass(frozen=True, slots=True)
class Program:
    """A native server that can be started: its path, its version and how that version stands to the pinned
    one.
    """

    service: str
    path: Path
    version: str
    pinned: str

    @property
    def note(self) -> str | None:
        """What a user should know about the version; None when it is the pinned one."""
        if self.version == self.pinned:
            return None
        return f"{self.service} {self.version} from {self.path} is newer than the tested {self.pinned}"


@dataclass(frozen=True, slots=True)
class Missing:
    """A native server that was not found, or only in a version that does not fit."""

    service: str
    reason: str


# service -> names of its program: in the cache folder the first, on PATH any of them
NAMES = {
    "prometheus": ("prometheus",),
    "jaeger": ("jaeger",),
    "collector": ("otelcol", "otelcol-contrib"),
}


def stamp_path(folder: Path, service: str) -> Path:
    """Return the file in the cache folder that says which version of a service was built there."""
    return folder / f"{service}.stamp"


def find_programs(
    pins: Pins, folder: Path, ask_version: Callable[[Path], str | None] | None = None
) -> tuple[Program | Missing, ...]:
    """Look for every native server, in the order they are started in.

    The cache folder wins, when its stamp names the pinned version. A program on PATH fits when it says the
    pinned version or a later one of the same major number. `ask_version` replaces running `PROGRAM --version`
    (tests).
    """
    ask = ask_version or _ask_version
    pinned = {"prometheus": pins.prometheus, "jaeger": pins.jaeger, "collector": pins.collector}
    return tuple(_find(service, names, pinned[service], folder, ask) for service, names in NAMES.items())


def _find(
    service: str, names: tuple[str, ...], pinned: str, folder: Path, ask: Callable[[Path], str | None]
) -> Program | Missing:
    """Find one server."""
    built, stamp = folder / names[0], stamp_path(folder, service)
    if built.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8").split()[:1] == [pinned]:
        return Program(service, built, pinned, pinned)
    seen: list[str] = []
    for name in names:
        path = shutil.which(name)
        if path is None:
            continue
        version = ask(Path(path))
        if version is not None and _fits(version, pinned):
            return Program(service, Path(path), version, pinned)
        seen.append(f"{path} is {version or 'of unknown version'}")
    return Missing(service, "; ".join(seen) + f", {pinned} is needed" if seen else "not found")


def _fits(version: str, pinned: str) -> bool:
    """Say whether a version is the pinned one or a later one with the same major number."""
    have, want = _numbers(version), _numbers(pinned)
    return have[0] == want[0] and have >= want


def _numbers(version: str) -> tuple[int, ...]:
    """Split a version into numbers that compare."""
    return tuple(int(part) for part in version.split("."))


def _ask_version(path: Path) -> str | None:
    """Run `PROGRAM --version` (Jaeger: `version`) and return the first version it prints."""
    for argument in ("--version", "version"):
        try:
            answer = subprocess.run(  # noqa: S603 - a program of the stack found on PATH
                [str(path), argument],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=VERSION_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if answer.returncode == 0 and (match := _VERSION.search(answer.stdout + answer.stderr)):
            return match[1]
    return None
