"""When each part of a reply is due: a pure schedule drawn from the seed and the request.

The same request takes the same time on every run and in whatever order calls arrive, so that a run with
underlay and one without it compare call by call. A stream's token i (from 0) is due at `first + i * step`
seconds after the request, its last events at `first + n * step`; a JSON reply of n tokens is due at `first +
n * step`, where `first` is `first_token`, `step` is `1 / tokens_per_second`, and both carry the call's jitter
factors.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from underlay.simulator.options import Latency

__all__ = ["Schedule", "schedule"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds until the first token, and seconds a token after it."""

    first: float = 0.0
    step: float = 0.0

    def due(self, tokens: int) -> float:
        """Seconds after the request at which the event that follows `tokens` output tokens is due."""
        return self.first + tokens * self.step


def schedule(pace: Latency, key: str, slow: float = 0.0) -> Schedule:
    """The schedule of one request: `key` is its seeded digest, `slow` are extra seconds at the start."""
    rng = random.Random(f"latency/{key}")
    low, high = 1 - pace.jitter, 1 + pace.jitter
    first = pace.first_token * rng.uniform(low, high)
    step = rng.uniform(low, high) / pace.tokens_per_second if pace.tokens_per_second else 0.0
    return Schedule(first + slow, step)
