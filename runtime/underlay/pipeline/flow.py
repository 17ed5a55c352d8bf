"""One call on its way through the stages, and what a stage may answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from underlay.records import record
from underlay.telemetry.attributes import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from underlay.core.cache import Found
    from underlay.core.circuit_breaker import Permit
    from underlay.pipeline.attempt import Attempt
    from underlay.pipeline.call import Call
    from underlay.pipeline.engine import Engine
    from underlay.pipeline.flights import Lead
    from underlay.pipeline.ports import Exchange, Ports, Upstream
    from underlay.pipeline.reader import Reader
    from underlay.pipeline.recognise import Asked
    from underlay.pipeline.windows import Place

__all__ = ["PROCEED", "Flow", "Join", "Proceed", "Reply", "Step", "Wait"]


@record(frozen=True, slots=True)
class Proceed:
    """Go on to the next stage."""


@record(frozen=True, slots=True)
class Reply:
    """Answer the caller. `upstream` is set when the family's own response carries the head; `reader` is None
    when even the body is to pass untouched."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    reader: Reader | None
    upstream: Upstream | None = None


@record(frozen=True, slots=True)
class Join:
    """Read the body that another call is fetching."""

    lead: Lead


@record(frozen=True, slots=True)
class Wait:
    """Wait to be woken, or until that time on the runtime's clock, then ask the same stage again: a head to
    come, a window to close, a lead elsewhere to store its answer."""

    waiter: object
    until: float


Step = Proceed | Reply | Join | Wait
PROCEED: Final = Proceed()


class Flow:
    """What one call has gathered so far. `foreign` is the exception that came from the app's own transport:
    it alone passes as it is.

    `reader` reads the body that was sent for. `looked` is how many answers had landed when this call looked
    into the cache, `since` when it began to wait for another call's answer, `elsewhere` what it waits on for
    one of another home; `singles` are stored answers to single inputs of its list, `tried` counts attempts
    that answered nobody.
    """

    __slots__ = (
        "asked",
        "attempt",
        "call",
        "elsewhere",
        "engine",
        "exchange",
        "following",
        "foreign",
        "lead",
        "looked",
        "permit",
        "ports",
        "reader",
        "seat",
        "since",
        "singles",
        "stage",
        "tried",
        "upstream",
    )

    def __init__(self, engine: Engine, exchange: Exchange, ports: Ports) -> None:
        self.engine = engine
        self.exchange = exchange
        self.ports = ports
        self.stage = Stage.RECOGNISE
        self.asked: Asked = None  # type: ignore[assignment]  # set by the first stage, before any other reads it
        self.call: Call = None  # type: ignore[assignment]  # set by the second
        self.attempt: Attempt | None = None
        self.permit: Permit | None = None
        self.upstream: Upstream | None = None
        self.reader: Reader | None = None
        self.foreign: BaseException | None = None
        self.looked = 0
        self.tried = 0
        self.since: float | None = None
        self.lead: Lead | None = None
        self.following: Lead | None = None
        self.elsewhere: object | None = None
        self.seat: Place | Call | None = None
        self.singles: Mapping[int, Found] = {}
