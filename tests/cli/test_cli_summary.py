"""The numbers and the timeline that a run's spans come to."""

from __future__ import annotations

import statistics

import pytest
from cli_builder import BASE_NS, MS, Made, call, http, line
from hypothesis import given
from hypothesis import strategies as st

from underlay.cli.span_model import Span, decode_line
from underlay.cli.summary import circuit_timeline, percentiles, summarise
from underlay.metrics import percentile
from underlay.telemetry import attributes as a
from underlay.telemetry.spans import TRANSITION


def _spans(*made: Made) -> list[Span]:
    return decode_line(line(*made))[0]


def test_a_run_adds_up() -> None:
    """Calls, upstream calls, hits, refusals, failures, tokens and money are counted from the call spans
    alone.
    """
    spans = _spans(
        call("a", took=100, INPUT_TOKENS=10, OUTPUT_TOKENS=5, COST=0.1),
        http("h", "a", "trace-a", at=0, took=90),
        call("b", took=200, INPUT_TOKENS=20, OUTPUT_TOKENS=6, COST=0.2),
        call("c", took=300, result="hit", SAVED=0.1),
        call("d", took=400, error="server_error"),
        call("e", took=1, result="refused", error="circuit_open"),
        call("f", took=500),
    )
    summary = summarise(spans)
    assert (summary.calls, summary.upstream_calls, summary.hits, summary.refused, summary.failed) == (
        6,
        4,
        1,
        1,
        1,
    )
    assert (summary.input_tokens, summary.output_tokens) == (30, 11)
    assert summary.cost_usd == pytest.approx(0.3)
    assert summary.saved_usd == 0.1
    assert summary.unpriced == 1
    assert summary.p50_ms == pytest.approx(250)
    assert summary.answered_latency is not None
    assert summary.answered_latency.p50_ms == pytest.approx(250)
    assert summary.p99_ms == pytest.approx(495)
    assert summary.p95_ms == pytest.approx(475)


def test_of_nothing_nothing_is_known() -> None:
    """Without calls, counts are 0 and everything measured is unknown."""
    summary = summarise([])
    assert (summary.calls, summary.upstream_calls, summary.failed) == (0, 0, 0)
    assert (summary.p50_ms, summary.p95_ms, summary.p99_ms) == (None, None, None)
    assert (summary.input_tokens, summary.cost_usd, summary.saved_usd) == (None, None, None)


def test_five_values_have_their_exact_middle() -> None:
    """p50 of 100 to 500 ms is exactly 300 ms."""
    found = percentiles([0.5, 0.1, 0.3, 0.2, 0.4])
    assert found is not None
    assert found.p50_ms == pytest.approx(300)
    assert found.p95_ms == pytest.approx(480)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_percentiles_equal_the_standard_librarys(values: list[float]) -> None:
    """The interpolation is that of statistics.quantiles with the inclusive method."""
    ordered = sorted(values)
    cuts = statistics.quantiles(ordered, n=100, method="inclusive")
    for percent in (50, 95, 99):
        assert percentile(ordered, percent / 100) == pytest.approx(cuts[percent - 1], rel=1e-9, abs=1e-9)


def test_the_timeline_is_in_the_order_of_time() -> None:
    """Transitions come from the spans of that name, sorted, with who, from where, why and after how many
    failures.
    """

    def change(at: float, left: str, entered: str, reason: str, **more: int) -> Made:
        attributes = {
            a.PROVIDER.key: "openai", a.REQUEST_MODEL.key: "m", a.CIRCUIT_FROM.key: left,
            a.CIRCUIT_STATE.key: entered, a.CIRCUIT_REASON.key: reason, **more,
        }  # fmt: skip
        return Made(TRANSITION(state=entered), "t", f"{at}", at, 0, attributes=attributes)

    spans = _spans(
        change(9, "half_open", "closed", "recovered"),
        change(1, "closed", "open", "failures", **{a.CIRCUIT_FAILURES.key: 5}),
        call("a"),
    )
    timeline = circuit_timeline(spans)
    assert [(item.left, item.entered, item.reason, item.failures) for item in timeline] == [
        ("closed", "open", "failures", 5),
        ("half_open", "closed", "recovered", None),
    ]
    assert (timeline[0].time_ns, timeline[0].provider, timeline[0].model) == (BASE_NS + MS, "openai", "m")
