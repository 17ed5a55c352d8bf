"""The stores under test, each with time that passes only when told to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from underlay.core.cache import Entry
from underlay.stores.memory import MemoryStore
from underlay.stores.sqlite import SqliteStore
from underlay.stores.store import Store
from underlay.telemetry.events import Usage
from underlay.testing import FakeClock

KINDS = ("memory", "sqlite")


def entry(clock: FakeClock, tag: int = 0, *, ttl: float = 100.0, size: int = 1) -> Entry:
    """An answer of now; `tag` tells answers apart."""
    frames = (b"frame %d" % tag, b"", b"[DONE]")
    headers = ((b"content-type", b"text/event-stream"),)
    return Entry(
        200, headers, frames, clock.now(), ttl, size, True, 0.5, Usage(3, tag), cost_usd=0.25, origin=b"o"
    )


@dataclass
class Rig:
    """A store and its clock. `folder` is where a store that needs a file puts it."""

    kind: str
    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)

    @property
    def path(self) -> str:
        """The file of a store that has one."""
        return str(self.folder / "store.db")

    def open(self, maxsize: int = 10, max_bytes: int = 1000) -> Store[Entry]:
        """A store; of a kind with a file, one more on the same file."""
        if self.kind == "memory":
            return MemoryStore(maxsize, max_bytes)
        return SqliteStore(self.path, maxsize, max_bytes, wall=self.clock.wall)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Run a statement in the file, past the store."""
        import sqlite3

        db = sqlite3.connect(self.path, isolation_level=None)
        try:
            return db.execute(statement, values).fetchall()
        finally:
            db.close()
