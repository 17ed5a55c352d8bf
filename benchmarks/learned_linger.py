"""`python -m benchmarks.learned_linger`: does `linger: learned` beat every fixed setting?

A discrete-event simulation over `underlay.core.batching`, seeded, without real time. The provider takes a
base time and some more for each input, times a lognormal error, and answers so many requests at once; others
stand in the order of their arrival. `learned` and each fixed setting meet the same arrivals.

A setting beats another on a load if its mean latency is lower, or if it makes fewer requests at a mean
latency within 2 %. Both may beat each other: one by latency, the other by requests.

With `--traces FOLDER`, arrival times also come from `azure_llm_2023_conv.csv.gz` (Azure LLM inference trace
2023, conversation; P. Patel et al., "Splitwise", ISCA 2024; CC-BY 4.0) and `mooncake_conversation.jsonl.gz`
(R. Qin et al., "Mooncake", FAST 2025; Apache-2.0). They are arrivals of chat calls: played at several speeds
they stand for embeddings, which come more often. Mooncake's times are multiples of three seconds; its calls
are spread evenly, by the seed, over the three seconds they came in.
"""

from __future__ import annotations

import argparse
import gzip
import heapq
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import exp, log
from pathlib import Path

from underlay.core.batching import Enter, Lane, Member, Rule, Window

__all__ = [
    "ADAPTIVE",
    "FIXED",
    "LEARNED",
    "Outcome",
    "Provider",
    "beats",
    "main",
    "name",
    "simulate",
    "synthetic",
    "traced",
]

_MANY, _INPUTS = 10**9, 256
LEARNED = Rule("learned", 0.1, _MANY, _INPUTS, _MANY)
ADAPTIVE = Rule("adaptive", 0.05, _MANY, _INPUTS, _MANY)
FIXED = [
    Rule("fixed", milliseconds / 1e3, members, _INPUTS, _MANY)
    for milliseconds in (0, 5, 10, 20, 50, 100)
    for members in (10, 50, 256)
    if milliseconds or members == 256
]
_SAME = 0.02  # mean latencies within this share are equal


@dataclass(frozen=True)
class Provider:
    """Seconds for a request, for each input of it, how many requests are answered at once, and the sigma of
    the lognormal error."""

    base: float = 0.3
    each: float = 0.001
    slots: int = 8
    jitter: float = 0.1


@dataclass(frozen=True)
class Outcome:
    """Mean and 99th percentile of the calls' latency in seconds, and upstream requests per call."""

    mean: float
    p99: float
    requests: float


class _Queue:
    """The provider's slots and its line, from arrival to answer."""

    def __init__(self, provider: Provider, seed: int) -> None:
        self._provider = provider
        self._random = random.Random(seed)
        self._free = [0.0] * provider.slots

    def answered(self, now: float, inputs: int) -> float:
        """When a request that arrives now is answered."""
        provider = self._provider
        error = self._random.lognormvariate(-(provider.jitter**2) / 2, provider.jitter)
        begins = max(now, heapq.heappop(self._free))
        ends = begins + (provider.base + provider.each * inputs) * error
        heapq.heappush(self._free, ends)
        return ends


class _Run:
    """One lane, one provider, and what happens next."""

    def __init__(self, rule: Rule, provider: Provider, seed: int) -> None:
        self._lane = Lane(rule)
        self._queue = _Queue(provider, seed)
        self._next: list[tuple[float, int, Window | None, list[Member], float]] = []
        self._order = 0
        self.latencies: list[float] = []
        self.requests = 0

    def _at(self, when: float, window: Window | None, members: list[Member], since: float) -> None:
        self._order += 1
        heapq.heappush(self._next, (when, self._order, window, members, since))

    def _send(self, members: list[Member], now: float) -> None:
        self.requests += 1
        self._at(self._queue.answered(now, sum(member.inputs for member in members)), None, members, now)

    def arrive(self, now: float) -> None:
        """A call with one input comes."""
        self.until(now)
        member = Member(1, 1)
        answer = self._lane.arrive(member, now)
        if not isinstance(answer, Enter):
            self._send([member], now)
            return
        if answer.closed is not None:
            self._send(answer.closed.members, now)
        if answer.window.trigger is not None:
            self._send(answer.window.members, now)
        else:
            self._at(max(now, answer.window.due), answer.window, [], now)

    def until(self, now: float) -> None:
        """Let everything happen that comes before `now`; what is due exactly now comes after an arrival."""
        while self._next and self._next[0][0] < now:
            when, _, window, members, since = heapq.heappop(self._next)
            if window is None:
                self.latencies += [when - member.entered for member in members]
                window = self._lane.ended(when, when - since)
                if window is not None:
                    self._send(window.members, when)
            elif self._lane.close_due(window, when):
                self._send(window.members, when)
            elif window.trigger is None and window.due > when:
                self._at(window.due, window, [], when)


