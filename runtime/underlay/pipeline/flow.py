"""One call on its way through the stages, and what a stage may answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from underlay.telemetry.attributes import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from underlay.core.circuit_breaker import Permit
    from underlay.pipeline.attempt import Attempt
    from underlay.pipeline.call import Call
    from underlay.pipeline.engine import Engine
    from underlay.pipeline.ports import Exchange, Ports, Upstream
    from underlay.pipeline.reader import Body, Reader
    from underlay.pipeline.recognise import Asked

__all__ = ["PROCEED", "Flow", "Join", "Proceed", "Reply", "Step", "Wait"]


@dataclass(frozen=True, slots=True)
class Proceed:
    """Go on to the next stage."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the caller. `upstream` is set when the family's own response carries the head; `reader` is None
    when even the body is to pass untouched."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    reader: Reader | None
    upstream: Upstream | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """Read a body that is already in flight."""

    body: Body


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait to be woken, then ask the same stage again: a window to close, a leader elsewhere to store its
    answer."""

    waiter: object


Step = Proceed | Reply | Join | Wait
PROCEED: Final = Proceed()


class Flow:
    """What one call has gathered so far. `foreign` is the exception that came from the app's own transport:
    it alone passes as it is."""

    __slots__ = (
        "asked",
        "attempt",
        "call",
        "engine",
        "exchange",
        "foreign",
        "permit",
        "ports",
        "stage",
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
        self.foreign: BaseException | None = None
