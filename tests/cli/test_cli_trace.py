"""`underlay trace`: what is drawn, for which id, and what is never shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cli_builder import BASE_NS, Made, call, identifier, line
from cli_snapshots import CASES, FOLDER, TOGETHER, draw, name_of, write_together

from underlay.cli.output import Screen, plain
from underlay.cli.span_model import decode_line
from underlay.cli.tree import Trace, focus_on, rows, tree_lines

if TYPE_CHECKING:
    from pathlib import Path

INVOKE = Any


@pytest.mark.parametrize(("encoding", "width"), CASES)
def test_the_drawing_is_the_snapshot(sample: Path, encoding: str, width: int) -> None:
    """The tree at 60, 80 and 120 columns, and in ASCII, is the reviewed one, and no line is too wide."""
    [path] = sample.iterdir()
    drawn = draw(path, encoding, width)
    assert drawn == (FOLDER / name_of(encoding, width)).read_text(encoding="utf-8")
    assert max(len(text) for text in drawn.splitlines()) <= width
    drawn.encode(encoding)


@pytest.mark.parametrize(("encoding", "width"), TOGETHER)
def test_calls_that_went_together_are_drawn_with_their_company(
    tmp_path: Path, encoding: str, width: int
) -> None:
    """A coalesced call leads to the one whose answer it read, a dispatch to its members and they to it; the
    drawing is the reviewed one."""
    drawn = draw(write_together(tmp_path), encoding, width)
    assert drawn == (FOLDER / f"together-{name_of(encoding, width)}").read_text(encoding="utf-8")
    assert max(len(text) for text in drawn.splitlines()) <= width


def test_last_draws_the_call_that_ended_last(invoke: INVOKE, sample: Path) -> None:
    """`trace last` draws the trace of the newest call and says what to do next."""
    result = invoke("trace", "last")
    assert result.exit_code == 0
    assert result.stdout == (FOLDER / name_of("utf-8", 80)).read_text(encoding="utf-8")
    assert result.stderr == "next: underlay traces\n"


@pytest.mark.parametrize(
    "which", [identifier("request", 32), identifier("request", 32)[:6].upper(), identifier("attempt", 16)]
)
def test_an_id_may_be_a_trace_the_start_of_one_or_a_span(invoke: INVOKE, sample: Path, which: str) -> None:
    """A trace id, a prefix of one in either case, and a span id all find the trace."""
    result = invoke("trace", which, "-q")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == f"trace {identifier('request', 32)}"
    assert result.stderr == ""


def test_what_is_not_there_is_exit_1_with_one_sentence(invoke: INVOKE, sample: Path) -> None:
    """An unknown id is answered with no, not with a traceback."""
    result = invoke("trace", "ffffffffffff")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "No trace or span ffffffffffff in 1 telemetry file.\nnext: underlay traces\n"


@pytest.mark.parametrize("which", ["abc", "xyz!", "f" * 33, ""])
def test_what_is_no_id_is_a_usage_error(invoke: INVOKE, sample: Path, which: str) -> None:
    """Too short, too long or not hexadecimal: exit 2 and what is allowed."""
    result = invoke("trace", which)
    assert result.exit_code == 2
    assert "4 to 32 hexadecimal digits" in result.stderr


def test_a_prefix_of_two_traces_is_a_usage_error(invoke: INVOKE, tmp_path: Path) -> None:
    """Both traces are named, and more digits asked for."""
    text = line(call("a", trace="x"), call("b", trace="y"))
    text = text.replace(identifier("x", 32).encode(), b"abcd" + b"0" * 28).replace(
        identifier("y", 32).encode(), b"abcd" + b"1" * 28
    )
    path = tmp_path / "telemetry-1.jsonl"
    path.write_bytes(text)
    result = invoke("trace", "abcd", "--from", path)
    assert result.exit_code == 2
    assert "beginning of 2 traces" in result.stderr
    assert "abcd" + "1" * 28 in result.stderr


def test_nothing_recorded_yet_names_the_next_command(invoke: INVOKE, tmp_path: Path) -> None:
    """Without telemetry there is one sentence and the command that makes some."""
    result = invoke("trace", "last")
    assert result.exit_code == 1
    assert result.stderr == "No telemetry in .underlay yet.\nnext: underlay run -- python app.py\n"


def test_json_is_one_document_with_units(invoke: INVOKE, sample: Path) -> None:
    """The document has a schema version, seconds as numbers, dollars as decimal text, UTC times, and the
    links' targets.
    """
    document = json.loads(invoke("trace", identifier("two", 16), "--json").stdout)
    assert document["schema"] == 1
    assert document["start"] == "2026-11-24T16:00:01.500000Z"
    assert document["duration_seconds"] == 0.4
    hit = next(span for span in document["spans"] if span["span_id"] == identifier("two", 16))
    assert hit["offset_seconds"] == 0.01
    assert hit["call"]["result"] == "hit"
    assert hit["call"]["saved_usd"] == "0.000123"
    assert hit["call"]["cost_usd"] is None
    assert hit["links"] == [
        {
            "trace_id": identifier("trace-one", 32),
            "span_id": identifier("one", 16),
            "role": "generated",
            "name": "chat gpt-4o-mini",
            "start": "2026-11-24T16:00:00.000000Z",
            "duration_seconds": 0.812,
        }
    ]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_foreign_texts_are_never_shown(invoke: INVOKE, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Prompts, answers, URLs and status messages that a span holds do not leave the program."""
    secret = "tell me a secret"
    made = Made(
        "chat gpt", "t", "s", 0, 1,
        attributes={
            "gen_ai.input.messages": secret, "url.full": f"https://x/?key={secret}",
            "gen_ai.operation.name": "chat", "underlay.cache.result": "miss",
        },
        error=True,
    )  # fmt: skip
    path = tmp_path / "telemetry-1.jsonl"
    path.write_bytes(line(made))
    result = invoke("trace", "last", "--from", path, *options)
    assert result.exit_code == 0
    assert "secret" not in result.output


