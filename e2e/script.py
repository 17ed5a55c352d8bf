"""The scripted program: official SDKs, known numbers. Runs under `underlay run` and knows nothing of it.

    underlay run -- python -m e2e.script FACTS.json

It keeps its own books of what it asked and got (never underlay's) and writes them as FACTS.json. A first phase asks one question of
each kind, so that most series exist; the second does the rest. It is quiet for a while before, between and after, so that every
counter is seen at rest.
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

QUIET = 11.0  # seconds: two exports and a little
CHAT, MINI, EMBED, CLAUDE, OWN = (
    "gpt-4o",
    "gpt-4o-mini",
    "text-embedding-3-small",
    "claude-sonnet-5-5",
    "house-model-1",
)


@dataclass
class Answered:
    """Totals of one model, by the program's own count. Tokens are those that the SDK reported for answers of the provider."""

    provider: str
    misses: int = 0
    hits: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    saved_input_tokens: int = 0
    saved_output_tokens: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    durations: list[float] = field(default_factory=list)
    streams: int = 0
    """Streams, answered by provider or cache."""


class Books:
    """What the program did."""

    def __init__(self) -> None:
        self.models: dict[str, Answered] = {}

    def of(self, model: str, provider: str) -> Answered:
        """The totals of a model."""
        return self.models.setdefault(model, Answered(provider))

    def answer(
        self, model: str, provider: str, took: float, usage: tuple[int, int], *, repeat: bool, stream: bool
    ) -> None:
        """One answered call; `repeat` when the same question was answered before."""
        totals = self.of(model, provider)
        totals.streams += stream
        if repeat:
            totals.hits += 1
            totals.saved_input_tokens += usage[0]
            totals.saved_output_tokens += usage[1]
        else:
            totals.misses += 1
            totals.input_tokens += usage[0]
            totals.output_tokens += usage[1]
            totals.durations.append(took)

    def fail(self, model: str, provider: str, kind: str) -> None:
        """One call that failed with this kind of error, as the provider names it, or was refused."""
        totals = self.of(model, provider)
        totals.errors[kind] = totals.errors.get(kind, 0) + 1
        if kind == "circuit_open":
            totals.refused += 1


class Program:
    """The clients and the script."""

    def __init__(self) -> None:
        self.books = Books()
        self.openai = openai.OpenAI(max_retries=0)
        self.anthropic = anthropic.Anthropic(max_retries=0)
        self.asked: set[tuple[str, str, bool]] = set()
        self.admin = httpx.Client(base_url=os.environ["OPENAI_BASE_URL"].removesuffix("/v1"))

    def chat(self, model: str, prompt: str, *, stream: bool = False) -> None:
        """One chat call, JSON or streamed."""
        repeat = (model, prompt, stream) in self.asked
        messages: Any = [{"role": "user", "content": prompt}]
        began = time.perf_counter()
        try:
            if stream:
                options: Any = {"include_usage": True}
                chunks = list(
                    self.openai.chat.completions.create(
                        model=model, messages=messages, stream=True, stream_options=options
                    )
                )
                usage = chunks[-1].usage
            else:
                usage = self.openai.chat.completions.create(model=model, messages=messages).usage
        except openai.APIStatusError as error:
            self.books.fail(model, "openai", _kind(error))
            return
        took = time.perf_counter() - began
        self.asked.add((model, prompt, stream))
        assert usage is not None
        tokens = usage.prompt_tokens, usage.completion_tokens
        self.books.answer(model, "openai", took, tokens, repeat=repeat, stream=stream)

    def embed(self, text: str) -> None:
        """One embedding."""
        repeat = (EMBED, text, False) in self.asked
        began = time.perf_counter()
        usage = self.openai.embeddings.create(model=EMBED, input=text).usage
        took = time.perf_counter() - began
        self.asked.add((EMBED, text, False))
        self.books.answer(EMBED, "openai", took, (usage.prompt_tokens, 0), repeat=repeat, stream=False)

    def message(self, prompt: str, *, stream: bool = False) -> None:
        """One message to Anthropic's API."""
        repeat = (CLAUDE, prompt, stream) in self.asked
        asked: Any = {"model": CLAUDE, "max_tokens": 64, "messages": [{"role": "user", "content": prompt}]}
        began = time.perf_counter()
        if stream:
            with self.anthropic.messages.stream(**asked) as events:
                usage = events.get_final_message().usage
        else:
            usage = self.anthropic.messages.create(**asked).usage
        took = time.perf_counter() - began
        self.asked.add((CLAUDE, prompt, stream))
        tokens = usage.input_tokens, usage.output_tokens
        self.books.answer(CLAUDE, "anthropic", took, tokens, repeat=repeat, stream=stream)

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
        self.outage()

    def outage(self) -> None:
        """One model fails five times, is refused four times, and comes back."""
        for n in range(4):
            self.chat(MINI, f"before {n}")
        self.fault("503", model=MINI)
        for n in range(9):
            self.chat(MINI, f"during {n}")
        self.admin.delete("/_sim/faults").raise_for_status()
        time.sleep(float(os.environ["E2E_RECOVERY"]) + 0.5)
        for n in range(3):
            self.chat(MINI, f"after {n}")


def _kind(error: openai.APIStatusError) -> str:
    # The circuit's refusal is a reply in the provider's own shape; its kind says what it is.
    return str(error.code or error.type or error.status_code)


def main() -> None:
    """Be quiet, run, be quiet, write the books."""
    program = Program()
    phases = {}
    for name, work in (("birth", program.births), ("main", program.run)):
        program.books = Books()
        time.sleep(QUIET)
        began = time.time()
        work()
        models = {model: asdict(totals) for model, totals in program.books.models.items()}
        phases[name] = {"began": began, "ended": time.time(), "models": models}
    time.sleep(QUIET)
    Path(sys.argv[1]).write_text(json.dumps({"ended": time.time(), "phases": phases}, indent=1))


if __name__ == "__main__":
    main()
