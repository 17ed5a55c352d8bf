"""Transitions, observable instruments, providers that come late, and input that is broken."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
from otel_scenarios import MODEL_LABELS, Telemetry, View, hit, miss, started

from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import CacheResult, CircuitState, Ending, Stage
from underlay.telemetry.events import (
    AttemptEnded,
    Batched,
    CacheLooked,
    CallEnded,
    CallStarted,
    CircuitChanged,
    CircuitRefused,
    Coalesced,
    Faulted,
    Unpriced,
)
from underlay_instrumentation.faults import _told
from underlay_instrumentation.handle import INERT


def changed(**changes: Any) -> CircuitChanged:
    """A circuit that opens."""
    fields: dict[str, Any] = {
        "provider": "openai",
        "model": "gpt-4o",
        "left": CircuitState.CLOSED,
        "entered": CircuitState.OPEN,
        "reason": "failures",
        "lasted": 90.0,
        "failures": 2,
    }
    return CircuitChanged(**{**fields, **changes})


CHANGED = {
    **MODEL_LABELS,
    "underlay.circuit_breaker.from": "closed",
    "underlay.circuit_breaker.state": "open",
    "underlay.circuit_breaker.reason": "failures",
    "underlay.circuit_breaker.failures": 2,
}


def test_a_transition_is_a_span_a_log_event_and_a_point(telemetry: Telemetry) -> None:
    """A circuit that opens links to the calls that caused it, is logged in its trace, and counts the time it
    left."""
    listener = telemetry.listener()
    calls = [listener.start(started()), listener.start(started(model="gpt-4o"))]
    for call in calls:
        call.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.0, 500, "server_error"))
    causes = tuple(call.origin() for call in calls)
    telemetry.exporter.clear()
    listener.event(changed(causes=(*causes, b"", b"garbage")))
    assert telemetry.spans() == [
        {
            "name": "circuit_breaker open",
            "kind": "INTERNAL",
            "parent": None,
            "status": "UNSET",
            "attributes": CHANGED,
            "links": [("cause", "?"), ("cause", "?")],
            "events": 0,
        }
    ]
    (span,) = telemetry.finished
    (log,) = telemetry.logs()
    assert (log.event_name, dict(log.attributes)) == ("underlay.circuit_breaker.transition", CHANGED)
    assert (log.trace_id, log.span_id) == (span.context.trace_id, span.context.span_id)
    assert (log.severity_number.name, log.timestamp, log.body) == ("WARN", span.start_time, None)
    metrics = telemetry.reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    (lasted,) = [metric for metric in metrics if metric.name == m.STATE_DURATION.name]
    (point,) = lasted.data.data_points
    assert dict(point.attributes) == {**MODEL_LABELS, "underlay.circuit_breaker.state": "closed"}
    assert (point.sum, tuple(point.explicit_bounds)) == (90.0, m.STATE_DURATION.buckets)


def test_a_recovery_is_no_warning(telemetry: Telemetry) -> None:
    """Only an opening circuit is a warning."""
    telemetry.listener().event(
        changed(left=CircuitState.HALF_OPEN, entered=CircuitState.CLOSED, reason="recovered")
    )
    assert telemetry.logs()[0].severity_number.name == "INFO"


def test_faults_and_unpriced_models_are_counted_elsewhere(telemetry: Telemetry) -> None:
    """They leave no span and no log: the statistics count them, and the counters are observed."""
    listener = telemetry.listener()
    listener.event(Faulted(Stage.CACHE, "ValueError"))
    listener.event(Unpriced("openai", "gpt-x"))
    assert (telemetry.spans(), telemetry.logs(), telemetry.points()) == ([], [], {})


def test_every_observable_metric_is_read_from_the_runtime(telemetry: Telemetry) -> None:
    """Each counter and gauge of the vocabulary reports what the runtime collects, by its name, kind, unit and
    labels."""
    observable = [metric for metric in m.ALL if metric.kind != "histogram"]
    view = View(
        {
            metric.key: [(tuple(f"v{n}" for n, _ in enumerate(metric.labels)), float(index))]
            for index, metric in enumerate(observable)
        }
    )
    listener = telemetry.listener(view)
    data = telemetry.reader.get_metrics_data()
    found = {
        metric.name: (
            metric.unit,
            type(metric.data).__name__,
            metric.description,
            [(dict(point.attributes), point.value) for point in metric.data.data_points],
        )
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }
    assert found == {
        metric.name: (
            metric.unit,
            "Sum" if metric.kind == "counter" else "Gauge",
            metric.brief,
            [({label.key: f"v{n}" for n, label in enumerate(metric.labels)}, float(index))],
        )
        for index, metric in enumerate(observable)
    }
    listener.close()
    assert telemetry.points() == {}


def test_absent_labels_are_left_out_and_runtimes_add_up(telemetry: Telemetry) -> None:
    """Two runtimes on one meter add up, a circuit's state stays 0 or 1, and a failing one takes nothing from
    the other."""
    from underlay_instrumentation.instruments import Instruments

    class Broken:
        def collect(self, key: str) -> Any:
            raise RuntimeError(key)

    open_circuit = ("openai", "gpt-4o", "open")
    one = View({"calls": [(("openai", "", "hit"), 2.0)], "circuit": [(open_circuit, 1.0)]})
    two = View({"calls": [(("openai", "", "hit"), 3.0)], "circuit": [(open_circuit, 1.0)]})
    broken = Broken()
    instruments = Instruments(telemetry.meters.get_meter("test"))
    for view in (one, broken, two, two):
        instruments.observe(view, "released")
    points = telemetry.points()
    assert points[m.CALLS.name] == [({"gen_ai.provider.name": "openai", "underlay.cache.result": "hit"}, 5.0)]
    assert [value for _, value in points[m.CIRCUIT.name]] == [1.0]
    del one
    assert telemetry.points()[m.CALLS.name][0][1] == 3.0


def test_listeners_of_one_provider_are_all_read(telemetry: Telemetry) -> None:
    """Two runtimes on the same providers are both in the counters, and so is one that comes after another's end."""
    labels = ("openai", "gpt-4o", "hit")
    views = [View({"calls": [(labels, float(number))]}) for number in (1, 2, 4)]
    first, second = (telemetry.listener(view) for view in views[:2])
    assert [value for _, value in telemetry.points()[m.CALLS.name]] == [3.0]
    first.close()
    second.close()
    third = telemetry.listener(views[2])
    assert [value for _, value in telemetry.points()[m.CALLS.name]] == [4.0]
    third.close()


