"""The demo: one ordinary program, run without and with underlay against a simulated provider, and what the
telemetry says of it.

    python examples/demo.py            (make demo sets everything up and runs it)

Starts the provider simulator on loopback, runs examples/chat_app.py twice under `underlay run` (every pillar
off, then on) through an outage of one model, and prints what the program's own telemetry files say. Nothing
leaves this machine.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from underlay.cli.facts import http_status
from underlay.cli.span_model import Span, is_call
from underlay.cli.summary import Summary, circuit_timeline, summarise
from underlay.cli.telemetry_file import locate, read_spans
from underlay.simulator import Latency, Simulator, SimulatorOptions
from underlay.telemetry import attributes as a
from underlay.telemetry.attributes import BatchMode, CacheResult

HERE = Path(__file__).parent
ROOT = HERE.parent
EXCERPT = HERE / "data" / "azure_conv_excerpt.csv"
OUTAGE_MODEL = "gpt-4o"
OUTAGE_FROM, OUTAGE_FOR = 2.0, 2.0  # seconds after the first call
RECOVERY = "1"  # second: the demo's recovery timeout
CROWD, CHUNKS = 24, 60  # calls that the program makes at once: identical ones, and embeddings
UNDERLAY = str(Path(sys.executable).with_name("underlay"))
# As it can be typed here: the environment of `make demo` is not on the path of the shell that ran it.
TYPED = "underlay" if shutil.which("underlay") == UNDERLAY else os.path.relpath(UNDERLAY)
PILLARS = ("LLM_CACHE", "LLM_BATCH", "COALESCE", "CIRCUIT_BREAKER")


@dataclass(frozen=True)
class Run:
    """One run of the program: what its telemetry says, and what the simulator counted."""

    summary: Summary
    spans: list[Span]
    simulated: int


def trace_file(folder: Path, calls: int) -> Path:
    """The workload: a slice of the full trace where its folder is at hand, else the excerpt that ships with
    the example."""
    full = (
        Path(os.environ.get("UNDERLAY_TRACES", ROOT.parent / "shared" / "traces"))
        / "azure_llm_2023_conv.csv.gz"
    )
    if not full.is_file():
        return EXCERPT
    target = folder / "trace.csv"
    with gzip.open(full, "rt") as source, target.open("w") as out:
        rows = [line.strip().split(",") for line in source][4001 : 4001 + calls]
        first = datetime.fromisoformat(rows[0][0][:26])
        out.write("seconds,context_tokens,generated_tokens\n")
        for when, context, generated in rows:
            out.write(
                f"{(datetime.fromisoformat(when[:26]) - first).total_seconds():.3f},{context},{generated}\n"
            )
    return target


def outage(simulator: Simulator, done: threading.Event) -> None:
    """Let one model fail for a while in the middle of the run."""
    while not simulator.counts().total.requests:
        if done.wait(0.02):
            return
    if done.wait(OUTAGE_FROM):
        return
    with simulator.outage(OUTAGE_MODEL, "503"):
        done.wait(OUTAGE_FOR)


def run(
    name: str, pillars: bool, folder: Path, arguments: list[str], progress: Progress, planned: int
) -> Run:
    """One run of the program under `underlay run`, watched from the simulator's side."""
    telemetry = folder / name
    options = SimulatorOptions(
        seed=1,
        length="max",
        tokens_per_event=8,
        latency=Latency(first_token=0.25, tokens_per_second=400, jitter=0.3),
    )
    with Simulator(options) as simulator:
        environment = os.environ | {
            "OPENAI_BASE_URL": f"{simulator.url}/v1",
            "OPENAI_API_KEY": "demo",
            "ANTHROPIC_BASE_URL": simulator.url,
            "ANTHROPIC_API_KEY": "demo",
            "OTEL_SERVICE_NAME": f"chat-app-{name}",
            "UNDERLAY_TELEMETRY__FILE": "always",
            "UNDERLAY_TELEMETRY__EXIT_TIMEOUT": "5",  # the numbers below must not miss the last second
            "UNDERLAY_TELEMETRY__DIRECTORY": str(telemetry),
            "UNDERLAY_CIRCUIT_BREAKER__RECOVERY_TIMEOUT": RECOVERY,
        }
        environment |= {f"UNDERLAY_{pillar}__ENABLED": "1" if pillars else "0" for pillar in PILLARS}
        command = [UNDERLAY, "run", "--", sys.executable, str(HERE / "chat_app.py"), *arguments]
        done = threading.Event()
        breaker = threading.Thread(target=outage, args=(simulator, done))
        child = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        breaker.start()
        task = progress.add_task(name, total=planned)
        while child.poll() is None:
            progress.update(task, completed=min(planned, simulator.counts().total.requests))
            time.sleep(0.1)
        done.set()
        breaker.join()
        progress.update(task, completed=planned)
        output, errors = child.communicate()
        if child.returncode:
            raise SystemExit(f"the program ended with exit code {child.returncode}:\n{output}{errors}")
        spans = read_spans(locate(telemetry))
        return Run(summarise(spans), spans, simulator.counts().total.requests)


def _answered(summary: Summary) -> int:
    return summary.calls - summary.refused - summary.failed


def _agrees(run_: Run) -> bool:
    """Whether telemetry and simulator counted the same requests. One that a broken connection swallowed may
    not have reached the simulator."""
    broken = [s for s in run_.spans if is_call(s) and s.text(a.VERDICT) and http_status(s) is None]
    return 0 <= run_.summary.upstream_calls - run_.simulated <= len(broken)


