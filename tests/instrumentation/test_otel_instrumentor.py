"""The entry points of auto-instrumentation: they work in any order, obey every switch, and never raise."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import underlay
import underlay_instrumentation
from underlay_instrumentation import UnderlayInstrumentor, bridge, post_instrument


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was called of underlay."""
    called: list[str] = []
    monkeypatch.setattr(underlay, "instrument", lambda: called.append("instrument"))
    monkeypatch.setattr(underlay, "uninstrument", lambda: called.append("uninstrument"))
    monkeypatch.delenv("UNDERLAY_DISABLED", raising=False)
    monkeypatch.delenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", raising=False)
    yield called
    UnderlayInstrumentor._instance = None


def test_instrument_and_uninstrument(calls: list[str]) -> None:
    """The instrumentor does what underlay.instrument() and underlay.uninstrument() do."""
    instrumentor = UnderlayInstrumentor()
    instrumentor.instrument()
    instrumentor.uninstrument()
    assert calls == ["instrument", "uninstrument"]


def test_post_instrument_is_a_late_second_look(calls: list[str]) -> None:
    """After the instrumentor it does nothing; without it, it instruments, once."""
    post_instrument()
    post_instrument()
    UnderlayInstrumentor().instrument  # noqa: B018 the same single object
    assert calls == ["instrument"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "underlay"),
        ("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "openai , underlay"),
        ("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "*"),
        ("UNDERLAY_DISABLED", "1"),
        ("UNDERLAY_DISABLED", "True"),
    ],
)
def test_switches_are_obeyed(
    calls: list[str], monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """OpenTelemetry runs the late look whatever is disabled, so it looks itself."""
    monkeypatch.setenv(variable, value)
    post_instrument()
    assert calls == []


def test_the_instrumentor_obeys_the_main_switch(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """UNDERLAY_DISABLED also holds when the instrumentor is used by hand."""
    monkeypatch.setenv("UNDERLAY_DISABLED", "yes")
    UnderlayInstrumentor().instrument()
    assert calls == []


def test_nothing_raises(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One exception would end the instrumentation of everything else, so there is none."""

    def fail() -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(underlay, "instrument", fail)
    monkeypatch.setattr(underlay, "uninstrument", fail)
    instrumentor = UnderlayInstrumentor()
    instrumentor.instrument()
    instrumentor.uninstrument()
    post_instrument()
    assert calls == []


def test_public_names_are_stable_functions() -> None:
    """Entry points resolve names by getattr, any number of times, and loading one does not hide another."""
    for name in underlay_instrumentation.__all__:
        first = getattr(underlay_instrumentation, name)
        assert getattr(underlay_instrumentation, name) is first
        assert callable(first)
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = underlay_instrumentation.nonesuch


@pytest.mark.parametrize(
    ("conventions", "name"),
    [
        ("upcoming", "gen_ai.client.inference.duration"),
        ("released", "gen_ai.client.operation.duration"),
        ("nonsense", "gen_ai.client.operation.duration"),
    ],
)
def test_the_bridge_reads_the_settings(conventions: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime's settings choose the generation of the names."""
    runtime: Any = SimpleNamespace(
        settings=SimpleNamespace(
            telemetry=SimpleNamespace(conventions=conventions), statistics=SimpleNamespace(max_models=5)
        ),
        collect=lambda _key: [],
    )
    asked: list[str] = []
    from underlay_instrumentation.instruments import Instruments

    original = Instruments.histogram

    def histogram(self: Instruments, metric: Any, generation: Any) -> Any:
        made = original(self, metric, generation)
        asked.append(generation)
        return made

    monkeypatch.setattr(Instruments, "histogram", histogram)
    listener = bridge(runtime)
    listener.close()
    from underlay.telemetry import metrics as m

    assert m.metric_name(m.CALL_DURATION, next(iter(set(asked)))) == name  # type: ignore[arg-type]


def test_opentelemetry_instrument_finds_everything() -> None:
    """Under the real `opentelemetry-instrument`, underlay is in place and the SDK of the environment is used."""
    code = """
import sys
from underlay_instrumentation import UnderlayInstrumentor
from underlay import global_runtime
print(UnderlayInstrumentor().is_instrumented_by_opentelemetry, global_runtime.current() is not None)
"""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "UNDERLAY_"))}
    none = {f"OTEL_{name}_EXPORTER": "none" for name in ("TRACES", "METRICS", "LOGS")}
    command = [
        sys.executable, "-c",
        "from opentelemetry.instrumentation.auto_instrumentation import run; run()",
        sys.executable, "-c", code,
    ]  # fmt: skip

    def run(**extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env={**plain, **none, **extra}, capture_output=True, text=True, timeout=50, check=False
        )

    assert (run().stdout, run(UNDERLAY_DISABLED="1").stdout) == ("True True\n", "True False\n")
    off = run(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="*")
    assert off.stdout == "False False\n"
