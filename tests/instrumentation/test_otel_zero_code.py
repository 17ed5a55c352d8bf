"""An unmodified program of the official SDK under the real `opentelemetry-instrument`, against the simulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from otel_collector import Collector

from underlay.simulator import Simulator

PROGRAM = """
import sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1] + "/v1", api_key="key")
for _ in range(2):
    reply = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hello"}])
    print("app:", reply.id, file=sys.stderr)
"""
AUTO = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
NO_GENAI = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "openai"}


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A provider that counts what reaches it."""
    with Simulator() as made:
        yield made


def environ(**extra: str) -> dict[str, str]:
    """The environment without foreign switches: spans on the console, no metrics, no logs."""
    plain = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OTEL_", "UNDERLAY_")) and "proxy" not in key.lower()
    }
    console = {
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    return {**plain, **console, **extra}


class Run:
    """What a program said and which spans it left."""

    def __init__(self, command: list[str], folder: Path, extra: dict[str, str]) -> None:
        done = subprocess.run(
            command, cwd=folder, env=environ(**extra), capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0, done.stderr
        self.answers = [line for line in done.stderr.splitlines() if line.startswith("app:")]
        self.said = [line for line in done.stderr.splitlines() if not line.startswith("app:")]
        self.spans = list(_documents(done.stdout))

    def tree(self) -> list[tuple[str, str | None, str | None]]:
        """(name, name of the parent, how it was answered) of each span."""
        names = {span["context"]["span_id"]: span["name"] for span in self.spans}
        return [
            (
                span["name"],
                names.get(span["parent_id"]) if span["parent_id"] else None,
                span["attributes"].get("underlay.cache.result"),
            )
            for span in self.spans
        ]


def _documents(text: str) -> Iterator[Any]:
    decoder, position = json.JSONDecoder(), 0
    while position < len(text):
        document, position = decoder.raw_decode(text, position)
        yield document
        while text[position : position + 1].isspace():
            position += 1


def instrumented(tmp_path: Path, simulator: Simulator, **extra: str) -> Run:
    """The program under `opentelemetry-instrument`."""
    program = tmp_path / "app.py"
    program.write_text(PROGRAM)
    return Run([sys.executable, "-c", AUTO, sys.executable, str(program), simulator.url], tmp_path, extra)


def test_a_repeat_reaches_the_provider_once(tmp_path: Path, simulator: Simulator) -> None:
    """Without a line of code the second call is answered from the cache, in a span that links to the first."""
    run = instrumented(tmp_path, simulator, **NO_GENAI)
    assert simulator.counts().total.requests == 1
    assert len(run.answers) == 2
    assert len(set(run.answers)) == 1
    assert run.tree() == [
        ("POST", "chat gpt-4o", None),
        ("chat gpt-4o", None, "miss"),
        ("chat gpt-4o", None, "hit"),
    ]
    _, miss, hit = run.spans
    (link,) = hit["links"]
    assert link["context"]["span_id"] == miss["context"]["span_id"]
    assert link["attributes"] == {"underlay.link.role": "generated"}
    assert run.said == []


def test_under_the_official_genai_instrumentation_its_spans_tell_the_story(
    tmp_path: Path, simulator: Simulator
) -> None:
    """With opentelemetry-instrumentation-genai-openai there is one `chat` span a call, its own, with our
    attributes; the hit adds the small span that holds the link."""
    run = instrumented(tmp_path, simulator)
    assert simulator.counts().total.requests == 1
    assert run.tree() == [
        ("POST", "chat gpt-4o", None),
        ("chat gpt-4o", None, "miss"),
        ("cache hit", "chat gpt-4o", "hit"),
        ("chat gpt-4o", None, "hit"),
    ]
    _, miss, small, hit = run.spans
    assert [link["context"]["span_id"] for link in small["links"]] == [miss["context"]["span_id"]]
    assert hit["attributes"]["gen_ai.response.id"] == miss["attributes"]["gen_ai.response.id"]
    assert run.said == []


@pytest.mark.parametrize(
    "extra",
    [{"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "openai,underlay"}, {**NO_GENAI, "UNDERLAY_DISABLED": "1"}],
)
def test_underlay_can_be_switched_off(tmp_path: Path, simulator: Simulator, extra: dict[str, str]) -> None:
    """Disabled by OpenTelemetry's variable or by ours, every call reaches the provider and no span is ours."""
    run = instrumented(tmp_path, simulator, **extra)
    assert simulator.counts().total.requests == 2
    assert run.tree() == [("POST", None, None), ("POST", None, None)]


ORDERED = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor
from underlay_instrumentation import UnderlayInstrumentor, post_instrument
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
steps = {
    "sdk": lambda: trace.set_tracer_provider(provider),
    "http": lambda: HTTPX2ClientInstrumentor().instrument(),
    "underlay": lambda: UnderlayInstrumentor().instrument(),
    "post": post_instrument,
}
for name in sys.argv[2].split(","):
    steps[name]()
"""


@pytest.mark.parametrize(
    "order", ["sdk,http,underlay,post", "underlay,http,sdk,post", "http,post,sdk", "post,http,underlay,sdk"]
)
def test_the_order_of_loading_changes_nothing(tmp_path: Path, simulator: Simulator, order: str) -> None:
    """Whichever of the SDK, the HTTP instrumentation and underlay comes first, the HTTP span lies under ours."""
    program = tmp_path / "app.py"
    program.write_text(ORDERED + PROGRAM)
    run = Run([sys.executable, str(program), simulator.url, order], tmp_path, {})
    assert run.tree() == [
        ("POST", "chat gpt-4o", None),
        ("chat gpt-4o", None, "miss"),
        ("chat gpt-4o", None, "hit"),
    ]
    assert simulator.counts().total.requests == 1


def test_underlay_run_tells_it_all_to_both_places(
    tmp_path: Path, simulator: Simulator, collector: Collector
) -> None:
    """`underlay run` does the same with an SDK of its own; with `telemetry.file: always` the endpoint of the
    environment and the local file both have all of it at the end."""
    program = tmp_path / "app.py"
    program.write_text(PROGRAM)
    code = "import sys; sys.argv[0] = 'underlay'; from underlay.cli import main; main()"
    extra = {f"OTEL_{signal}_EXPORTER": "" for signal in ("TRACES", "METRICS", "LOGS")}
    run = Run(
        [sys.executable, "-c", code, "run", "--", sys.executable, str(program), simulator.url],
        tmp_path,
        {**extra, "UNDERLAY_TELEMETRY__FILE": "always", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url},
    )
    assert simulator.counts().total.requests == 1
    assert (len(run.answers), run.said) == (2, [])
    assert sorted(collector.spans()) == [("app", "POST"), ("app", "chat gpt-4o"), ("app", "chat gpt-4o")]
    assert "/v1/metrics" in collector.bodies
    (file,) = tmp_path.glob(".underlay/telemetry-*.jsonl")
    documents = [json.loads(line) for line in file.read_text().splitlines()]
    found: dict[str, dict[str, Any]] = {
        span["spanId"]: span
        for document in documents
        for resource in document.get("resourceSpans", ())
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    }
    assert sorted(span["name"] for span in found.values()) == ["POST", "chat gpt-4o", "chat gpt-4o"]
    (hit,) = [span for span in found.values() if span.get("links")]
    assert found[hit["links"][0]["spanId"]]["name"] == "chat gpt-4o"
    metrics = {
        metric["name"]
        for document in documents
        for resource in document.get("resourceMetrics", ())
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
    }
    assert {"gen_ai.client.operation.duration", "underlay.calls", "underlay.cost.saved"} <= metrics
