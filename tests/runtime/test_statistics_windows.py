"""Statistics of flights and windows: what is shared counts once, what each caller has counts for each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from statistics_lab import ended, filled, started, window

from underlay.collect import collect
from underlay.metrics import OTHER, Statistics
from underlay.settings import StatisticsSettings
from underlay.telemetry import metrics as vocabulary
from underlay.telemetry.attributes import BatchMode, BatchTrigger, CacheResult, Verdict
from underlay.telemetry.events import AttemptEnded, Batched, CacheLooked, Coalesced, Usage


def test_a_coalesced_call_saves_what_its_own_request_would_have_cost() -> None:
    """Saved tokens and cost of a follower are told at its end and added to those of hits; it has no latency of
    a provider, and a follower whose leader was unpriced saves no money."""
    stats = filled(
        Coalesced(b"leader", 0.1),
        ended(2.0, CacheResult.COALESCED, saved_usd=0.25, saved_usage=Usage(10, 4)),
        ended(2.0, CacheResult.COALESCED, saved_usage=Usage(1, None)),
        CacheLooked(CacheResult.HIT, saved_usd=0.5, saved_usage=Usage(5, 5)),
        ended(2.0, CacheResult.HIT, saved_usd=0.5, saved_usage=Usage(5, 5)),
    )
    assert stats.results == {"coalesced": 2, "hit": 1}
    assert stats.tokens_saved == {"input": 16, "output": 9}
    assert (stats.cost_saved, stats.cost, list(stats.latencies)) == (0.75, 0.0, [])
    assert (stats.tokens, stats.upstream) == ({}, {})


def test_a_merged_request_counts_once_and_its_parts_all() -> None:
    """Of three calls in one request one sent it; tokens, cost, unpriced answers and latencies are each call's
    own."""
    part = {"usage": Usage(4, 0), "sent": False}
    stats = filled(
        AttemptEnded(1, 1.0, Verdict.SUCCESS, 200, usage=Usage(2, 0), cost_usd=0.5),
        AttemptEnded(1, 1.0, Verdict.SUCCESS, 200, cost_usd=0.25, **part),
        AttemptEnded(1, 1.0, Verdict.SUCCESS, 200, **part),
        *[ended(1.5, batch_mode=BatchMode.MERGED)] * 3,
    )
    assert stats.upstream == {"success": 1}
    assert stats.tokens == {"input": 10, "output": 0}
    assert (stats.cost, stats.unpriced) == (0.75, 1)
    assert (list(stats.latencies), stats.results) == ([1.5] * 3, {"miss": 3})


def test_dispatches_are_counted_by_mode_and_trigger() -> None:
    """Each window that left counts once, a lone one too, with the calls that were in it, per model."""
    statistics = Statistics(StatisticsSettings(max_models=2))
    for size, mode, trigger, model in (
        (10, BatchMode.RELEASED, BatchTrigger.SIZE, "m"),
        (10, BatchMode.RELEASED, BatchTrigger.SIZE, "m"),
        (1, BatchMode.RELEASED, BatchTrigger.TIME, "m"),
        (7, BatchMode.MERGED, BatchTrigger.IDLE, "n"),
        (3, BatchMode.MERGED, BatchTrigger.DEADLINE, "beyond the bound"),
    ):
        assert statistics.dispatch(window(size, mode, trigger, model)) is None
    models = statistics.models()
    assert models["p", "m"].batches == {("released", "size"): 2, ("released", "time"): 1}
    assert models["p", "m"].batched == {("released", "size"): 20, ("released", "time"): 1}
    assert models["p", "n"].batched == {("merged", "idle"): 7}
    assert models[OTHER, OTHER].batches == {("merged", "deadline"): 1}


def test_what_is_only_observed_counts_nothing_as_done() -> None:
    """Watching coalescing and windows leaves every count as it was."""
    stats = filled(
        Coalesced(b"leader", 0.0, observed=True),
        Batched(BatchMode.MERGED, BatchTrigger.SIZE, 0.0, 5, observed=True),
        AttemptEnded(1, 1.0, Verdict.SUCCESS, 200, usage=Usage(2, 0), cost_usd=0.5),
        ended(),
    )
    assert (stats.results, stats.upstream, stats.batches, stats.batched) == (
        {"miss": 1}, {"success": 1}, {}, {},
    )  # fmt: skip
    assert (stats.cost_saved, stats.tokens_saved) == (0.0, {})


def test_calls_that_wait_are_read_from_the_windows() -> None:
    """Every known model has a value, so that a queue that has emptied reads 0; windows of one model add up, and
    models beyond the bound are counted together."""
    statistics = Statistics(StatisticsSettings(max_models=2))
    for model in ("idle", "busy"):
        statistics.start(started(model)).event(ended())
    waiting = [(("p", "busy"), 3), (("p", "busy"), 4), (("p", "x"), 1), (("q", "y"), 2)]
    engine: Any = SimpleNamespace(
        settle_dropped=lambda: None, state=SimpleNamespace(windows=SimpleNamespace(queued=lambda: waiting))
    )
    assert dict(collect(vocabulary.QUEUED.key, engine, statistics)) == {
        ("p", "idle"): 0, ("p", "busy"): 7, (OTHER, OTHER): 3,
    }  # fmt: skip
    fresh = Statistics(StatisticsSettings())
    assert dict(collect(vocabulary.QUEUED.key, engine, fresh)) == {
        ("p", "busy"): 7, ("p", "x"): 1, ("q", "y"): 2,
    }  # fmt: skip
