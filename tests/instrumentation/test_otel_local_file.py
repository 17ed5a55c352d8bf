"""The local telemetry file: what is in it, who may read it, how large it grows, and what happens when it cannot be written."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from otel_scenarios import Telemetry, miss, started

from underlay_instrumentation.file_exporters import FileLogExporter, FileMetricExporter, FileSpanExporter
from underlay_instrumentation.local_file import LocalFile

LINE = "x" * 99
"""With its newline, 100 bytes."""


class Clock:
    """Wall time that advances by a second at every reading."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """One second later each time."""
        self.now += 1
        return self.now


def made(directory: Path, **options: Any) -> LocalFile:
    """A file of at most 300 bytes that keeps two others."""
    fields: dict[str, Any] = {"max_bytes": 300, "keep": 2, "clock": Clock(), "stderr": io.StringIO()}
    return LocalFile(directory, **{**fields, **options})


def files(directory: Path) -> list[str]:
    """The telemetry files by age."""
    return sorted(path.name for path in directory.glob("telemetry-*.jsonl"))


def test_nothing_is_made_before_the_first_line(tmp_path: Path) -> None:
    """A program that makes no telemetry leaves no folder behind."""
    file = made(tmp_path / "t")
    assert file.path is None
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    """The folder is 0700 and hides itself from git; the file is 0600 and named by its start and process."""
    directory = tmp_path / "t"
    file = made(directory, clock=lambda: 1_700_000_000.25)
    assert file.write("{}")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert (directory / ".gitignore").read_text().splitlines()[-1] == "*"
    (name,) = files(directory)
    assert name == f"telemetry-20231114T221320250Z-{os.getpid()}.jsonl"
    assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600


def test_a_folder_that_was_there_is_left_as_it_is(tmp_path: Path) -> None:
    """A folder that the user named keeps its mode, and gets no .gitignore that would hide the user's files."""
    tmp_path.chmod(0o755)
    assert made(tmp_path).write("{}")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert not (tmp_path / ".gitignore").exists()


def test_the_place_does_not_move_with_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder is the one below the working directory at the start, whatever the program does later."""
    monkeypatch.chdir(tmp_path)
    file = made(Path("t"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert file.write("{}")
    assert len(files(tmp_path / "t")) == 1


def test_files_are_rotated_and_the_oldest_go(tmp_path: Path) -> None:
    """No file exceeds its bound, at most `keep` stay beside the current one, and every line is whole."""
    file = made(tmp_path)
    for number in range(20):
        assert file.write(f"{number:099d}")
    sizes = [(tmp_path / name).stat().st_size for name in files(tmp_path)]
    assert (len(sizes), max(sizes)) == (3, 300)
    lines = [line for name in files(tmp_path) for line in (tmp_path / name).read_text().splitlines()]
    assert [int(line) for line in lines] == list(range(12, 20))
    assert file.path is not None
    assert file.path.name == files(tmp_path)[-1]


def test_two_files_of_one_millisecond_are_two(tmp_path: Path) -> None:
    """A rotation within the clock's resolution neither overwrites nor exceeds."""
    file = made(tmp_path, clock=lambda: 1_700_000_000.0)
    for _ in range(7):
        assert file.write(LINE)
    assert [(tmp_path / name).stat().st_size for name in files(tmp_path)] == [300, 300, 100]


def test_keep_nothing_keeps_the_current_file(tmp_path: Path) -> None:
    """With keep 0 only the file being written stays."""
    file = made(tmp_path, keep=0)
    for _ in range(7):
        assert file.write(LINE)
    assert [(tmp_path / name).stat().st_size for name in files(tmp_path)] == [100]


def test_files_of_dead_processes_count_and_living_ones_are_left(tmp_path: Path) -> None:
    """The bound covers what ended processes left behind; a file that another process writes is not touched."""
    for day in range(1, 6):
        (tmp_path / f"telemetry-2020010{day}T000000000Z-1.jsonl").write_text("{}\n")
    (tmp_path / "telemetry-notes.txt").write_text("mine")
    living = made(tmp_path, keep=100, clock=Clock(1_000_000_000.0))
    assert living.write("{}")
    assert made(tmp_path).write("{}")
    left = files(tmp_path)
    assert living.path is not None
    assert left[0] == living.path.name
    assert left[1:3] == ["telemetry-20200104T000000000Z-1.jsonl", "telemetry-20200105T000000000Z-1.jsonl"]
    assert len(left) == 4
    assert (tmp_path / "telemetry-notes.txt").exists()


def test_a_line_larger_than_a_file_is_dropped(tmp_path: Path) -> None:
    """A line that cannot fit is counted and said, and the next one is written."""
    stderr = io.StringIO()
    file = made(tmp_path, stderr=stderr)
    assert not file.write("x" * 300, items=7)
    assert file.write(LINE)
    assert file.lost == 7
    assert "larger than telemetry.file_max_bytes" in stderr.getvalue()


def test_an_unwritable_folder_is_said_once(tmp_path: Path) -> None:
    """When the folder cannot be made, losses are counted, one line says why, and nothing is raised."""
    (tmp_path / "t").write_text("a file is in the way")
    stderr = io.StringIO()
    file = made(tmp_path / "t", stderr=stderr)
    assert [file.write(LINE, items=3), file.write(LINE, items=4)] == [False, False]
    assert file.lost == 7
    (line,) = stderr.getvalue().splitlines()
    assert str(tmp_path / "t") in line
    assert "File exists" in line or "Not a directory" in line


