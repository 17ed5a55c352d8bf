"""From samples to rows: what each world added to each kind of call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cells import CLIENTS, LONG, SHORT
from benchmarks.interleave import Samples
from benchmarks.stats import Spread, differences, quotients, spread
from benchmarks.worlds import WORLDS

__all__ = ["CLOCKS", "Row", "rows"]

CLOCKS = ("cpu", "wall", "process")
"""CPU of the calling thread, wall, CPU of all threads of the process."""

_KINDS = (
    ("unknown", "unknown traffic", (0,)),
    ("miss", "miss, JSON", (0,)),
    ("hit", "hit, JSON", (0,)),
    ("miss", f"miss, stream of {SHORT} chunks", (SHORT,)),
    ("miss", "miss, per further chunk", (SHORT, LONG)),
    ("hit", f"hit, stream of {SHORT} chunks", (SHORT,)),
    ("hit", "hit, per further chunk", (SHORT, LONG)),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of call of one client in one world, by one clock. Times are microseconds per call (or per
    chunk); `ratio` is with over bare, both of the same process and round."""

    client: str
    kind: str
    world: str
    clock: str
    bare: Spread
    added: Spread
    ratio: Spread
    added_by_round: tuple[float, ...]


def rows(samples: Samples, clients: Sequence[str], worlds: Sequence[str]) -> list[Row]:
    """Every row that the samples give."""
    made = []
    for client in clients:
        for traffic, kind, frames in _KINDS:
            for world in worlds:
                if WORLDS[world].sdk_only and not CLIENTS[client].sdk:
                    continue
                for clock in CLOCKS:
                    bare, with_ = (
                        _values(samples, f"{client}/{traffic}", world, frames, clock, bare=bare)
                        for bare in (True, False)
                    )
                    made.append(_row(client, kind, world, clock, bare, with_))
    return made


def _values(
    samples: Samples, prefix: str, world: str, frames: tuple[int, ...], clock: str, *, bare: bool
) -> list[float]:
    series = [
        [record[clock] * 1e6 for record in samples[f"{prefix}/{count}"][world][bare]] for count in frames
    ]
    if len(series) == 1:
        return series[0]
    return [(long - short) / (LONG - SHORT) for short, long in zip(*series, strict=True)]


def _row(
    client: str, kind: str, world: str, clock: str, bare: Sequence[float], with_: Sequence[float]
) -> Row:
    added = differences(with_, bare)
    return Row(
        client,
        kind,
        world,
        clock,
        spread(bare),
        spread(added),
        spread(quotients(with_, bare) or [float("nan")]),
        tuple(added),
    )
