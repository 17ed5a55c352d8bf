"""The reader of telemetry files: tolerant, exact about what it gives, and quick."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from cli_builder import BASE_NS, METRICS_LINE, MS, Made, call, http, identifier, line

from underlay.cli.span_model import decode_line, is_call
from underlay.cli.telemetry_file import TelemetryFiles, locate, read_spans
from underlay.telemetry import attributes as a

if TYPE_CHECKING:
    from pathlib import Path


def _write(path: Path, *lines: bytes, changed_ms: float = 10_000) -> Path:
    path.write_bytes(b"".join(lines))
    stamp = BASE_NS + int(changed_ms * MS)
    os.utime(path, ns=(stamp, stamp))
    return path


def test_every_field_of_a_span_is_read() -> None:
    """Ids, times, parent, kind, status, service, typed attributes and links come back as written."""
    made = call(
        "w", at=5, took=7, parent="p", error="x", INPUT_TOKENS=3, COST=0.5, links=[("t", "s", "cause")]
    )
    [span], whole = decode_line(line(made, service="shop"))
    assert whole
    assert (span.trace_id, span.span_id, span.parent_id) == (
        identifier("trace-w", 32),
        identifier("w", 16),
        identifier("p", 16),
    )
    assert (span.start_ns, span.end_ns, span.seconds) == (BASE_NS + 5 * MS, BASE_NS + 12 * MS, 0.007)
    assert (span.name, span.kind, span.status, span.service) == (
        "chat gpt-4o-mini",
        "client",
        "error",
        "shop",
    )
    assert (span.whole(a.INPUT_TOKENS), span.number(a.COST), span.text(a.ERROR_TYPE)) == (3, 0.5, "x")
    [link] = span.links
    assert (link.trace_id, link.span_id, link.attributes) == (
        identifier("t", 32),
        identifier("s", 16),
        {a.LINK_ROLE.key: "cause"},
    )


def test_the_looser_spellings_of_the_protocol_are_read() -> None:
    """Upper-case ids, numbers instead of text, enum names, and every kind of attribute value are
    understood.
    """
    values = [
        {"key": "array", "value": {"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "b"}]}}},
        {"key": "table", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"boolValue": True}}]}}},
        {"key": "infinite", "value": {"doubleValue": "Infinity"}},
        {"key": "broken", "value": {"intValue": "many"}},
        {"key": "empty", "value": {}},
    ]
    raw = {
        "traceId": "AB" * 16, "spanId": "CD" * 8, "name": "n", "kind": "SPAN_KIND_CLIENT",
        "startTimeUnixNano": 1,
        "endTimeUnixNano": 2, "status": {"code": "STATUS_CODE_ERROR"}, "attributes": values, "unknown": [1],
        "events": [{"name": "e", "timeUnixNano": "1"}],
    }  # fmt: skip
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [raw]}]}]}
    [span], whole = decode_line(json.dumps(document).encode())
    assert whole
    assert (span.trace_id, span.span_id, span.kind, span.status) == ("ab" * 16, "cd" * 8, "client", "error")
    assert span.attributes["array"] == [1, "b"]
    assert span.attributes["table"] == {"k": True}
    assert (span.attributes["broken"], span.attributes["empty"]) == (None, None)
    assert span.number(a.Attribute("infinite", "double", "")) is None
    assert [event.name for event in span.events] == ["e"]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"not json",
        b"[1]",
        b'{"resourceSpans": [',
        b'{"other": 1}',
        b"\xff\xfe{}",
        b"[" * 100_000,
        json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "short"}]}]}]}).encode(),
        line(call("w")).replace(str(BASE_NS).encode(), b"9" * 30),
        line(call("w")).replace(f'"{BASE_NS}"'.encode(), b"null"),
        line(call("w")).replace(f'"{BASE_NS}"'.encode(), b"1e999"),
    ],
)
def test_damage_is_reported_and_never_raised(damage: bytes) -> None:
    """Whatever a line holds, decoding it gives no span and says that it was not understood."""
    assert decode_line(damage) == ([], False)


@pytest.mark.parametrize(
    "shape", [None, 1, "x", [1], {"scopeSpans": 3}, [{"scopeSpans": [{"spans": 5}]}], [{"resource": 1}]]
)
def test_other_shapes_hold_no_spans(shape: object) -> None:
    """A field of another shape than the protocol's is read as holding nothing."""
    assert decode_line(json.dumps({"resourceSpans": shape}).encode())[0] == []


def test_one_broken_span_does_not_cost_its_neighbours() -> None:
    """The other spans of a line are given, and the line counts as not understood."""
    text = line(call("good"), call("bad")).replace(identifier("bad", 16).encode(), b"zz")
    spans, whole = decode_line(text)
    assert [span.span_id for span in spans] == [identifier("good", 16)]
    assert not whole


def test_torn_and_alien_lines_are_counted_once(tmp_path: Path) -> None:
    """A torn line and an alien one are skipped and counted, however often the file is read; blank lines are
    not.
    """
    path = _write(
        tmp_path / "telemetry-1.jsonl",
        b"hello\n",
        b"\n",
        line(call("one")),
        METRICS_LINE,
        b'{"x": 1}\n',
        line(call("two"))[:80],
    )
    files = TelemetryFiles([path])
    for _ in range(2):
        assert [span.span_id for span in files.newest_calls(5)] == [identifier("one", 16)]
        assert [span.span_id for span in files.spans()] == [identifier("one", 16)]
    assert files.skipped == 3


