"""The price table: the same rows and sums as its source; unknown stays unknown; and it loads quickly."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from genai_prices import Usage as SourceUsage
from genai_prices import data_snapshot
from genai_prices import types as source
from hypothesis import given
from hypothesis import strategies as st

from underlay.core.price import PRICE_IDS, UNITS, Price, PriceBook, Rate, cost, matches
from underlay.core.usage import Billing
from underlay.telemetry.events import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FILE = ROOT / "runtime" / "underlay" / "data" / "prices.json"
BOOK = PriceBook.from_json(json.loads(FILE.read_bytes()))
SNAPSHOT = data_snapshot.get_snapshot()
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
AT = NOW.timestamp()

Case = tuple[Usage, Billing | None]

CASES: list[Case] = [
    (Usage(1, 1), None),
    (Usage(0, 0), None),
    (Usage(1_000, 500, 250), None),
    (Usage(1_000, 500, 250, 300, 100), None),
    (Usage(1_000, 500, 250, 300, 500), Billing(cache_write_1h_tokens=200, web_searches=3)),
    (Usage(1_000, 500, None, None, 0), Billing(input_audio_tokens=400, output_audio_tokens=500)),
    (Usage(1_000, 500, 100), Billing(input_audio_tokens=400)),
    (Usage(100, 1, 200), None),
    (Usage(10_000_000, 10_000_000, 9_999_999), None),
]
"""Small, nothing, cached, written, hour-long writes and searches, audio, audio with a cached part, more
cached than entered, huge."""

CONTEXTS: list[dict[str, str]] = [
    {},
    {"service_tier": "flex"},
    {"service_tier": "priority"},
    {"speed": "fast"},
]


def literals(clause: Any) -> Iterator[str]:
    """Every literal text of a match rule."""
    for part in getattr(clause, "or_", None) or getattr(clause, "and_", None) or ():
        yield from literals(part)
    for name in ("equals", "starts_with", "ends_with", "contains"):
        if isinstance(text := getattr(clause, name, None), str):
            yield text


def names(model: source.ModelInfo) -> set[str]:
    """Names that may mean this model: its id, its literals, those with a tail, a head, a date."""
    own = {model.id, *literals(model.match)}
    return (
        own
        | {f"{name}-2025-01-01" for name in own}
        | {f"{name}-20250101" for name in own}
        | {model.id.upper()}
    )


def expected_row(provider: str, name: str) -> tuple[source.Provider, source.ModelInfo] | None:
    """What genai-prices makes of a name."""
    try:
        return SNAPSHOT.find_provider_model(name, None, provider, None)
    except LookupError:
        return None


def expected_cost(
    provider: source.Provider,
    model: source.ModelInfo,
    usage: Usage,
    billing: Billing | None,
    moment: datetime,
    context: dict[str, str],
) -> float | None:
    """What genai-prices asks for it; None where it refuses the counts."""
    charged = billing or Billing()
    counts = SourceUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
        cache_write_1h_tokens=charged.cache_write_1h_tokens,
        input_audio_tokens=charged.input_audio_tokens,
        output_audio_tokens=charged.output_audio_tokens,
        web_searches=charged.web_searches,
    )
    try:
        found = model.calc_price(
            counts, provider, genai_request_timestamp=moment, price_context=context or None
        )
    except ValueError:
        return None
    return float(found.total_price)


def borders(model: source.ModelInfo) -> tuple[set[int], set[datetime]]:
    """Token counts and moments at which the price of a model changes, with their neighbours."""
    stored = (
        model.prices if isinstance(model.prices, list) else [source.ConditionalPrice(prices=model.prices)]
    )
    counts: set[int] = set()
    moments = {NOW, datetime(2023, 1, 1, tzinfo=UTC)}
    for entry in stored:
        for value in vars(entry.prices).values():
            for tier in value.tiers if isinstance(value, source.TieredPrices) else ():
                counts |= {tier.start - 1, tier.start, tier.start + 1}
        match entry.constraint:
            case source.StartDateConstraint(start_date=day):
                start = datetime.combine(day, time(), UTC)
                moments |= {start, start - timedelta(seconds=1)}
            case source.TimeOfDateConstraint(start_time=first, end_time=last):
                for edge in (first, last):
                    at = datetime.combine(date(2026, 3, 1), edge, edge.tzinfo or UTC)
                    moments |= {at, at - timedelta(seconds=1), at + timedelta(hours=6)}
            case None:
                continue
    return counts, moments


def same(ours: float | None, theirs: float | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return math.isclose(ours, theirs, rel_tol=1e-12, abs_tol=0)


@pytest.mark.parametrize("provider", SNAPSHOT.providers, ids=lambda provider: provider.id)
def test_names_mean_the_same_model_as_at_the_source(provider: source.Provider) -> None:
    """Every name that a rule of the provider speaks of is the same row in ours, or in neither table."""
    wrong: list[tuple[str, str | None, str | None]] = []
    for name in sorted({name for model in provider.models for name in names(model)}):
        theirs, ours = expected_row(provider.id, name), BOOK.resolve(provider.id, name)
        if ours is None:
            # A model priced by audio hours or pages alone cannot be priced from tokens: no price, not a zero.
            uncounted = theirs is not None and expected_cost(*theirs, Usage(9, 9), None, NOW, {}) == 0
            if theirs is not None and not uncounted:
                wrong.append((name, theirs[1].id, None))
        elif theirs is None or theirs[1].id != ours.model:
            wrong.append((name, theirs[1].id if theirs else None, ours.model))
    assert wrong == []


@pytest.mark.parametrize("provider", SNAPSHOT.providers, ids=lambda provider: provider.id)
def test_costs_equal_the_source_over_the_whole_table(provider: source.Provider) -> None:
    """Every model costs the same as by genai-prices, cached and written tokens, tiers, dates, hours and
    service tiers included."""
    wrong = []
    for model in provider.models:
        theirs, ours = expected_row(provider.id, model.id), BOOK.resolve(provider.id, model.id)
        if ours is None or theirs is None:
            continue
        counts, moments = borders(theirs[1])
        cases: list[Case] = [*CASES, *((Usage(count, 7, count // 2), None) for count in counts)]
        runs: list[tuple[Case, datetime, dict[str, str]]]
        runs = [(case, NOW, {}) for case in cases]
        runs += [(CASES[3], moment, {}) for moment in moments]
        if theirs[1].price_variants:
            runs += [(case, NOW, context) for case in CASES[2:5] for context in CONTEXTS]
        for (usage, billing), moment, context in runs:
            charged = Billing(
                cache_write_1h_tokens=billing.cache_write_1h_tokens if billing else None,
                input_audio_tokens=billing.input_audio_tokens if billing else None,
                output_audio_tokens=billing.output_audio_tokens if billing else None,
                web_searches=billing.web_searches if billing else None,
                context=context,
            )
            got = cost(ours, usage, at=moment.timestamp(), billing=charged)
            want = expected_cost(*theirs, usage, billing, moment, context)
            if not same(got, want):
                wrong.append((model.id, usage, billing, moment, context, got, want))
    assert wrong == []


COUNT = st.one_of(st.none(), st.integers(0, 9), st.integers(199_990, 200_010))
AMOUNT = st.one_of(st.sampled_from([0, 0.15, 3]), st.sampled_from([[3, [5, 6], [200_000, 9]], [0, [5, 1]]]))
PRICES = st.dictionaries(st.sampled_from(sorted(UNITS)), AMOUNT, min_size=1, max_size=6)
WORD_KEY, WORD = st.sampled_from(["service_tier", "speed"]), st.sampled_from(["flex", "fast"])
WORDS = st.dictionaries(WORD_KEY, WORD, max_size=2)
WHEN = st.dictionaries(WORD_KEY, WORD, min_size=1, max_size=2)
USAGE = st.builds(Usage, COUNT, COUNT, COUNT, COUNT, COUNT)
BILLING = st.one_of(st.none(), st.builds(Billing, COUNT, COUNT, WORDS, COUNT, COUNT))
PERIOD = st.sampled_from([None, "2026-10-12", "2027-01-01", [0, 3600]])


@st.composite
def rows(draw: st.DrawFn) -> Price:
    """A row of any prices, periods and variants."""
    periods = draw(st.lists(st.tuples(PERIOD, PRICES), min_size=1, max_size=2))
    variants = draw(st.lists(st.tuples(WHEN, PERIOD, PRICES), max_size=2))
    row = ["m", "=m", [list(each) for each in periods], [list(each) for each in variants]]
    table = {"schema": 1, "version": "0", "date": "2026-01-01", "providers": {"p": {"models": [row]}}}
    found = PriceBook.from_json(table).resolve("p", "m")
    assert found is not None
    return found


def plain_cost(rates: tuple[Rate, ...], usage: Usage, billing: Billing) -> float | None:
    """The sum as the rules say it: every count less its parts, at the tier of the input."""
    parts = {
        "cache_read": usage.cache_read_tokens,
        "cache_write": usage.cache_write_tokens,
        "reasoning": usage.reasoning_tokens,
        "cache_write_1h": billing.cache_write_1h_tokens,
        "input_audio": billing.input_audio_tokens,
        "output_audio": billing.output_audio_tokens,
        "web_searches": billing.web_searches,
        "cache_audio_read": 0,
        "requests": 1,
    }
    counts = {name: count or 0 for name, count in parts.items()}
    counts |= {"input": usage.input_tokens, "output": usage.output_tokens}
    overlap = counts["cache_read"] and counts["input_audio"]
    if overlap and any(rate.counted == "cache_audio_read" for rate in rates):
        return None
    total, leaves = 0.0, []
    for rate in rates:
        within = sum(leaves[part] for part in rate.parts)
        count = counts[rate.counted]
        if count is None and rate.base == 0 and not rate.tiers:
            count = within
        if count is None or count < within:
            return None
        leaves.append(count - within)
        reached = [each for above, each in rate.tiers if (usage.input_tokens or 0) > above]
        total += (reached[-1] if reached else rate.base) * (count - within) / rate.per
    return total


@given(rows(), USAGE, BILLING)
def test_the_sum_is_that_of_the_rules(row: Price, usage: Usage, billing: Billing | None) -> None:
    """Any prices, tiers and counts, unknown ones included, give what the rules say, to the last bit."""
    row = replace(row, periods=row.periods[:1], rates=row.rates[:1], variants=(), words=frozenset())
    assert cost(row, usage, at=AT, billing=billing) == plain_cost(row.rates[0], usage, billing or Billing())


@given(rows(), USAGE, BILLING)
def test_a_row_whose_words_are_not_said_takes_the_short_way(
    row: Price, usage: Usage, billing: Billing | None
) -> None:
    """Looking through the variants one by one gives the same price."""
    said = frozenset(billing.context.values()) if billing else frozenset()
    long = replace(row, words=row.words | said)
    assert cost(row, usage, at=AT, billing=billing) == cost(long, usage, at=AT, billing=billing)


def price(provider: str, model: str) -> Price:
    found = BOOK.resolve(provider, model)
    assert found is not None
    return found


def test_a_longer_name_is_not_its_prefix() -> None:
    """`gpt-4o-mini-…` is never priced as gpt-4o."""
    assert price("openai", "gpt-4o-mini-2024-07-18").model == "gpt-4o-mini"
    assert price("openai", "gpt-4o-2024-08-06").model != "gpt-4o-mini"


@pytest.mark.parametrize("model", ["gpt-unheard-of", "", "llama-3-70b", "my-deployment"])
def test_an_unknown_model_has_no_price(model: str) -> None:
    """A name that no rule means gets no neighbour's price."""
    assert BOOK.resolve("openai", model) is None


