"""Writes the price table of the wheel, runtime/underlay/data/prices.json, from the development dependency
genai-prices.

    python scripts/generate_prices.py            write the file
    python scripts/generate_prices.py --check    exit 1 when the file is not what genai-prices gives

The date is the day the prices last changed here: a run that changes no price leaves it alone. `--date` sets
it.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

from genai_prices import __version__ as source_version
from genai_prices import types as source
from genai_prices.data import providers as source_providers

from underlay.core.price import SCHEMA, UNITS

TARGET = Path(__file__).parent.parent / "runtime" / "underlay" / "data" / "prices.json"

CONTEXT = frozenset({"service_tier", "speed"})
"""Words of an answer that we read. A variant that needs another one (batch jobs, routes) can never apply and
is left out."""


def rule(clause: Any) -> str | list[Any]:
    """A match rule as data (see `underlay.core.price.matches`), lower case but for regular expressions."""
    match clause:
        case source.ClauseEquals(equals=text):
            return "=" + text.lower()
        case source.ClauseStartsWith(starts_with=text):
            return "^" + text.lower()
        case source.ClauseEndsWith(ends_with=text):
            return "$" + text.lower()
        case source.ClauseContains(contains=text):
            return "*" + text.lower()
        case source.ClauseRegex(regex=text):
            return "~" + text
        case source.ClauseOr(or_=parts):
            return ["|", *map(rule, parts)]
        case source.ClauseAnd(and_=parts):
            return ["&", *map(rule, parts)]
    raise TypeError(f"unknown match clause {clause!r}")


def number(value: Any) -> int | float:
    """A decimal as the shortest JSON number of the same value."""
    as_float = float(value)
    return int(as_float) if as_float.is_integer() else as_float


def amount(value: Any) -> int | float | list[Any]:
    """A price, or `[base, [threshold, price], …]`."""
    if isinstance(value, source.TieredPrices):
        return [number(value.base), *([tier.start, number(tier.price)] for tier in value.tiers)]
    return number(value)


def prices(model_price: source.ModelPrice) -> dict[str, Any]:
    """Those prices of a row that can be counted from an answer of our dialects."""
    stored = {key: value for key, value in vars(model_price).items() if value is not None}
    return {key: amount(stored[key]) for key in UNITS if key in stored}


def countable(model_price: source.ModelPrice) -> bool:
    """True when a price has a key that we count, or none at all (free)."""
    stored = {key for key, value in vars(model_price).items() if value is not None}
    return not stored or bool(stored & UNITS.keys())


def second_of_day(value: time) -> int:
    """A time of day in UTC; one without a zone is UTC."""
    if value.tzinfo is not None:
        value = datetime.combine(datetime(1970, 1, 2, tzinfo=UTC).date(), value).astimezone(UTC).time()
    return value.hour * 3600 + value.minute * 60 + value.second


def period(constraint: Any) -> str | list[int] | None:
    """When a price holds: an ISO date it starts on, two seconds of the day, or null for always."""
    match constraint:
        case None:
            return None
        case source.StartDateConstraint(start_date=day):
            return str(day.isoformat())
        case source.TimeOfDateConstraint(start_time=start, end_time=end):
            return [second_of_day(start), second_of_day(end)]
    raise TypeError(f"unknown price constraint {constraint!r}")


def row(model: source.ModelInfo) -> list[Any]:
    """One model as `[id, rule, prices, variants]` (see `underlay.core.price`)."""
    stored = model.prices
    periods = stored if isinstance(stored, list) else [source.ConditionalPrice(prices=stored)]
    if not any(countable(entry.prices) for entry in periods):
        return [model.id, rule(model.match), None]
    listed = [[period(entry.constraint), prices(entry.prices)] for entry in periods]
    alone = len(listed) == 1
    variants = [
        [variant.when, period(variant.constraint), changed]
        for variant in model.price_variants or ()
        if variant.when.keys() <= CONTEXT and (changed := prices(variant.prices))
    ]
    return [model.id, rule(model.match), listed[0][1] if alone else listed, *([variants] if variants else [])]


def provider(entry: source.Provider) -> dict[str, Any]:
    """One provider: its models in the order they are matched, and the providers whose models it resells."""
    resells = {"resells": entry.fallback_model_providers} if entry.fallback_model_providers else {}
    return {**resells, "models": [row(model) for model in entry.models]}


def table(day: str) -> dict[str, Any]:
    """The whole file."""
    return {
        "schema": SCHEMA,
        "source": "genai-prices",
        "license": "MIT",
        "copyright": "Copyright (c) Pydantic Services Inc. 2025 to present",
        "url": "https://github.com/pydantic/genai-prices",
        "version": source_version,
        "date": day,
        "providers": {entry.id: provider(entry) for entry in source_providers},
    }


def rendered(content: dict[str, Any]) -> str:
    """The file's text: one line a model, so that a change of price is a readable diff."""
    lines = [f"{json.dumps(key)}:{json.dumps(content[key])}," for key in content if key != "providers"]
    blocks = []
    for name, entry in content["providers"].items():
        models = ",\n".join(compact(model) for model in entry["models"])
        resells = f'"resells":{compact(entry["resells"])},' if "resells" in entry else ""
        blocks.append(f'{json.dumps(name)}:{{{resells}"models":[\n{models}]}}')
    return "{" + "\n".join(lines) + '\n"providers":{\n' + ",\n".join(blocks) + "}}\n"


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def main() -> int:
    """Write or check the file; the exit code."""
    parser = argparse.ArgumentParser(description="Generate the price table from genai-prices.")
    parser.add_argument("--check", action="store_true", help="exit 1 when the file would change")
    parser.add_argument("--date", help="the table's date, YYYY-MM-DD (default: today, if a price changed)")
    options = parser.parse_args()
    present = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
    kept = json.loads(present).get("date", "") if present else ""
    wanted = rendered(table(options.date or kept))
    if options.check:
        if wanted != present:
            print(f"{TARGET.name} is out of date: run python scripts/generate_prices.py", file=sys.stderr)
        return int(wanted != present)
    if wanted != present and not options.date:
        wanted = rendered(table(datetime.now(UTC).date().isoformat()))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
