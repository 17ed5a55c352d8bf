"""What the pipeline needs of the world around it. Transports, tests and library calls each bring their
own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from underlay.records import record

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Sequence

    from underlay.core.cache import Entry
    from underlay.stores.store import Held, Lease
    from underlay.telemetry.attributes import Ending, Verdict

__all__ = ["NO_TIMEOUTS", "Exchange", "Mishap", "Now", "Ports", "Timeouts", "Upstream", "url_of"]


class Timeouts(NamedTuple):
    """The four timeouts of a request, in seconds; None waits for ever."""

    connect: float | None = None
    read: float | None = None
    write: float | None = None
    pool: float | None = None


NO_TIMEOUTS: Final = Timeouts()


@record(frozen=True, slots=True)
class Exchange:
    """A request, in nobody's types. `target` is the raw path with its query; header names are as sent."""

    method: str
    scheme: bytes
    host: str
    port: int | None
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


def url_of(scheme: bytes, host: str, port: int | None, target: bytes) -> bytes:
    """The absolute URL as bytes, for the key. `target` is the raw path with its query."""
    name = host.encode()
    if b":" in name:
        name = b"[%b]" % name  # of IPv6: its end and a port would read as one address
    return b"%b://%b%b%b" % (scheme, name, b":%d" % port if port is not None else b"", target)


@record(frozen=True, slots=True)
class Upstream:
    """The head of a reply that came from the provider. `raw` is what its ports need of it later, and nothing
    that leads back to a reader: only the ports look inside."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    raw: object = None


@record(frozen=True, slots=True)
class Mishap:
    """What an exception of the client family means: how the body ended, what it says about the provider, and
    its short name."""

    ending: Ending
    verdict: Verdict
    name: str


class Now(Protocol):
    """Tells the time: seconds on the runtime's monotonic clock. The clock's own function, for a call asks a
    dozen times."""

    def __call__(self) -> float: ...


class Ports(Protocol):
    """One call's access to time, network, store and waiting. `sent` turns true when a request starts to
    leave.

    Everything that could ever have to wait is awaitable, the memory store included; in a synchronous call
    none of it suspends.
    """

    sent: bool
    waited: float
    """Seconds that this thread waited for others to send."""

    @property
    def home(self) -> Hashable:
        """Who may read the same upstream body live: all synchronous threads, or one event loop."""
        ...

    @property
    def timeouts(self) -> Timeouts:
        """The caller's own timeouts for this request."""
        ...

    @property
    def deadline(self) -> float:
        """When the caller gives up, on the runtime's clock; infinite where that is not known."""
        ...

    @property
    def patient(self) -> bool:
        """Whether this caller may wait for another home: not a synchronous call in the thread of an event
        loop, which would wait for what only that loop can bring."""
        ...

    @property
    def now(self) -> Now:
        """Tells the time."""
        ...

    def inside(self, ports: Ports) -> bool:
        """Whether this call is made from inside of what those ports send: a function that is running in this
        context."""
        ...

    def describe(self, error: BaseException) -> Mishap:
        """Translate an exception of the client family, or of its event loop, at this one border."""
        ...

    def adopt(self, error: Exception) -> Exception:
        """An exception that another call met, as this caller's client would have raised it: a new object."""
        ...

    def timed_out(self) -> Exception:
        """The client's own error for a reply that did not come within the read timeout."""
        ...

    def forget(self) -> None:
        """Let go of a reply that was not the caller's alone: to these ports nothing has been sent."""
        ...

    async def send(self, request: Exchange | None) -> Upstream:
        """Send a request that the pipeline built, or (None) the caller's own, exactly as it was made."""
        ...

    async def let_go(self) -> None:
        """Close the reply that was sent for, where there is one: nobody will read it."""
        ...

    async def pull(self, upstream: Upstream) -> bytes | None:
        """The next frame of the body, or None at its iterator's end."""
        ...

    async def close(self, upstream: Upstream) -> None:
        """Let go of the body. Idempotent."""
        ...

    @property
    def poll(self) -> float | None:
        """Seconds between two looks at a lease that somebody else has; None: its end is told."""
        ...

    async def load(self, key: bytes) -> Entry | None:
        """The stored entry, or None."""
        ...

    async def store(self, key: bytes, entry: Entry, token: int = 0) -> bool:
        """Keep an entry, under the lease with this token where there is one. False when the store did not
        take it."""
        ...

    async def lease(self, key: bytes, ttl: float, token: int = 0) -> Lease | Held | None:
        """Take, or with a token renew, the right to fetch what is missing. None: the store cannot say."""
        ...

    def free(self, key: bytes, token: int) -> None:
        """Give a lease back."""
        ...

    def waiter(self) -> object:
        """A fresh thing to wait on, for one caller."""
        ...

    async def wait(self, waiter: object, until: float | None = None) -> None:
        """Wait until woken, or until that time on the runtime's clock. The caller's own cancellation
        applies."""
        ...

    def wake(self, waiter: object) -> None:
        """Wake who waits on it, from any thread. Harmless when nobody does any more."""
        ...

    @property
    def soon(self) -> Callable[[Callable[[], object]], object] | None:
        """Has the caller's event loop run a function when it comes round; None for threads."""
        ...

    def spawn(self, work: Coroutine[object, object, None]) -> Callable[[], object]:
        """Run work that no caller's cancellation reaches: a task of the loop, or (synchronous callers) at
        once, here. Returns what cancels it; called in that loop, and harmless when it has ended."""
        ...
