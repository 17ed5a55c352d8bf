"""Lays one trace out as a tree with times: which span under which, and the lines that are drawn. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from underlay.cli.facts import error_of, facts, outcome
from underlay.cli.output import Glyphs, Line, duration, fit, local_time
from underlay.cli.span_model import Link, Span, is_call
from underlay.telemetry import attributes as a
from underlay.telemetry.attributes import CacheResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Row", "Trace", "focus_on", "rows", "tree_lines"]

_TIME_WIDTH: Final = 8
_LINKS_SHOWN: Final = 5
_STYLES: Final = {
    "failed": "red",
    CacheResult.REFUSED: "yellow",
    CacheResult.HIT: "green",
    CacheResult.COALESCED: "green",
}


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans of one trace, those of other traces that its links point to (by span id), and how many are
    not drawn.
    """

    spans: Sequence[Span]
    linked: Mapping[str, Span] = field(default_factory=dict)
    hidden: int = 0

    @property
    def start_ns(self) -> int:
        """When the first span began, in nanoseconds since 1970."""
        return min(span.start_ns for span in self.spans)

    @property
    def end_ns(self) -> int:
        """When the last span ended, in nanoseconds since 1970."""
        return max(span.end_ns for span in self.spans)

    @property
    def seconds(self) -> float:
        """Time from the first start to the last end, in seconds."""
        return max(0, self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Row:
    """One span in its place: `guides` says for each level above whether that level has more to come, `last`
    whether this is the last child.
    """

    span: Span
    guides: tuple[bool, ...]
    last: bool
    parent: bool


def rows(spans: Sequence[Span]) -> list[Row]:
    """The spans as a depth-first walk, siblings by start time. A span whose parent is not there is a root."""
    known = {span.span_id for span in spans}
    children: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda span: span.start_ns):
        children.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)
    walked = list(_walk(children))
    # Spans that are one another's parents (a broken exporter) hang under no root: they are shown as roots.
    lost = known.difference(row.span.span_id for row in walked)
    walked += [Row(span, (), last=True, parent=False) for span in spans if span.span_id in lost]
    return walked


def _walk(children: Mapping[str, Sequence[Span]]) -> Iterator[Row]:
    """Depth first with a stack of its own: a trace may be nested deeper than Python's."""
    waiting: list[tuple[Span, tuple[bool, ...], bool]] = [
        (span, (), True) for span in reversed(children.get("", ()))
    ]
    while waiting:
        span, guides, last = waiting.pop()
        below = children.get(span.span_id, ())
        yield Row(span, guides, last, bool(below))
        inner = (*guides, not last)
        waiting += [(child, inner, child is below[-1]) for child in reversed(below)]


def focus_on(spans: Sequence[Span], span_id: str, most: int) -> list[Span]:
    """At most `most` spans of a long trace: the span, what is above it, and what is below it."""
    if len(spans) <= most:
        return list(spans)
    by_id = {span.span_id: span for span in spans}
    kept: dict[str, Span] = {}
    above = by_id.get(span_id)
    while above is not None and above.span_id not in kept:
        kept[above.span_id] = above
        above = by_id.get(above.parent_id)
    below = {span_id}
    for span in sorted(spans, key=lambda span: span.start_ns):
        if span.parent_id in below:
            below.add(span.span_id)
            kept.setdefault(span.span_id, span)
    return list(kept.values())[:most]


