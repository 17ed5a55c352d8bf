"""What the script did, added up as the dashboards' questions need it."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from genai_prices import Usage, calc_price

from e2e.together import Windows
from underlay.metrics import percentile

__all__ = ["Facts", "Window", "bucket_of"]


@dataclass(frozen=True)
class Facts:
    """The script's FACTS.json."""

    raw: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Facts:
        """Read the file that the script wrote."""
        return cls(json.loads(path.read_text()))

    def window(self, *phases: str) -> Window:
        """The totals of these phases together."""
        chosen = [self.raw["phases"][phase] for phase in phases]
        return Window([phase["models"] for phase in chosen], [phase["windows"] for phase in chosen])


class Window:
    """Totals over a span of the script."""

    def __init__(self, phases: list[dict[str, Any]], windows: list[Windows]) -> None:
        self.models: dict[str, list[dict[str, Any]]] = {}
        self._windows = windows
        for phase in phases:
            for model, totals in phase.items():
                self.models.setdefault(model, []).append(totals)

    def sum(self, model: str, what: str) -> float:
        """A number of one model added up; a list by its items."""
        values = [totals[what] for totals in self.models[model]]
        return sum(sum(value) if isinstance(value, list) else value for value in values)

    def all(self, what: str) -> float:
        """The same over all models."""
        return sum(self.sum(model, what) for model in self.models)

    def list(self, what: str, model: str | None = None) -> list[float]:
        """The items of a list, of one model or all, sorted."""
        names = [model] if model is not None else list(self.models)
        return sorted(item for name in names for totals in self.models[name] for item in totals[what])

    def provider(self, model: str) -> str:
        """The provider of a model."""
        return str(self.models[model][0]["provider"])

    @cached_property
    def errors(self) -> Counter[str]:
        """Failed and refused calls by kind."""
        found: Counter[str] = Counter()
        for model in self.models:
            found.update(self.errors_of(model))
        return found

    def errors_of(self, model: str) -> Counter[str]:
        """The same of one model."""
        found: Counter[str] = Counter()
        for totals in self.models[model]:
            found.update(totals["errors"])
        return found

    def calls_of(self, model: str) -> float:
        """Calls of one model, however they ended."""
        answered = sum(self.sum(model, how) for how in ("misses", "hits", "coalesced"))
        return answered + sum(self.errors_of(model).values())

    @property
    def calls(self) -> float:
        """All calls."""
        return sum(self.calls_of(model) for model in self.models)

    @property
    def refused(self) -> float:
        """Calls that the circuit refused."""
        return self.all("refused")

    @property
    def upstream(self) -> float:
        """Requests that left: answered ones, and failures that were not refusals."""
        return self.answered + sum(self.errors.values()) - self.refused

    @property
    def answered(self) -> float:
        """Requests that a provider answered: one for each miss, but one for all merged calls of a window."""
        return self.all("misses") - self.merged_away

    @property
    def merged_away(self) -> float:
        """Requests that merging made needless."""
        return sum(
            calls - requests for (mode, _), (requests, calls) in self.windows().items() if mode == "merged"
        )

    def windows(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Dispatches of windows, and calls in them, by mode and by what closed the window."""
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for phase in self._windows:
            for kinds in phase.values():
                for kind, (dispatches, calls) in kinds.items():
                    mode, _, trigger = kind.partition("/")
                    before = found.get((mode, trigger), (0, 0))
                    found[mode, trigger] = (before[0] + dispatches, before[1] + calls)
        return found

    def dispatches(self, place: int) -> dict[str, tuple[int, int]]:
        """The same by mode (`place` 0) or by trigger (1)."""
        found: dict[str, tuple[int, int]] = {}
        for kind, (dispatches, calls) in self.windows().items():
            before = found.get(kind[place], (0, 0))
            found[kind[place]] = (before[0] + dispatches, before[1] + calls)
        return found

    def cost(self, model: str, tokens: tuple[float, float] | None = None) -> float | None:
        """US dollars by genai-prices itself; None when it has no price. Of the answers paid, or of other
        tokens."""
        entered, left = tokens or (self.sum(model, "input_tokens"), self.sum(model, "output_tokens"))
        try:
            usage = Usage(input_tokens=int(entered), output_tokens=int(left))
            return float(calc_price(usage, model, provider_id=self.provider(model)).total_price)
        except LookupError:
            return None

    @property
    def spent(self) -> float:
        """All costs."""
        return sum(self.cost(model) or 0.0 for model in self.models)

    @property
    def saved(self) -> float:
        """What repeats and coalesced calls would have cost."""
        return sum(
            self.cost(model, (self.sum(model, "saved_input_tokens"), self.sum(model, "saved_output_tokens")))
            or 0.0
            for model in self.models
        )

    def quantile(self, share: float, *lists: str, model: str | None = None) -> float:
        """The exact percentile over these lists together, in their own unit."""
        found = percentile(sorted(item for name in lists for item in self.list(name, model)), share)
        assert found is not None
        return found


def bucket_of(value: float, bounds: tuple[float, ...]) -> tuple[float, float]:
    """The bucket (lower, upper] that a value falls into."""
    index = bisect_left(bounds, value)
    upper = bounds[index] if index < len(bounds) else float("inf")
    return (bounds[index - 1] if index else 0.0), upper