def simulate(arrivals: Iterable[float], rule: Rule, provider: Provider, seed: int = 1) -> Outcome:
    """Play these arrivals (seconds, rising) through one lane."""
    run = _Run(rule, provider, seed)
    for moment in arrivals:
        run.arrive(moment)
    run.until(float("inf"))
    latencies = sorted(run.latencies)
    count = len(latencies)
    return Outcome(sum(latencies) / count, latencies[int(count * 0.99)], run.requests / count)


def poisson(rate: float, calls: int, seed: int) -> list[float]:
    """Calls that come independently, `rate` a second."""
    draw, now = random.Random(seed), 0.0
    found: list[float] = []
    for _ in range(calls):
        now += draw.expovariate(rate)
        found.append(now)
    return found


def modulated(quiet: tuple[float, float], busy: tuple[float, float], calls: int, seed: int) -> list[float]:
    """A Poisson process that changes between two rates; each is (calls a second, mean seconds it lasts)."""
    draw, now, states = random.Random(seed), 0.0, (quiet, busy)
    found: list[float] = []
    state, ends = 0, draw.expovariate(1 / quiet[1])
    while len(found) < calls:
        gap = draw.expovariate(states[state][0])
        if now + gap > ends:
            now, state = ends, 1 - state
            ends = now + draw.expovariate(1 / states[state][1])
        else:
            now += gap
            found.append(now)
    return found


def bunches(
    rate: float, fewest: int, most: int, gap: float, calls: int, seed: int, quiet: float = 0.0
) -> list[float]:
    """Bunches of `fewest` to `most` calls, `rate` bunches a second and never within `quiet` seconds of each
    other's start, whose calls follow each other after `gap` seconds on average."""
    draw, now = random.Random(seed), 0.0
    found: list[float] = []
    while len(found) < calls:
        now += quiet + draw.expovariate(rate)
        moment = now
        for _ in range(draw.randint(fewest, most)):
            found.append(moment)
            moment += draw.expovariate(1 / gap)
    return sorted(found[:calls])


