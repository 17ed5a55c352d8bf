"""Servers that go away and come back: nothing is lost, nothing counted twice, nothing forgotten."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import stack_sending as sending

from underlay import stack

if TYPE_CHECKING:
    from stack_real import Real

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]


@pytest.mark.parametrize("how", ["kill", "end"])
def test_nothing_is_lost_or_doubled_while_stores_are_away_and_the_collector_goes(
    real: Real, how: str
) -> None:
    """With both stores away the app sees no error; after the Collector was killed or stopped all is there,
    once.
    """
    name = f"outage_{how}"
    with sending.app(real.otlp, name) as app:
        counter = app.metrics.get_meter("test").create_counter(name)
        sent = [sending.called(app, "before").trace_id]
        counter.add(1)
        app.flush()
        sending.value(real.prometheus, f"{name}_total", 1)
        real.end("prometheus", "jaeger")
        for _ in range(5):
            sent += [sending.called(app, "while away").trace_id for _ in range(20)]
            counter.add(20)
            app.flush()
        getattr(real, how)("collector")
        real.up()
        sent.append(sending.called(app, "after").trace_id)
        counter.add(1)
        app.flush()
        sending.value(real.prometheus, f"{name}_total", 102)
        # seven exports, seven samples, rising all the way
        sending.value(real.prometheus, f"count_over_time({name}_total[1h])", 7)
        sending.value(real.prometheus, f"resets({name}_total[1h])", 0)

        def ask() -> Any:
            query = {"service": name, "limit": "500", "lookback": "1h"}
            found = sending.get(f"{real.jaeger}/api/traces", **query)["data"]
            return found if len(found) >= len(sent) else None

        traces = sending.eventually(ask, "all traces of the outage")
        assert sorted(int(item["traceID"], 16) for item in traces) == sorted(sent)
        assert all(len(item["spans"]) == 1 for item in traces)
    assert sending.instant(real.prometheus, '{__name__=~"otelcol_exporter_enqueue_failed.*"} > 0') == {}


def test_killed_stores_keep_what_they_took(real: Real) -> None:
    """A Prometheus and a Jaeger that are killed outright come back with every sample, exemplar and span."""
    with sending.app(real.otlp, "killed") as app:
        histogram = app.metrics.get_meter("test").create_histogram("killed.duration", unit="s")
        with app.traces.get_tracer("test").start_as_current_span("chat") as span:
            histogram.record(0.07)
        trace_id = span.get_span_context().trace_id
        app.flush()
        sending.value(real.prometheus, "killed_duration_seconds_count", 1)
        sending.trace(real.jaeger, trace_id, 1)
        real.kill("prometheus", "jaeger")
        real.up()
        sending.value(real.prometheus, "killed_duration_seconds_count", 1)
        sending.trace(real.jaeger, trace_id, 1)
        query = {"query": "killed_duration_seconds_bucket", "start": "0", "end": str(time.time() + 60)}
        assert sending.get(f"{real.prometheus}/api/v1/query_exemplars", **query)["data"]


def test_down_and_up_keep_state_and_addresses(real: Real) -> None:
    """After a full stop the stack comes back at the same addresses with what it had."""
    before = stack.status(environ=real.environ)
    with sending.app(real.otlp, "restart") as app:
        app.metrics.get_meter("test").create_counter("restart.calls").add(4)
        trace_id = sending.called(app, "chat").trace_id
        app.flush()
        sending.value(real.prometheus, "restart_calls_total", 4)
        sending.trace(real.jaeger, trace_id, 1)
        assert set(stack.down(environ=real.environ).services) == {"collector", "jaeger", "prometheus"}
        assert not stack.status(environ=real.environ).running
        real.up()
        assert stack.status(environ=real.environ).document() == before.document()
        sending.value(real.prometheus, "restart_calls_total", 4)
        sending.trace(real.jaeger, trace_id, 1)
