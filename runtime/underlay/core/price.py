"""What an answer costs, from a dated price table. Pure: the table is handed in as parsed JSON, the time as an
argument.

Decides which row of the table a model name means (the row's own match rule, never a shared prefix), which
prices of the row hold at a time and for a service tier, and the sum. What is not known gives no price: None
is never 0. Money is US dollars, prices are dollars per million tokens or per thousand requests and searches.
The rules are those of genai-prices, from which the table is generated.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

from underlay.core.usage import Billing
from underlay.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from underlay.telemetry.events import Usage

__all__ = [
    "PRICE_IDS",
    "SCHEMA",
    "UNITS",
    "Period",
    "Price",
    "PriceBook",
    "Rate",
    "Variant",
    "cost",
    "matches",
]

SCHEMA: Final = 1
"""Version of the table's format that this module reads."""

PRICE_IDS: Final[Mapping[str, str]] = {
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "fireworks_ai": "fireworks",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "together_ai": "together",
    "x_ai": "x-ai",
}
"""The table's provider by the provider's name in the GenAI conventions, where they differ."""

_MILLION, _THOUSAND = 1_000_000, 1_000

UNITS: Final[Mapping[str, tuple[str, int, frozenset[str]]]] = {
    "input_mtok": ("input", _MILLION, frozenset({"in"})),
    "output_mtok": ("output", _MILLION, frozenset({"out"})),
    "cache_read_mtok": ("cache_read", _MILLION, frozenset({"in", "read"})),
    "cache_write_mtok": ("cache_write", _MILLION, frozenset({"in", "write"})),
    "cache_write_1h_mtok": ("cache_write_1h", _MILLION, frozenset({"in", "write", "1h"})),
    "input_audio_mtok": ("input_audio", _MILLION, frozenset({"in", "audio"})),
    "output_audio_mtok": ("output_audio", _MILLION, frozenset({"out", "audio"})),
    "cache_audio_read_mtok": ("cache_audio_read", _MILLION, frozenset({"in", "audio", "read"})),
    "output_reasoning_mtok": ("reasoning", _MILLION, frozenset({"out", "reasoning"})),
    "web_searches_kcount": ("web_searches", _THOUSAND, frozenset({"search"})),
    "requests_kcount": ("requests", _THOUSAND, frozenset({"request"})),
}
"""Price keys that are read: what is counted, per how many, and of which kinds it is. A count holds those of
more kinds within it."""

_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")

Amount = float | list[Any]
"""A price, or `[price, [more than this many input tokens, price], …]` with rising thresholds, each for all
tokens of the call."""


@record(frozen=True, slots=True)
class Rate:
    """One price of a row, ready to be multiplied. `parts` are positions of rates whose tokens are taken out
    of this one's."""

    counted: str
    per: int
    base: float
    tiers: tuple[tuple[int, float], ...]
    parts: tuple[int, ...]


@record(frozen=True, slots=True)
class Period:
    """When prices hold: from a UTC date on, daily between two UTC times (seconds of the day), or always."""

    starts: date | None = None
    hours: tuple[int, int] | None = None

    def holds(self, at: datetime) -> bool:
        """Whether `at` (UTC) lies in the period. Hours may wrap around midnight."""
        if self.starts is not None:
            return at.date() >= self.starts
        if self.hours is None:
            return True
        start, end = self.hours
        second = at.hour * 3600 + at.minute * 60 + at.second
        return start <= second < end if start <= end else second >= start or second < end


@record(frozen=True, slots=True)
class Variant:
    """Prices that replace a row's own when the answer's context has these words."""

    when: Mapping[str, str]
    period: Period
    prices: Mapping[str, Amount]


@record(frozen=True, slots=True)
class Price:
    """A row of the table: whose it is, its prices by period (the last that holds counts, else the first), and
    its variants. An answer whose context has none of `words` has no variant's prices."""

    provider: str
    model: str
    periods: tuple[tuple[Period, Mapping[str, Amount]], ...]
    rates: tuple[tuple[Rate, ...], ...]
    variants: tuple[Variant, ...] = ()
    words: frozenset[str] = frozenset()


_NO_BILLING = Billing()


class PriceBook:
    """The table. Resolving walks one provider's rows in order, so the caller keeps what it found."""

    __slots__ = ("_providers", "date", "version")

    def __init__(self, providers: Mapping[str, Any], *, version: str, date: str) -> None:
        self._providers = providers
        self.version = version
        self.date = date

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> PriceBook:
        """The book of a parsed price file. Raises ValueError when its schema is another one."""
        schema = table.get("schema")
        if schema != SCHEMA:
            raise ValueError(f"price table: schema = {schema!r}: allowed is {SCHEMA}")
        return cls(table["providers"], version=table["version"], date=table["date"])

    @property
    def issued(self) -> float:
        """The table's date as seconds since 1970, UTC."""
        return datetime.fromisoformat(self.date).replace(tzinfo=UTC).timestamp()

    def resolve(self, provider: str, model: str) -> Price | None:
        """The price of a model at a provider (a GenAI conventions name or the table's own), or None when it
        is not in the table.

        The providers whose models this one resells are looked through too. A compact date in a name
        (`-20251211`) is tried as a dashed one when the name as it is means nothing.
        """
        model = model.lower()
        key = PRICE_IDS.get(provider, provider)
        found = self._find(key, model)
        if found is None and (dashed := _COMPACT_DATE.sub(r"-\1-\2-\3", model)) != model:
            found = self._find(key, dashed)
        return found

    def cost(
        self, price: Price, usage: Usage | None, *, at: float | None = None, billing: Billing | None = None
    ) -> float | None:
        """Dollars of an answer with this usage; `at` is seconds since 1970, by default the table's date."""
        return cost(price, usage, at=self.issued if at is None else at, billing=billing)

    def _find(self, key: str, model: str) -> Price | None:
        entry = self._providers.get(key)
        if entry is None:
            return None
        row = _row(entry, model)
        if row is not None:
            return _price(key, row, variants=True)
        for other in entry.get("resells", ()):
            row = _row(self._providers[other], model)
            if row is not None:
                # A reseller charges the model's own price, not its maker's tiers of service.
                return _price(key, row, variants=False)
        return None