def test_locate_gives_the_newest_file_first_and_nothing_alien(tmp_path: Path) -> None:
    """Of a folder only telemetry files are taken, newest change first; a file is taken as it is; nothing is
    no error.
    """
    old = _write(tmp_path / "telemetry-a.jsonl", changed_ms=1)
    new = _write(tmp_path / "telemetry-b.jsonl", changed_ms=2)
    _write(tmp_path / "other.jsonl")
    (tmp_path / "telemetry-folder.jsonl").mkdir()
    assert locate(tmp_path) == [new, old]
    assert locate(tmp_path / "other.jsonl") == [tmp_path / "other.jsonl"]
    assert locate(tmp_path / "absent") == []


def test_newest_calls_come_from_all_files_in_the_order_of_their_end(tmp_path: Path) -> None:
    """Calls of several processes are merged by when they ended; the last one ended last; other spans are no
    calls.
    """
    one = _write(
        tmp_path / "telemetry-1.jsonl",
        line(call("a", at=0)),
        line(call("c", at=2000), http("h", "c", "trace-c", at=2001, took=1)),
    )
    two = _write(tmp_path / "telemetry-2.jsonl", line(call("b", at=1000), call("d", at=3000)))
    files = TelemetryFiles([two, one])
    assert [span.span_id for span in files.newest_calls(3)] == [identifier(word, 16) for word in "bcd"]
    assert files.last_call() == files.newest_calls(1)[0]
    assert all(is_call(span) for span in files.newest_calls(10))


def test_files_that_cannot_matter_are_not_read(tmp_path: Path) -> None:
    """An old file is left alone when enough newer calls are known, or when it ended before `since`."""
    old = _write(tmp_path / "telemetry-1.jsonl", b"torn\n", line(call("a", at=0)), changed_ms=900)
    new = _write(tmp_path / "telemetry-2.jsonl", line(call("b", at=60_000)), changed_ms=61_000)
    files = TelemetryFiles([new, old])
    assert len(files.newest_calls(1)) == 1
    assert len(files.newest_calls(9, since_ns=BASE_NS + 30_000 * MS)) == 1
    assert files.skipped == 0
    assert len(files.newest_calls(2)) == 2
    assert files.skipped == 1


def test_since_ends_the_reading_of_a_file(tmp_path: Path) -> None:
    """Calls that ended before `since` are not given."""
    path = _write(
        tmp_path / "telemetry-1.jsonl",
        *(line(call(f"w{n}", at=n * 1000, took=1)) for n in range(5)),
        changed_ms=60_000,
    )
    found = TelemetryFiles([path]).newest_calls(9, since_ns=BASE_NS + 3000 * MS)
    assert [span.span_id for span in found] == [identifier("w3", 16), identifier("w4", 16)]


def test_a_trace_is_gathered_from_lines_and_files(tmp_path: Path) -> None:
    """A trace's spans are found wherever they are, once each, whatever the case of the ids in the file."""
    shouted = line(http("h", "w", "trace-w", at=1, took=1)).replace(
        identifier("trace-w", 32).encode(), identifier("trace-w", 32).upper().encode()
    )
    one = _write(tmp_path / "telemetry-1.jsonl", line(call("w"), call("other")), line(call("w")))
    two = _write(tmp_path / "telemetry-2.jsonl", shouted)
    files = TelemetryFiles([two, one])
    assert [span.name for span in files.trace(identifier("trace-w", 32))] == ["chat gpt-4o-mini", "POST"]
    assert len(files.find(identifier("trace-w", 32)[:6])) == 2
    assert [span.span_id for span in files.find(identifier("h", 16))] == [identifier("h", 16)]
    assert files.span(identifier("trace-w", 32), identifier("gone", 16)) is None
    assert len(read_spans([one, two])) == 3


def test_a_file_that_rotation_took_is_passed_by(tmp_path: Path) -> None:
    """A file that is gone since it was listed is as if it had never been there."""
    files = TelemetryFiles([tmp_path / "telemetry-gone.jsonl"])
    assert files.newest_calls(3) == []
    assert list(files.spans()) == []


def test_the_last_call_is_found_without_reading_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a long file, only the lines that can matter are decoded: the size of the file hardly matters."""
    batch = line(*(call(f"filler-{n}", at=n, took=1) for n in range(40)))
    path = _write(tmp_path / "telemetry-1.jsonl", *[batch] * 500, line(call("last", at=60_000)))
    decoded: list[bytes] = []

    def counted(text: bytes) -> object:
        decoded.append(text)
        return decode_line(text)

    monkeypatch.setattr("underlay.cli.telemetry_file.decode_line", counted)
    files = TelemetryFiles([path])
    last = files.last_call()
    assert last is not None
    assert [span.span_id for span in files.trace(last.trace_id)] == [identifier("last", 16)]
    assert len(decoded) < 10


def test_a_span_of_another_kind_is_no_call() -> None:
    """A hit's inner span, which names no operation, is not counted as a call."""
    [span], _ = decode_line(line(Made("cache hit", "t", "s", 0, 1, attributes={a.CACHE_RESULT.key: "hit"})))
    assert not is_call(span)
