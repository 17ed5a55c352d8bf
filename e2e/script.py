"""The scripted program: official SDKs, known numbers. Runs under `underlay run`.

    underlay run -- python -m e2e.script FACTS.json

It keeps its own books of what it asked and got and writes them as FACTS.json; of underlay's it reads only
what no program can know: what the stored entries weigh, and what closed a window. A first phase asks one
question of each kind, so that most series exist; the second does the rest. It is quiet for a while before,
between and after, so that every counter is seen at rest.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai

from e2e.together import Reply, Together, fixed_runtime, windows_of
from underlay.global_runtime import current

QUIET = 11.0  # seconds: two exports and a little
RECOVERY = 6.0  # seconds: the circuit's recovery timeout in this run
CHAT, MINI, EMBED, CLAUDE, OWN = (
    "gpt-4o",
    "gpt-4o-mini",
    "text-embedding-3-small",
    "claude-sonnet-5-5",
    "house-model-1",
)


@dataclass
class Answered:
    """Totals of one model, by the program's own count. Lists have one item per answer of the provider."""

    provider: str
    misses: int = 0
    hits: int = 0
    coalesced: int = 0
    refused: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    input_tokens: list[int] = field(default_factory=list)
    output_tokens: list[int] = field(default_factory=list)
    saved_input_tokens: int = 0
    saved_output_tokens: int = 0
    durations: list[float] = field(default_factory=list)
    hit_durations: list[float] = field(default_factory=list)
    failed_durations: list[float] = field(default_factory=list)
    first_chunks: list[float] = field(default_factory=list)
    saved_seconds: float = 0.0


@dataclass(frozen=True)
class Got:
    """One answer: its usage (input, output), how long it took, and the time to its first chunk if it was a
    stream."""

    usage: tuple[int, int]
    took: float
    first_chunk: float | None = None


class Books:
    """What the program did in one phase. `known` has the answers of all phases by question."""

    def __init__(self, known: dict[tuple[str, str, bool], Got]) -> None:
        self.models: dict[str, Answered] = {}
        self._known = known

    def of(self, model: str, provider: str) -> Answered:
        """The totals of a model."""
        return self.models.setdefault(model, Answered(provider))

    def answered(self, question: tuple[str, str, bool], provider: str, got: Got) -> None:
        """One answered call. A question that was answered before is a repeat."""
        totals = self.of(question[0], provider)
        first = self._known.get(question)
        if first is not None:
            totals.hits += 1
            totals.hit_durations.append(got.took)
            totals.saved_input_tokens += got.usage[0]
            totals.saved_output_tokens += got.usage[1]
            totals.saved_seconds += first.took - got.took
            return
        self._known[question] = got
        totals.misses += 1
        totals.input_tokens.append(got.usage[0])
        totals.output_tokens.append(got.usage[1])
        totals.durations.append(got.took)
        if got.first_chunk is not None:
            totals.first_chunks.append(got.first_chunk)

    def shared(self, reply: Reply) -> None:
        """One call that read the answer of another, which was in flight."""
        totals = self.of(reply.question[0], "openai")
        totals.coalesced += 1
        totals.saved_input_tokens += reply.usage[0]
        totals.saved_output_tokens += reply.usage[1]

    def failed(self, model: str, provider: str, kind: str, took: float) -> None:
        """One call that failed with this kind of error, as the provider names it, or was refused."""
        totals = self.of(model, provider)
        totals.errors[kind] = totals.errors.get(kind, 0) + 1
        if kind == "circuit_open":
            totals.refused += 1
        else:
            totals.failed_durations.append(took)


