"""The trace that the snapshots draw, and `python tests/cli/cli_snapshots.py` to draw them anew."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cli_builder import Made, call, http, line

from underlay.cli.output import Screen, plain
from underlay.cli.telemetry_file import TelemetryFiles
from underlay.cli.trace import collect
from underlay.cli.tree import tree_lines
from underlay.telemetry import attributes as a

FOLDER = Path(__file__).parent / "snapshots"
CASES = (("utf-8", 60), ("utf-8", 80), ("utf-8", 120), ("ascii", 60))
TOGETHER = (("utf-8", 60), ("utf-8", 100))


def write_together(folder: Path) -> Path:
    """Telemetry of two requests: one coalesced with a call of the other, and two calls that left merged."""
    path = folder / "telemetry-20261124T160000000Z-2.jsonl"
    leader = call("leader", trace="first", at=0, took=812, COST=0.000123, CACHE_STORED=True)
    others = [
        call(
            word, trace="first", at=at, took=took, model="text-embedding-3-small",
            links=[("request", "dispatch", "dispatch")], BATCH_MODE="merged", BATCH_TRIGGER="idle",
            BATCH_SIZE=7, BATCH_WAIT=0.05,
        )
        for word, at, took in (("m1", 905, 400), ("m2", 908, 397), *((f"m{n}", 910, 395) for n in (3, 4, 5, 6)))
    ]  # fmt: skip
    request = Made("POST /ask", "request", "root", 4, 1305, kind=2)
    follower = call(
        "follower", trace="request", parent="root", at=5, took=809, result="coalesced", SAVED=0.000123,
        CACHE_REASON="absent", COALESCE_WAIT=0.808, CACHE_KEY="0123456789abcdef", ENDING="complete",
        HTTP_STATUS=200, BATCH_MODE="alone", links=[("first", "leader", "leader")],
    )  # fmt: skip
    sender = call(
        "sender", trace="request", parent="root", at=920, took=386, model="text-embedding-3-small",
        links=[("request", "dispatch", "dispatch")], BATCH_MODE="merged", BATCH_TRIGGER="idle", BATCH_SIZE=7,
        BATCH_WAIT=0.035, INPUT_TOKENS=4, COST=0.00000008, CACHE_STORED=True, ENDING="complete",
    )  # fmt: skip
    members = [(other.trace, other.span, "member") for other in others]
    dispatch = Made(
        "batch dispatch text-embedding-3-small", "request", "dispatch", 955, 350, "sender",
        {
            a.BATCH_MODE.key: "merged", a.BATCH_TRIGGER.key: "idle", a.BATCH_SIZE.key: 7,
            a.BATCH_INPUTS.key: 7, a.BATCH_FILL.key: 7 / 256, a.BATCH_WAIT.key: 0.05, a.HTTP_STATUS.key: 200,
        },
        [*members, ("request", "sender", "member")],
    )  # fmt: skip
    attempt = http("attempt", "dispatch", "request", at=956, took=348)
    path.write_bytes(line(leader, *others) + line(follower, attempt, dispatch, sender, request))
    return path


def write_sample(folder: Path) -> Path:
    """Telemetry of an answer, and of a later request with a hit on it, a failure and a refusal."""
    path = folder / "telemetry-20261124T160000000Z-1.jsonl"
    first = call(
        "one", took=812, INPUT_TOKENS=1120, OUTPUT_TOKENS=48, CACHE_READ_TOKENS=1000, COST=0.000123,
        CACHE_STORED=True, CACHE_KEY="0123456789abcdef", ENDING="complete", HTTP_STATUS=200,
        REQUEST_STREAM=True, CHUNKS=51, TIME_TO_FIRST_CHUNK=0.31,
    )  # fmt: skip
    request = Made("POST /ask", "request", "root", 1500, 400, kind=2)
    hit = call(
        "two", trace="request", parent="root", at=1510, took=1.2, result="hit", SAVED=0.000123, CACHE_AGE=0.7,
        CACHE_KEY="0123456789abcdef", ENDING="complete", links=[("trace-one", "one", "generated")],
    )  # fmt: skip
    failed = call(
        "three", trace="request", parent="root", at=1520, took=300, error="server_error",
        model="claude-sonnet-4-5-20250929", ENDING="complete",
    )  # fmt: skip
    attempt = http("attempt", "three", "request", at=1522, took=290, status=500)
    opened = Made(
        "circuit_breaker open", "request", "open", 1820, 0, "root",
        {
            a.CIRCUIT_FROM.key: "closed", a.CIRCUIT_STATE.key: "open", a.CIRCUIT_REASON.key: "failures",
            a.CIRCUIT_FAILURES.key: 5,
        },
        [("request", "three", "cause"), ("gone", "gone", "cause")],
    )  # fmt: skip
    refused = call(
        "four", trace="request", parent="root", at=1830, took=0.4, result="refused", error="circuit_open",
        CIRCUIT_STATE="open", RETRY_AFTER=59.9,
    )  # fmt: skip
    path.write_bytes(line(first) + line(hit, attempt, failed, opened, refused, request))
    return path


def draw(path: Path, encoding: str, width: int) -> str:
    """The trace of the request as a screen of that width and encoding shows it."""
    files = TelemetryFiles([path])
    last = files.last_call()
    assert last is not None
    screen = Screen(width, color=False, encoding=encoding)
    return plain(tree_lines(collect(files, last), screen.width, screen.glyphs)) + "\n"


def name_of(encoding: str, width: int) -> str:
    """File name of a snapshot."""
    return f"trace-{encoding}-{width}.txt"


if __name__ == "__main__":
    import tempfile

    os.environ["TZ"] = "UTC"
    time.tzset()
    with tempfile.TemporaryDirectory() as folder:
        sample = write_sample(Path(folder))
        for encoding, width in CASES:
            (FOLDER / name_of(encoding, width)).write_text(draw(sample, encoding, width), encoding="utf-8")
        sample = write_together(Path(folder))
        for encoding, width in TOGETHER:
            drawn = draw(sample, encoding, width)
            (FOLDER / f"together-{name_of(encoding, width)}").write_text(drawn, encoding="utf-8")