def test_a_closed_stderr_is_no_fault(tmp_path: Path) -> None:
    """A daemon without stderr goes on all the same."""
    stderr = io.StringIO()
    stderr.close()
    (tmp_path / "t").write_text("")
    assert not made(tmp_path / "t", stderr=stderr).write(LINE)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half-way is taken back, so that readers find whole lines only, and later lines are written."""
    file = made(tmp_path)
    assert file.write(LINE)
    real, calls = os.write, 0

    def full(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return real(fd, data[:40])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert not file.write(LINE)
    monkeypatch.setattr(os, "write", real)
    assert file.write(LINE)
    assert file.path is not None
    assert file.path.read_text().splitlines() == [LINE, LINE]


def test_a_folder_deleted_meanwhile_is_made_again(tmp_path: Path) -> None:
    """Deleting the folder under a running program costs what was in it, and the next line is there again."""
    directory = tmp_path / "t"
    file = made(directory)
    assert file.write("old")
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    assert file.write("new")
    (name,) = files(directory)
    assert (directory / name).read_text() == "new\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
def test_a_fork_child_writes_a_file_of_its_own(tmp_path: Path) -> None:
    """Parent and child never share a file, and the parent's stays locked by the parent alone."""
    file = made(tmp_path)
    assert file.write("parent")

    def child() -> None:
        if not file.write("child"):
            raise SystemExit(1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(10)
    assert process.exitcode == 0
    assert file.write("parent")
    content = {name.rpartition("-")[2]: (tmp_path / name).read_text() for name in files(tmp_path)}
    assert content == {f"{os.getpid()}.jsonl": "parent\nparent\n", f"{process.pid}.jsonl": "child\n"}


def test_two_processes_respect_each_other(tmp_path: Path) -> None:
    """While one process writes, another that keeps nothing does not delete its file; once it ended, it does."""
    code = f"""
import sys
from underlay_instrumentation.local_file import LocalFile
file = LocalFile({str(tmp_path)!r}, max_bytes=300, keep=0)
file.write("{{}}"); print(file.path.name, flush=True); sys.stdin.readline()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = process.stdout.readline().strip()
        mine = made(tmp_path, keep=0)
        assert mine.write(LINE)
        assert theirs in files(tmp_path)
        process.communicate("\n", timeout=10)
    for _ in range(3):
        assert mine.write(LINE)
    assert theirs not in files(tmp_path)


def test_lines_are_official_otlp_json(telemetry: Telemetry, tmp_path: Path) -> None:
    """Each line is one export request whose ids are hexadecimal, whose integers are texts, and whose names are ours."""
    from opentelemetry.proto_json.collector.metrics.v1.metrics_service import ExportMetricsServiceRequest
    from opentelemetry.proto_json.collector.trace.v1.trace_service import ExportTraceServiceRequest

    file = made(tmp_path, max_bytes=10**6)
    miss(telemetry.listener().start(started()))
    data = telemetry.reader.get_metrics_data()
    assert data is not None
    assert FileSpanExporter(file).export(telemetry.finished).name == "SUCCESS"
    assert FileMetricExporter(file).export(data).name == "SUCCESS"
    assert file.path is not None
    spans, points = file.path.read_text().splitlines()
    (span,) = json.loads(spans)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span["traceId"] == format(telemetry.finished[0].context.trace_id, "032x")
    assert span["startTimeUnixNano"] == str(telemetry.finished[0].start_time)
    assert span["kind"] == 3
    attributes = {pair["key"]: pair["value"] for pair in span["attributes"]}
    assert attributes["gen_ai.usage.input_tokens"] == {"intValue": "100"}
    assert attributes["underlay.cache.stored"] == {"boolValue": True}
    assert ExportTraceServiceRequest.from_json(spans).to_dict() == json.loads(spans)
    assert ExportMetricsServiceRequest.from_json(points).to_dict() == json.loads(points)


def test_log_events_are_written_with_their_name(telemetry: Telemetry, tmp_path: Path) -> None:
    """A transition's log event keeps its event name and its trace in the file."""
    from test_otel_process import changed

    file = made(tmp_path, max_bytes=10**6)
    telemetry.listener().event(changed())
    records = telemetry.log_exporter.get_finished_logs()
    assert FileLogExporter(file).export(records).name == "SUCCESS"
    assert file.path is not None
    (record,) = json.loads(file.path.read_text())["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert record["eventName"] == "underlay.circuit_breaker.transition"
    assert record["traceId"] == format(telemetry.finished[0].context.trace_id, "032x")


def test_an_empty_collection_writes_no_line(telemetry: Telemetry, tmp_path: Path) -> None:
    """A program that made no call has no metric lines."""
    from opentelemetry.sdk.metrics.export import MetricsData

    file = made(tmp_path)
    assert FileMetricExporter(file).export(MetricsData([])).name == "SUCCESS"
    assert file.path is None


def test_failed_exports_say_so(telemetry: Telemetry, tmp_path: Path) -> None:
    """An exporter whose file cannot be written reports a failure to the SDK and counts what was lost."""
    (tmp_path / "t").write_text("")
    file = made(tmp_path / "t")
    miss(telemetry.listener().start(started()))
    data = telemetry.reader.get_metrics_data()
    assert data is not None
    assert FileSpanExporter(file).export(telemetry.finished).name == "FAILURE"
    assert FileMetricExporter(file).export(data).name == "FAILURE"
    assert FileLogExporter(file).export(()).name == "FAILURE"
    assert file.lost == 1 + 3


def test_exponential_histograms_are_one_variable_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The variable that OTLP exporters know works for the file too."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"
    )
    file = made(tmp_path, max_bytes=10**6)
    reader = PeriodicExportingMetricReader(FileMetricExporter(file), export_interval_millis=float("inf"))
    meters = MeterProvider([reader], shutdown_on_exit=False)
    meters.get_meter("m").create_histogram("h").record(1.0)
    meters.force_flush()
    meters.shutdown()
    assert file.path is not None
    assert "exponentialHistogram" in file.path.read_text()
