"""The simulator's options, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from underlay.simulator.checks import require
from underlay.simulator.faults import Fault

__all__ = ["DEFAULT_MODELS", "Latency", "SimulatorOptions"]

DEFAULT_MODELS: Final = (
    "gpt-4o",
    "gpt-4o-mini",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "gpt-3.5-turbo-instruct",
    "claude-sonnet-5-5",
    "claude-haiku-5-5",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long a model takes; the default answers at once. Raises `SettingsError` on a wrong value.

    `first_token` is in seconds. `tokens_per_second` is the pace after it; 0 sends the rest at once. `jitter`,
    from 0 to 1, multiplies both times of a call by a factor drawn evenly from [1 - jitter, 1 + jitter].
    """

    first_token: float = 0.0
    tokens_per_second: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        require(
            "Latency",
            (
                (_number(self.first_token), "first_token", self.first_token, "seconds, 0 or more"),
                (_number(self.tokens_per_second), "tokens_per_second", self.tokens_per_second, "0 or more"),
                (_number(self.jitter) and self.jitter <= 1, "jitter", self.jitter, "0 to 1"),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """What the simulated providers do. Raises `SettingsError`, naming every wrong field, when made with one.

    - `seed`: with the request's body it decides the text, its length and its latency; embeddings do not
      depend on it.
    - `latency`, `latency_by_model`: the pace of all models, and of those named.
    - `output_tokens`: least and most tokens of an answer, drawn from the seed and the body.
    - `length`: "natural" draws the length and cuts it at the request's maximum; "max" fills that maximum
      exactly.
    - `cached_fraction`: share of the prompt reported as read from the provider's cache (0 to 1).
    - `tokens_per_event`: output tokens in one event of a stream.
    - `dimensions`: of embeddings by a model whose own number is not known.
    - `max_inputs`, `max_request_tokens`: most inputs and most input tokens of one request for embeddings or
      completions; one with more is a 400, worded as OpenAI words it.
    - `models`, `known_models_only`: what GET /v1/models lists, and whether any other model is a 404.
    - `keep_requests`: how many of the latest requests `Simulator.requests` remembers.
    - `faults`: in force from the start and after every reset.
    """

    seed: int = 0
    latency: Latency = field(default_factory=Latency)
    latency_by_model: Mapping[str, Latency] = field(default_factory=dict[str, Latency])
    output_tokens: tuple[int, int] = (16, 64)
    length: str = "natural"
    cached_fraction: float = 0.0
    tokens_per_event: int = 1
    dimensions: int = 1536
    max_inputs: int = 2048
    max_request_tokens: int = 300_000
    models: tuple[str, ...] = DEFAULT_MODELS
    known_models_only: bool = False
    keep_requests: int = 1000
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        span, paces = self.output_tokens, self.latency_by_model
        span_holds = len(span) == 2 and all(_whole(n, 1) for n in span) and span[0] <= span[1]
        paces_hold = isinstance(paces, Mapping) and all(isinstance(pace, Latency) for pace in paces.values())
        names_hold = all(isinstance(name, str) and name for name in self.models)
        tokens_hold = _whole(self.max_request_tokens, 1)
        fraction_holds = _number(self.cached_fraction) and self.cached_fraction <= 1
        require(
            "SimulatorOptions",
            (
                (isinstance(self.seed, int), "seed", self.seed, "a whole number"),
                (isinstance(self.latency, Latency), "latency", self.latency, "a Latency"),
                (paces_hold, "latency_by_model", paces, "model names with a Latency each"),
                (span_holds, "output_tokens", span, "(least, most), whole numbers from 1, least <= most"),
                (self.length in ("natural", "max"), "length", self.length, "natural | max"),
                (fraction_holds, "cached_fraction", self.cached_fraction, "0 to 1"),
                (_whole(self.tokens_per_event, 1), "tokens_per_event", self.tokens_per_event, "1 or more"),
                (_whole(self.dimensions, 1), "dimensions", self.dimensions, "1 or more"),
                (_whole(self.max_inputs, 1), "max_inputs", self.max_inputs, "1 or more"),
                (tokens_hold, "max_request_tokens", self.max_request_tokens, "1 or more"),
                (names_hold, "models", self.models, "a tuple of model names"),
                (_whole(self.keep_requests, 0), "keep_requests", self.keep_requests, "0 or more"),
                (all(isinstance(f, Fault) for f in self.faults), "faults", self.faults, "a tuple of Fault"),
            ),
        )

    def pace(self, model: str) -> Latency:
        """The latency of one model."""
        return self.latency_by_model.get(model, self.latency)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    )
