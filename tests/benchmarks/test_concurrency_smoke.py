"""Every bench of concurrent callers once, tiny, so that they do not rot. No time is looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.concurrency.alone import KINDS, alone
from benchmarks.concurrency.callers import MODES
from benchmarks.concurrency.loads import CASES, Case, loads
from benchmarks.concurrency.promise import Effort
from benchmarks.concurrency.promises import promises
from benchmarks.concurrency.queued import queued
from benchmarks.concurrency.tables import alone_table, loads_table, promises_table, queued_table
from benchmarks.parts import CONCURRENT, PARTS

ROOT = Path(__file__).parent.parent.parent
KIND_NAMES = ("embedding", "chat", "same-chat", "same-stream")


@pytest.mark.parametrize("mode", MODES)
def test_each_kind_of_load_is_measured_against_its_baselines(mode: str) -> None:
    """Embeddings meet three baselines, identical calls make one upstream request, distinct ones their own."""
    ratios = loads([Case(kind, mode, 3, 1) for kind in KIND_NAMES], seed=1, step=lambda: None)
    found = {(ratio.kind, ratio.measure, ratio.against) for ratio in ratios}
    assert {against for kind, _, against in found if kind == "embedding"} == {
        "merged by hand, and the bare SDK's calls to an instant reply",
        "one by one",
        "plain fan-out",
    }
    assert {measure for kind, measure, _ in found if kind == "chat"} == {"wall", "p50", "p99"}
    upstream = {(ratio.kind, ratio.upstream) for ratio in ratios}
    assert {("chat", (3, 3)), ("same-chat", (1, 3)), ("same-stream", (1, 3))} <= upstream
    text = "\n".join(loads_table(ratios))
    assert "the leader's first token" in text
    assert "named as OpenAI's" in text


def test_the_cases_cover_both_modes_and_every_load() -> None:
    """A full run has 1 to 1,000 callers of each kind in both modes, and 500 embeddings."""
    for mode in MODES:
        for kind in KIND_NAMES:
            callers = {case.callers for case in CASES if (case.mode, case.kind) == (mode, kind)}
            assert callers == {1, 10, 100, 1000} | ({500} if kind == "embedding" else set())


def test_the_promises_are_one_table_with_a_baseline_in_each_row() -> None:
    """Each classic promise has a row that says what it is measured against."""
    rows = promises(Effort(callers=5, batched=3, rounds=1, hits=3, outage=8), seed=1, step=lambda: None)
    assert all(row.baseline for row in rows)
    promised = {row.promised for row in rows}
    for said in ("20-40 % less", "2-5x", "60-85 % less", "3-7x", "40-60 % less", "50-90 % less", "< 1 ms"):
        assert said in promised
    lines = promises_table(rows)
    assert sum(line.startswith("| --- ") for line in lines) == 1
    cost = next(row for row in rows if row.name == "in total: cost")
    assert cost.value.median == 40


def test_memory_of_calls_that_wait_is_over_that_of_the_bare_ones() -> None:
    """A place where underlay lets calls wait is printed beside the bare SDK's calls."""
    bare, ours = queued(5, 1, step=lambda: None, places=("bare-chat", "followers"))
    assert bare.added is None
    assert ours.added is not None
    assert ours.traced.median > 0
    assert "behind one flight" in "\n".join(queued_table([bare, ours]))


def test_a_flight_and_a_window_alone_are_measured_beside_the_noise() -> None:
    """Both are measured in both modes, and so is nothing against nothing."""
    rows = alone(1, seed=1, step=lambda: None, warm=5)
    assert {(row.kind, row.mode) for row in rows} == {(kind, mode) for kind in KINDS for mode in MODES}
    assert "noise" in "\n".join(alone_table(rows))


def test_a_part_of_the_command_gives_its_rows_alone() -> None:
    """`--parts` runs what it names and leaves the rest empty."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--json", "--quick", "--parts", "alone"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["alone"]
    assert not found["rows"]
    assert set(CONCURRENT) & set(found) == {"alone"}
    assert set(CONCURRENT) < set(PARTS)