def table(before: Run, after: Run) -> Table:
    """Before and after, side by side."""
    drawn = Table(title="the same program, with every pillar off and with all on", title_justify="left")
    for column in ("", "before", "after"):
        drawn.add_column(column, justify="left" if not column else "right")

    def row(name: str, read: Callable[[Summary], float | None], form: str = "{:,}") -> None:
        values = (read(side.summary) for side in (before, after))
        drawn.add_row(name, *("-" if value is None else form.format(value) for value in values))

    def latency(percentile: str) -> Callable[[Summary], float | None]:
        # Of answered calls only: refusals are quick, and would flatter it.
        return lambda summary: getattr(summary.answered_latency, percentile, None)

    row("calls (each retry of an SDK is one)", lambda s: s.calls)
    row("upstream calls", lambda s: s.upstream_calls)
    row("answered", _answered)
    row("  from the cache", lambda s: s.hits)
    row("  with an identical call in flight", lambda s: s.coalesced)
    row("  merged with other calls", lambda s: s.merged)
    row("  in so many requests", lambda s: s.merged_requests)
    for percentile in ("p50", "p95", "p99"):
        row(f"{percentile} of answered calls, ms", latency(f"{percentile}_ms"), "{:,.0f}")
    row("input tokens paid", lambda s: s.input_tokens)
    row("output tokens paid", lambda s: s.output_tokens)
    row("cost, $", lambda s: s.cost_usd, "{:.4f}")
    row("cost of one answer, $", lambda s: (s.cost_usd or 0) / max(1, _answered(s)), "{:.5f}")
    row("saved, $", lambda s: s.saved_usd, "{:.4f}")
    row("refused at once", lambda s: s.refused)
    row("failed", lambda s: s.failed)
    return drawn


def timeline(run_: Run, console: Console) -> None:
    """When the circuit opened and closed, in seconds since the first call."""
    changes = circuit_timeline(run_.spans)
    failing = f"the model failed from {OUTAGE_FROM:g} s for {OUTAGE_FOR:g} s"
    console.print(f"\n[bold]the circuit of {OUTAGE_MODEL}[/bold] ({failing})")
    if not changes:
        console.print("  it never opened")
    start = min(span.start_ns for span in run_.spans)
    for change in changes:
        at = (change.time_ns - start) / 1e9
        console.print(
            f"  {at:5.1f} s  {change.left:>9} -> {change.entered:<9}  {change.reason.replace('_', ' ')}"
        )


def single_calls(run_: Run, folder: Path, console: Console) -> None:
    """Traces of single calls, drawn by `underlay trace`: each leads to the span that its answer came from."""
    by_id = {span.span_id: span for span in run_.spans}

    def linked(result: CacheResult) -> tuple[Span, Span] | None:
        """The last call answered like that whose link leads to a span of this run, and that span."""
        pairs = [
            (span, by_id[link.span_id])
            for span in run_.spans
            if span.text(a.CACHE_RESULT) == result and is_call(span)
            for link in span.links
            if link.span_id in by_id
        ]
        return pairs[-1] if pairs else None

    titled: list[tuple[str, Span]] = []
    if hit := linked(CacheResult.HIT):
        titled.append(("one call that a provider answered", hit[1]))
        titled.append(("its repeat, answered from the cache", hit[0]))
    if follower := linked(CacheResult.COALESCED):
        titled.append(("a call that came while an identical one was in flight", follower[0]))
    merged = [
        span for span in run_.spans if not is_call(span) and span.text(a.BATCH_MODE) == BatchMode.MERGED
    ]
    if merged and (sender := by_id.get(max(merged, key=_size).parent_id)):
        titled.append(("an embedding that was sent for others too", sender))
    for title, span in titled:
        console.print(f"\n[bold]{title}[/bold]")
        command = [UNDERLAY, "trace", span.span_id, "--from", str(folder), "-q"]
        sys.stdout.flush()
        subprocess.run(command, check=True)


def _size(dispatch: Span) -> int:
    return dispatch.whole(a.BATCH_SIZE) or 0


def main() -> int:
    """Run it all. Exit code 1 when telemetry and simulator do not agree."""
    parser = argparse.ArgumentParser(description="The demo of underlay: one program, without and with it.")
    parser.add_argument("--calls", type=int, default=160)
    parser.add_argument("--speed", type=float, default=4.0)
    parser.add_argument("--json", type=Path, help="write the table to this file as well")
    options = parser.parse_args()
    console = Console()
    folder = Path(".underlay") / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arguments = [
        str(trace_file(folder, options.calls)),
        "--calls",
        str(options.calls),
        "--speed",
        str(options.speed),
        "--crowd",
        str(CROWD),
        "--chunks",
        str(CHUNKS),
    ]
    planned = options.calls + CROWD + CHUNKS
    columns = (TextColumn("{task.description:>7}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        before = run("before", False, folder, arguments, progress, planned)
        after = run("after", True, folder, arguments, progress, planned)
    console.print(table(before, after))
    if options.json:
        options.json.write_text(
            json.dumps({name: asdict(side.summary) for name, side in (("before", before), ("after", after))})
        )
    agree = _agrees(before) and _agrees(after) and before.summary.calls == before.summary.upstream_calls
    counted = f"{before.simulated} requests before, {after.simulated} after"
    console.print(
        f"the simulator counted {counted}: {'the telemetry agrees' if agree else 'THE TELEMETRY DISAGREES'}"
    )
    timeline(after, console)
    single_calls(after, folder / "after", console)
    print("\nnext")
    steps = (
        (f"traces --from {folder / 'after'}", "every call of the run"),
        ("run -- python your_app.py", "the same under your own program"),
        ("doctor", "what is covered, and where telemetry goes"),
        ("stack up, then make demo", "the same on dashboards"),
    )
    for command, what in steps:
        print(f"  {TYPED} {command:<35} {what}")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
