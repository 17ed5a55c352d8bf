"""`underlay trace`: one trace of the local telemetry files as a tree with times."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from underlay.cli.facts import error_of, shown_attributes
from underlay.cli.output import Screen, drawing_options, next_steps, print_json, rfc3339, show
from underlay.cli.source import NO_CALLS, NothingFound, from_option, open_files, report_skipped
from underlay.cli.span_model import Link, Span, is_call
from underlay.cli.traces import call_document
from underlay.cli.tree import Trace, focus_on, tree_lines
from underlay.telemetry import attributes as a

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from underlay.cli.telemetry_file import TelemetryFiles

__all__ = ["collect", "trace", "trace_document"]

_DRAWN_MOST: Final = 60
_PREFIX_LEAST: Final = 4
_LINKS_FOLLOWED: Final = 20


@click.command(short_help="Draw one trace as a tree with times.")
@click.argument("which", metavar="last|ID")
@from_option
@click.option(
    "--all", "everything", is_flag=True, help=f"Draw all spans, also of a trace of more than {_DRAWN_MOST}."
)
@drawing_options
def trace(which: str, source: Path | None, everything: bool, color: str, as_json: bool, quiet: bool) -> None:
    """Draw one trace as a tree with times.

    \b
    Examples:
      underlay trace last
      underlay trace 4bf92f3577b34da6
      underlay trace last --json

    ID is a trace id, the beginning of one (4 digits or more), or a span id as `underlay traces` lists it.
    """
    files = open_files(source)
    focus = files.last_call() if which.lower() == "last" else _find(files, which.lower())
    if focus is None:
        report_skipped(files)
        raise _not_found(files, which)
    limit = sys.maxsize if everything or as_json else _DRAWN_MOST
    found = collect(files, focus, limit)
    report_skipped(files)
    if as_json:
        print_json({**trace_document(found), "skipped_lines": files.skipped})
        return
    screen = Screen.of(sys.stdout, color)
    show(tree_lines(found, screen.width, screen.glyphs), screen)
    next_steps(quiet, "underlay traces")


def collect(files: TelemetryFiles, focus: Span, most: int = sys.maxsize) -> Trace:
    """The trace around a span: all its spans, or around the span at most `most`, and what their links point
    to.
    """
    spans = files.trace(focus.trace_id)
    kept = focus_on(spans, focus.span_id, most)
    wanted: dict[str, Link] = {link.span_id: link for span in kept for link in span.links}
    linked: dict[str, Span] = {}
    here = {span.span_id: span for span in spans}
    for link in list(wanted.values())[:_LINKS_FOLLOWED]:
        target = here.get(link.span_id) or files.span(link.trace_id, link.span_id)
        if target is not None:
            linked[link.span_id] = target
    return Trace(kept, linked, len(spans) - len(kept))


def trace_document(trace: Trace) -> dict[str, object]:
    """One trace as JSON: seconds from its start, attributes of the vocabulary only."""
    return {
        "trace_id": trace.spans[0].trace_id,
        "start": rfc3339(trace.start_ns),
        "duration_seconds": trace.seconds,
        "spans": [
            _span_document(span, trace) for span in sorted(trace.spans, key=lambda span: span.start_ns)
        ],
    }


def _span_document(span: Span, trace: Trace) -> dict[str, object]:
    return {
        "span_id": span.span_id,
        "parent_id": span.parent_id or None,
        "name": span.name,
        "kind": span.kind,
        "start": rfc3339(span.start_ns),
        "offset_seconds": (span.start_ns - trace.start_ns) / 1e9,
        "duration_seconds": span.seconds,
        "status": span.status,
        "error_type": error_of(span) or None,
        "call": call_document(span) if is_call(span) else None,
        "attributes": shown_attributes(span.attributes),
        "links": [_link_document(link, trace.linked.get(link.span_id)) for link in span.links],
        "events": [
            {
                "name": event.name,
                "time": rfc3339(event.time_ns),
                "attributes": shown_attributes(event.attributes),
            }
            for event in span.events
        ],
    }


def _link_document(link: Link, target: Span | None) -> dict[str, object]:
    return {
        "trace_id": link.trace_id,
        "span_id": link.span_id,
        "role": link.attributes.get(a.LINK_ROLE.key),
        "name": target.name if target else None,
        "start": rfc3339(target.start_ns) if target else None,
        "duration_seconds": target.seconds if target else None,
    }


def _find(files: TelemetryFiles, which: str) -> Span | None:
    """The span that an id means: itself, or the first call (else the first span) of the trace."""
    if len(which) < _PREFIX_LEAST or len(which) > 32 or not set("0123456789abcdef").issuperset(which):
        raise click.UsageError(f"{which!r} is no id: give last, or {_PREFIX_LEAST} to 32 hexadecimal digits.")
    spans = files.find(which)
    named = [span for span in spans if span.span_id == which]
    if named:
        return named[0]
    traces = list(dict.fromkeys(span.trace_id for span in spans))
    if len(traces) > 1:
        raise click.UsageError(
            f"{which} is the beginning of {len(traces)} traces: {_some(traces)}. Give more digits."
        )
    return next(filter(is_call, spans), spans[0] if spans else None)


def _some(traces: Sequence[str]) -> str:
    return ", ".join(traces[:3]) + (", …" if len(traces) > 3 else "")


def _not_found(files: TelemetryFiles, which: str) -> NothingFound:
    if which.lower() == "last":
        return NothingFound(*NO_CALLS)
    count = len(files.paths)
    return NothingFound(
        f"No trace or span {which} in {count} telemetry file{'s' if count != 1 else ''}.", "underlay traces"
    )
