"""The parts of a run, and how much of each is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.concurrency.alone import ROWS, alone
from benchmarks.concurrency.loads import CASES, QUICK_CASES, loads
from benchmarks.concurrency.promise import Effort
from benchmarks.concurrency.promises import promises
from benchmarks.concurrency.queued import PLACES, queued
from benchmarks.concurrency.tables import alone_table, loads_table, promises_table, queued_table

__all__ = ["CONCURRENT", "PARTS", "Part", "Result"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a part gives: lines of Markdown, and its rows as JSON."""

    lines: list[str]
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Part:
    """A part that measures concurrent callers. `run` takes (quick, seed, step); `steps` of a quick run and of
    a full one, for the bar."""

    title: str
    run: Callable[[bool, int, Callable[[], None]], Result]
    steps: Callable[[bool], int]


def _loads(quick: bool, seed: int, step: Callable[[], None]) -> Result:
    ratios = loads(QUICK_CASES if quick else CASES, seed=seed, step=step)
    return Result(loads_table(ratios), [{**asdict(ratio), "holds": ratio.holds} for ratio in ratios])


def _promises(quick: bool, seed: int, step: Callable[[], None]) -> Result:
    effort = Effort(callers=20, batched=10, rounds=1, hits=200) if quick else Effort()
    rows = promises(effort, seed=seed, step=step)
    return Result(promises_table(rows), [{**asdict(row), "holds": row.holds} for row in rows])


def _queued(quick: bool, seed: int, step: Callable[[], None]) -> Result:
    rows = queued(*((500, 1) if quick else (10_000, 1)), step=step)
    return Result(queued_table(rows), [asdict(row) for row in rows])


def _alone(quick: bool, seed: int, step: Callable[[], None]) -> Result:
    rows = alone(5, seed=seed, step=step, warm=50) if quick else alone(_ALONE_ROUNDS, seed=seed, step=step)
    return Result(alone_table(rows), [asdict(row) for row in rows])


_ALONE_ROUNDS = 801


def _rounds(quick: bool) -> int:
    return sum(case.rounds + 1 for case in (QUICK_CASES if quick else CASES))


CONCURRENT: dict[str, Part] = {
    "promises": Part("promises", _promises, lambda quick: 5),
    "loads": Part("concurrent callers", _loads, _rounds),
    "queued": Part("calls that wait", _queued, lambda quick: len(PLACES)),
    "alone": Part("flights and windows alone", _alone, lambda quick: len(ROWS)),
}

PARTS = ("calls", "starts", *CONCURRENT)