def test_histograms_ask_for_the_vocabularys_buckets(telemetry: Telemetry) -> None:
    """Each histogram's boundaries are those of its row."""
    listener = telemetry.listener()
    miss(
        listener.start(started(stream=True)),
        end=CallEnded(CacheResult.MISS, Ending.COMPLETE, 1, 200, "", 2, 1, 1),
    )
    hit(listener.start(started()), b"")
    by_name = {metric.name: metric for metric in m.ALL}
    metrics = telemetry.reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    for metric in metrics:
        assert tuple(metric.data.data_points[0].explicit_bounds) == by_name[metric.name].buckets


class Hostile:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


BROKEN: Any = Hostile()


def test_a_broken_start_gives_an_inert_handle(telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be understood at the start is not watched, and nothing is raised."""
    _told.clear()
    listener = telemetry.listener()
    for wrong in (None, "x", BROKEN, CallStarted("p", "chat", "m", False, "h", 1, BROKEN)):
        listener.start(wrong).event(BROKEN)
    assert next(record.levelno for record in caplog.records) == logging.WARNING


@pytest.mark.parametrize(
    "event",
    [
        None,
        "x",
        CacheLooked(BROKEN),
        CacheLooked(CacheResult.HIT, origin=BROKEN),
        CacheLooked(CacheResult.HIT, key=BROKEN, saved_seconds=BROKEN),
        CircuitRefused(BROKEN, 1.0),
        Coalesced(BROKEN, BROKEN),
        Batched(BROKEN, BROKEN, BROKEN, BROKEN, BROKEN, BROKEN),
        AttemptEnded(1, 1.0, BROKEN),
        AttemptEnded(BROKEN, BROKEN, BROKEN, BROKEN, BROKEN, BROKEN, BROKEN, BROKEN, BROKEN),
    ],
)
def test_broken_events_are_dropped_and_the_call_still_ends(telemetry: Telemetry, event: Any) -> None:
    """An event that cannot be told costs that event alone."""
    handle = telemetry.listener().start(started())
    handle.event(event)
    handle.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.0, 200))
    assert [span["name"] for span in telemetry.spans()] == ["chat gpt-4o"]


def test_a_broken_end_still_ends_the_span(telemetry: Telemetry) -> None:
    """Whatever is wrong with the last event, no span is left open."""
    handle = telemetry.listener().start(started())
    handle.event(CallEnded(BROKEN, Ending.COMPLETE, BROKEN, 200))
    assert len(telemetry.spans()) == 1


def test_broken_transitions_are_dropped(telemetry: Telemetry) -> None:
    """A transition that cannot be told raises nothing."""
    listener = telemetry.listener()
    wrongs: tuple[Any, ...] = (None, "x", changed(entered=None), changed(causes=(None,)))
    for wrong in wrongs:
        listener.event(wrong)
    assert telemetry.logs() == []


NO_SDK = """
from underlay.telemetry.attributes import *
from underlay.telemetry.events import *
from underlay_instrumentation import bridge
from underlay_instrumentation.handle import INERT
import sys
class View:
    def collect(self, key): return [((), 7.0)] if key == "entries" else []
view = View()
listener = bridge(view)
call = CallStarted("openai", "chat", "gpt-4o", False, "h", None)
handle = listener.start(call)
assert handle is INERT and handle.origin() == b""
window = BatchStarted("openai", "chat", "gpt-4o", BatchMode.RELEASED, BatchTrigger.SIZE, (b"",), 1, 1, 1, 0.5)
assert listener.dispatch(window) is None
with handle.attempt(): handle.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.0))
listener.event(CircuitChanged("p", "m", CircuitState.CLOSED, CircuitState.OPEN, "failures", 1.0))
assert "opentelemetry.sdk" not in sys.modules and "opentelemetry.util.genai" not in sys.modules
from opentelemetry import trace, metrics, _logs
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
half = listener.start(call)
assert half is not INERT and half.origin() == b""
with half.attempt(): half.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.0))
dispatch = listener.dispatch(window)
with dispatch.attempt(): assert dispatch.origin() == b""
dispatch.event(BatchEnded(1.0))
trace.set_tracer_provider(TracerProvider())
live = listener.start(call)
assert len(live.origin()) == 25
live.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.0))
dispatch = listener.dispatch(window)
assert len(dispatch.origin()) == 25
dispatch.event(BatchEnded(1.0))
again = bridge(view)
again.start(call).event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.0))
data = reader.get_metrics_data().resource_metrics[0]
scopes = reader.get_metrics_data().resource_metrics[0].scope_metrics
found = {metric.name: metric for scope in scopes for metric in scope.metrics}
assert [p.value for p in found["underlay.cache.entries"].data.data_points] == [7.0]
assert sum(p.count for p in found["gen_ai.client.operation.duration"].data.data_points) == 3
assert sum(p.count for p in found["underlay.batch.size"].data.data_points) == 2
print("ok")
"""


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own, which has the global providers of a fresh process."""
    import os

    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "UNDERLAY_"))
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, env={**inherited, **environ}, timeout=30, check=False,
    )  # fmt: skip


