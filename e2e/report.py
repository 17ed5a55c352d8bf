"""The table: what was asked, what had to come, what came."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.answers import Check, Labels
from underlay.stack import stack_home
from underlay.stack.state import STATE_FILE

__all__ = ["Report"]


@dataclass(frozen=True)
class Line:
    """One answer of one query."""

    where: str
    labels: str
    expected: str
    seen: str
    holds: bool


class Report:
    """Collects lines and steps, and prints them."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.steps: list[tuple[str, float]] = []
        self.notes: list[str] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step."""
        began = time.monotonic()
        print(f"-- {name}", flush=True)
        yield
        self.steps.append((name, time.monotonic() - began))

    def compare(self, where: str, expected: Mapping[Labels, Check], seen: Mapping[Labels, float]) -> None:
        """Every expected label set must be there and hold; no other may be there."""
        for labels in sorted({*expected, *seen}, key=_shown):
            check, value = expected.get(labels), seen.get(labels)
            holds = check is not None and value is not None and check.holds(value)
            text = "nothing" if value is None else f"{value:.6g}"
            self.lines.append(
                Line(where, _shown(labels), "nothing" if check is None else str(check), text, holds)
            )

    def check(self, where: str, what: str, expected: object, seen: object) -> None:
        """One thing that must be equal."""
        self.lines.append(Line(where, what, str(expected), str(seen), expected == seen))

    def note(self, text: str) -> None:
        """Something to say that is no comparison."""
        self.notes.append(text)

    def memory(self, environ: Mapping[str, str]) -> None:
        """Resident memory of each server."""
        state = json.loads((stack_home(environ) / STATE_FILE).read_text())
        for name, told in sorted(state["servers"].items()):
            status = Path(f"/proc/{told['process']['pid']}/status")
            if status.exists():  # only Linux tells
                kilobytes = next(
                    line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmRSS")
                )
                self.note(f"{name}: {int(kilobytes) / 1024:.0f} MB resident")

    def close(self) -> int:
        """Print everything. The exit code: 0 when all holds."""
        wrong = [line for line in self.lines if not line.holds]
        print("\n| panel or query | labels | expected | seen | |\n|---|---|---|---|---|")
        for line in self.lines:
            print(
                f"| {line.where} | {line.labels} | {line.expected} | {line.seen} | {'ok' if line.holds else 'WRONG'} |"
            )
        print()
        for name, seconds in self.steps:
            print(f"{name}: {seconds:.1f} s")
        for note in self.notes:
            print(note)
        asked = Counter(line.where for line in self.lines)
        print(
            f"\n{len(asked)} queries, {len(self.lines)} values: {len(self.lines) - len(wrong)} hold, {len(wrong)} do not"
        )
        for line in wrong:
            print(f"  {line.where} {line.labels}: expected {line.expected}, seen {line.seen}")
        print(f"e2e: {len(self.lines) - len(wrong)} passed, {len(wrong)} failed")
        return 1 if wrong else 0


def _shown(labels: Labels) -> str:
    return ", ".join(f"{name.rpartition('gen_ai_')[2]}={value}" for name, value in sorted(labels))