def test_an_unknown_provider_has_no_price() -> None:
    """A model is priced at its provider only."""
    assert BOOK.resolve("my-gateway", "gpt-4o") is None


def test_conventions_names_lead_to_the_table() -> None:
    """Every mapped provider is in the table, and resellers price their makers' models."""
    raw = json.loads(FILE.read_bytes())
    assert set(PRICE_IDS.values()) <= raw["providers"].keys()
    assert price("azure.ai.openai", "gpt-4o").model == "gpt-4o"
    assert price("x_ai", "grok-4").provider == "x-ai"


@pytest.mark.parametrize("usage", [None, Usage(), Usage(None, 5), Usage(5, None), Usage(5, 5, 6)])
def test_what_is_not_known_has_no_cost(usage: Usage | None) -> None:
    """Missing totals and a part larger than its whole give None; never 0, never a negative."""
    assert cost(price("openai", "gpt-4o"), usage, at=AT) is None


def test_reasoning_beyond_the_output_has_no_cost_where_it_has_a_price() -> None:
    """A contradiction matters only where the contradicting count is charged apart."""
    usage = Usage(5, 5, None, None, 6)
    assert cost(price("perplexity", "sonar-deep-research"), usage, at=AT) is None
    assert cost(price("openai", "gpt-4o"), usage, at=AT) == cost(
        price("openai", "gpt-4o"), Usage(5, 5), at=AT
    )


