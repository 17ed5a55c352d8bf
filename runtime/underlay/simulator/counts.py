"""What the simulator received and gave, safe between threads."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CREDENTIALS", "Counts", "Ledger", "RouteCounts", "Seen"]

CREDENTIALS: Final = frozenset(
    (
        "authorization",
        "proxy-authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "cookie",
        "x-auth-token",
    )
)
"""Request headers that are never kept."""


@dataclass(frozen=True, slots=True)
class RouteCounts:
    """Counts of one (path, model), or of a sum of them.

    `statuses` counts replies by HTTP status, when their head is sent; `inputs` the texts of answered
    embeddings and the prompts of answered completions (1 a call elsewhere); tokens are those given: the
    prompt when the reply begins, the output as it is sent. `aborted` are calls whose client went away before
    the end, `active` those not finished. Bytes are of bodies.
    """

    requests: int = 0
    streams: int = 0
    inputs: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    aborted: int = 0
    active: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    statuses: Mapping[int, int] = field(default_factory=lambda: MappingProxyType(dict[int, int]()))

    def status(self, status: int) -> int:
        """How many replies had this status."""
        return self.statuses.get(status, 0)


_NUMBERS: Final = tuple(each.name for each in fields(RouteCounts) if each.name != "statuses")


@dataclass(frozen=True, slots=True)
class Counts:
    """A snapshot: `routes` has the counts by (path, model); a path is chat, embeddings, messages, …"""

    routes: Mapping[tuple[str, str], RouteCounts]

    @property
    def total(self) -> RouteCounts:
        """The sum over everything."""
        return self.of()

    def of(self, path: str | None = None, model: str | None = None) -> RouteCounts:
        """The sum over one path, one model, or one of both."""
        chosen = [
            counts
            for (its_path, its_model), counts in self.routes.items()
            if path in (None, its_path) and model in (None, its_model)
        ]
        statuses: Counter[int] = Counter()
        for counts in chosen:
            statuses.update(counts.statuses)
        numbers = {name: sum(getattr(counts, name) for counts in chosen) for name in _NUMBERS}
        return RouteCounts(**numbers, statuses=MappingProxyType(dict(statuses)))

    def as_json(self) -> dict[str, Any]:
        """The body of GET /_sim/counts: `{"schema": 1, "total": {…}, "routes": [{"path", "model", …}]}`."""
        routes = [
            {"path": path, "model": model, **_plain(counts)}
            for (path, model), counts in sorted(self.routes.items())
        ]
        return {"schema": 1, "total": _plain(self.total), "routes": routes}


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as received, without body, query and credentials.

    `headers` are in their order, with names in lower case.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body_bytes: int
    body_sha256: str
    kind: str
    model: str
    stream: bool

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key == name.lower()), None)


class Ledger:
    """The books of one simulator."""

    def __init__(self, keep: int) -> None:
        self._changed = threading.Condition()
        self._rows: dict[tuple[str, str], Counter[str]] = {}
        self._statuses: dict[tuple[str, str], Counter[int]] = {}
        self._seen: deque[Seen] = deque(maxlen=keep)

    def receive(self, seen: Seen) -> None:
        """Book a request."""
        with self._changed:
            self._seen.append(seen)
        self.add(
            seen.kind, seen.model, requests=1, active=1, streams=int(seen.stream), bytes_in=seen.body_bytes
        )

    def add(self, kind: str, model: str, *, status: int | None = None, **numbers: int) -> None:
        """Add to the counts of one (path, model), by the names of `RouteCounts`, and wake the waiters."""
        with self._changed:
            row = self._rows.setdefault((kind, model), Counter())
            row.update(numbers)
            if status is not None:
                self._statuses.setdefault((kind, model), Counter())[status] += 1
            self._changed.notify_all()

    def counts(self) -> Counts:
        """A snapshot."""
        with self._changed:
            return self._snapshot()

    def seen(self) -> tuple[Seen, ...]:
        """The latest requests, oldest first."""
        with self._changed:
            return tuple(self._seen)

    def wait(self, holds: Callable[[Counts], bool], timeout: float) -> Counts:
        """Wait until `holds` is true of the counts and return them; `TimeoutError` after `timeout` s."""
        with self._changed:
            if not self._changed.wait_for(lambda: holds(self._snapshot()), timeout):
                raise TimeoutError(f"the simulator's counts did not change as expected within {timeout} s")
            return self._snapshot()

    def reset(self) -> None:
        """Forget everything but the calls in hand."""
        with self._changed:
            active = {key: row["active"] for key, row in self._rows.items() if row["active"]}
            self._rows = {key: Counter(active=number) for key, number in active.items()}
            self._statuses = {}
            self._seen.clear()
            self._changed.notify_all()

    def _snapshot(self) -> Counts:
        routes = {
            key: RouteCounts(
                **{name: row[name] for name in _NUMBERS},
                statuses=MappingProxyType(dict(self._statuses.get(key, {}))),
            )
            for key, row in self._rows.items()
        }
        return Counts(MappingProxyType(routes))


def _plain(counts: RouteCounts) -> dict[str, Any]:
    numbers: dict[str, Any] = {name: getattr(counts, name) for name in _NUMBERS}
    return {
        **numbers,
        "statuses": {str(status): number for status, number in sorted(counts.statuses.items())},
    }