class Program:
    """The clients and the script."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str, bool], Got] = {}
        self.books = Books(self.known)
        self.openai = openai.OpenAI(max_retries=0)
        self.anthropic = anthropic.Anthropic(max_retries=0)
        self.admin = httpx.Client(base_url=os.environ["OPENAI_BASE_URL"].removesuffix("/v1"))
        runtime = current()
        assert runtime is not None, "the script runs under `underlay run`"
        self.runtimes = (runtime, fixed_runtime())
        self.queued_seen = 0.0
        self.open_seen = 0.0
        self.open_for = 0.0

    def chat(self, model: str, prompt: str, *, stream: bool = False) -> None:
        """One chat call, JSON or streamed."""
        messages: Any = [{"role": "user", "content": prompt}]
        first = None
        began = time.perf_counter()
        try:
            if stream:
                usage = None
                options: Any = {"include_usage": True}
                for chunk in self.openai.chat.completions.create(
                    model=model, messages=messages, stream=True, stream_options=options
                ):
                    first = first or time.perf_counter() - began
                    usage = chunk.usage
            else:
                usage = self.openai.chat.completions.create(model=model, messages=messages).usage
        except openai.APIStatusError as error:
            # The circuit's refusal is a reply in the provider's own shape; its kind says what it is.
            kind = str(error.code or error.type or error.status_code)
            self.books.failed(model, "openai", kind, time.perf_counter() - began)
            return
        took = time.perf_counter() - began
        tokens = (usage.prompt_tokens, usage.completion_tokens) if usage is not None else (0, 0)
        self.books.answered((model, prompt, stream), "openai", Got(tokens, took, first))

    def embed(self, text: str) -> None:
        """One embedding."""
        began = time.perf_counter()
        usage = self.openai.embeddings.create(model=EMBED, input=text).usage
        self.books.answered(
            (EMBED, text, False), "openai", Got((usage.prompt_tokens, 0), time.perf_counter() - began)
        )

    def message(self, prompt: str, *, stream: bool = False) -> None:
        """One message to Anthropic's API."""
        asked: Any = {"model": CLAUDE, "max_tokens": 64, "messages": [{"role": "user", "content": prompt}]}
        first = None
        began = time.perf_counter()
        if stream:
            with self.anthropic.messages.stream(**asked) as events:
                for _ in events:
                    first = first or time.perf_counter() - began
                usage = events.get_final_message().usage
        else:
            usage = self.anthropic.messages.create(**asked).usage
        got = Got((usage.input_tokens, usage.output_tokens), time.perf_counter() - began, first)
        self.books.answered((CLAUDE, prompt, stream), "anthropic", got)

    def fault(self, fault: str, **scope: Any) -> None:
        """Ask the simulator for a fault."""
        self.admin.post("/_sim/faults", json={"fault": fault} | scope).raise_for_status()

    def births(self) -> None:
        """One call of each kind, and its repeat."""
        for _ in range(2):
            self.chat(CHAT, "the first question")
            self.chat(CHAT, "the first story", stream=True)
            self.chat(MINI, "the first small question")
            self.message("the first thought")
            self.message("the first thought", stream=True)
            self.embed("the first text")
            self.chat(OWN, "the first of the house")
        for kind, model in (("429", CHAT), ("400", CHAT), ("503", MINI)):
            self.fault(kind, model=model, count=1)
            self.chat(model, f"the first {kind}")
        self.chat(MINI, "in between")
        self.together("the first time")

    def run(self) -> None:
        """The script."""
        for n in range(60):
            self.chat(CHAT, f"question {n}")
        for n in range(24):
            self.chat(CHAT, f"question {n}")
        for n in range(10):
            self.chat(CHAT, f"story {n}", stream=True)
            self.chat(CHAT, f"story {n}", stream=True)
        for n in range(12):
            self.message(f"thought {n}", stream=n % 2 == 0)
        for n in range(6):
            self.message(f"thought {n}", stream=n % 2 == 0)
        for n in range(8):
            self.embed(f"text {n}")
        for n in range(8):
            self.embed(f"text {n % 4}")
        for n in range(3):
            self.chat(OWN, f"of the house {n}")
        for kind in ("429", "400"):
            self.fault(kind, model=CHAT, count=2)
            for n in range(2):
                self.chat(CHAT, f"refused with {kind}, {n}")
        self.together("the second time")
        self.outage()

    def together(self, tag: str) -> None:
        """Calls that come together."""
        part = Together(tag, self.fault, self.runtimes[1])
        part.run()
        self.queued_seen = part.queued_at
        for reply in part.replies:
            if reply.shared:
                self.books.shared(reply)
            else:
                got = Got(reply.usage, reply.took, reply.first_chunk)
                self.books.answered(reply.question, "openai", got)

    def outage(self) -> None:
        """One model fails five times, is refused four times, and comes back."""
        for n in range(4):
            self.chat(MINI, f"before {n}")
        self.fault("503", model=MINI)
        for n in range(9):
            self.chat(MINI, f"during {n}")
            if n == 4:
                opened = time.perf_counter()
                # Looked at just before its recovery is due, which reads as half-open, and a whole metric
                # interval after it opened.
                self.open_seen = time.time() + RECOVERY
        self.admin.delete("/_sim/faults").raise_for_status()
        time.sleep(RECOVERY + 0.5)
        self.open_for = time.perf_counter() - opened
        for n in range(3):
            self.chat(MINI, f"after {n}")


def main() -> None:
    """Be quiet, run, be quiet, write the books."""
    program = Program()
    phases = {}
    for name, work in (("birth", program.births), ("main", program.run)):
        program.books = Books(program.known)
        left = windows_of(program.runtimes)
        time.sleep(QUIET)
        began = time.time()
        work()
        models = {model: asdict(totals) for model, totals in program.books.models.items()}
        windows = windows_of(program.runtimes, left)
        phases[name] = {"began": began, "ended": time.time(), "models": models, "windows": windows}
    time.sleep(QUIET)
    caches = [runtime.settings.llm_cache for runtime in program.runtimes]
    facts = {
        "cache_bytes": sum(runtime.cache.size_bytes for runtime in program.runtimes),
        "cache_maxsize": [cache.maxsize for cache in caches],
        "cache_max_bytes": sum(cache.max_bytes for cache in caches),
        "ended": time.time(),
        "open_seen": program.open_seen,
        "open_for": program.open_for,
        "queued_seen": program.queued_seen,
        "phases": phases,
    }
    Path(sys.argv[1]).write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