def test_zero_usage_costs_zero() -> None:
    """Zero is known."""
    assert cost(price("openai", "gpt-4o"), Usage(0, 0), at=AT) == 0.0


def test_embeddings_need_no_output() -> None:
    """A model that only charges input is priced without an output count."""
    assert cost(price("openai", "text-embedding-3-small"), Usage(1_000_000), at=AT) == pytest.approx(0.02)


def test_a_price_of_zero_needs_no_count() -> None:
    """An unknown count with a price of 0 does not make the cost unknown, unless the price rises."""
    free = {"input_mtok": 1, "output_mtok": 0}
    rising = {"input_mtok": 1, "output_mtok": [0, [5, 1]]}
    book = PriceBook.from_json(
        {
            "schema": 1,
            "version": "0",
            "date": "2026-01-01",
            "providers": {"p": {"models": [["m", "=m", free], ["r", "=r", rising]]}},
        }
    )
    for model, wanted in (("m", 1.0), ("r", None)):
        found = book.resolve("p", model)
        assert found is not None
        assert book.cost(found, Usage(1_000_000)) == wanted


def test_the_default_moment_is_the_tables_date() -> None:
    """Without a time, prices are those of the day the table was made."""
    found = price("openai", "gpt-4o")
    assert BOOK.cost(found, Usage(10, 10)) == cost(found, Usage(10, 10), at=BOOK.issued)


