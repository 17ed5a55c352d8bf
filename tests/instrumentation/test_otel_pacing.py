"""Calls that waited for their turn: their whole telemetry, from hand-made events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.util.genai.handler import TelemetryHandler
from otel_scenarios import (
    ANSWER,
    ANSWERED_LABELS,
    KEY,
    MISS_LABELS,
    OURS_ON_MISS,
    START,
    Telemetry,
    answered,
    miss,
    started,
)

from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import CacheResult, CircuitState, Ending, Verdict
from underlay.telemetry.events import AttemptStarted, CacheLooked, CallEnded, CircuitRefused, Paced
from underlay_instrumentation.handle import INERT

if TYPE_CHECKING:
    from underlay.telemetry.listener import Handle

OUTER = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
WAITED = {"underlay.pacing.wait": 0.25}
OBSERVED = {"underlay.pacing.observed": "held"}
BOTH = pytest.mark.parametrize(
    ("event", "ours"),
    [(Paced(0.25), WAITED), (Paced(0.0, observed=True), OBSERVED)],
    ids=["held", "observed"],
)
POINTS: dict[str, Any] = {
    m.CALL_DURATION.name: [({**ANSWERED_LABELS, **MISS_LABELS}, 1, 1.5)],
    m.TOKEN_USAGE.name: [
        ({**ANSWERED_LABELS, "gen_ai.token.type": "input"}, 1, 100),
        ({**ANSWERED_LABELS, "gen_ai.token.type": "output"}, 1, 20),
    ],
}


def paced(handle: Handle, event: Paced, *, end: CallEnded | None = None) -> None:
    """The events of a miss that waited for its turn, in the runtime's order."""
    handle.event(CacheLooked(CacheResult.MISS, KEY))
    handle.event(event)
    handle.event(AttemptStarted(1))
    with handle.attempt():
        pass
    handle.event(answered())
    handle.event(end or CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.5, 200))


@BOTH
def test_a_call_that_waited_says_how_long(telemetry: Telemetry, event: Paced, ours: dict[str, Any]) -> None:
    """It is a miss like any other with one attribute more: what it waited, or that watching would have held it. No
    point, link or span of its own."""
    paced(telemetry.listener().start(started()), event)
    assert telemetry.spans() == [
        {
            "name": "chat gpt-4o",
            "kind": "CLIENT",
            "parent": None,
            "status": "UNSET",
            "attributes": {**START, **OURS_ON_MISS, **ANSWER, **ours},
            "links": [],
            "events": 0,
        }
    ]
    assert telemetry.recorded() == POINTS


@BOTH
def test_a_call_that_waited_under_a_native_span(
    telemetry: Telemetry, event: Paced, ours: dict[str, Any]
) -> None:
    """Another instrumentation's span is told of the wait, and there is no small span; the points are ours."""
    with telemetry.tracers.get_tracer("com.anthropic.sdk.python").start_as_current_span("messages"):
        paced(telemetry.listener().start(started()), event)
    (span,) = telemetry.spans()
    assert (span["name"], span["attributes"], span["links"]) == ("messages", {**OURS_ON_MISS, **ours}, [])
    assert telemetry.recorded() == POINTS


@BOTH
def test_a_call_that_waited_enriches_util_genai(
    telemetry: Telemetry, event: Paced, ours: dict[str, Any]
) -> None:
    """util-genai's span carries the wait, its own points do not, and none is added."""
    genai = TelemetryHandler(
        tracer_provider=telemetry.tracers,
        meter_provider=telemetry.meters,
        logger_provider=telemetry.loggers,
    )
    with genai.inference("openai", request_model="gpt-4o"):
        paced(telemetry.listener().start(started()), event)
    (span,) = telemetry.spans()
    assert (span["name"], span["links"]) == ("chat gpt-4o", [])
    assert {key: span["attributes"].get(key) for key in (*OUTER, *OURS_ON_MISS, *ours)} == {
        **OUTER, **OURS_ON_MISS, **ours,
    }  # fmt: skip
    points = telemetry.recorded()
    ((labels, count, _),) = points.pop(m.CALL_DURATION.name)
    assert (labels, count) == ({**OUTER, **MISS_LABELS}, 1)
    assert not any(key.startswith("underlay.pacing") for key in labels)
    assert points == {}


def test_a_wait_of_no_time_is_told(telemetry: Telemetry) -> None:
    """The first of a line may go in the same tick: it waited all the same, and its wait is a number."""
    paced(telemetry.listener().start(started()), Paced(0.0))
    (span,) = telemetry.spans()
    assert span["attributes"]["underlay.pacing.wait"] == 0.0
    assert isinstance(span["attributes"]["underlay.pacing.wait"], float)


def test_a_thread_tells_what_it_waited_when_it_was_sent(telemetry: Telemetry) -> None:
    """Its wait is a part of the attempt: the same span and points, whichever is told first."""
    handle = telemetry.listener().start(started())
    handle.event(CacheLooked(CacheResult.MISS, KEY))
    handle.event(AttemptStarted(1))
    with handle.attempt():
        pass
    handle.event(Paced(0.25))
    handle.event(answered())
    handle.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.5, 200))
    (span,) = telemetry.spans()
    assert span["attributes"] == {**START, **OURS_ON_MISS, **ANSWER, **WAITED}
    assert telemetry.recorded() == POINTS


def test_a_call_that_waited_and_was_refused(telemetry: Telemetry) -> None:
    """The circuit opened while it waited: the span tells both, and that nothing was sent."""
    handle = telemetry.listener().start(started())
    handle.event(CacheLooked(CacheResult.MISS, KEY))
    handle.event(Paced(0.25))
    handle.event(CircuitRefused(CircuitState.OPEN, 30.0))
    handle.event(CallEnded(CacheResult.REFUSED, Ending.COMPLETE, 0.5, 503, "circuit_open"))
    (span,) = telemetry.spans()
    assert span["status"] == "ERROR"
    assert {key: span["attributes"][key] for key in ("underlay.pacing.wait", "underlay.cache.result")} == {
        "underlay.pacing.wait": 0.25, "underlay.cache.result": "refused",
    }  # fmt: skip
    assert m.TOKEN_USAGE.name not in telemetry.recorded()


def test_a_call_that_failed_after_its_wait(telemetry: Telemetry) -> None:
    """A failure keeps its wait: the two have nothing to do with each other."""
    handle = telemetry.listener().start(started())
    handle.event(Paced(0.25))
    miss(
        handle,
        attempt=answered(verdict=Verdict.FAILURE, status=529, usage=None, cost_usd=None, stored=False),
        end=CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.5, 529, "overloaded_error"),
    )
    (span,) = telemetry.spans()
    assert (span["status"], span["attributes"]["underlay.pacing.wait"]) == ("ERROR", 0.25)


def test_a_call_that_nobody_watches_or_samples_tells_no_wait(telemetry: Telemetry) -> None:
    """Suppressed it leaves nothing; sampled out its points are those of any miss."""
    with suppress_instrumentation():
        handle = telemetry.listener().start(started())
        paced(handle, Paced(0.25))
    assert handle is INERT
    assert (telemetry.spans(), telemetry.recorded()) == ([], {})
    unsampled = Telemetry(sampler=ALWAYS_OFF)
    paced(unsampled.listener().start(started()), Paced(0.25))
    assert (unsampled.spans(), unsampled.recorded()) == ([], POINTS)
