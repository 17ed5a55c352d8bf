"""The tools of the stack's proof: substitution, buckets, and the reading of Grafana's answers (a recorded shape, no Grafana)."""

from __future__ import annotations

import json

import httpx
import pytest
from e2e.board import dashboards, questions, substituted
from e2e.expect import EMPTY, EXPECTED, Check
from e2e.facts import bucket_of
from e2e.grafana import ThroughGrafana, values_of

from underlay.stack import bundle_root

ANSWER = {
    "results": {
        "A": {
            "status": 200,
            "frames": [
                {
                    "schema": {
                        "fields": [
                            {"name": "Time", "type": "time"},
                            {"name": "Value", "type": "number", "labels": {"__name__": "x", "model": model}},
                        ]
                    },
                    "data": {"values": [[1700000000000], [value]]},
                }
                for model, value in (("a", 3), ("b", 4.5))
            ],
        }
    }
}


def test_every_target_has_an_expectation_or_a_reason() -> None:
    """Nothing on the overview is asked without something that must come, and no expectation is left over."""
    board = dashboards(bundle_root() / "dashboards" / "rendered")["underlay-overview"]
    asked = {question.path for question in questions(board)}
    assert asked == set(EXPECTED) | set(EMPTY)


def test_windows_and_variables_are_put_in() -> None:
    """An expression reaches Prometheus as Grafana would send it."""
    expr = (
        'sum(rate(x{service=~"$service"}[$__rate_interval])) / (${__rate_interval_ms} / 1000) + y[$__range]'
    )
    assert substituted(expr, 60, {"service": "app"}) == (
        'sum(rate(x{service=~"app"}[60000ms])) / (60000 / 1000) + y[60000ms]'
    )


@pytest.mark.parametrize(
    ("value", "bucket"), [(0.5, (0.0, 1.0)), (1.0, (0.0, 1.0)), (1.5, (1.0, 4.0)), (9, (4.0, float("inf")))]
)
def test_a_bucket_includes_its_upper_bound(value: float, bucket: tuple[float, float]) -> None:
    """Buckets are (lower, upper], as OpenTelemetry's are."""
    assert bucket_of(value, (1.0, 4.0)) == bucket


def test_a_check_holds_within_its_bounds() -> None:
    """Both ends belong to it."""
    assert [Check(1, 2, "").holds(value) for value in (0.9, 1, 2, 2.1)] == [False, True, True, False]


def test_grafanas_answer_is_read_by_labels() -> None:
    """Frames become values by label set, without the metric's name."""
    assert values_of(ANSWER) == {frozenset({("model", "a")}): 3.0, frozenset({("model", "b")}): 4.5}


def test_grafanas_error_is_raised_with_its_words() -> None:
    """A failed query says what Grafana said."""
    with pytest.raises(ValueError, match="bad_data: parse error"):
        values_of({"results": {"A": {"error": "bad_data: parse error"}}})


def test_queries_go_through_grafanas_data_source() -> None:
    """An instant query is one POST to /api/ds/query with the data source's uid and the time it is asked for."""
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json=ANSWER)

    with httpx.Client(base_url="http://grafana", transport=httpx.MockTransport(answer)) as grafana:
        seen = ThroughGrafana(grafana, "http://prometheus").instant("sum(x)", 1000.0)
    assert len(seen) == 2
    (request,) = sent
    body = json.loads(request.content)
    assert (request.url.path, body["to"]) == ("/api/ds/query", "1000000")
    assert body["queries"][0]["datasource"] == {"uid": "underlay-prometheus"}
