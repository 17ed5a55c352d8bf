"""What the stack remembers between commands: one JSON file in its home, and a lock around changes."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from underlay.stack.errors import StackError
from underlay.stack.processes import Process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from underlay.stack.ports import Mode

try:
    import fcntl
except ImportError:  # Windows, where only containers run: the engine keeps the order there
    fcntl = None  # type: ignore[assignment]

STATE_FILE = "state.json"
LOCK_FILE = "lock"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Server:
    """A native server that was started: its process, and the version that was started."""

    process: Process
    version: str


@dataclass(frozen=True, slots=True)
class State:
    """How the stack was last started: the mode, the ports by name, the native servers by service."""

    mode: Mode = "native"
    ports: Mapping[str, int] = field(default_factory=dict)
    servers: Mapping[str, Server] = field(default_factory=dict)


def read_state(home: Path) -> State | None:
    """Read the state in `home`; None when the stack was never started. Raises `StackError` for a damaged
    file.
    """
    path = home / STATE_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return _parse(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StackError(f"{path} is damaged ({error}): stop the servers by hand and delete it") from error


def write_state(home: Path, state: State) -> None:
    """Write the state as a whole or not at all."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = home / f"{STATE_FILE}.{os.getpid()}"
    fresh.write_text(json.dumps({"schema": SCHEMA, **asdict(state)}, indent=2) + "\n", encoding="utf-8")
    fresh.replace(home / STATE_FILE)


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the home's lock; raises `StackError` at once when another command holds it."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / LOCK_FILE).open("w", encoding="ascii") as lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StackError(f"another `underlay stack` command is at work in {home}") from error
        yield


def _parse(document: Mapping[str, Any]) -> State:
    """Turn the file's document into `State`; the caller words what is wrong with it."""
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']}, known is {SCHEMA}")
    mode = document["mode"]
    if mode not in ("native", "compose"):
        raise ValueError(f"mode {mode!r}")
    servers = {
        name: Server(
            Process(int(told["process"]["pid"]), str(told["process"]["began"])), str(told["version"])
        )
        for name, told in document["servers"].items()
    }
    return State(mode, {name: int(number) for name, number in document["ports"].items()}, servers)
