"""One variant of a client in a process of its own: makes bursts of calls on command and says what they cost.

    python -m benchmarks.worker VARIANT

Reads lines `SCENARIO COUNT` and answers each with `{"cpu": seconds, "wall": seconds}` for the whole burst. The provider is in
process: the family's real HTTPTransport over a connection pool that answers from memory, so that the HTTP instrumentation sees every
request and no socket adds noise.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpcore2
import httpx2
import openai

VARIANTS = ("bare", "off", "on", "full", "genai-openai")
SCENARIOS = ("unknown", "miss", "hit", "stream-miss", "stream-hit")
CHUNKS = 100

_USAGE = {"prompt_tokens": 12, "completion_tokens": 100, "total_tokens": 112}
_MESSAGE = {"role": "assistant", "content": "An answer of ordinary length, as a model gives it. " * 8}
JSON_BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
).encode()


def _event(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o",
        "choices": choices,
    }
    return b"data: " + json.dumps(chunk | ({"usage": usage} if usage else {})).encode() + b"\n\n"


STREAM = [
    *(
        _event([{"index": 0, "delta": {"content": f" word{n}"}, "finish_reason": None}])
        for n in range(CHUNKS - 3)
    ),
    _event([{"index": 0, "delta": {}, "finish_reason": "stop"}]),
    _event([], _USAGE),
    b"data: [DONE]\n\n",
]


class _Body:
    """A reply's body, as the pool's own: iterable and closable."""

    def __init__(self, frames: list[bytes]) -> None:
        self._frames = frames

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._frames)

    def close(self) -> None:
        """Nothing is held."""


class Pool:
    """Stands in for the connection pool: answers at once from memory."""

    def handle_request(self, request: Any) -> Any:
        """A stream for a body that asks for one, else JSON."""
        body = b"".join(request.stream)
        streamed = b'"stream":true' in body
        kind = b"text/event-stream" if streamed else b"application/json"
        frames = STREAM if streamed else [JSON_BODY]
        return httpcore2.Response(200, headers=[(b"content-type", kind)], content=_Body(frames))

    def close(self) -> None:
        """Nothing is held."""


def transport() -> httpx2.HTTPTransport:
    """The real transport over the pool in memory."""
    made = httpx2.HTTPTransport()
    made._pool.close()
    made._pool = Pool()  # type: ignore[assignment]
    return made


def set_up(variant: str) -> None:
    """Switch on what the variant has."""
    if variant in ("on", "full", "genai-openai"):
        _sdk(full=variant == "full")
    if variant == "full":
        from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor

        HTTPX2ClientInstrumentor().instrument()
    if variant == "genai-openai":
        from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

        OpenAIInstrumentor().instrument()
    if variant in ("off", "on", "full"):
        import underlay

        underlay.instrument()


def _sdk(*, full: bool) -> None:
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SimpleSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()) if full else SimpleSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)
    reader: Any = InMemoryMetricReader()
    if full:
        from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult

        class NoMetrics(MetricExporter):
            def export(self, *_: Any, **__: Any) -> MetricExportResult:
                return MetricExportResult.SUCCESS

            def force_flush(self, timeout_millis: float = 0) -> bool:
                return True

            def shutdown(self, timeout_millis: float = 0, **__: Any) -> None:
                return

        reader = PeriodicExportingMetricReader(NoMetrics(), export_interval_millis=5000)
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))


def scenarios() -> dict[str, Callable[[int], None]]:
    """Each takes the call's number and makes one call."""
    client = openai.OpenAI(api_key="key", http_client=httpx2.Client(transport=transport()), max_retries=0)
    plain = httpx2.Client(transport=transport())
    create = client.chat.completions.create

    def ask(prompt: str) -> None:
        create(model="gpt-4o", messages=[{"role": "user", "content": prompt}])

    def stream(prompt: str) -> None:
        for _ in create(model="gpt-4o", messages=[{"role": "user", "content": prompt}], stream=True):
            pass

    return {
        "unknown": lambda n: plain.post("https://example.com/v1/other", json={"n": n}) and None,
        "miss": lambda n: ask(f"question {n}"),
        "hit": lambda n: ask("the same question"),
        "stream-miss": lambda n: stream(f"question {n}"),
        "stream-hit": lambda n: stream("the same question"),
    }


def main() -> None:
    """Serve bursts until standard input ends."""
    set_up(sys.argv[1])
    calls = scenarios()
    number = 0
    gc.collect()
    gc.freeze()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        name, count = line.split()
        call = calls[name]
        wall, cpu = time.perf_counter(), time.thread_time()
        for _ in range(int(count)):
            number += 1
            call(number)
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        print(json.dumps({"cpu": cpu, "wall": wall}), flush=True)


if __name__ == "__main__":
    main()
