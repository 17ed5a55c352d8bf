"""The whole telemetry of a scenario: every span, attribute, link, metric point and log, as the official SDK
and the real OpenTelemetry SDK make them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from underlay import Runtime
from underlay.simulator import Simulator
from underlay.telemetry import metrics as m
from underlay.testing import FakeClock
from underlay_instrumentation import OpenTelemetryListener

MODEL = {"gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}


class Seen:
    """What left the process."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.logs = InMemoryLogRecordExporter()
        self.reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.meter_provider = MeterProvider(metric_readers=[self.reader])
        self.logger_provider = LoggerProvider()
        self.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(self.logs))

    def points(self) -> dict[str, dict[str, Any]]:
        """Metric name -> {labels as JSON: value, or (count, sum) of a histogram}, ours only."""
        found: dict[str, dict[str, Any]] = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                if scope.scope.name.startswith("underlay"):
                    for metric in scope.metrics:
                        found[metric.name] = {
                            json.dumps(dict(point.attributes or {}), sort_keys=True): (
                                point.count,
                                round(point.sum, 9),
                            )
                            if hasattr(point, "count")
                            else point.value
                            for point in metric.data.data_points
                        }
        return found


@pytest.fixture
def seen() -> Iterator[Seen]:
    """Providers of a test's own, with the HTTP client instrumented on them."""
    made = Seen()
    instrumentor = HTTPX2ClientInstrumentor()
    instrumentor.instrument(tracer_provider=made.tracer_provider, meter_provider=made.meter_provider)
    yield made
    instrumentor.uninstrument()
    made.meter_provider.shutdown()
    made.tracer_provider.shutdown()
    made.logger_provider.shutdown()


def labels(**more: Any) -> str:
    """A series' labels: the model's and these, with underscores for dots."""
    return json.dumps(MODEL | {key.replace("__", "."): value for key, value in more.items()}, sort_keys=True)


