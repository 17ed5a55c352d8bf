"""A dispatch of a window by itself: how it ends, and when nobody hears of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from otel_scenarios import Telemetry
from otel_windows import (
    MERGED,
    answer,
    batched,
    dispatch_of,
    embedding,
    left,
    looked,
    merged,
    named,
)  # fmt: skip

from underlay.telemetry import metrics as m
from underlay.telemetry.events import BatchEnded, Usage
from underlay_instrumentation import faults


@pytest.mark.parametrize(
    ("end", "status", "more"),
    [
        (BatchEnded(0.5, 503, "server_error"), "ERROR",
         {"http.response.status_code": 503, "error.type": "server_error"}),
        (BatchEnded(0.5, None, "ReadTimeout"), "ERROR", {"error.type": "ReadTimeout"}),
        (BatchEnded(0.5, 400, "invalid_request_error", apart=True), "ERROR",
         {"http.response.status_code": 400, "error.type": "invalid_request_error", "underlay.batch.apart": True}),
        (BatchEnded(0.5, 200, apart=True), "UNSET",
         {"http.response.status_code": 200, "underlay.batch.apart": True}),
    ],
)  # fmt: skip
def test_how_a_dispatch_ends(
    telemetry: Telemetry, end: BatchEnded, status: str, more: dict[str, Any]
) -> None:
    """A failed dispatch is a failed span with the kind of failure; one that was taken apart says so."""
    listener = telemetry.listener()
    handles = looked(listener, 2)
    merged(listener, handles, end, tracer=telemetry.tracers.get_tracer("http"))
    (span,) = [one for one in telemetry.spans(**named(handles)) if one["name"].startswith("batch dispatch")]
    expected = dispatch_of(MERGED, 2, "call0", status=status)
    assert span == {**expected, "attributes": {**expected["attributes"], **more}}


def test_a_dispatch_ends_once(telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    """A second end changes nothing and says nothing; what identifies the dispatch stays."""
    dispatch = telemetry.listener().dispatch(left([], MERGED))
    assert dispatch is not None
    before = dispatch.origin()
    dispatch.event(BatchEnded(0.5, 200))
    dispatch.event(BatchEnded(0.5, 500, "server_error"))
    (span,) = telemetry.spans()
    assert (span["status"], span["attributes"]["http.response.status_code"]) == ("UNSET", 200)
    assert (dispatch.origin(), caplog.records) == (before, [])


def test_the_fill_is_a_share(telemetry: Telemetry) -> None:
    """A window that holds more than its bound is full, and without a bound there is no share to tell."""
    listener = telemetry.listener()
    for filled, capacity in ((3, 4), (9, 4), (3, 0)):
        dispatch = listener.dispatch(left([], MERGED, filled=filled, capacity=capacity))
        assert dispatch is not None
        dispatch.event(BatchEnded(0.5, 200))
    fills = [span["attributes"].get("underlay.batch.fill") for span in telemetry.spans()]
    assert fills == [0.75, 1.0, None]


def test_suppression_silences_members_and_dispatch(telemetry: Telemetry) -> None:
    """Under suppress_instrumentation a window leaves nothing at all."""
    listener = telemetry.listener()
    with suppress_instrumentation():
        handle = listener.start(embedding())
        assert listener.dispatch(left([handle], MERGED)) is None
    handle.event(batched(MERGED, 1, b""))
    answer(handle, Usage(1, 0), 0.25, sent=True)
    assert (telemetry.spans(), telemetry.recorded()) == ([], {})


def test_a_window_that_is_sampled_out_still_counts() -> None:
    """Without recorded spans the points are the same, and the send carries the unsampled context on."""
    telemetry = Telemetry(sampler=ALWAYS_OFF)
    listener = telemetry.listener()
    handles = looked(listener, 2)
    with handles[0].attempt():
        dispatch = listener.dispatch(left(handles, MERGED))
        assert dispatch is not None
        with dispatch.attempt():
            current = trace.get_current_span().get_span_context()
        assert current.is_valid
        assert not current.trace_flags.sampled
        dispatch.event(BatchEnded(0.5, 200))
    handles[1].event(batched(MERGED, 2, dispatch.origin()))
    assert telemetry.spans() == []
    assert set(telemetry.recorded()) == {m.BATCH_SIZE.name, m.BATCH_WAIT.name}


def test_the_points_of_a_window_have_exemplars(telemetry: Telemetry) -> None:
    """The dot of a size opens the dispatch's trace, that of a wait the call's."""
    listener = telemetry.listener()
    (handle,) = looked(listener, 1)
    dispatch = merged(listener, [handle], BatchEnded(0.5, 200), tracer=telemetry.tracers.get_tracer("http"))
    answer(handle, Usage(1, 0), 0.25, sent=True)
    ids = {span.name.split()[0]: (span.context.trace_id, span.context.span_id) for span in telemetry.finished}
    exemplars = telemetry.exemplars()
    assert exemplars[m.BATCH_SIZE.name] == [ids["batch"]]
    assert exemplars[m.BATCH_WAIT.name] == [ids["embeddings"]]
    assert len(dispatch.origin()) == 25


class Hostile:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("what was asked")


BROKEN: Any = Hostile()


def test_a_dispatch_that_cannot_be_told_raises_nothing(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with a dispatch's events, the runtime sees nothing of it, one line names it, and no span
    is left open."""
    monkeypatch.setattr(faults, "_told", set())
    listener = telemetry.listener()
    plain = left([], MERGED)
    changes: list[dict[str, Any]] = [{"mode": BROKEN}, {"members": BROKEN}, {"members": (None,)}]
    for wrong in (BROKEN, *(replace(plain, **change) for change in changes)):
        assert listener.dispatch(wrong) is None
    dispatch = listener.dispatch(left([], MERGED))
    assert dispatch is not None
    dispatch.event(BROKEN)
    assert [span["name"].split()[0] for span in telemetry.spans()] == ["batch"] * 2
    assert {record.getMessage().split(" failed")[0] for record in caplog.records} == {
        "underlay: telemetry of BatchEnded",
        "underlay: telemetry of BatchStarted",
    }
    assert "what was asked" not in caplog.text