def synthetic(scale: float = 1.0, seed: int = 0) -> dict[str, list[float]]:
    """The made loads; `scale` times as many calls."""
    some = int(6000 * scale)
    return {
        "low, 2/s": poisson(2, some // 2, seed + 1),
        "medium, 20/s": poisson(20, some, seed + 2),
        "high, 100/s": poisson(100, 2 * some, seed + 3),
        "peak, 400/s": poisson(400, 4 * some, seed + 4),
        "bursty, 2/s and 1000/s for 0.1 s": modulated((2, 2), (1000, 0.1), 2 * some, seed + 5),
        "swells, 2/s and 200/s for 1 s": modulated((2, 4), (200, 1), 2 * some, seed + 6),
        "bunches of 1-5 within ms, 4/s": bunches(4, 1, 5, 0.001, some, seed + 7),
        "crowds of 10-60 at once": bunches(0.5, 10, 60, 0.00005, some, seed + 8, quiet=0.4),
    }


def traced(folder: Path, calls: int = 8000, seed: int = 0) -> dict[str, list[float]]:
    """The loads whose arrivals were recorded, at several speeds."""
    with gzip.open(folder / "azure_llm_2023_conv.csv.gz", "rt") as lines:
        next(lines)
        azure = [datetime.fromisoformat(line.split(",")[0][:26]).timestamp() for line in lines]
    with gzip.open(folder / "mooncake_conversation.jsonl.gz", "rt") as lines:
        draw = random.Random(seed)
        mooncake = sorted(json.loads(line)["timestamp"] / 1000 + draw.uniform(0, 3) for line in lines)
    return {
        f"{title}, {speed}x": [(moment - times[0]) / speed for moment in times[:calls]]
        for title, times in (("Azure", azure), ("Mooncake", mooncake))
        for speed in (1, 10, 40)
    }


def name(rule: Rule) -> str:
    """A rule as it is called in the table."""
    size = "" if rule.members == _MANY else f" x {rule.members}"
    return f"{rule.linger} {rule.timeout * 1e3:g} ms{size}"


def beats(one: Outcome, other: Outcome) -> bool:
    """Whether `one` has the lower mean latency, or makes fewer requests at the same."""
    if one.mean < other.mean:
        return True
    return one.mean <= other.mean * (1 + _SAME) and one.requests < other.requests


Table = dict[str, dict[str, Outcome]]
"""load -> rule -> what came of it."""


def measure(loads: dict[str, list[float]], rules: Sequence[Rule], provider: Provider) -> Table:
    """Every rule on every load."""
    return {
        load: {name(rule): simulate(arrivals, rule, provider) for rule in rules}
        for load, arrivals in loads.items()
    }


def overall(table: Table, rule: str, pick: Callable[[Outcome], float]) -> float:
    """Geometric mean over the loads of a figure of this rule, as a multiple of learned's."""
    ratios = [log(pick(row[rule]) / pick(row[name(LEARNED)])) for row in table.values()]
    return exp(sum(ratios) / len(ratios))


def _load(title: str, row: dict[str, Outcome], fixed: Sequence[str]) -> None:
    print(f"\n{title}\n{'':22}{'mean ms':>10}{'p99 ms':>10}{'requests/call':>15}")
    best = sorted(fixed, key=lambda rule: row[rule].mean)
    for rule in [*(rule for rule in row if rule not in fixed), *best]:
        found = row[rule]
        print(f"{rule:22}{found.mean * 1e3:10.1f}{found.p99 * 1e3:10.1f}{found.requests:15.4f}")
    learned = row[name(LEARNED)]
    unbeaten = [rule for rule in fixed if not beats(learned, row[rule])]
    rivals = [rule for rule in fixed if beats(row[rule], learned)]
    print(f"learned beats {len(fixed) - len(unbeaten)} of {len(fixed)}; not:", ", ".join(unbeaten) or "none")
    print(f"by the same words {len(rivals)} beat learned:", ", ".join(rivals) or "none")


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, print, return 0 when no fixed setting beats learned over the whole set of loads."""
    parser = argparse.ArgumentParser("python -m benchmarks.learned_linger", description=__doc__)
    parser.add_argument("--traces", type=Path, help="folder of the recorded arrivals")
    parser.add_argument("--slots", type=int, default=Provider.slots, help="requests answered at once")
    parser.add_argument("--base-ms", type=float, default=Provider.base * 1e3, help="of a request")
    parser.add_argument("--input-ms", type=float, default=Provider.each * 1e3, help="of each input")
    parser.add_argument("--jitter", type=float, default=Provider.jitter, help="sigma of the latency's error")
    options = parser.parse_args(arguments)
    provider = Provider(options.base_ms / 1e3, options.input_ms / 1e3, options.slots, options.jitter)
    loads = {**synthetic(), **(traced(options.traces) if options.traces else {})}
    fixed = [name(rule) for rule in FIXED]
    table = measure(loads, [LEARNED, ADAPTIVE, *FIXED], provider)
    print(provider)
    for title, row in table.items():
        _load(title, row, fixed)
    print("\nover all loads, geometric means as multiples of learned's")
    better = 0
    for rule in sorted([name(ADAPTIVE), *fixed], key=lambda rule: overall(table, rule, lambda one: one.mean)):
        mean = overall(table, rule, lambda one: one.mean)
        requests = overall(table, rule, lambda one: one.requests)
        won = mean < 1 or (mean <= 1 + _SAME and requests < 1)
        better += won
        print(f"{rule:22}mean {mean:8.3f}   requests {requests:7.3f}{'   beats learned' if won else ''}")
    return min(better, 1)


if __name__ == "__main__":
    raise SystemExit(main())
