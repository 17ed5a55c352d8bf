"""What a start costs, and what an entry of the cache takes: each sample is a process of its own, and the
kinds take turns."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.interleave import environment
from benchmarks.stats import Spread, differences, spread

__all__ = ["KINDS", "Start", "starts"]

_CLOCKED = """
import json, time
{before}
wall, cpu = time.perf_counter(), time.process_time()
{timed}
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""

_CALL = """
import httpx2, openai
from benchmarks.replies import JSON_REPLY, transport
{extra}
client = openai.OpenAI(
    api_key="k", http_client=httpx2.Client(transport=transport(httpx2, JSON_REPLY, asynchronous=False))
)
def ask(text):
    client.chat.completions.create(model="gpt-4o-mini", messages=[{{"role": "user", "content": text}}])
{warm}
"""

_ENTRY = """
import gc, json, tracemalloc
import httpx2
from benchmarks.replies import JSON_REPLY, transport
from underlay import Runtime
runtime = Runtime({"llm_cache": {"maxsize": 100000}})
inner = transport(httpx2, JSON_REPLY, asynchronous=False)
client = runtime.httpx2_client(transport=runtime.httpx2_transport(inner))
def ask(number):
    messages = [{"role": "user", "content": f"question {number}"}]
    client.post(
        "https://api.openai.com/v1/chat/completions", json={"model": "gpt-4o-mini", "messages": messages}
    )
frame = JSON_REPLY.frames[0]
class Copy(httpx2.SyncByteStream):
    def __iter__(self):
        yield bytes(bytearray(frame))  # a network gives every answer its own bytes
def answer(request):
    return httpx2.Response(200, headers={"content-type": "application/json"}, stream=Copy())
inner.handle_request = answer
for number in range(100):
    ask(number)
gc.collect()
tracemalloc.start()
before, counted = tracemalloc.get_traced_memory()[0], runtime.cache.size_bytes
for number in range(1000, 3000):
    ask(number)
gc.collect()
held = (tracemalloc.get_traced_memory()[0] - before) / 2000
print(json.dumps([held, (runtime.cache.size_bytes - counted) / 2000, len(frame)]))
"""


@dataclass(frozen=True, slots=True)
class Start:
    """One measurement. `unit` is ms or bytes; `added` is against the process that `against` names, run in
    the same round, where there is one."""

    title: str
    unit: str
    value: Spread
    cpu: Spread | None = None
    against: str = ""
    added: Spread | None = None


@dataclass(frozen=True, slots=True)
class _Kind:
    title: str
    arguments: tuple[str, ...]
    whole: bool = False
    """Time the process from outside instead of reading what it says."""
    against: str = ""


def _clocked(before: str, timed: str) -> tuple[str, ...]:
    return ("-c", _CLOCKED.format(before=before, timed=timed))


def _command(option: str) -> tuple[str, ...]:
    # As the installed script starts it, without depending on where scripts are installed.
    return (
        "-c",
        f"import sys; sys.argv = ['underlay', '{option}']; from underlay.cli import main; sys.exit(main())",
    )


def _first(extra: str) -> tuple[str, ...]:
    return _clocked(_CALL.format(extra=extra, warm="client.models.list()"), "ask('a')")


_SDK = (
    "from opentelemetry import trace, metrics\n"
    "from opentelemetry.sdk.trace import TracerProvider\n"
    "from opentelemetry.sdk.metrics import MeterProvider\n"
    "trace.set_tracer_provider(TracerProvider()); metrics.set_meter_provider(MeterProvider())\n"
)
_INSTRUMENT = "import underlay\nunderlay.instrument()"

KINDS: dict[str, _Kind] = {
    "import": _Kind("`import underlay`", _clocked("", "import underlay")),
    "import-after": _Kind(
        "`import underlay` after `import openai`", _clocked("import openai", "import underlay")
    ),
    "runtime": _Kind("`from underlay import Runtime`", _clocked("", "from underlay import Runtime")),
    "runtime-after": _Kind(
        "`from underlay import Runtime` after `import openai`",
        _clocked("import openai", "from underlay import Runtime"),
    ),
    "openai": _Kind("`import openai`, to compare", _clocked("", "import openai")),
    "instrument": _Kind(
        "first `underlay.instrument()`, after `import openai`",
        _clocked("import openai, underlay", "underlay.instrument()"),
    ),
    "instrument-sdk": _Kind(
        "the same with an OpenTelemetry SDK set up",
        _clocked(f"import openai, underlay\n{_SDK}", "underlay.instrument()"),
    ),
    "first-bare": _Kind("first chat call of a process, bare (the SDK is warm)", _first("")),
    "first": _Kind("first chat call under underlay", _first(_INSTRUMENT), against="first-bare"),
    "first-sdk": _Kind(
        "first chat call under underlay, SDK set up", _first(f"{_SDK}{_INSTRUMENT}"), against="first-bare"
    ),
    "python": _Kind("`python -c pass`, to compare", ("-c", "pass"), whole=True),
    "version": _Kind("`underlay --version`", _command("--version"), whole=True, against="python"),
    "help": _Kind("`underlay --help`", _command("--help"), whole=True, against="python"),
}


def starts(runs: int, *, seed: int, step: Callable[[], None]) -> list[Start]:
    """Measure every kind `runs` times, in an order drawn anew each time. `step` is called after each
    process."""
    seen: dict[str, list[tuple[float, float | None]]] = {name: [] for name in KINDS}
    draw = random.Random(seed)
    for name in KINDS:  # once for the file system's cache and the compiled modules
        _sample(KINDS[name])
    for _ in range(runs):
        for name in draw.sample(list(KINDS), len(KINDS)):
            seen[name].append(_sample(KINDS[name]))
            step()
    return [*(_start(name, seen) for name in KINDS), *_memory()]


def _start(name: str, seen: dict[str, list[tuple[float, float | None]]]) -> Start:
    kind = KINDS[name]
    wall = [value * 1e3 for value, _ in seen[name]]
    cpu = [value * 1e3 for _, value in seen[name] if value is not None]
    if not kind.against:
        return Start(kind.title, "ms", spread(wall), spread(cpu) if cpu else None)
    base = [value * 1e3 for value, _ in seen[kind.against]]
    added = spread(differences(wall, base))
    return Start(
        kind.title, "ms", spread(wall), spread(cpu) if cpu else None, KINDS[kind.against].title, added
    )


def _sample(kind: _Kind) -> tuple[float, float | None]:
    began = time.perf_counter()
    done = _run(kind.arguments)
    took = time.perf_counter() - began
    if kind.whole:
        return took, None
    wall, cpu = json.loads(done)
    return wall, cpu


def _run(arguments: Sequence[str]) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        raise RuntimeError(f"{Path(sys.executable).name} {arguments[0]} failed:\n{done.stderr}")
    return done.stdout


def _memory() -> list[Start]:
    held, counted, body = json.loads(_run(("-c", _ENTRY)))
    return [
        Start(
            f"memory of a cached JSON answer of {body} bytes, held (memo included)", "bytes", spread([held])
        ),
        Start("the same as the cache's bound counts it", "bytes", spread([counted])),
    ]
