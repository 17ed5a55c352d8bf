"""Decides what the exact cache may serve and what it may keep. Times are seconds on one clock; sizes are
bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from underlay.records import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from underlay.telemetry.events import Usage

__all__ = [
    "NO_DIRECTIVES",
    "Directives",
    "Entry",
    "Found",
    "Keep",
    "Lacking",
    "Leave",
    "directives_of",
    "plan_lookup",
    "plan_store",
    "replay_headers",
]

RawHeaders = tuple[tuple[bytes, bytes], ...]


@record(frozen=True, slots=True)
class Entry:
    """One stored answer: the exact frames that came, and what it took to make them.

    `stored_at` and `ttl` are seconds; `size` is what the entry counts against the bound in bytes; `duration`
    is how long the provider took; `origin` is the listener's opaque pointer to the call that generated it.
    """

    status: int
    headers: RawHeaders
    frames: tuple[bytes, ...]
    stored_at: float
    ttl: float
    size: int
    stream: bool
    duration: float
    usage: Usage | None = None
    cost_usd: float | None = None
    origin: bytes = b""


@record(frozen=True, slots=True)
class Directives:
    """What the caller's `Cache-Control` request header asks for (RFC 9111 §5.2.1). `max_age` is seconds."""

    no_store: bool = False
    no_cache: bool = False
    max_age: float | None = None


NO_DIRECTIVES: Final = Directives()


def directives_of(values: Iterable[bytes]) -> Directives:
    """Read the values of the request's own `Cache-Control` headers. Unknown directives are ignored, as the
    specification asks."""
    found = NO_DIRECTIVES
    for value in values:
        found = _parsed(value, found)
    return found


def _parsed(value: bytes, found: Directives) -> Directives:
    no_store, no_cache, max_age = found.no_store, found.no_cache, found.max_age
    for item in value.decode("latin-1").lower().split(","):
        name, _, argument = item.strip().partition("=")
        if name == "no-store":
            no_store = True
        elif name == "no-cache":
            no_cache = True
        elif name == "max-age":
            text = argument.strip('"')
            # An unreadable age is read as the strictest one: serving too old an answer is the worse mistake.
            max_age = float(text) if text.isascii() and text.isdigit() else 0.0
    return Directives(no_store, no_cache, max_age)


@record(frozen=True, slots=True)
class Found:
    """The entry may be served. `age` and `ttl_left` are seconds."""

    entry: Entry
    age: float
    ttl_left: float


@record(frozen=True, slots=True)
class Lacking:
    """Nothing may be served. `expired`: the entry outlived its time and should be removed."""

    reason: Literal["absent", "expired", "too_old", "no_cache"]
    expired: bool = False


_ABSENT: Final = Lacking("absent")


def plan_lookup(entry: Entry | None, now: float, directives: Directives) -> Found | Lacking:
    """May this entry answer now? The directives make it stricter, never laxer."""
    if entry is None:
        return _ABSENT
    age = max(0.0, now - entry.stored_at)
    if age >= entry.ttl:
        return Lacking("expired", expired=True)
    if directives.no_cache or directives.no_store:
        return Lacking("no_cache")
    if directives.max_age is not None and age > directives.max_age:
        return Lacking("too_old")
    return Found(entry, age, entry.ttl - age)


@record(frozen=True, slots=True)
class Keep:
    """The answer may be stored."""


@record(frozen=True, slots=True)
class Leave:
    """The answer must not be stored; `reason` is a closed, low-cardinality word."""

    reason: Literal["status", "incomplete", "error", "not_storable", "too_large", "no_store"]


_KEEP: Final = Keep()


def plan_store(
    status: int, *, complete: bool, storable: bool, error: bool, fits: bool, directives: Directives
) -> Keep | Leave:
    """May this answer be kept? Only a clean end is: the dialect's terminal event or one whole JSON value,
    with no error inside.

    `storable` is the dialect's word (an unfinished background answer is not), `fits` says that its frames
    were all held.
    """
    if directives.no_store:
        return Leave("no_store")
    if status != 200:  # only that answers the question that was asked; 2xx of another kind are receipts
        return Leave("status")
    if error:
        return Leave("error")
    if not complete:
        return Leave("incomplete")
    if not storable:
        return Leave("not_storable")
    return _KEEP if fits else Leave("too_large")


_DROPPED: Final[frozenset[bytes]] = frozenset(
    (
        # hop by hop (RFC 9110 §7.6.1)
        b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
        b"upgrade",
        # said of the first request only: must not feed anybody's pacing or provenance again
        b"x-request-id", b"request-id", b"apim-request-id", b"x-ms-request-id", b"cf-ray", b"traceparent",
        b"tracestate", b"retry-after", b"x-should-retry", b"set-cookie", b"age", b"cache-status",
        b"openai-processing-ms", b"x-envoy-upstream-service-time", b"retry-after-ms", b"x-client-request-id",
        b"x-correlation-id", b"x-amzn-requestid", b"x-amzn-trace-id", b"x-cloud-trace-context",
    )
)  # fmt: skip
_SPELLINGS: Final = 1024
_DROPPED_PREFIXES: Final = (b"x-ratelimit-", b"ratelimit", b"anthropic-ratelimit-")


def replay_headers(
    stored: Sequence[tuple[bytes, bytes]], age: float, ttl_left: float
) -> list[tuple[bytes, bytes]]:
    """Headers of a hit: the stored ones with `Age` (RFC 9111 §5.1) and `Cache-Status` (RFC 9211)."""
    return [*stored, (b"age", b"%d" % int(age)), (b"cache-status", b"underlay; hit; ttl=%d" % int(ttl_left))]


def stored_headers(raw: Sequence[tuple[bytes, bytes]]) -> RawHeaders:
    """The headers that are kept with an entry: those of the answer, not those of the exchange."""
    return tuple([header for header in raw if _stays[header[0]]])


class _Stays(dict[bytes, bool]):
    """Whether a header stays, by its name as it is spelled. Names come from outside: bounded, found out anew
    when full."""

    def __missing__(self, name: bytes) -> bool:
        lower = name.lower()
        stays = lower not in _DROPPED and not lower.startswith(_DROPPED_PREFIXES)
        if len(self) >= _SPELLINGS:
            self.clear()
        self[name] = stays
        return stays


_stays = _Stays()
