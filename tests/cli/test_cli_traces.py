"""`underlay traces`: which calls are listed, in which order, in which shape."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from cli_builder import BASE_NS, MS, call, identifier, line

from underlay.cli.output import Screen, plain
from underlay.cli.span_model import decode_line
from underlay.cli.traces import call_table

if TYPE_CHECKING:
    from pathlib import Path

INVOKE = Any


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Five calls, one of each kind."""
    file = tmp_path / "telemetry-1.jsonl"
    file.write_bytes(
        line(call("miss", at=0, took=3000, COST=0.25, INPUT_TOKENS=10, OUTPUT_TOKENS=2))
        + line(
            call("hit", at=4000, took=1, result="hit"),
            call("bypass", at=5000, result="bypass", CACHE_REASON="no-store"),
        )
        + line(call("failed", at=6000, error="rate_limit_error", model="claude-haiku-4-5"))
        + line(call("refused", at=7000, took=1, result="refused", error="circuit_open"))
    )
    return file


def _ids(result: Any) -> list[str]:
    return [item["span_id"] for item in json.loads(result.stdout)["calls"]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["miss", "hit", "bypass", "failed", "refused"]),
        (("--limit", "2"), ["failed", "refused"]),
        (("--model", "Claude-*"), ["failed"]),
        (("--result", "hit"), ["hit"]),
        (("--failed",), ["failed", "refused"]),
        (("--slow", "2s"), ["miss"]),
        (("--slow", "900ms", "--failed"), []),
    ],
)
def test_the_options_choose(
    invoke: INVOKE, path: Path, options: tuple[str, ...], expected: list[str]
) -> None:
    """Each option limits the list, together they limit it further, and the newest call is the last."""
    assert _ids(invoke("traces", "--from", path, "--json", *options)) == [
        identifier(word, 16) for word in expected
    ]


