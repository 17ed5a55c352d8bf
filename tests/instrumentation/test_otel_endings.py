"""How a process ends: exit, SIGTERM and fork children, with Collectors that live, die or never answer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from otel_collector import Collector
from otel_programs import environ, names, run, script


@pytest.mark.parametrize("kind", ["refused", "unavailable"])
def test_a_dead_collector_is_told_in_one_line(tmp_path: Path, kind: str) -> None:
    """Whatever is wrong with the Collector, the app's output and exit code stand, and one line says what was lost."""
    collector = Collector(503)
    if kind == "refused":
        collector.close()
    path = script(tmp_path, "work(); print('app'); sys.exit(3)", timeout=0.3)
    done = run(path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    if kind != "refused":
        collector.close()
    assert (done.stdout, done.returncode) == ("app\n", 3)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"underlay: 127.0.0.1:{collector.port} did not take 1 span, 1 ")
    assert line.endswith("within 0.3 s of the end")


def test_a_collector_that_says_no_is_told_too(tmp_path: Path) -> None:
    """A refusal that is not worth a retry is told without waiting for the bound."""
    collector = Collector(404)
    path = script(tmp_path, "work()")
    done = run(path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    collector.close()
    assert done.stderr == (
        f"underlay: 127.0.0.1:{collector.port} did not take 1 span, 1 metric point, 1 log record\n"
    )


@pytest.mark.parametrize("under_way", [False, True])
def test_a_collector_that_never_answers_holds_nobody(tmp_path: Path, under_way: bool) -> None:
    """A Collector that accepts and says nothing delays the end by the bound alone, also when an export is under
    way already, and whatever timeout the environment gives the exporter."""
    code = "work(); print('ready'); sys.stdin.readline(); sys.exit(3)"
    path = script(tmp_path, code, timeout=0.3)
    extra = {"OTEL_EXPORTER_OTLP_TIMEOUT": "3600", **({"OTEL_BSP_SCHEDULE_DELAY": "1"} if under_way else {})}
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        environment = environ(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}", **extra)
        command = [sys.executable, "-u", str(path)]
        with subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            connection = server.accept()[0] if under_way else None
            _, err = process.communicate("\n", timeout=50)
            if connection is not None:
                connection.close()
    assert process.returncode == 3
    (line,) = err.splitlines()
    assert line.startswith(f"underlay: 127.0.0.1:{port} did not take 1 span, ")
    assert line.endswith(" within 0.3 s of the end")


def terminated(path: Path, **extra: str) -> tuple[int, str, str]:
    """Run a program until it says that it is ready, send SIGTERM, and wait for its end."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-u", str(path)]
    with subprocess.Popen(command, cwd=path.parent, env=environ(**extra), text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        # The program waits for the end of its input: a wait that a signal cannot miss.
        out, err = process.communicate(timeout=50)
    return process.returncode, out, err


def test_sigterm_flushes_and_ends_as_it_would(tmp_path: Path) -> None:
    """SIGTERM sends what is left and ends the process by the signal, which a shell shows as 143."""
    path = script(tmp_path, "work(); print('ready'); sys.stdin.read()")
    path.write_text("import signal\n" + path.read_text())
    assert terminated(path) == (-signal.SIGTERM, "", "")
    assert names(tmp_path) == ["work"]


def test_sigterm_of_the_app_stays_the_apps(tmp_path: Path) -> None:
    """A handler that was there is called after a flush, and what the app does later is still sent."""
    code = "work('before'); print('ready'); sys.stdin.read(); work('after'); sys.exit(9)"
    path = script(tmp_path, code)
    path.write_text(
        "import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('mine'))\n" + path.read_text()
    )
    assert terminated(path) == (9, "mine\n", "")
    assert names(tmp_path) == ["before", "after"]


def test_sigterm_with_a_dead_collector_still_ends(tmp_path: Path) -> None:
    """A Collector that does not answer delays SIGTERM by the bound at most, and is told in one line."""
    path = script(tmp_path, "work(); print('ready'); sys.stdin.read()", timeout=0.3)
    path.write_text("import signal\n" + path.read_text())
    code, _, err = terminated(path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert (code, len(err.splitlines())) == (-signal.SIGTERM, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
@pytest.mark.parametrize("way", ["os.fork", "multiprocessing"])
def test_fork_children_flush_what_is_theirs(tmp_path: Path, way: str) -> None:
    """A child made by fork sends its own spans to a file of its own at its end, and none of its parent's twice."""
    if way == "os.fork":
        code = """
import os
work("parent")
child = os.fork()
if child == 0:
    work("child"); sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    else:
        code = """
import multiprocessing
work("parent")
child = multiprocessing.get_context("fork").Process(target=work, args=("child",))
child.start(); child.join()
assert child.exitcode == 0
"""
    done = run(script(tmp_path, code))
    assert (done.stderr, done.returncode) == ("", 0)
    assert sorted(names(tmp_path)) == ["child", "parent"]
    assert len(list(tmp_path.glob("t/telemetry-*.jsonl"))) == 2


def test_shutdown_may_be_called_early_and_again(tmp_path: Path) -> None:
    """Flush and shutdown are safe to call at any time, and what came before is there."""
    code = "work(); shutdown.flush(); print(len(open(next(iter(__import__('glob').glob('t/*.jsonl')))).read()) > 0); shutdown(); shutdown(); shutdown.flush()"
    done = run(script(tmp_path, code))
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert names(tmp_path) == ["work"]
