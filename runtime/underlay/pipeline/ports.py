"""What the pipeline needs of the world around it. Transports, tests and library calls each bring their
own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine, Hashable, Sequence

    from underlay.core.cache import Entry
    from underlay.telemetry.attributes import Ending, Verdict

__all__ = ["Exchange", "Mishap", "Ports", "Upstream"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, in nobody's types. `target` is the raw path with its query; header names are as sent."""

    method: str
    scheme: bytes
    host: str
    port: int | None
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes

    @property
    def url(self) -> bytes:
        """The absolute URL as bytes, for the key."""
        host = self.host.encode()
        if b":" in host:
            host = b"[%b]" % host  # of IPv6: its end and a port would read as one address
        port = b":%d" % self.port if self.port is not None else b""
        return b"%b://%b%b%b" % (self.scheme, host, port, self.target)


@dataclass(frozen=True, slots=True)
class Upstream:
    """The head of a reply that came from the provider. `raw` is what its ports need of it later, and nothing
    that leads back to a reader: only the ports look inside."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    raw: object = None


@dataclass(frozen=True, slots=True)
class Mishap:
    """What an exception of the client family means: how the body ended, what it says about the provider, and
    its short name."""

    ending: Ending
    verdict: Verdict
    name: str


class Ports(Protocol):
    """One call's access to time, network, store and waiting. `sent` turns true when a request starts to
    leave.

    Everything that could ever have to wait is awaitable, the memory store included; in a synchronous call
    none of it suspends.
    """

    sent: bool

    @property
    def home(self) -> Hashable:
        """Who may read the same upstream body live: all synchronous threads, or one event loop."""
        ...

    def now(self) -> float:
        """Seconds on the runtime's monotonic clock."""
        ...

    def describe(self, error: BaseException) -> Mishap:
        """Translate an exception of the client family, or of its event loop, at this one border."""
        ...

    async def send(self, request: Exchange | None) -> Upstream:
        """Send a request that the pipeline built, or (None) the caller's own, exactly as it was made."""
        ...

    async def pull(self, upstream: Upstream) -> bytes | None:
        """The next frame of the body, or None at its iterator's end."""
        ...

    async def close(self, upstream: Upstream) -> None:
        """Let go of the body. Idempotent."""
        ...

    async def load(self, key: bytes) -> Entry | None:
        """The stored entry, or None."""
        ...

    async def store(self, key: bytes, entry: Entry) -> bool:
        """Keep an entry. False when the store did not take it."""
        ...

    def waiter(self) -> object:
        """A fresh thing to wait on, for one caller."""
        ...

    async def wait(self, waiter: object) -> None:
        """Wait until woken. The caller's own timeouts and cancellation apply."""
        ...

    def wake(self, waiter: object) -> None:
        """Wake who waits on it. Harmless when nobody does any more."""
        ...

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run work that no caller's cancellation reaches: a task of the loop, or (synchronous callers) at
        once, here."""
        ...
