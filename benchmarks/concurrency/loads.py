"""Wall time and upstream requests of 1 to 1,000 concurrent callers, beside the bare SDK: all that are
compared take turns, in an order drawn anew for each round."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2

from benchmarks.concurrency.callers import MODES, Callers, Turn, fresh, sdk
from benchmarks.concurrency.provider import EMBEDDING, Provider, provider
from benchmarks.stats import Spread, quotients, spread
from underlay import Runtime

__all__ = ["CASES", "QUICK_CASES", "SETTINGS", "Case", "Ratio", "loads", "percentile"]

EMBEDDING_SECONDS, CHAT_SECONDS = 0.3, 0.2
_TOKENS_PER_SECOND = 80.0  # of streams: 16 to 64 tokens
_OPENING = 100  # callers of the round that is not counted
_ALONE = 3  # calls of a round that are made one by one; the time of more is their multiple

# Without it a loopback address is a server that nobody knows: 32 inputs a request instead of OpenAI's 2,048.
SETTINGS: dict[str, object] = {"hosts": {"127.0.0.1": "openai"}}


@dataclass(frozen=True, slots=True)
class Case:
    """So many callers of a kind of call, in a mode."""

    kind: str
    mode: str
    callers: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """One comparison. `ours` and `base` are milliseconds, `ratio` the paired quotient of each round.
    `upstream` are the most requests that reached the provider in a round, of underlay and of the baseline.
    `target` is the bound of the ratio's median, `requests` that of the upstream requests; None where there is
    none."""

    kind: str
    mode: str
    callers: int
    measure: str
    against: str
    ours: Spread
    base: Spread
    ratio: Spread
    upstream: tuple[int, int]
    target: float | None = None
    requests: int | None = None

    @property
    def holds(self) -> bool | None:
        """Whether what has a target reaches it."""
        if self.target is None and self.requests is None:
            return None
        within = self.target is None or self.ratio.median <= self.target
        return within and (self.requests is None or self.upstream[0] <= self.requests)


def _cases(rounds: dict[str, dict[str, dict[int, int]]]) -> list[Case]:
    return [
        Case(kind, mode, callers, count)
        for mode, kinds in rounds.items()
        for kind, loads in kinds.items()
        for callers, count in loads.items()
    ]


_SAME = {
    1: 2,
    10: 2,
    100: 3,
    1000: 1,
}  # what counts here is the number of requests, which is the same each time
CASES = _cases(
    {
        "asyncio": {
            "embedding": {1: 3, 10: 5, 100: 5, 500: 5, 1000: 2},
            "chat": {1: 7, 10: 9, 100: 41, 1000: 4},  # a hundred take half a second, and differ by a tenth
            "same-chat": _SAME,
            "same-stream": {**_SAME, 100: 9},  # the last of a hundred differs from round to round
        },
        "threads": {
            "embedding": {1: 3, 10: 3, 100: 3, 500: 3, 1000: 1},
            "chat": {1: 5, 10: 5, 100: 41, 1000: 6},
            "same-chat": _SAME,
            "same-stream": {**_SAME, 100: 9},  # the last of a hundred differs from round to round
        },
    }
)
_FEW = {1: 1, 10: 1, 100: 1}
QUICK_CASES = _cases(
    {mode: dict.fromkeys(("embedding", "chat", "same-chat", "same-stream"), _FEW) for mode in MODES}
)


def loads(cases: Iterable[Case], *, seed: int, step: Callable[[], None]) -> list[Ratio]:
    """Run the cases; `step` is called after each round."""
    draw = random.Random(seed)
    made: list[Ratio] = []
    with ExitStack() as stack:
        # Two providers, because streams have a pace and JSON answers come at once after their wait.
        paced = {"first_token": CHAT_SECONDS, "tokens_per_second": _TOKENS_PER_SECOND}
        json_of = stack.enter_context(
            provider(chat={"first_token": CHAT_SECONDS}, embedding={"first_token": EMBEDDING_SECONDS})
        )
        streams_of = stack.enter_context(provider(chat=paced))
        for case in cases:
            made += _run(case, streams_of if case.kind == "same-stream" else json_of, draw, step)
    return made


def _run(case: Case, given: Provider, draw: random.Random, step: Callable[[], None]) -> list[Ratio]:
    runtime = Runtime(SETTINGS)
    callers = Callers(case.mode)
    make = partial(sdk, case.mode, given.url)
    clients = {"bare": make(), "underlay": make(runtime=runtime)}
    if case.kind == "embedding":
        clients["instant"] = make(inner=_instant(given, case.mode))
    turns: dict[str, list[Turn]] = defaultdict(list)
    upstream: dict[str, int] = defaultdict(int)
    names = [*clients, *(("by hand", "one by one") if case.kind == "embedding" else ())]
    try:
        for place in range(case.rounds + 1):
            texts = _texts(case)[: None if place else _OPENING]
            for name in draw.sample(names, len(names)):
                before = given.requests()
                turn = _turn(case, callers, clients, name, texts)
                if place:  # the first round, a smaller one, opens connections
                    turns[name].append(turn)
                    upstream[name] = max(upstream[name], given.requests() - before)
            step()
    finally:
        callers.close(*clients.values())
    return _ratios(case, turns, upstream)


def _texts(case: Case) -> list[str]:
    return (
        [fresh()] * case.callers if case.kind.startswith("same") else [fresh() for _ in range(case.callers)]
    )


def _turn(case: Case, callers: Callers, clients: dict[str, Any], name: str, texts: list[str]) -> Turn:
    job = callers.job(case.kind.removeprefix("same-"))
    if name == "by hand":
        return callers.at_once(job, clients["bare"], [texts])
    if name == "one by one":
        return callers.one_by_one(job, clients["bare"], [fresh() for _ in range(min(_ALONE, case.callers))])
    return callers.at_once(job, clients[name], texts)


def _instant(given: Provider, mode: str) -> Any:
    """A transport that has an embedding of the provider's size at hand: what is left is the SDK itself."""
    body = {"model": EMBEDDING, "input": "x", "encoding_format": "base64"}
    reply = httpx2.post(f"{given.url}/v1/embeddings", json=body, trust_env=False).raise_for_status()
    if json.loads(reply.content)["object"] != "list":
        raise RuntimeError("the provider gave no embedding")

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=reply.content)

    async def aanswer(request: httpx2.Request) -> httpx2.Response:
        return answer(request)

    return httpx2.MockTransport(aanswer if mode == "asyncio" else answer)


