"""`underlay traces`: the calls of the local telemetry files, one a line, the newest last (nearest to the
prompt).
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import click

from underlay.cli.facts import company, error_of, http_status, outcome, tokens
from underlay.cli.output import (
    Glyphs,
    Line,
    Screen,
    drawing_options,
    duration,
    fit,
    local_time,
    next_steps,
    print_json,
    rfc3339,
    show,
    usd,
    usd_text,
)
from underlay.cli.source import NO_CALLS, default_folder, from_option, nothing_in, report_skipped, say_empty
from underlay.cli.span_model import Span, is_call
from underlay.cli.telemetry_file import TelemetryFiles, locate
from underlay.cli.words import Seconds
from underlay.telemetry import attributes as a
from underlay.telemetry.attributes import BatchMode, CacheResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["Wanted", "call_document", "call_table", "traces"]

_STYLES: Final = {
    "failed": "red",
    CacheResult.REFUSED: "yellow",
    CacheResult.HIT: "green",
    CacheResult.COALESCED: "green",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls to list. `slow` is a duration in seconds; what is empty or None does not limit."""

    model: str = ""
    result: str = ""
    failed: bool = False
    slow: float | None = None

    def __call__(self, span: Span) -> bool:
        """Whether the span is a call, and one that is wanted."""
        return (
            is_call(span)
            and (not self.model or _model_matches(span, self.model))
            and (not self.result or span.text(a.CACHE_RESULT) == self.result)
            and (not self.failed or bool(error_of(span)))
            and (self.slow is None or span.seconds >= self.slow)
        )


@click.command(short_help="List the calls of the local telemetry files.")
@from_option
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Most calls to list."
)
@click.option("--since", type=Seconds(), help="Only calls that ended in the last 10m, 1h, 2d.")
@click.option("--model", default="", help="Only calls to this model; * and ? match.")
@click.option(
    "--result", type=click.Choice([item.value for item in CacheResult]), help="Only calls answered like this."
)
@click.option("--failed", is_flag=True, help="Only calls that ended in an error, refusals included.")
@click.option("--slow", type=Seconds(), help="Only calls that took this long or longer: 500ms, 2s.")
@drawing_options
def traces(
    source: Path | None,
    limit: int,
    since: float | None,
    model: str,
    result: str | None,
    failed: bool,
    slow: float | None,
    color: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """List the calls of the local telemetry files.

    \b
    Examples:
      underlay traces --since 1h --failed
      underlay traces --model 'gpt-4o*' --slow 2s --limit 50
      underlay traces --result hit --json

    The newest call is the last line. Details of one: underlay trace ID.
    """
    place = source if source is not None else default_folder()
    files = TelemetryFiles(locate(place))
    since_ns = 0 if since is None else time.time_ns() - int(since * 1e9)
    calls = files.newest_calls(limit, Wanted(model, result or "", failed, slow), since_ns)
    report_skipped(files)
    if as_json:
        print_json({"calls": [call_document(span) for span in calls], "skipped_lines": files.skipped})
        return
    if not calls:
        say_empty(*_why_empty(files, place))
        return
    screen = Screen.of(sys.stdout, color)
    show(call_table(calls, screen.width, screen.glyphs), screen)
    for line in () if quiet else together(calls):
        click.echo(line, err=True)
    next_steps(quiet, f"underlay trace {calls[-1].span_id}")


def _why_empty(files: TelemetryFiles, place: Path) -> tuple[str, str]:
    if not files.paths:
        return nothing_in(place)
    return ("No call matches.", "underlay traces") if files.last_call() else NO_CALLS


def call_document(span: Span) -> dict[str, object]:
    """One call as JSON: seconds, decimal US dollars, RFC 3339; null where a value is unknown."""
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "start": rfc3339(span.start_ns),
        "duration_seconds": span.seconds,
        "service": span.service,
        "operation": span.text(a.OPERATION),
        "provider": span.text(a.PROVIDER),
        "model": span.text(a.REQUEST_MODEL),
        "response_model": span.text(a.RESPONSE_MODEL) or None,
        "stream": span.attributes.get(a.REQUEST_STREAM.key) is True,
        "result": span.text(a.CACHE_RESULT),
        "reason": span.text(a.CACHE_REASON) or None,
        "ending": span.text(a.ENDING) or None,
        "verdict": span.text(a.VERDICT) or None,
        "http_status": http_status(span),
        "error_type": error_of(span) or None,
        "input_tokens": span.whole(a.INPUT_TOKENS),
        "output_tokens": span.whole(a.OUTPUT_TOKENS),
        "cost_usd": usd_text(span.number(a.COST)),
        "saved_usd": usd_text(span.number(a.SAVED)),
        "shared_with": _linked(span, "leader") or None,
        "coalesce_wait_seconds": span.number(a.COALESCE_WAIT),
        "batch_mode": span.text(a.BATCH_MODE) or None,
        "batch_size": span.whole(a.BATCH_SIZE),
        "batch_trigger": span.text(a.BATCH_TRIGGER) or None,
        "batch_wait_seconds": span.number(a.BATCH_WAIT),
        "dispatch": _linked(span, "dispatch") or None,
        "pacing_wait_seconds": span.number(a.PACING_WAIT),
    }


