"""The Markdown of what concurrent callers gain and pay."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.concurrency.alone import Alone
from benchmarks.concurrency.loads import CHAT_SECONDS, EMBEDDING_SECONDS, Ratio
from benchmarks.concurrency.promise import Promise
from benchmarks.concurrency.queued import Queued
from benchmarks.report import line, number, spread_text
from benchmarks.stats import Spread

__all__ = ["alone_table", "loads_table", "promises_table", "queued_table"]

_KINDS = {
    "embedding": f"Single-input embeddings, {EMBEDDING_SECONDS * 1e3:.0f} ms a request",
    "chat": f"Distinct chat calls, {CHAT_SECONDS * 1e3:.0f} ms",
    "same-chat": f"Identical chat calls, {CHAT_SECONDS * 1e3:.0f} ms",
    "same-stream": f"Identical chat streams, {CHAT_SECONDS * 1e3:.0f} ms to the first token",
}


def loads_table(ratios: Sequence[Ratio]) -> list[str]:
    """A table for each kind of call."""
    lines = [
        "## Concurrent callers",
        "",
        "The openai SDK on httpx2, all callers told to go at once, waits counted from then; milliseconds, "
        "median over the rounds. The ratio is underlay over the baseline: the median [quartiles] of the "
        "paired ratios. The simulated provider is named as OpenAI's by the setting `hosts`, so that "
        "OpenAI's limits hold. Requests are the most of a round, underlay's / the baseline's. One by one is "
        "the multiple of three calls.",
        "",
    ]
    head = ["mode", "callers", "of", "underlay", "baseline", "", "ratio", "requests", "target", ""]
    for kind, title in _KINDS.items():
        rows = [_load(ratio) for ratio in ratios if ratio.kind == kind]
        if rows:
            lines += [f"### {title}", "", line(head), line(["---"] * len(head)), *rows, ""]
    return lines


def _load(ratio: Ratio) -> str:
    wanted = [] if ratio.target is None else [f"<= {ratio.target:g}"]
    wanted += [] if ratio.requests is None else [f"<= {ratio.requests} requests"]
    return line(
        [
            ratio.mode,
            f"{ratio.callers:,}",
            ratio.measure,
            number(ratio.ours.median),
            number(ratio.base.median),
            ratio.against,
            _digits(ratio.ratio),
            f"{ratio.upstream[0]} / {ratio.upstream[1]}",
            ", ".join(wanted),
            _holds(ratio.holds),
        ]
    )


def promises_table(promises: Sequence[Promise]) -> list[str]:
    """The one table of the classic promises."""
    head = ["promise", "promised", "measured", "", "against"]
    lines = [
        "## The classic promises",
        "",
        "On a provider that takes a tenth of the classic 1 to 3 s, and of the 2 s of the example, so that "
        "the ratios are measured and nothing is multiplied. Median [quartiles].",
        "",
        line(head),
        line(["---"] * len(head)),
    ]
    for row in promises:
        measured = f"{_digits(row.value)} {row.unit}"
        lines.append(line([row.name, row.promised or "-", measured, _holds(row.holds), row.baseline]))
    return [*lines, ""]


def queued_table(rows: Sequence[Queued]) -> list[str]:
    """What a call that waits holds."""
    if not rows:
        return []
    head = ["where calls wait", "bytes a call", "over bare", "RSS a call"]
    lines = [
        f"## Memory of {rows[0].calls:,} calls that wait",
        "",
        "The asynchronous openai SDK over a transport that never answers; its own tasks and requests are in "
        "every figure. Bytes by tracemalloc, of a fifth as many calls; RSS of all.",
        "",
        line(head),
        line(["---"] * len(head)),
    ]
    for row in rows:
        cells = [row.title, *(spread_text(value) if value else "-" for value in (row.traced, row.added))]
        lines.append(line([*cells, spread_text(row.grown) if row.grown else "-"]))
    return [*lines, ""]


def alone_table(rows: Sequence[Alone]) -> list[str]:
    """What a flight and a window cost where there is nobody to share with."""
    head = ["added", "mode", "bare httpx2", "miss without it", "added by it", "target", ""]
    lines = [
        "## A flight and a window alone",
        "",
        "CPU of the calling thread, microseconds a call, one after the other on a plain httpx2 client. The "
        "miss without it has `coalesce` and `llm_batch` off. Paired differences, median [quartiles], over "
        "rounds until the standard error of the median (±) is small, or they are six times as many.",
        "",
        line(head),
        line(["---"] * len(head)),
    ]
    for row in rows:
        noise = row.kind.startswith("nothing")
        spreads = [spread_text(value) for value in (row.bare, row.skeleton, row.added)]
        spreads[-1] += f" ± {row.added.error:.2f}"
        kept = None if noise else row.added.median <= row.target
        target = "noise" if noise else f"<= {row.target:g}"
        lines.append(line([row.kind, row.mode, *spreads, target, _holds(kept)]))
    return [*lines, ""]


def _holds(kept: bool | None) -> str:
    return "" if kept is None else "holds" if kept else "**missed**"


def _digits(value: Spread) -> str:
    if value.rounds == 1:
        return f"{value.median:.3g}"
    return f"{value.median:.3g} [{value.low:.3g}, {value.high:.3g}]"