def test_a_listener_made_before_the_sdk_comes_alive_with_it() -> None:
    """Without an SDK nothing happens and nothing of it is imported; when providers are set, calls are told,
    once each."""
    done = run(NO_SDK)
    assert (done.stdout, done.stderr, done.returncode) == ("ok\n", "", 0)


def test_a_disabled_sdk_is_no_sdk() -> None:
    """With OTEL_SDK_DISABLED a provider is set and gives nothing, so calls get the inert handle."""
    code = """
from opentelemetry import trace, metrics
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.metrics import MeterProvider
trace.set_tracer_provider(TracerProvider()); metrics.set_meter_provider(MeterProvider())
from underlay.telemetry.events import CallStarted
from underlay_instrumentation import OpenTelemetryListener
from underlay_instrumentation.handle import INERT
print(OpenTelemetryListener().start(CallStarted("openai", "chat", "m", False, "h", None)) is INERT)
"""
    done = run(code, OTEL_SDK_DISABLED="true")
    assert done.stdout == "True\n", done.stderr


def test_the_inert_handle_does_nothing() -> None:
    """It can be used like any other, and shares everything."""
    with INERT.attempt():
        INERT.event(CallEnded(CacheResult.MISS, Ending.COMPLETE, 1.0))
    assert (INERT.origin(), INERT.trace_id()) == (b"", "")