def test_control_characters_of_names_do_not_reach_the_terminal(invoke: INVOKE, tmp_path: Path) -> None:
    """A name that holds an escape sequence is printed harmlessly."""
    path = tmp_path / "telemetry-1.jsonl"
    path.write_bytes(
        line(call("w", model="x\x1b[2Jy\r\nz", RESPONSE_MODEL="s\x07"), service="shop\x1b]0;x\x07")
    )
    for words in (("trace", "last"), ("traces",)):
        result = invoke(*words, "--from", path)
        assert result.exit_code == 0
        assert not set(result.stdout) & set("\x1b\x07\r")


def _spans(*made: Made) -> list[Any]:
    return decode_line(line(*made))[0]


def test_a_broken_hierarchy_is_drawn_all_the_same() -> None:
    """Spans whose parent is missing are roots, and spans that are one another's parents are drawn once."""
    lost = Made("lost", "t", "lost", 5, 1, "nowhere")
    left, right = Made("left", "t", "left", 6, 1, "right"), Made("right", "t", "right", 7, 1, "left")
    assert sorted(row.span.name for row in rows(_spans(lost, left, right))) == ["left", "lost", "right"]


def test_a_very_deep_trace_fits_the_width() -> None:
    """Nesting deeper than the screen is cut on the left, and deeper than Python's stack is no fault."""
    deep = [Made(f"level {n}", "t", str(n), n, 1, str(n - 1) if n else "") for n in range(1500)]
    screen = Screen(60, color=False, encoding="utf-8")
    drawn = plain(tree_lines(Trace(_spans(*deep)), screen.width, screen.glyphs))
    assert max(len(text) for text in drawn.splitlines()) <= 60
    assert "level 1499" in drawn


def test_a_long_trace_is_drawn_around_the_call(invoke: INVOKE, tmp_path: Path) -> None:
    """Of a trace of many spans only what is above and below the call is drawn, the rest is counted; `--all`
    draws it.
    """
    many = [Made(f"step {n}", "t", f"step {n}", n, 1, "root") for n in range(100)]
    path = tmp_path / "telemetry-1.jsonl"
    path.write_bytes(
        line(
            *many,
            call("w", trace="t", parent="root", at=200),
            Made("below", "t", "below", 201, 1, "w"),
            Made("root", "t", "root", 0, 900),
        )
    )
    drawn = invoke("trace", "last", "--from", path).stdout
    assert "root" in drawn
    assert "below" in drawn
    assert "step" not in drawn
    assert "100 more spans of this trace: --all" in drawn
    assert "step 99" in invoke("trace", "last", "--from", path, "--all").stdout


def test_focus_keeps_a_short_trace_whole() -> None:
    """A trace that fits is not cut."""
    spans = _spans(call("a", trace="t"), call("b", trace="t"))
    assert focus_on(spans, spans[0].span_id, 2) == spans


def test_many_links_are_counted_not_listed() -> None:
    """After five links the rest is one phrase."""
    [span] = _spans(call("w", links=[(f"t{n}", f"s{n}", "cause") for n in range(8)]))
    drawn = plain(tree_lines(Trace([span]), 120, Screen(120, color=False, encoding="utf-8").glyphs))
    assert drawn.count("caused by") == 5
    assert "and 3 more links" in drawn


def test_a_span_without_duration_is_drawn() -> None:
    """A trace of one moment has a bar of one block and no division by zero."""
    [span] = _spans(call("w", took=0))
    drawn = plain(tree_lines(Trace([span]), 60, Screen(60, color=False, encoding="utf-8").glyphs))
    assert "█" in drawn
    assert span.start_ns == BASE_NS