def tree_lines(trace: Trace, width: int, glyphs: Glyphs) -> list[Line]:
    """A trace as lines of at most `width` columns: a head, then for each span its times, its bar and what
    happened in it.
    """
    lines = _head(trace, glyphs)
    bar_width = max(8, min(40, width // 4))
    name_width = width - bar_width - 2 * (_TIME_WIDTH + 2)
    lines.append(
        [
            (fit("span", name_width, glyphs.more), "dim"),
            (fit("from", _TIME_WIDTH + 1, glyphs.more, right=True), "dim"),
            (fit("took", _TIME_WIDTH + 1, glyphs.more, right=True), "dim"),
        ]
    )
    for row in rows(trace.spans):
        lead, under = _guides(row, glyphs, name_width // 2)
        style = (
            _STYLES.get(outcome(row.span), "") if is_call(row.span) else ("red" if error_of(row.span) else "")
        )
        name = lead + (row.span.name or "(no name)")
        since = (row.span.start_ns - trace.start_ns) / 1e9
        lines.append(
            [
                (fit(name, name_width, glyphs.more), f"bold {style}".strip() if is_call(row.span) else style),
                (fit(f"+{duration(since)}", _TIME_WIDTH + 1, glyphs.more, right=True), "dim"),
                (fit(duration(row.span.seconds), _TIME_WIDTH + 1, glyphs.more, right=True) + "  ", ""),
                (_bar(row.span, trace, bar_width, glyphs), style or "cyan"),
            ]
        )
        for phrases in (*facts(row.span, glyphs.arrow), *_links(row.span, trace)):
            lines += [[(under, ""), (text, "dim")] for text in _wrap(phrases, width - len(under), glyphs)]
    if trace.hidden:
        lines.append([(f"{trace.hidden} more spans of this trace: --all", "dim")])
    return lines


def _head(trace: Trace, glyphs: Glyphs) -> list[Line]:
    count = len(trace.spans) + trace.hidden
    services = sorted({span.service for span in trace.spans if span.service})
    parts = [local_time(trace.start_ns), duration(trace.seconds), f"{count} span{'s' if count != 1 else ''}"]
    return [
        [("trace ", ""), (trace.spans[0].trace_id, "bold")],
        [(glyphs.dot.join([*parts, *services]), "dim")],
        [],
    ]


def _guides(row: Row, glyphs: Glyphs, most: int) -> tuple[str, str]:
    """What stands before a span's name, and before the lines below it; cut from the left when too deep."""
    # The first level has no guide of its own: roots start at the margin.
    above = "".join(glyphs.down if more else glyphs.blank for more in row.guides[1:])
    branch = (glyphs.last if row.last else glyphs.branch) if row.guides else ""
    own = (glyphs.blank if row.last else glyphs.down) if row.guides else ""
    lead, under = above + branch, above + own + (glyphs.down if row.parent else glyphs.blank)
    if len(lead) > most:
        lead = glyphs.more + lead[len(lead) - most + 1 :]
    if len(under) > most:
        under = under[len(under) - most :]
    return lead, under


def _bar(span: Span, trace: Trace, width: int, glyphs: Glyphs) -> str:
    whole = max(1, trace.end_ns - trace.start_ns)
    begin = min(width - 1, (span.start_ns - trace.start_ns) * width // whole)
    end = min(width, -((trace.start_ns - span.end_ns) * width // whole))
    return " " * begin + glyphs.bar * max(1, end - begin)


def _links(span: Span, trace: Trace) -> list[list[str]]:
    found = [_link(span, link, trace.linked.get(link.span_id)) for link in span.links[:_LINKS_SHOWN]]
    more = len(span.links) - _LINKS_SHOWN
    return [*found, [f"and {more} more links"]] if more > 0 else found


def _link(span: Span, link: Link, target: Span | None) -> list[str]:
    role = link.attributes.get(a.LINK_ROLE.key)
    words = {"generated": "answer generated by", "cause": "caused by"}.get(str(role), "linked to")
    place = "in this trace" if link.trace_id == span.trace_id else f"trace {link.trace_id}"
    if target is None:
        return [f"{words} span {link.span_id}", place, "not in these files"]
    earlier = duration(max(0, span.start_ns - target.start_ns) / 1e9)
    return [f"{words} {target.name}", f"{earlier} earlier, took {duration(target.seconds)}", place]


def _wrap(phrases: Sequence[str], width: int, glyphs: Glyphs) -> list[str]:
    """Join phrases into as few lines as fit; a phrase that is too long alone is cut."""
    lines: list[str] = []
    for phrase in phrases:
        text = phrase if len(phrase) <= width else fit(phrase, width, glyphs.more)
        if lines and len(lines[-1]) + len(glyphs.dot) + len(text) <= width:
            lines[-1] += glyphs.dot + text
        else:
            lines.append(text)
    return lines
