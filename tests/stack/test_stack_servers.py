"""The real servers with the shipped files: what is sent arrives, whole, clean and once."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import stack_sending as sending
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, Status, StatusCode

from underlay import stack

if TYPE_CHECKING:
    from stack_real import Real

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

PROMPT = "the prompt that nobody may read"
KEY = "sk-proj-0123456789abcdefghij"
BUCKETS = [0.05, 0.1, 0.2, 0.4]


def test_metrics_arrive_with_the_values_that_were_sent(real: Real) -> None:
    """A counter and both kinds of histogram read back exactly, native percentiles within two percent."""
    with sending.app(real.otlp, "values") as app:
        meter = app.metrics.get_meter("test")
        counter = meter.create_counter("underlay.cache.lookups")
        explicit = meter.create_histogram(
            "gen_ai.client.operation.duration", unit="s", explicit_bucket_boundaries_advisory=BUCKETS
        )
        native = meter.create_histogram("underlay.test.exponential", unit="s")
        gauge = meter.create_gauge("underlay.cache.hit_ratio", unit="1")
        counter.add(3, {"underlay.cache.result": "hit"})
        gauge.set(0.25)
        for number in range(1, 201):
            explicit.record(number / 1000)
            native.record(number / 1000)
        app.flush()
        of = '{job="values",instance="values-1",service_name="values",service_instance_id="values-1"}'
        sending.value(real.prometheus, f"underlay_cache_lookups_total{of}", 3)
        assert (
            json.loads(next(iter(sending.instant(real.prometheus, f"underlay_cache_lookups_total{of}"))))[
                "underlay_cache_result"
            ]
            == "hit"
        )
        sending.value(real.prometheus, f"underlay_cache_hit_ratio{of}", 0.25)
        sending.value(real.prometheus, f"gen_ai_client_operation_duration_seconds_count{of}", 200)
        sending.value(real.prometheus, f"histogram_count(underlay_test_exponential_seconds{of})", 200)
        total = f"histogram_sum(underlay_test_exponential_seconds{of})"
        assert next(iter(sending.instant(real.prometheus, total).values())) == pytest.approx(20.1)
        for quantile, exact in ((0.5, 0.1), (0.95, 0.19), (0.99, 0.198)):
            expression = f"histogram_quantile({quantile}, underlay_test_exponential_seconds{of})"
            (found,) = sending.instant(real.prometheus, expression).values()
            assert found == pytest.approx(exact, rel=0.02)
        cumulative = sending.instant(real.prometheus, f"gen_ai_client_operation_duration_seconds_bucket{of}")
        assert {json.loads(k)["le"]: v for k, v in cumulative.items()} == {
            "0.05": 50, "0.1": 100, "0.2": 200, "0.4": 200, "+Inf": 200,
        }  # fmt: skip


def test_an_exemplar_leads_to_its_trace(real: Real) -> None:
    """A point recorded within a span carries its trace id, of both kinds of histogram, and Jaeger has that
    trace.
    """
    with sending.app(real.otlp, "exemplars") as app:
        meter = app.metrics.get_meter("test")
        histograms = [
            meter.create_histogram(f"exemplars.{kind}", unit="s") for kind in ("explicit", "exponential")
        ]
        with app.traces.get_tracer("test").start_as_current_span("chat") as span:
            for histogram in histograms:
                histogram.record(0.07)
        context = span.get_span_context()
        app.flush()
        for series in ("exemplars_explicit_seconds_bucket", "exemplars_exponential_seconds"):

            def ask(name: str = series) -> Any:
                found = sending.get(
                    f"{real.prometheus}/api/v1/query_exemplars",
                    query=name,
                    start="0",
                    end=str(time.time() + 60),
                )["data"]
                return found or None

            (row,) = sending.eventually(ask, f"exemplar of {series}")
            assert row["exemplars"][0]["labels"] == {
                "trace_id": f"{context.trace_id:032x}",
                "span_id": f"{context.span_id:016x}",
            }
        assert sending.trace(real.jaeger, context.trace_id, 1)[0]["operationName"] == "chat"


def test_a_trace_is_found_by_id_and_by_tag_with_its_links(real: Real) -> None:
    """A hit's span leads to the span that made the answer, and a search by tag finds it and nothing else."""
    with sending.app(real.otlp, "links") as app:
        origin = sending.called(app, "chat", **{"underlay.cache.result": "miss"})
        with app.traces.get_tracer("test").start_as_current_span(
            "chat", links=[Link(origin)], attributes={"underlay.cache.result": "hit"}
        ) as span:
            hit = span.get_span_context()
        app.flush()
        (stored,) = sending.trace(real.jaeger, hit.trace_id, 1)
        assert stored["references"] == [
            {
                "refType": "FOLLOWS_FROM",
                "traceID": f"{origin.trace_id:032x}",
                "spanID": f"{origin.span_id:016x}",
            }
        ]

        def ask() -> Any:
            query = {"service": "links", "tags": '{"underlay.cache.result":"hit"}', "lookback": "1h"}
            return sending.get(f"{real.jaeger}/api/traces", **query)["data"] or None

        (only,) = sending.eventually(ask, "the hit by tag")
        assert only["traceID"] == f"{hit.trace_id:032x}"