def test_miss_hit_failure_trip_and_refusal(seen: Seen) -> None:
    """One question, its repeat, three failures and a refusal leave exactly these spans, links, points and
    logs."""
    clock = FakeClock()
    runtime = Runtime({"circuit_breaker": {"failure_threshold": 3}}, clock=clock)
    providers = (seen.tracer_provider, seen.meter_provider, seen.logger_provider)
    runtime.listen(OpenTelemetryListener(runtime, providers=providers))
    with (
        Simulator() as simulator,
        openai.OpenAI(
            base_url=f"{simulator.url}/v1", api_key="key", http_client=runtime.httpx2_client(), max_retries=0
        ) as client,
    ):

        def ask(prompt: str) -> Any:
            return client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": prompt}], temperature=0.5
            )

        answer = ask("hello")
        clock.advance(2)
        ask("hello")
        with simulator.outage("gpt-4o"):
            for _ in range(4):
                with pytest.raises(openai.InternalServerError):
                    ask("anybody?")
        port = int(simulator.url.rpartition(":")[2])

    spans = seen.spans.get_finished_spans()
    assert [span.name for span in spans] == [
        "POST", "chat gpt-4o", "chat gpt-4o",
        "POST", "chat gpt-4o", "POST", "chat gpt-4o",
        "POST", "circuit_breaker open", "chat gpt-4o", "chat gpt-4o",
    ]  # fmt: skip
    post, miss, hit, _, first, _, second, _, opened, third, refused = spans
    usage = answer.usage
    cost = miss.attributes["underlay.cost.amount"]
    asked = {
        "gen_ai.operation.name": "chat", **MODEL, "gen_ai.request.temperature": 0.5,
        "server.address": "127.0.0.1", "server.port": port,
    }  # fmt: skip
    key = miss.attributes["underlay.cache.key"]
    assert (len(key), post.parent.span_id, miss.parent) == (16, miss.context.span_id, None)
    assert dict(miss.attributes) == asked | {
        "underlay.cache.result": "miss", "underlay.cache.reason": "absent", "underlay.cache.key": key,
        "underlay.cache.stored": True, "underlay.attempt.verdict": "success", "underlay.batch.mode": "alone",
        "underlay.call.ending": "complete", "underlay.cost.amount": cost, "http.response.status_code": 200,
        "gen_ai.response.model": "gpt-4o", "gen_ai.response.id": answer.id, "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": usage.prompt_tokens, "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": 0, "gen_ai.usage.reasoning.output_tokens": 0,
    }  # fmt: skip
    assert dict(hit.attributes) == asked | {
        "underlay.cache.result": "hit", "underlay.cache.key": key, "underlay.cache.age": 2.0,
        "underlay.batch.mode": "alone", "underlay.call.ending": "complete", "underlay.cost.saved": cost,
        "http.response.status_code": 200,
    }  # fmt: skip
    assert [(link.context.span_id, dict(link.attributes)) for link in hit.links] == [
        (miss.context.span_id, {"underlay.link.role": "generated"})
    ]
    for failed in (first, second, third):
        assert dict(failed.attributes) == asked | {
            "underlay.cache.result": "miss", "underlay.cache.reason": "status", "underlay.cache.stored": False,
            "underlay.cache.key": failed.attributes["underlay.cache.key"], "underlay.attempt.verdict": "failure",
            "underlay.batch.mode": "alone", "underlay.call.ending": "complete", "http.response.status_code": 503,
            "error.type": "service_unavailable",
        }  # fmt: skip
        assert failed.status.status_code.name == "ERROR"
    assert dict(refused.attributes) == asked | {
        "underlay.cache.result": "refused", "underlay.cache.reason": "absent",
        "underlay.cache.key": third.attributes["underlay.cache.key"], "underlay.circuit_breaker.state": "open",
        "underlay.circuit_breaker.retry_after": 60.0, "underlay.batch.mode": "alone",
        "underlay.call.ending": "complete", "http.response.status_code": 503, "error.type": "circuit_open",
    }  # fmt: skip
    changed = {
        **MODEL, "underlay.circuit_breaker.state": "open", "underlay.circuit_breaker.from": "closed",
        "underlay.circuit_breaker.reason": "failures", "underlay.circuit_breaker.failures": 3,
    }  # fmt: skip
    assert dict(opened.attributes) == changed
    assert [(link.context.span_id, dict(link.attributes)) for link in opened.links] == [
        (cause.context.span_id, {"underlay.link.role": "cause"}) for cause in (first, second, third)
    ]

    (log,) = seen.logs.get_finished_logs()
    assert log.log_record.event_name == "underlay.circuit_breaker.transition"
    assert dict(log.log_record.attributes) == changed
    assert log.log_record.span_id == opened.context.span_id

    call = {"gen_ai__operation__name": "chat", "server__address": "127.0.0.1", "server__port": port}
    answered = {**call, "gen_ai__response__model": "gpt-4o"}
    alone = {"underlay__batch__mode": "alone"}
    points = seen.points()
    assert points == {
        "gen_ai.client.operation.duration": {
            labels(**answered, **alone, underlay__cache__result="miss"): (1, 0.0),
            labels(**call, **alone, underlay__cache__result="hit"): (1, 0.0),
            labels(**call, **alone, underlay__cache__result="miss", error__type="service_unavailable"): (
                3,
                0.0,
            ),
            labels(**call, **alone, underlay__cache__result="refused", error__type="circuit_open"): (1, 0.0),
        },
        "gen_ai.client.token.usage": {
            labels(**answered, gen_ai__token__type="input"): (1, usage.prompt_tokens),
            labels(**answered, gen_ai__token__type="output"): (1, usage.completion_tokens),
        },
        "underlay.cache.time_saved": {labels(): (1, 0.0)},
        "underlay.circuit_breaker.state.duration": {
            labels(underlay__circuit_breaker__state="closed"): (1, 2.0)
        },
        "underlay.calls": {
            labels(underlay__cache__result="miss"): 4,
            labels(underlay__cache__result="hit"): 1,
            labels(underlay__cache__result="refused"): 1,
        },
        "underlay.upstream.requests": {
            labels(underlay__attempt__verdict="success"): 1,
            labels(underlay__attempt__verdict="failure"): 3,
        },
        "underlay.errors": {
            labels(error__type="service_unavailable"): 3,
            labels(error__type="circuit_open"): 1,
        },
        "underlay.cache.lookups": {
            labels(underlay__cache__result="miss"): 5,
            labels(underlay__cache__result="hit"): 1,
        },
        "underlay.cache.evictions": {
            json.dumps({"underlay.cache.eviction.reason": reason}): 0 for reason in ("entries", "bytes")
        },
        "underlay.cache.expirations": {"{}": 0},
        "underlay.cache.entries": {"{}": 1},
        "underlay.cache.entries.limit": {"{}": 1000},
        "underlay.cache.size": {"{}": runtime.cache.size_bytes},
        "underlay.cache.size.limit": {"{}": 256 * 2**20},
        "underlay.batch.queued": {labels(): 0},
        "underlay.circuit_breaker.state": {
            labels(underlay__circuit_breaker__state=state): float(state == "open")
            for state in ("closed", "open", "half_open")
        },
        "underlay.circuit_breaker.transitions": {
            labels(underlay__circuit_breaker__state="open", underlay__circuit_breaker__from="closed"): 1
        },
        "underlay.circuit_breaker.refusals": {labels(): 1},
        "underlay.tokens": {
            labels(gen_ai__token__type="input"): usage.prompt_tokens,
            labels(gen_ai__token__type="output"): usage.completion_tokens,
        },
        "underlay.tokens.saved": {
            labels(gen_ai__token__type="input"): usage.prompt_tokens,
            labels(gen_ai__token__type="output"): usage.completion_tokens,
        },
        "underlay.cost": {labels(): cost},
        "underlay.cost.saved": {labels(): cost},
        "underlay.cost.unpriced": {labels(): 0},
    }
    assert set(points) <= {metric.name for metric in m.ALL}