def together(calls: Sequence[Span]) -> list[str]:
    """What calls did together, in sentences: nothing where each went by itself."""
    coalesced = sum(outcome(span) == CacheResult.COALESCED for span in calls)
    lines: list[str] = []
    if coalesced:
        lines.append(
            f"coalesced: {_calls(coalesced)} read the answer of an identical call in flight; "
            "nothing was sent for them"
        )
    for mode, one, many in (
        (BatchMode.MERGED, "one request", "requests"),
        (BatchMode.RELEASED, "one window, each its own request", "windows, each its own request"),
    ):
        left = [span for span in calls if company(span) and span.text(a.BATCH_MODE) == mode]
        dispatches = len({link for span in left if (link := _linked(span, "dispatch"))})
        if left:
            how = (
                f"in {one}" if dispatches == 1 else f"in {dispatches} {many}" if dispatches else "with others"
            )
            lines.append(f"{mode}: {_calls(len(left))} left together {how}")
    return lines


def _calls(count: int) -> str:
    return f"{count:,} call{'s' if count != 1 else ''}"


def _linked(span: Span, role: str) -> str:
    """The id of the span that this one is linked to in that role; empty when there is none."""
    return next((link.span_id for link in span.links if link.attributes.get(a.LINK_ROLE.key) == role), "")


def _why(span: Span) -> str:
    leader = _linked(span, "leader") if span.text(a.CACHE_RESULT) == CacheResult.COALESCED else ""
    shared = f"with {leader}" if leader else company(span)
    return error_of(span) or _observed(span) or shared or span.text(a.CACHE_REASON)


def _observed(span: Span) -> str:
    """What would have become of a call that observing pillars left alone: the first that would have acted."""
    cache = span.text(a.CACHE_OBSERVED)
    pillars = (a.COALESCE_OBSERVED, a.BATCH_OBSERVED, a.PACING_OBSERVED)
    later = "" if cache == CacheResult.HIT else next(filter(None, map(span.text, pillars)), "")
    if later:
        return f"would be {later}"
    return f"would be a {cache}" if cache else ""


def _cost(span: Span) -> str:
    cost = span.number(a.COST)
    return "" if cost is None else usd(cost)


@dataclass(frozen=True, slots=True)
class _Column:
    """`from_width` is the narrowest screen that shows the column; width 0 takes what the others leave."""

    title: str
    width: int
    cell: Callable[[Span], str]
    right: bool = False
    from_width: int = 0


_COLUMNS: Final = (
    _Column("time", 8, lambda span: local_time(span.start_ns)[11:]),
    _Column("result", 9, outcome),
    _Column("model", 0, lambda span: span.text(a.REQUEST_MODEL) or span.name),
    _Column("took", 8, lambda span: duration(span.seconds), right=True),
    _Column("tokens", 13, tokens, right=True, from_width=100),
    _Column("cost", 10, _cost, right=True, from_width=80),
    _Column("why", 22, _why, from_width=120),
    _Column("id", 16, lambda span: span.span_id),
)
_GAP: Final = "  "
_MODEL_WIDTHS: Final = (6, 40)


def call_table(calls: Sequence[Span], width: int, glyphs: Glyphs) -> list[Line]:
    """The calls as a table of at most `width` columns, with a line for each new day (local time)."""
    columns = [column for column in _COLUMNS if column.from_width <= width]
    fixed = sum(column.width for column in columns) + len(_GAP) * (len(columns) - 1)
    least, most = _MODEL_WIDTHS
    rest = min(most, max(least, width - fixed))
    titles = [fit(column.title, column.width or rest, glyphs.more, right=column.right) for column in columns]
    lines: list[Line] = [[(_GAP.join(titles), "dim")]]
    day = ""
    for span in calls:
        date = local_time(span.start_ns)[:10]
        if date != day:
            lines.append([(date, "dim")])
            day = date
        line: Line = []
        for column in columns:
            text = fit(column.cell(span), column.width or rest, glyphs.more, right=column.right)
            line.append((text + _GAP, _STYLES.get(outcome(span), "") if column.title == "result" else ""))
        lines.append(line)
    return lines


def _model_matches(span: Span, pattern: str) -> bool:
    names = (span.text(a.REQUEST_MODEL), span.text(a.RESPONSE_MODEL))
    return any(fnmatchcase(name.lower(), pattern.lower()) for name in names if name)