def test_hours_wrap_around_midnight() -> None:
    """A nightly price holds before and after midnight."""
    table = {"m": [[None, {"input_mtok": 4}], [[59_400, 1_800], {"input_mtok": 1}]]}
    book = PriceBook.from_json(
        {
            "schema": 1,
            "version": "0",
            "date": "2026-01-01",
            "providers": {"p": {"models": [["m", "=m", table["m"]]]}},
        }
    )
    found = book.resolve("p", "m")
    assert found is not None
    hours = {16.4: 4.0, 16.5: 1.0, 23.9: 1.0, 0.4: 1.0, 0.5: 4.0}
    for hour, wanted in hours.items():
        at = datetime(2026, 5, 1, tzinfo=UTC).timestamp() + hour * 3600
        assert cost(found, Usage(1_000_000), at=at) == wanted


@pytest.mark.parametrize(
    ("rule", "yes", "no"),
    [
        ("=a", "a", "ab"),
        ("^a", "ab", "ba"),
        ("$a", "ba", "ab"),
        ("*a", "bab", "b"),
        ("~^a[0-9]$", "a1", "a12"),
        (["|", "=a", "=b"], "b", "c"),
        (["&", "^a", "$c"], "abc", "ab"),
    ],
)
def test_match_rules(rule: Any, yes: str, no: str) -> None:
    """Each kind of rule means what its sign says."""
    assert matches(rule, yes)
    assert not matches(rule, no)


def test_another_schema_is_refused() -> None:
    """A table of another format is a clear error that names the field, the value and what is allowed."""
    with pytest.raises(ValueError, match=r"schema = 2: allowed is 1"):
        PriceBook.from_json({"schema": 2})


def test_the_table_is_dated_and_credits_its_source() -> None:
    """The file says where it comes from, under which licence, and from which day it is."""
    raw = json.loads(FILE.read_bytes())
    assert (raw["source"], raw["license"]) == ("genai-prices", "MIT")
    assert "Pydantic" in raw["copyright"]
    assert date.fromisoformat(raw["date"]) == date.fromisoformat(BOOK.date)
    assert BOOK.version == raw["version"]


def test_the_file_is_what_the_generator_writes() -> None:
    """The committed table is the generator's output for the installed source."""
    script = ROOT / "scripts" / "generate_prices.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT / "runtime")},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_table_is_small() -> None:
    """Whoever starts a runtime reads it whole: what that takes is measured among the starts of the benchmarks."""
    assert FILE.stat().st_size < 400_000