def test_grpc_is_taken_as_well(real: Real) -> None:
    """A span sent over OTLP/gRPC arrives like any other."""
    provider = TracerProvider(resource=Resource.create({"service.name": "grpc"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(real.otlp_grpc, insecure=True)))
    with provider.get_tracer("test").start_as_current_span("over grpc") as span:
        trace_id = span.get_span_context().trace_id
    provider.shutdown()
    assert sending.trace(real.jaeger, trace_id, 1)[0]["operationName"] == "over grpc"


def test_content_and_credentials_end_in_the_collector(real: Real) -> None:
    """Prompts and keys in spans, events, resources, points and log records reach no store and no log; the
    rest does.
    """
    content = {
        "gen_ai.input.messages": PROMPT,
        "gen_ai.output.messages": [PROMPT],
        "gen_ai.system_instructions": PROMPT,
        "gen_ai.tool.call.arguments": PROMPT,
        "gen_ai.prompt.0.content": PROMPT,
        "gen_ai.completion": PROMPT,
        "llm.input_messages.0.message.content": PROMPT,
        "input.value": PROMPT,
        "traceloop.entity.output": PROMPT,
        "http.request.header.authorization": [f"Bearer {KEY}"],
        "http.request.header.x-api-key": [KEY],
        "api_key": KEY,
        "url.full": f"https://me:{KEY}@host/v1?alt=sse&key={KEY}",
        "error.detail": f"Incorrect API key provided: {KEY}",
    }
    kept = {
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.prompt.name": "greeting",
        "gen_ai.request.model": "gpt-4o",
    }
    with sending.app(
        real.otlp, "content", **{"process.command_line": PROMPT, "deployment.api_key": KEY}
    ) as app:
        with app.traces.get_tracer("test").start_as_current_span(
            "chat", attributes={**content, **kept}
        ) as span:
            span.add_event("gen_ai.user.message", {"content": PROMPT, "role": "user", **content})
            span.set_status(Status(StatusCode.ERROR, f"401 for Bearer {KEY}"))
        app.metrics.get_meter("test").create_counter("content.calls").add(1, {**content, **kept})
        logger = app.logs.get_logger("test")
        for name in ("gen_ai.user.message", "underlay.circuit_breaker.transition"):
            body = PROMPT if name.startswith("gen_ai.") else f"opened after {KEY}"
            logger.emit(
                LogRecord(
                    body=body,
                    event_name=name,
                    severity_number=SeverityNumber.WARN,
                    attributes={**content, **kept},
                )
            )
        app.flush()
        stored = json.dumps(sending.trace(real.jaeger, span.get_span_context().trace_id, 1))
        sending.value(real.prometheus, "content_calls_total", 1)
    points = json.dumps(sending.get(f"{real.prometheus}/api/v1/series", **{"match[]": '{job="content"}'}))

    def printed() -> str | None:
        text = "\n".join(stack.logs("collector", lines=200, environ=real.environ))
        return text if "opened after REDACTED" in text else None

    log = sending.eventually(printed, "the log record in the Collector's log")
    for place in (stored, points, log):
        assert PROMPT not in place
        assert KEY not in place
        assert "greeting" in place
        assert "gpt-4o" in place
    assert "https://REDACTED@host/v1?alt=sse&key=REDACTED" in stored
    assert "[content removed]" in log
    assert '"role"' in stored


def test_odd_values_are_taken(real: Real) -> None:
    """Values of every OTLP type, under watched names and in a log's body, are cleaned without refusing the data."""
    values: list[dict[str, Any]] = [
        {"intValue": "5"},
        {"doubleValue": 0.5},
        {"boolValue": True},
        {"bytesValue": "AAEC"},
        {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "x"}]}},
        {"kvlistValue": {"values": [{"key": "a", "value": {"stringValue": "x"}}]}},
        {},
    ]
    names = ("event.name", "gen_ai.input.messages", "api_key", "url.full", "free")
    for value in values:
        attributes = [{"key": name, "value": value} for name in names]
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "odd"}}, *attributes]}
        moment = str(time.time_ns())
        span = {
            "traceId": "0af7651916cd43dd8448eb211c80319c",
            "spanId": "b7ad6b7169203331",
            "name": "odd",
            "startTimeUnixNano": moment,
            "endTimeUnixNano": moment,
            "attributes": attributes,
            "events": [{"name": "gen_ai.choice", "timeUnixNano": moment, "attributes": attributes}],
        }
        points = [{"timeUnixNano": moment, "asInt": "1", "attributes": attributes[:1]}]
        records: list[dict[str, Any]] = [
            {"timeUnixNano": moment, "body": value, "attributes": attributes},
            {"timeUnixNano": moment, "body": value, "eventName": "gen_ai.choice"},
            {"timeUnixNano": moment},
        ]
        sending.post(
            f"{real.otlp}/v1/traces",
            {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]},
        )
        sending.post(
            f"{real.otlp}/v1/metrics",
            {
                "resourceMetrics": [
                    {
                        "resource": resource,
                        "scopeMetrics": [{"metrics": [{"name": "odd", "gauge": {"dataPoints": points}}]}],
                    }
                ]
            },
        )
        sending.post(
            f"{real.otlp}/v1/logs",
            {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]},
        )
    assert sending.trace(real.jaeger, 0x0AF7651916CD43DD8448EB211C80319C, 1)[0]["operationName"] == "odd"


def test_the_collector_reports_on_itself(real: Real) -> None:
    """What the Collector took, holds and could not pass on is in Prometheus, so that loss would be seen."""
    for expression in (
        'count(otelcol_exporter_queue_capacity{job="otelcol"})',
        'count(count by (exporter) (otelcol_exporter_queue_size{job="otelcol"}))',
    ):
        found = sending.eventually(
            lambda e=expression: sending.instant(real.prometheus, e) or None, expression, deadline_s=60
        )
        assert next(iter(found.values())) >= 2
