"""An ordinary program that talks to two LLM providers: official SDKs, sync and async, JSON and streams.

It knows nothing of underlay. It replays calls from a trace file (arrival times and sizes of a real service):
each call asks OpenAI or Anthropic, some stream, some embed, many repeat an earlier question, as users do.
Twice many calls come at once: a crowd that asks one and the same question, and a document whose chunks are
embedded one call each.

    python examples/chat_app.py TRACE.csv [--speed 3] [--calls 160] [--crowd 24] [--chunks 60]

Addresses and keys come from the SDKs' own variables: OPENAI_BASE_URL, OPENAI_API_KEY, ANTHROPIC_BASE_URL,
ANTHROPIC_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import anthropic
import openai

WORDS = (
    "time",
    "year",
    "people",
    "way",
    "day",
    "thing",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
)
DISTINCT = 0.6  # share of calls that ask something new
CROWD_AT, DOCUMENT_AT = 1.5, 0.5  # seconds after the first call


@dataclass(frozen=True)
class Call:
    """One call to make: when (seconds), to whom, how, what, and how long an answer."""

    at: float
    kind: str
    prompt: str
    most: int
    stream: bool
    use_async: bool


def text(seed: int, tokens: int) -> str:
    """A prompt of about this many tokens, the same for the same seed."""
    rng = random.Random(seed)
    return f"Question {seed}: " + " ".join(rng.choice(WORDS) for _ in range(max(1, tokens * 2 // 3)))


def plan(trace: Path, calls: int, speed: float) -> list[Call]:
    """Turn the trace's arrival times and sizes into calls. Seeded: the same trace gives the same calls."""
    rng = random.Random(7)
    with trace.open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))[:calls]
    planned: list[Call] = []
    for number, row in enumerate(rows):
        at = float(row["seconds"]) / speed
        if planned and rng.random() > DISTINCT:
            asked = rng.choice(planned[-40:])
            planned.append(Call(at, asked.kind, asked.prompt, asked.most, asked.stream, rng.random() < 0.5))
            continue
        kind = rng.choices(("gpt-4o", "gpt-4o-mini", "claude", "embed"), (5, 2, 2, 1))[0]
        prompt = text(number, int(row["context_tokens"]))
        planned.append(
            Call(at, kind, prompt, int(row["generated_tokens"]), rng.random() < 0.4, rng.random() < 0.5)
        )
    return planned


def crowd(users: int) -> list[Call]:
    """So many users who open the same page at once, and with it ask the same question."""
    question = text(100_000, 200)
    return [Call(CROWD_AT, "gpt-4o-mini", question, 120, False, user % 2 == 0) for user in range(users)]


def document(chunks: int) -> list[Call]:
    """A document of so many chunks that is indexed: an embedding of each, all at once."""
    return [Call(DOCUMENT_AT, "embed", text(200_000 + chunk, 300), 0, False, True) for chunk in range(chunks)]


class App:
    """The clients, and what became of the calls."""

    def __init__(self) -> None:
        self.openai, self.anthropic = openai.OpenAI(), anthropic.Anthropic()
        self.aopenai, self.aanthropic = openai.AsyncOpenAI(), anthropic.AsyncAnthropic()
        self.outcomes: Counter[str] = Counter()

    def ask(self, call: Call) -> None:
        """One call with the synchronous SDKs."""
        messages = [{"role": "user", "content": call.prompt}]
        if call.kind == "embed":
            self.openai.embeddings.create(model="text-embedding-3-small", input=call.prompt)
        elif call.kind == "claude":
            if call.stream:
                with self.anthropic.messages.stream(
                    model="claude-sonnet-5-5", max_tokens=call.most, messages=messages
                ) as stream:
                    stream.get_final_message()
            else:
                self.anthropic.messages.create(
                    model="claude-sonnet-5-5", max_tokens=call.most, messages=messages
                )
        elif call.stream:
            options = {"include_usage": True}
            for _ in self.openai.chat.completions.create(
                model=call.kind, messages=messages, max_tokens=call.most, stream=True, stream_options=options
            ):
                pass
        else:
            self.openai.chat.completions.create(model=call.kind, messages=messages, max_tokens=call.most)

    async def aask(self, call: Call) -> None:
        """The same call with the asynchronous SDKs."""
        messages = [{"role": "user", "content": call.prompt}]
        if call.kind == "embed":
            await self.aopenai.embeddings.create(model="text-embedding-3-small", input=call.prompt)
        elif call.kind == "claude":
            if call.stream:
                async with self.aanthropic.messages.stream(
                    model="claude-sonnet-5-5", max_tokens=call.most, messages=messages
                ) as stream:
                    await stream.get_final_message()
            else:
                await self.aanthropic.messages.create(
                    model="claude-sonnet-5-5", max_tokens=call.most, messages=messages
                )
        elif call.stream:
            options = {"include_usage": True}
            async for _ in await self.aopenai.chat.completions.create(
                model=call.kind, messages=messages, max_tokens=call.most, stream=True, stream_options=options
            ):
                pass
        else:
            await self.aopenai.chat.completions.create(
                model=call.kind, messages=messages, max_tokens=call.most
            )

    async def run(self, calls: list[Call]) -> None:
        """Make each call at its time, synchronous ones on threads."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        with ThreadPoolExecutor(max_workers=32) as threads:

            async def one(call: Call) -> None:
                await asyncio.sleep(max(0.0, start + call.at - loop.time()))
                try:
                    await (
                        self.aask(call) if call.use_async else loop.run_in_executor(threads, self.ask, call)
                    )
                except (openai.APIError, anthropic.APIError) as error:
                    self.outcomes[f"{type(error).__name__}"] += 1
                else:
                    self.outcomes["answered"] += 1

            await asyncio.gather(*(one(call) for call in calls))
        await asyncio.gather(self.aopenai.close(), self.aanthropic.close())


def main() -> None:
    """Replay the trace and say what became of it."""
    parser = argparse.ArgumentParser(description="Replay calls to two LLM providers.")
    parser.add_argument("trace", type=Path)
    parser.add_argument("--calls", type=int, default=160)
    parser.add_argument("--speed", type=float, default=3.0, help="how much faster than the trace")
    parser.add_argument("--crowd", type=int, default=24, help="users who ask the same thing at once")
    parser.add_argument("--chunks", type=int, default=60, help="chunks of the document that is embedded")
    options = parser.parse_args()
    app = App()
    calls = plan(options.trace, options.calls, options.speed)
    asyncio.run(app.run([*calls, *crowd(options.crowd), *document(options.chunks)]))
    print(", ".join(f"{count} {name}" for name, count in sorted(app.outcomes.items())))


if __name__ == "__main__":
    main()