def matches(rule: Any, name: str) -> bool:
    """Whether a lower-case name satisfies a match rule: a string led by `=` is equal, `^` the start, `$` the
    end, `*` contained, `~` a regular expression; a list led by "|" is any of its rules, by "&" all."""
    kind = rule[0]
    if kind == "|":
        return any(matches(part, name) for part in rule[1:])
    if kind == "&":
        return all(matches(part, name) for part in rule[1:])
    text = rule[1:]
    if kind == "=":
        return bool(name == text)
    if kind == "^":
        return name.startswith(text)
    if kind == "$":
        return name.endswith(text)
    if kind == "*":
        return text in name
    return re.search(text, name) is not None


def cost(price: Price, usage: Usage | None, *, at: float, billing: Billing | None = None) -> float | None:
    """Dollars of an answer with this usage at `at` (seconds since 1970), or None when a count that has a
    price is unknown or contradicts another (more cached than entered)."""
    if usage is None:
        return None
    if billing is None:
        billing = _NO_BILLING
    rates = _rates_at(price, at, billing.context)
    counts = _counts(usage, billing)
    if (
        counts["cache_read"]
        and counts["input_audio"]
        and any(rate.counted == "cache_audio_read" for rate in rates)
    ):
        # Both parts are known and their overlap is not.
        return None
    total = 0.0
    leaves: list[int] = []
    for rate in rates:
        leaf = counts[rate.counted]
        if leaf is None:
            if rate.base or rate.tiers:
                return None
            leaf = 0  # what costs nothing need not be counted
        else:
            for part in rate.parts:
                leaf -= leaves[part]
            if leaf < 0:
                return None
        leaves.append(leaf)
        if leaf:
            each = _tier(rate, usage.input_tokens) if rate.tiers else rate.base
            total += each * leaf / rate.per
    return total


def _counts(usage: Usage, billing: Billing) -> dict[str, int | None]:
    # Parts that an API leaves out are parts it does not charge apart; the totals must be there.
    return {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cache_read": usage.cache_read_tokens or 0,
        "cache_write": usage.cache_write_tokens or 0,
        "reasoning": usage.reasoning_tokens or 0,
        "cache_write_1h": billing.cache_write_1h_tokens or 0,
        "input_audio": billing.input_audio_tokens or 0,
        "output_audio": billing.output_audio_tokens or 0,
        "web_searches": billing.web_searches or 0,
        "cache_audio_read": 0,
        "requests": 1,
    }


def _tier(rate: Rate, entered: int | None) -> float:
    for above, price in reversed(rate.tiers):
        if (entered or 0) > above:
            return price
    return rate.base


def _rates_at(price: Price, at: float, context: Mapping[str, str]) -> tuple[Rate, ...]:
    unvaried = price.words.isdisjoint(context.values())
    if unvaried and len(price.periods) == 1:
        return price.rates[0]
    moment = datetime.fromtimestamp(at, UTC)
    last = len(price.periods) - 1
    chosen = next((i for i in range(last, -1, -1) if price.periods[i][0].holds(moment)), 0)
    if unvaried:
        return price.rates[chosen]
    changed: dict[str, Amount] = {}
    for variant in price.variants:
        if variant.when.items() <= context.items() and variant.period.holds(moment):
            changed = {**variant.prices, **changed}
    return _rates({**price.periods[chosen][1], **changed}) if changed else price.rates[chosen]


def _row(entry: Mapping[str, Any], model: str) -> list[Any] | None:
    return next((row for row in entry["models"] if matches(row[1], model)), None)


def _price(provider: str, row: list[Any], *, variants: bool) -> Price | None:
    """A row is `[id, match rule, prices or [[period, prices], …], [[when, period, prices], …]]`; prices null
    when none can be counted."""
    if row[2] is None:
        return None
    stored = row[2] if isinstance(row[2], list) else [[None, row[2]]]
    periods = tuple((_period(period), prices) for period, prices in stored)
    varied = row[3] if variants and len(row) > 3 else ()
    return Price(
        provider=provider,
        model=row[0],
        periods=periods,
        rates=tuple(_rates(prices) for _, prices in periods),
        variants=tuple(Variant(when, _period(period), prices) for when, period, prices in varied),
        words=frozenset(word for when, _, _ in varied for word in when.values()),
    )


def _period(stored: str | list[int] | None) -> Period:
    if stored is None:
        return Period()
    if isinstance(stored, str):
        return Period(starts=date.fromisoformat(stored))
    return Period(hours=(stored[0], stored[1]))


def _rates(prices: Mapping[str, Amount]) -> tuple[Rate, ...]:
    # The most special first: what they take is known when the general ones come to what is left.
    keys = sorted((key for key in prices if key in UNITS), key=lambda key: (-len(UNITS[key][2]), key))
    rates: list[Rate] = []
    for key in keys:
        counted, per, kinds = UNITS[key]
        amount = prices[key]
        base, tiers = (amount[0], amount[1:]) if isinstance(amount, list) else (amount, ())
        parts = tuple(i for i, other in enumerate(keys[: len(rates)]) if kinds < UNITS[other][2])
        rates.append(Rate(counted, per, float(base), tuple((above, price) for above, price in tiers), parts))
    return tuple(rates)