def test_since_counts_back_from_now(invoke: INVOKE, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--since` takes a duration and keeps what ended in it."""
    monkeypatch.setattr(time, "time_ns", lambda: BASE_NS + 8000 * MS)
    assert _ids(invoke("traces", "--from", path, "--json", "--since", "1500ms")) == [
        identifier(word, 16) for word in ("failed", "refused")
    ]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--since", "soon"), ("--slow", "-1s"), ("--limit", "0"), ("--result", "hot"), ("--from", "absent")],
)
def test_a_wrong_value_is_a_usage_error(invoke: INVOKE, path: Path, option: str, value: str) -> None:
    """A value that is not allowed is exit 2 and names the option and the value."""
    result = invoke("traces", "--from", path, option, value)
    assert result.exit_code == 2
    assert option in result.stderr
    assert value in result.stderr


def test_a_call_as_json_has_units(invoke: INVOKE, path: Path) -> None:
    """The shape that scripts read: schema 1, seconds, decimal dollars, UTC, null for the unknown."""
    document = json.loads(invoke("traces", "--from", path, "--json").stdout)
    assert document["schema"] == 1
    assert document["skipped_lines"] == 0
    first = document["calls"][0]
    assert first == {
        "trace_id": identifier("trace-miss", 32),
        "span_id": identifier("miss", 16),
        "start": "2026-11-24T16:00:00.000000Z",
        "duration_seconds": 3.0,
        "service": "chat_app",
        "operation": "chat",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "response_model": None,
        "stream": False,
        "result": "miss",
        "reason": None,
        "ending": None,
        "verdict": "success",
        "http_status": None,
        "error_type": None,
        "input_tokens": 10,
        "output_tokens": 2,
        "cost_usd": "0.25",
        "saved_usd": None,
    }


TABLE_60 = """\
time      result     model            took  id
2026-11-24
16:00:00  miss       gpt-4o-mini    3.00 s  {miss}
16:00:04  hit        gpt-4o-mini   1.00 ms  {hit}
16:00:05  bypass     gpt-4o-mini    800 ms  {bypass}
16:00:06  failed     claude-hai…    800 ms  {failed}
16:00:07  refused    gpt-4o-mini   1.00 ms  {refused}
"""


def test_the_table_fits_60_columns(invoke: INVOKE, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a narrow terminal the columns that matter most are left, and the last line is the newest call."""
    monkeypatch.setenv("COLUMNS", "60")
    result = invoke("traces", "--from", path)
    words = ("miss", "hit", "bypass", "failed", "refused")
    assert result.stdout == TABLE_60.format(**{word: identifier(word, 16) for word in words})
    assert result.stderr == f"next: underlay trace {identifier('refused', 16)}\n"


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    """Long names of wide characters are cut by columns, at every width."""
    spans, _ = decode_line(
        line(call("w", model="模型" * 40), call("v", model="m" * 200, INPUT_TOKENS=10**9, COST=1234.5))
    )
    drawn = plain(call_table(spans, width, Screen(width, color=False, encoding="utf-8").glyphs))
    from rich.cells import cell_len

    assert max(cell_len(text) for text in drawn.splitlines()) <= width


def test_the_widest_table_says_why(path: Path) -> None:
    """With room for it, the reason of a bypass and the kind of an error are shown, and tokens."""
    spans, _ = decode_line(path.read_bytes().splitlines()[1])
    drawn = plain(call_table(spans, 120, Screen(120, color=False, encoding="utf-8").glyphs))
    assert "no-store" in drawn
    assert "tokens" in drawn


def test_a_new_day_has_a_line(tmp_path: Path) -> None:
    """Calls of two days are told apart."""
    spans, _ = decode_line(line(call("a"), call("b", at=86_400_000)))
    drawn = plain(call_table(spans, 80, Screen(80, color=False, encoding="utf-8").glyphs))
    assert "\n2026-11-24\n" in drawn
    assert "\n2026-11-25\n" in drawn


def test_torn_lines_are_counted_on_stderr(invoke: INVOKE, path: Path) -> None:
    """The list is complete, and stderr says how much was skipped."""
    with path.open("ab") as file:
        file.write(b'{"resourceSpans": [torn\n{"resour')
    result = invoke("traces", "--from", path, "-q")
    assert result.exit_code == 0
    assert result.stderr == "note: 2 lines were torn or no OTLP/JSON, and skipped\n"
    assert json.loads(invoke("traces", "--from", path, "--json").stdout)["skipped_lines"] == 2


def test_no_match_is_no_failure(invoke: INVOKE, path: Path) -> None:
    """Filters that match nothing say so and name the list without them."""
    result = invoke("traces", "--from", path, "--result", "stale")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr == "No call matches.\nnext: underlay traces\n"


def test_telemetry_without_calls_leads_to_the_doctor(invoke: INVOKE, tmp_path: Path) -> None:
    """A run that saw no call is told how to find out why."""
    (tmp_path / "telemetry-1.jsonl").write_bytes(b"")
    result = invoke("traces", "--from", tmp_path)
    assert result.exit_code == 0
    assert (
        result.stderr == "The telemetry holds no call to a model.\nnext: underlay doctor -- python app.py\n"
    )


def test_no_telemetry_is_an_empty_list(invoke: INVOKE) -> None:
    """Before the first run, people get a sentence and the next command, programs an empty list; neither
    fails.
    """
    result = invoke("traces")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "No telemetry in .underlay yet.\nnext: underlay run -- python app.py\n"
    assert json.loads(invoke("traces", "--json").stdout) == {"schema": 1, "calls": [], "skipped_lines": 0}


def test_the_folder_is_the_settings_own(invoke: INVOKE, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `--from`, the folder that the settings name is read."""
    monkeypatch.setenv("UNDERLAY_TELEMETRY__DIRECTORY", str(path.parent))
    assert len(_ids(invoke("traces", "--json"))) == 5


def test_an_empty_folder_says_where_telemetry_goes_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Any
) -> None:
    """With an endpoint set, nothing comes to the folder: the sentence names it, and the next command keeps a file too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example:4318")
    result = invoke("traces")
    assert "`underlay run` sends it to http://collector.example:4318" in result.output
    assert "UNDERLAY_TELEMETRY__FILE=always underlay run -- python app.py" in result.output
