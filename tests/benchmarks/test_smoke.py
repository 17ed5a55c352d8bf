"""One tiny run of the benchmarks, so that they do not rot. What it measures is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
KINDS = {
    "unknown traffic",
    "miss, JSON",
    "hit, JSON",
    "miss, stream of 10 chunks",
    "miss, per further chunk",
    "hit, stream of 10 chunks",
    "hit, per further chunk",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The benchmarks as a command."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_tiny_run_gives_every_row_beside_the_other_instrumentation() -> None:
    """Each kind of call is measured with underlay and with the other instrumentation, in one run."""
    worlds = ["underlay-full", "genai-on"]
    done = run(
        "--json",
        "--rounds",
        "1",
        "--burst-ms",
        "1",
        "--parts",
        "calls",
        "--clients",
        "openai",
        "--worlds",
        *worlds,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {(row["world"], row["kind"], row["clock"]) for row in found["rows"]}
    assert rows == {(w, k, c) for w in worlds for k in KINDS for c in ("cpu", "wall", "process")}
    assert all(row["added"]["rounds"] == 1 for row in found["rows"])
    assert found["machine"]["packages"]["openai"]


def test_the_table_names_machine_and_spread() -> None:
    """The printed table says where its numbers come from and how far they scatter, plain and async."""
    done = run(
        *("--rounds", "2", "--burst-ms", "1", "--parts", "calls"),
        *("--clients", "httpx-async", "--worlds", "underlay-off", "nothing-off"),
    )
    assert done.returncode == 0, done.stderr
    for part in (
        "CPython",
        "cores",
        "2 rounds",
        "median [quartiles]",
        "Noise, bare against bare",
        "| hit, JSON |",
    ):
        assert part in done.stdout


@pytest.mark.parametrize("argument", [("--rounds", "0"), ("--clients", "curl"), ("--worlds", "all")])
def test_a_wrong_argument_is_said(argument: tuple[str, str]) -> None:
    """A wrong argument is named with what is allowed, and nothing is measured."""
    done = run(*argument)
    assert done.returncode == 2
    assert argument[0] in done.stderr
    assert not done.stdout
