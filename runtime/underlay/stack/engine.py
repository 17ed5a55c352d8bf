"""Is there a container engine that answers, with a compose command? A client that is merely installed is
neither.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ANSWER_TIMEOUT_S = 15.0

Run = Callable[[Sequence[str]], tuple[int, str]]
Which = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that answers: its name, its client's command, and the command that speaks compose to it."""

    name: str
    client: str
    compose: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NoEngine:
    """No engine can be used; one reason for each kind that was tried."""

    reasons: tuple[str, ...]


# client -> how to ask its engine for a sign of life; the ways to say compose, tried in this order
_CLIENTS = {
    "docker": ("info", "--format", "{{.ServerVersion}}"),
    "podman": ("info", "--format", "{{.Version.Version}}"),
}
_COMPOSE = {
    "docker": (("docker", "compose"), ("docker-compose",)),
    "podman": (("podman", "compose"), ("podman-compose",)),
}


def find_engine(run: Run | None = None, which: Which | None = None) -> Engine | NoEngine:
    """Find an engine that answers and a compose command for it: Docker first, then Podman.

    `run` and `which` replace running a command (giving its return code and output) and finding it (tests).
    """
    ask, find = run or _run, which or shutil.which
    reasons: list[str] = []
    for name, question in _CLIENTS.items():
        client = find(name)
        if client is None:
            reasons.append(f"{name} is not installed")
            continue
        code, said = ask((client, *question))
        if code != 0 or not said.strip():
            reasons.append(f"{name} is installed, but no engine answers it")
            continue
        compose = _find_compose(name, ask, find)
        if compose is not None:
            return Engine(name, client, compose)
        reasons.append(f"{name} answers, but has no compose command")
    return NoEngine(tuple(reasons))


def _find_compose(name: str, ask: Run, find: Which) -> tuple[str, ...] | None:
    """Return the first compose command of an engine that runs."""
    for program, *rest in _COMPOSE[name]:
        path = find(program)
        if path is not None and ask((path, *rest, "version"))[0] == 0:
            return (path, *rest)
    return None


def _run(command: Sequence[str]) -> tuple[int, str]:
    """Run a command that may hang on an engine; give its return code and what it printed."""
    try:
        answer = subprocess.run(  # noqa: S603 - fixed words behind a program found on PATH
            list(command),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 127, ""
    return answer.returncode, answer.stdout
