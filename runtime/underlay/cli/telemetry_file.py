"""Reads the local telemetry files: OTLP/JSON, one export request a line, several files of several processes.

Built to answer fast from large files: a line is looked at as bytes first and parsed only when it can hold
what is asked for. A torn line (a writer was killed) or an alien one is passed by and counted, never an
error. Files are taken newest first by the time of their last change, which no span in them can be younger
than.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final

from underlay.cli.span_model import Event, Link, Span, decode_line, is_call
from underlay.telemetry import attributes as a

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["PATTERN", "Event", "Link", "Span", "TelemetryFiles", "is_call", "locate", "read_spans"]

PATTERN: Final = "telemetry-*.jsonl"
"""Names of the local telemetry files inside their folder."""

# File systems stamp a change with a coarser clock than the one that spans are timed by.
_CLOCK_SLACK_NS: Final = 2_000_000_000
_CALL_MARK: Final = a.CACHE_RESULT.key.encode()
_SPANS_MARK: Final = b'"resourceSpans"'
_OTHER_MARKS: Final = (b'"resourceMetrics"', b'"resourceLogs"')


def locate(source: Path) -> list[Path]:
    """The telemetry files that `source` (a file, or a folder of them) names, newest change first; empty
    when there are none.
    """
    if source.is_file():
        return [source]
    dated = [
        (changed, path)
        for path in (source.glob(PATTERN) if source.is_dir() else ())
        if path.is_file() and os.access(path, os.R_OK) and (changed := _changed_ns(path)) is not None
    ]
    return [path for _, path in sorted(dated, key=lambda item: item[0], reverse=True)]


def read_spans(paths: Iterable[Path]) -> list[Span]:
    """Every span of the files, by start time; a span that two files hold is given once."""
    return sorted(_once(TelemetryFiles(list(paths)).spans()), key=lambda span: span.start_ns)


class TelemetryFiles:
    """A set of telemetry files to be asked questions.

    `skipped` counts the lines that were not understood so far.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._skipped: set[tuple[Path, int]] = set()

    @property
    def skipped(self) -> int:
        """Lines so far that were torn, or no telemetry; each is counted once however often it was read."""
        return len(self._skipped)

    def spans(self, *needles: bytes) -> Iterator[Span]:
        """The spans of every line that holds one of the needles (of every line when there are none), file
        by file.

        A line holds many spans: the caller still has to pick the ones that it wants.
        """
        for path in self.paths:
            for offset, line in self._lines(path):
                if _SPANS_MARK in line and (not needles or any(needle in line for needle in needles)):
                    yield from self._decode(path, offset, line)

    def newest_calls(
        self, limit: int, accept: Callable[[Span], bool] = is_call, since_ns: int = 0
    ) -> list[Span]:
        """The `limit` accepted calls that ended last and not before `since_ns`, the last one last."""
        found: dict[tuple[str, str], Span] = {}
        for path in self.paths:
            kept = sorted(found.values(), key=_ended)[-limit:]
            changed = _changed_ns(path)
            oldest = kept[0].end_ns if len(kept) == limit else 0
            if changed is None or changed + _CLOCK_SLACK_NS < max(since_ns, oldest):
                continue
            for span in self._newest_of(path, limit, accept, since_ns):
                found[span.trace_id, span.span_id] = span
        return sorted(found.values(), key=_ended)[-limit:]

    def last_call(self) -> Span | None:
        """The call that ended last, or None when the files hold no call."""
        calls = self.newest_calls(1)
        return calls[0] if calls else None

    def trace(self, trace_id: str) -> list[Span]:
        """All spans of one trace, by start time."""
        spans = _once(span for span in self.spans(*_spellings(trace_id)) if span.trace_id == trace_id)
        return sorted(spans, key=lambda span: span.start_ns)

    def find(self, prefix: str) -> list[Span]:
        """Spans whose trace id starts with `prefix`, and the one whose span id it is; by start time."""
        spans = self.spans(*(b'"' + spelling for spelling in _spellings(prefix)))
        hits = _once(span for span in spans if span.trace_id.startswith(prefix) or span.span_id == prefix)
        return sorted(hits, key=lambda span: span.start_ns)

    def span(self, trace_id: str, span_id: str) -> Span | None:
        """One span by its two ids, or None when the files do not hold it."""
        for span in self.spans(*_spellings(span_id)):
            if (span.trace_id, span.span_id) == (trace_id, span_id):
                return span
        return None

    def _newest_of(self, path: Path, limit: int, accept: Callable[[Span], bool], since_ns: int) -> list[Span]:
        """Accepted calls of one file from its end backwards, at least `limit` of them where it has so many.

        Lines are written as spans end, so that the calls of a later line ended later.
        """
        with _open(path) as file:
            if file is None:
                return []
            places = [(offset, len(line)) for offset, line in self._scan(path, file) if _has_call(line)]
            found: list[Span] = []
            for offset, size in reversed(places):
                file.seek(offset)
                calls = [span for span in self._decode(path, offset, file.read(size)) if is_call(span)]
                found += [span for span in calls if span.end_ns >= since_ns and accept(span)]
                if len(found) >= limit or (calls and max(map(_ended, calls)) < since_ns):
                    break
        return found

    def _lines(self, path: Path) -> Iterator[tuple[int, bytes]]:
        with _open(path) as file:
            if file is not None:
                yield from self._scan(path, file)

    def _scan(self, path: Path, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """Offset and bytes of the lines that look like telemetry; the others are counted."""
        offset = 0
        for line in file:
            if _looks_whole(line):
                yield offset, line
            elif line.strip():
                self._skipped.add((path, offset))
            offset += len(line)

    def _decode(self, path: Path, offset: int, line: bytes) -> list[Span]:
        spans, whole = decode_line(line)
        if not whole:
            self._skipped.add((path, offset))
        return spans


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO | None]:
    """Open a file for reading; gives None where rotation has just taken the file away."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield None
        return
    with file:
        yield file


def _has_call(line: bytes) -> bool:
    return _CALL_MARK in line and _SPANS_MARK in line


def _looks_whole(line: bytes) -> bool:
    if not line.startswith(b"{") or not line.rstrip().endswith(b"}"):
        return False
    return _SPANS_MARK in line or any(mark in line for mark in _OTHER_MARKS)


def _spellings(identifier: str) -> tuple[bytes, ...]:
    """Hexadecimal ids may be written in either case; files use one of them throughout."""
    return tuple({identifier.lower().encode(), identifier.upper().encode()})


def _once(spans: Iterable[Span]) -> list[Span]:
    return list({(span.trace_id, span.span_id): span for span in spans}.values())


def _changed_ns(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _ended(span: Span) -> int:
    return span.end_ns
