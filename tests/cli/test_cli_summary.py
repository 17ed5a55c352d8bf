"""The numbers and the timeline that a run's spans come to."""

from __future__ import annotations

import statistics
from typing import Any

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


def _dispatch(word: str, mode: str, size: int, **more: Any) -> Made:
    attributes = {a.BATCH_MODE.key: mode, a.BATCH_TRIGGER.key: "size", a.BATCH_SIZE.key: size}
    attributes |= {getattr(a, name).key: value for name, value in more.items()}
    return Made(f"batch dispatch {word}", "t", word, 0, 1, attributes=attributes)


def test_calls_that_went_together_are_fewer_requests() -> None:
    """Coalesced calls sent nothing, merged ones count as the requests that they became (one taken apart again
    as one more), released ones each as their own."""
    spans = _spans(
        call("leader", COST=0.1),
        *(call(f"f{n}", result="coalesced", SAVED=0.1) for n in range(3)),
        *(call(f"m{n}", BATCH_MODE="merged", BATCH_SIZE=200) for n in range(5)),
        *(_dispatch(f"merged {part}", "merged", 200, BATCH_PART=part) for part in (1, 2)),
        _dispatch("apart", "merged", 2, BATCH_APART=True),
        *(call(f"a{n}", BATCH_MODE="alone") for n in range(2)),
        *(call(f"r{n}", BATCH_MODE="released", BATCH_SIZE=4) for n in range(4)),
        _dispatch("released", "released", 4),
        call("nobody", BATCH_MODE="alone", BATCH_SIZE=1),
        _dispatch("alone", "alone", 1),
    )
    summary = summarise(spans)
    assert (summary.calls, summary.upstream_calls) == (16, 1 + 1 + (1 + 2) + 4 + 1)
    assert (summary.coalesced, summary.merged, summary.merged_requests, summary.released) == (3, 5, 2, 4)
    assert summary.saved_usd == pytest.approx(0.3)


def test_a_leader_that_left_first_was_sent() -> None:
    """A reply without a verdict is a request all the same; one that was never answered is none."""
    left = call("left", sent=False, HTTP_STATUS=200, ENDING="closed")
    waited = call("waited", sent=False, ENDING="cancelled")
    replayed = call("hit", result="hit", HTTP_STATUS=200)
    assert summarise(_spans(left, waited, replayed)).upstream_calls == 1


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
