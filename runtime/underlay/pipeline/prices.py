"""The dated price table of the wheel, read once, and what each (provider, model) resolved to."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from threading import Lock
from typing import TYPE_CHECKING

from underlay.core.price import Price, PriceBook, cost

if TYPE_CHECKING:
    from underlay.core.usage import Billing
    from underlay.telemetry.events import Usage

__all__ = ["Prices"]

_LIMIT = 4096  # resolved models remembered; names come from outside


@cache  # a table that nobody changes: 15 ms that every further runtime is spared
def _book_of_the_wheel() -> PriceBook:
    return PriceBook.from_json(json.loads(files("underlay").joinpath("data/prices.json").read_bytes()))


class Prices:
    """Costs of answers. `book` is read from the wheel when none is given."""

    def __init__(self, book: PriceBook | None = None) -> None:
        self.book = book if book is not None else _book_of_the_wheel()
        self._lock = Lock()
        self._resolved: dict[tuple[str, str], Price | None] = {}

    def resolve(self, provider: str, model: str) -> Price | None:
        """The price of a model, or None when the table has none."""
        name = (provider, model)
        try:
            return self._resolved[name]
        except KeyError:
            pass
        price = self.book.resolve(provider, model)
        with self._lock:
            if len(self._resolved) >= _LIMIT:
                self._resolved.clear()
            self._resolved[name] = price
        return price

    def cost(
        self, provider: str, models: tuple[str, str], usage: Usage | None, billing: Billing | None, at: float
    ) -> tuple[float | None, bool]:
        """US dollars of an answer, at `at` (seconds since 1970), None when unknown, and whether a price was
        found for the first or else the second model name."""
        price = (self.resolve(provider, models[0]) if models[0] else None) or self.resolve(
            provider, models[1]
        )
        if price is None:
            return None, False
        return cost(price, usage, at=at, billing=billing), True