def _ratios(case: Case, turns: dict[str, list[Turn]], upstream: dict[str, int]) -> list[Ratio]:
    walls = {name: [turn.wall for turn in taken] for name, taken in turns.items()}
    if case.kind == "embedding":
        hand = [one + other for one, other in zip(walls["by hand"], walls["instant"], strict=True)]
        alone = [turn.wall / len(turn.seen) * case.callers for turn in turns["one by one"]]
        large = case.callers >= 500
        target, few = (1.2, 10) if case.callers == 500 else (None, None)
        ours, merged = walls["underlay"], upstream["underlay"]
        return [
            _ratio(
                case,
                "wall",
                "merged by hand, and the bare SDK's calls to an instant reply",
                (ours, hand),
                (merged, 1),
                target,
                few,
            ),
            _ratio(
                case,
                "wall",
                "one by one",
                (ours, alone),
                (merged, case.callers),
                1 / 20 if large else None,
            ),
            _ratio(case, "wall", "plain fan-out", (ours, walls["bare"]), (merged, upstream["bare"])),
        ]
    sent = (upstream["underlay"], upstream["bare"])
    if case.kind == "same-stream":
        return [*_streams(case, turns, sent)]
    same = case.kind == "same-chat"
    measures = [("wall", walls["underlay"], walls["bare"])]
    for share in (50, 99):
        both = [[percentile(turn, share) for turn in turns[name]] for name in ("underlay", "bare")]
        measures.append((f"p{share}", both[0], both[1]))
    return [
        _ratio(
            case,
            measure,
            "plain fan-out",
            (ours, base),
            sent,
            None if same or measure == "wall" else 1.05,
            1 if same else None,
        )
        for measure, ours, base in measures
    ]


def _streams(case: Case, turns: dict[str, list[Turn]], sent: tuple[int, int]) -> Iterable[Ratio]:
    """The last follower's first token against the leader's, and against plain fan-out."""
    ours = turns["underlay"]
    last = [max(one.first for one in turn.seen) for turn in ours]
    lead = [min((one.first for one in turn.seen if one.led), default=0.0) for turn in ours]
    base = [max(one.first for one in turn.seen) for turn in turns["bare"]]
    if case.callers > 1:
        against = "the leader's first token"
        yield _ratio(case, "last first token", against, (last, lead), sent, 2.0, 1)
    yield _ratio(case, "last first token", "plain fan-out", (last, base), sent, None, 1)


def percentile(turn: Turn, share: float) -> float:
    """The percentile of the callers' waits, by linear interpolation."""
    times = sorted(one.done for one in turn.seen)
    at = (len(times) - 1) * share / 100
    low = int(at)
    high = min(low + 1, len(times) - 1)
    return times[low] + (times[high] - times[low]) * (at - low)


def _ratio(
    case: Case,
    measure: str,
    against: str,
    both: tuple[Sequence[float], Sequence[float]],
    upstream: tuple[int, int],
    target: float | None = None,
    requests: int | None = None,
) -> Ratio:
    ours, base = both
    return Ratio(
        case.kind,
        case.mode,
        case.callers,
        measure,
        against,
        spread([value * 1e3 for value in ours]),
        spread([value * 1e3 for value in base]),
        spread(quotients(ours, base) or [float("nan")]),
        upstream,
        target,
        requests,
    )
