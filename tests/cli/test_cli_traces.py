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
        "shared_with": None,
        "coalesce_wait_seconds": None,
        "batch_mode": None,
        "batch_size": None,
        "batch_trigger": None,
        "batch_wait_seconds": None,
        "dispatch": None,
        "pacing_wait_seconds": None,
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


def _together(folder: Path) -> Path:
    """A call and two that read its answer, three merged calls, and two that were released together."""
    path = folder / "telemetry-1.jsonl"
    shared = [
        call(
            f"follower {n}",
            result="coalesced",
            links=[("trace-leader", "leader", "leader")],
            COALESCE_WAIT=0.5,
        )
        for n in range(2)
    ]
    merged = [
        call(
            f"merged {n}", links=[("trace-merged 0", "dispatch", "dispatch")], BATCH_MODE="merged", BATCH_SIZE=3,
            BATCH_TRIGGER="idle", BATCH_WAIT=0.01 * n,
        )
        for n in range(3)
    ]  # fmt: skip
    released = [
        call(
            f"released {n}", links=[("trace-released 0", f"window {n}", "dispatch")], BATCH_MODE="released",
            BATCH_SIZE=2, BATCH_TRIGGER="time", BATCH_WAIT=0.05,
        )
        for n in range(2)
    ]  # fmt: skip
    path.write_bytes(line(call("leader"), *shared, *merged, *released))
    return path


def test_calls_that_went_together_are_explained_in_words(invoke: INVOKE, tmp_path: Path) -> None:
    """Below the list it says how many calls shared an answer, were merged or were released, and in how many
    requests or windows; with --quiet it does not."""
    path = _together(tmp_path)
    result = invoke("traces", "--from", path)
    assert result.stderr.splitlines()[:3] == [
        "coalesced: 2 calls read the answer of an identical call in flight; nothing was sent for them",
        "merged: 3 calls left together in one request",
        "released: 2 calls left together in 2 windows, each its own request",
    ]
    assert invoke("traces", "--from", path, "-q").stderr == ""


def test_the_widest_table_says_with_whom_a_call_went(tmp_path: Path) -> None:
    """A coalesced call names the call whose answer it read, a batched one how many others it left with."""
    spans, _ = decode_line(_together(tmp_path).read_bytes())
    drawn = plain(call_table(spans, 120, Screen(120, color=False, encoding="utf-8").glyphs))
    assert drawn.count(f"with {identifier('leader', 16)}  ") == 2
    assert drawn.count("merged with 2 others") == 3
    assert drawn.count("released with 1 other ") == 2


def test_a_call_as_json_says_with_whom_it_went(invoke: INVOKE, tmp_path: Path) -> None:
    """Scripts read the leader, the wait, and the window's mode, size, trigger and dispatch."""
    calls = json.loads(invoke("traces", "--from", _together(tmp_path), "--json").stdout)["calls"]
    by_id = {one["span_id"]: one for one in calls}
    follower, merged = (by_id[identifier(word, 16)] for word in ("follower 0", "merged 2"))
    assert (follower["shared_with"], follower["coalesce_wait_seconds"]) == (identifier("leader", 16), 0.5)
    window = ("batch_mode", "batch_size", "batch_trigger", "batch_wait_seconds", "dispatch")
    assert [merged[name] for name in window] == ["merged", 3, "idle", 0.02, identifier("dispatch", 16)]


def test_a_call_as_json_says_how_long_it_waited_for_its_turn(invoke: INVOKE, tmp_path: Path) -> None:
    """Scripts read the wait in seconds, also one of no time; null where the call did not wait, as where watching would
    have held it."""
    file = tmp_path / "telemetry-1.jsonl"
    waits: list[dict[str, Any]] = [{"PACING_WAIT": 0.25}, {"PACING_WAIT": 0.0}, {"PACING_OBSERVED": "held"}]
    file.write_bytes(line(*(call(f"call {at}", at=at, **more) for at, more in enumerate(waits))))
    calls = json.loads(invoke("traces", "--from", file, "--json").stdout)["calls"]
    assert [one["pacing_wait_seconds"] for one in calls] == [0.25, 0.0, None]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"CACHE_OBSERVED": "miss"}, "would be a miss"),
        ({"CACHE_OBSERVED": "miss", "COALESCE_OBSERVED": "coalesced"}, "would be coalesced"),
        ({"CACHE_OBSERVED": "miss", "BATCH_OBSERVED": "merged"}, "would be merged"),
        ({"CACHE_OBSERVED": "hit", "BATCH_OBSERVED": "merged"}, "would be a hit"),
        ({"CACHE_OBSERVED": "miss", "PACING_OBSERVED": "held"}, "would be held"),
    ],
)
def test_an_observed_call_says_what_would_have_become_of_it(more: dict[str, str], why: str) -> None:
    """Of all observing pillars the first one counts that would have acted."""
    spans, _ = decode_line(line(call("w", **more)))
    drawn = plain(call_table(spans, 120, Screen(120, color=False, encoding="utf-8").glyphs))
    assert f"  {why}  " in drawn


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
