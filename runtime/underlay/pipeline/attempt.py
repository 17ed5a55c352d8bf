"""The book of one attempt: a request that left for the provider, until its body ended. However many read that
body, it ends once."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

from underlay.core.cache import Entry, Leave, plan_store, stored_headers
from underlay.core.decode import decoder
from underlay.core.verdict import judge
from underlay.providers.dialect import Outcome
from underlay.settings import Mode
from underlay.telemetry.attributes import Ending, Stage, Verdict
from underlay.telemetry.events import AttemptEnded, AttemptStarted

if TYPE_CHECKING:
    from underlay.core.circuit_breaker import Permit
    from underlay.core.decode import Decoder
    from underlay.core.flight import Flight
    from underlay.pipeline.engine import Engine
    from underlay.pipeline.ports import Mishap, Upstream
    from underlay.pipeline.recognise import Asked
    from underlay.pipeline.watch import Watched
    from underlay.providers.dialect import Observer
    from underlay.telemetry.events import Usage

__all__ = ["Attempt"]

# A member is slow to reach through its class (CPython 3.11), and every call asks.
_NOTHING = Verdict.NOTHING
_COMPLETE, _DROPPED, _TRUNCATED, _FAILED = Ending.COMPLETE, Ending.DROPPED, Ending.TRUNCATED, Ending.FAILED
_OFF = Mode.OFF

_FIRST = AttemptStarted(1)  # nobody changes it: one for all
_UNKNOWN = Outcome(complete=False, lost=True)
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_ENTRY_OVERHEAD = 1024  # bytes an entry takes besides its body: key, headers, objects


class Attempt:
    """Reads the answer as it passes, and settles the books at its end.

    `sent` false: the answer was split off a reply that another call asked for, and no request was this
    call's. `spent` is cost and usage, known at the end. `left`: when its request did, which is later than
    its beginning where a thread waited for others to send.
    """

    __slots__ = (
        "_asked",
        "_decoder",
        "_ended",
        "_engine",
        "_observer",
        "_permit",
        "_started",
        "_typed",
        "_upstream",
        "_watched",
        "left",
        "number",
        "sent",
        "spent",
        "stream",
    )

    def __init__(
        self,
        engine: Engine,
        asked: Asked,
        watched: Watched,
        permit: Permit | None,
        number: int,
        now: float,
        *,
        sent: bool = True,
    ) -> None:
        self._engine = engine
        self._asked = asked
        self._watched = watched
        self._permit = permit
        self._started = self.left = now
        self._upstream: Upstream | None = None
        self._observer: Observer | None = None
        self._decoder: Decoder | None = None
        self._ended = False
        self._typed = False  # whether the reply says that its body is one of those that can be seen to be cut
        self.number = number
        self.sent = sent
        self.spent: tuple[float | None, Usage | None] | None = None
        self.stream = False
        if sent:
            watched.event(_FIRST if number == 1 else AttemptStarted(number))

    def answered(self, upstream: Upstream) -> None:
        """The head of the reply came."""
        self._upstream = upstream
        kind, encoding = b"", ""
        for name, value in upstream.headers:
            # By length first: of a reply's twenty headers, lower() is asked of these two.
            size = len(name)
            if size == 12 and name.lower() == b"content-type":
                kind = value
            elif size == 16 and name.lower() == b"content-encoding":
                encoding = value.decode("latin-1")
        self.stream, self._typed = _media(kind)
        if encoding and encoding.lower() != "identity":
            self._decoder = decoder(encoding)
            if self._decoder is None:
                return  # an encoding that cannot be read here: the answer passes, unknown to the books
        self._observer = self._asked.dialect.observe(stream=self.stream, status=upstream.status)

    @property
    def terminated(self) -> bool:
        """Whether a stream's terminal event was read. Of JSON nothing is known before its end."""
        return self._observer is not None and self._observer.ended

    def so_far(self) -> tuple[float | None, Usage | None] | None:
        """Cost and usage of a stream whose terminal event was read, also while somebody else still closes its
        books."""
        if self.spent is not None or self._observer is None or not self._observer.ended:
            return self.spent
        outcome = self._observer.outcome()
        return self._engine.cost(self._asked, outcome), outcome.usage

    def feed(self, frame: bytes) -> None:
        """Read a frame. A fault here costs the books, never the frame."""
        if self._observer is None:
            return
        try:
            self._observer.feed(self._decoder.decode(frame) if self._decoder is not None else frame)
        except Exception as error:  # noqa: BLE001 never break the app
            self._observer = None
            self._engine.faults.report(Stage.STREAM, error)

    def lose(self) -> None:
        """A frame that was read may have reached nobody: the answer is not whole, whatever the frame says."""
        self._observer = None

    def failed(self, mishap: Mishap, now: float) -> None:
        """The request got no reply, or was given up before one came."""
        if not self._ended:
            self._ended = True
            self._close(
                mishap.verdict,
                now,
                AttemptEnded(self.number, now - self._started, mishap.verdict, None, mishap.name),
            )

    def finish(
        self, ending: Ending, now: float, flight: Flight, mishap: Mishap | None = None
    ) -> tuple[Ending, str, Entry | None]:
        """The body ended, or nobody reads it any more. Returns how it really ended (a stream whose terminal
        event was seen is complete, one that stopped without it was cut), the error's name, and the entry to
        store."""
        if self._ended:
            return ending, "", None
        self._ended = True
        try:
            return self._finish(ending, now, flight, mishap)
        except Exception as error:  # noqa: BLE001 never break the app
            self._engine.faults.report(Stage.RECORD, error)
            self._close(_NOTHING, now, AttemptEnded(self.number, now - self._started, _NOTHING))
            return ending, "", None

    def _finish(
        self, ending: Ending, now: float, flight: Flight, mishap: Mishap | None
    ) -> tuple[Ending, str, Entry | None]:
        upstream = self._upstream
        assert upstream is not None  # noqa: S101 finish follows answered
        observer, decoder = self._observer, self._decoder
        if observer is None or (decoder is not None and (decoder.failed or decoder.lost)):
            outcome = _UNKNOWN
        else:
            outcome = observer.outcome()
        if outcome.complete and not self.stream and ending is not _COMPLETE:
            # JSON that reads as whole is whole only where its framing ended cleanly too.
            outcome = replace(outcome, complete=False)
        status = upstream.status
        keep = ending is not _DROPPED
        if not outcome.lost and 200 <= status < 300:
            if outcome.complete:
                ending = _COMPLETE
            elif ending is _COMPLETE and not outcome.finish_reasons and self._typed:
                # Some servers say why they finished and leave the terminal event out: not kept, and no fault.
                ending = _TRUNCATED
        if mishap is not None and ending is not _COMPLETE and 200 <= status < 300 and not outcome.error:
            verdict = mishap.verdict
        else:
            verdict = judge(status, ending, error=bool(outcome.error), blame=outcome.blame)
        error_type = _error_type(status, ending, outcome, mishap)
        cost = self._engine.cost(self._asked, outcome)
        self.spent = (cost, outcome.usage)
        # A finaliser cannot wait for a store: a dropped answer is never kept, however whole it is.
        entry, reason = self._entry(outcome, flight, now, cost) if keep else (None, "dropped")
        self._close(
            verdict,
            now,
            AttemptEnded(
                self.number,
                now - self._started,
                verdict,
                status,
                error_type,
                outcome.usage,
                cost,
                outcome.model,
                outcome.response_id,
                outcome.finish_reasons,
                entry is not None,
                reason,
                self.sent,
            ),
        )
        return ending, error_type, entry

    def _close(self, verdict: Verdict, now: float, ended: AttemptEnded) -> None:
        """Settle the permit, whatever else goes wrong, and tell."""
        permit, self._permit = self._permit, None
        try:
            self._watched.event(ended)
        finally:
            if permit is not None:
                try:
                    origin = self._watched.origin()
                    self._engine.state.circuits.settle(self._asked.circuit, permit, verdict, now, origin)
                except Exception as error:  # noqa: BLE001 never break the app
                    self._engine.faults.report(Stage.RECORD, error)

    def _entry(
        self, outcome: Outcome, flight: Flight, now: float, cost: float | None
    ) -> tuple[Entry | None, str]:
        asked, upstream = self._asked, self._upstream
        if not asked.key or upstream is None:
            return None, asked.uncacheable
        if self._engine.settings.llm_cache.mode is _OFF:
            return None, "off"
        frames = flight.frames()
        plan = plan_store(
            upstream.status,
            complete=outcome.complete,
            storable=outcome.storable,
            error=bool(outcome.error),
            fits=frames is not None,
            directives=asked.directives,
        )
        if isinstance(plan, Leave):
            return None, plan.reason
        assert frames is not None  # noqa: S101 plan_store keeps only what fits
        headers = stored_headers(upstream.headers)
        size = flight.held + sum(map(len, chain.from_iterable(headers))) + _ENTRY_OVERHEAD
        if size > self._engine.state.store.max_bytes:
            return None, "too_large"
        inputs = asked.ask.inputs
        if inputs is not None and inputs.count == 1:
            self._engine.state.singles.add(asked.window)
        entry = Entry(
            upstream.status,
            headers,
            frames,
            now,
            self._engine.settings.llm_cache.ttl,
            size,
            self.stream,
            now - self._started,
            outcome.usage,
            cost,
            self._watched.origin(),
        )
        return entry, ""


@lru_cache(maxsize=64)  # a provider has two or three
def _media(kind: bytes) -> tuple[bool, bool]:
    """Whether a content type is that of a stream of events, and whether its body can be seen to be cut."""
    media = kind.lower().partition(b";")[0].strip()
    stream = media.startswith(b"text/event-stream")
    return stream, stream or media == b"application/json" or media.endswith(b"+json")


def _error_type(status: int, ending: Ending, outcome: Outcome, mishap: Mishap | None) -> str:
    """A short, bounded name of what went wrong; empty when nothing did. The provider's own word wins over the
    status."""
    if outcome.error and _NAME.fullmatch(outcome.error):
        return outcome.error
    if status >= 400:
        return str(status)
    if ending is _TRUNCATED:
        return "truncated"
    if ending is _FAILED:
        return mishap.name if mishap is not None else "read_error"
    return "error" if outcome.error else ""
