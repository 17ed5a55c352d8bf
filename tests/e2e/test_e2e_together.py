"""What the stack's proof counts of calls that come together, and that the dashboards see a single burst of
them."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from e2e.board import dashboards, questions
from e2e.facts import Facts
from e2e.together import windows_of

from underlay.stack import bundle_root
from underlay.telemetry import metrics as m
from underlay_dashboards import signals as s


def _runtime(**kinds: tuple[int, int]) -> Any:
    """A runtime whose statistics of one model say so many dispatches and calls by "mode_trigger"."""
    counts = {tuple(kind.split("_")): both for kind, both in kinds.items()}
    stats = SimpleNamespace(
        batches=Counter({kind: dispatches for kind, (dispatches, _) in counts.items()}),
        batched=Counter({kind: calls for kind, (_, calls) in counts.items()}),
    )
    return SimpleNamespace(stats=lambda: {("openai", "m"): stats})


def test_windows_are_added_over_runtimes_and_counted_from_before() -> None:
    """A phase has what left in it, of all runtimes; a kind that did not come in it is left out."""
    before = windows_of([_runtime(merged_size=(1, 6)), _runtime(released_time=(1, 3))])
    assert before == {"m": {"merged/size": [1, 6], "released/time": [1, 3]}}
    now = [_runtime(merged_size=(3, 17), merged_idle=(1, 2)), _runtime(released_time=(1, 3))]
    assert windows_of(now, before) == {"m": {"merged/size": [2, 11], "merged/idle": [1, 2]}}


def test_merged_calls_are_fewer_requests() -> None:
    """What left for a provider is one request for each merged window, and one for every other miss and
    failure; coalesced calls are calls and no requests."""
    totals = {"misses": 12, "hits": 1, "coalesced": 4, "refused": 1, "errors": {"429": 2, "circuit_open": 1}}
    windows = {"m": {"merged/size": [2, 8], "released/size": [1, 3]}, "n": {"merged/idle": [1, 2]}}
    window = Facts({"phases": {"main": {"models": {"m": totals}, "windows": windows}}}).window("main")
    assert (window.calls, window.merged_away, window.upstream) == (20, 7, 7)
    assert window.answered == 5
    assert window.dispatches(1) == {"size": (3, 11), "idle": (1, 2)}


def test_a_single_burst_is_seen() -> None:
    """What the row about flights and windows asks over time counts a series that is new: all that a short
    program does together may come within one export."""
    board = dashboards(bundle_root() / "dashboards" / "rendered")["underlay-overview"]
    asked = [q for q in questions(board) if q.path.startswith("Flights and windows") and q.over_range]
    assert len(asked) == 10
    assert all("unless last_over_time" in question.expr for question in asked)
    assert "unless" not in s.quantile(0.5, m.CALL_DURATION), "dear where there are many series"
