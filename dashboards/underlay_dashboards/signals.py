"""The vocabulary as PromQL: how each metric and label is called in Prometheus, and the queries that panels
are made of.

Nothing here types a name: names, units, kinds and labels come from `underlay.telemetry`. The translation is
that of Prometheus' OTLP receiver with `UnderscoreEscapingWithSuffixes`.

A counter enters Prometheus with the value that it has at its first export: there was no zero before it, so
`increase` never sees the first burst of a new model, error or process, and reads 0 for a circuit that tripped
once. `growth` therefore counts a series that is new in the window from zero, and any other by `increase`
(which survives restarts of a counter). New is what had no sample in the hour before the window, so that a
pause of a process is no birth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from underlay.telemetry import attributes as a
from underlay.telemetry.metrics import metric_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from underlay.telemetry.attributes import Attribute
    from underlay.telemetry.metrics import Generation, Metric

__all__ = [
    "DEFAULT", "RANGE", "RATE", "RESOURCE_LABELS", "SERVICE_LABEL", "STEP", "Dialect", "Flavour", "Is",
    "at_most", "growth", "histogram_count", "histogram_mean", "histogram_total", "label", "legend", "level",
    "or_zero", "per_second", "prometheus_name", "quantile", "selector", "share", "stepped", "total", "unit",
    "unit_of_count", "unit_per_second",
]  # fmt: skip

Flavour = Literal["classic", "native"]
"""How histograms are stored: explicit buckets (`classic`) or exponential ones (`native`)."""

RATE = "$__rate_interval"
"""Grafana's window for rates: at least four export intervals."""

STEP = "$__interval"
"""Grafana's distance between two points of a graph."""

RANGE = "$__range"
"""The time range that the dashboard shows."""

SERVICE_LABEL = "service_name"
"""The resource attribute `service.name`, promoted by the stack's Prometheus configuration."""

RESOURCE_LABELS: frozenset[str] = frozenset(
    {
        SERVICE_LABEL,
        "service_instance_id",
        "service_namespace",
        "service_version",
        "deployment_environment_name",
    }
)
"""Labels that every series has beside those of its metric: the promoted resource attributes."""

_FORGOTTEN = "1h"
_UNITS = {"s": "seconds", "By": "bytes", "1": "ratio"}
_GRAFANA_UNITS = {"s": "s", "By": "bytes", "USD": "currencyUSD", "1": "none"}
_VARIABLES: tuple[tuple[Attribute, str], ...] = ((a.PROVIDER, "provider"), (a.REQUEST_MODEL, "model"))


@dataclass(frozen=True, slots=True)
class Dialect:
    """What may differ between two installations: how histograms are stored, and which generation of the GenAI
    names leaves the process."""

    flavour: Flavour = "classic"
    generation: Generation = "released"


DEFAULT = Dialect()


@dataclass(frozen=True, slots=True)
class Is:
    """A condition on a label: its value is one of `values` (none of them with `negated`)."""

    attribute: Attribute
    values: tuple[str, ...]
    negated: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.values) - set(self.attribute.values) if self.attribute.closed else set()
        if unknown or not self.values:
            raise ValueError(
                f"{self.attribute.key}: {sorted(unknown)} is not among {sorted(self.attribute.values)}"
            )

    def matcher(self) -> str:
        """The condition as a PromQL label matcher."""
        name = label(self.attribute)
        if len(self.values) == 1:
            return f'{name}{"!=" if self.negated else "="}"{self.values[0]}"'
        return f'{name}{"!~" if self.negated else "=~"}"{"|".join(self.values)}"'


def label(attribute: Attribute) -> str:
    """The attribute's name as a Prometheus label."""
    return attribute.key.replace(".", "_")


def legend(*attributes: Attribute, text: str = "") -> str:
    """A legend that shows the values of those labels, then `text`."""
    shown = [f"{{{{{label(attribute)}}}}}" for attribute in attributes]
    return " ".join([*shown, text] if text else shown)


def prometheus_name(metric: Metric, generation: Generation = "released") -> str:
    """The name under which Prometheus stores `metric`; of a histogram without `_bucket` and its like."""
    name = metric_name(metric, generation).replace(".", "_")
    suffix = "" if metric.unit.startswith("{") else _UNITS.get(metric.unit, metric.unit)
    if suffix == "ratio" and metric.kind != "gauge":
        suffix = ""
    return "_".join(part for part in (name, suffix, "total" if metric.kind == "counter" else "") if part)


def unit(metric: Metric) -> str:
    """Grafana's unit of the metric's own values."""
    return "short" if metric.unit.startswith("{") else _GRAFANA_UNITS[metric.unit]


def unit_of_count(metric: Metric) -> str:
    """Grafana's unit of a number of whole things: digits in groups, never shortened to K."""
    if not metric.unit.startswith(("{", "1")):
        raise ValueError(f"{metric.name} is measured in {metric.unit}, and not counted")
    return "locale"


def unit_per_second(metric: Metric, *, points: str = "") -> str:
    """Grafana's unit of the metric's rate: `{call}` becomes "call/s" with K, M, B for thousands. Of a
    histogram whose points are counted, `points` says what one point is."""
    return f"count:{points or metric.unit.strip('{}')}/s"


def selector(
    metric: Metric, *where: Is, suffix: str = "", dialect: Dialect = DEFAULT, variables: bool = True
) -> str:
    """The series of `metric` that the dashboard's variables (those that it has labels for) and `where` leave.

    Raises ValueError when a condition names a label that the metric does not have.
    """
    for condition in where:
        _require(metric, condition.attribute)
    matchers = [f'{SERVICE_LABEL}=~"$service"'] if variables else []
    if variables:
        matchers += [f'{label(known)}=~"${name}"' for known, name in _VARIABLES if known in metric.labels]
    matchers += [condition.matcher() for condition in where]
    return f"{prometheus_name(metric, dialect.generation)}{suffix}{{{', '.join(matchers)}}}"


def growth(series: str, window: str) -> str:
    """How much each counter of `series` grew in `window`, from zero where it is new in the window."""
    return f"({_born(series, window)}) or increase({series}[{window}])"


def per_second(
    metric: Metric, *where: Is, by: Iterable[Attribute] = (), scale: float = 1, dialect: Dialect = DEFAULT
) -> str:
    """How fast a counter grows, per second times `scale`, summed by those labels."""
    scaled = "" if scale == 1 else f"{scale:g} * "
    return f"{scaled}{_sum(metric, by)} ({_pace(selector(metric, *where, dialect=dialect))})"


def total(
    metric: Metric, *where: Is, by: Iterable[Attribute] = (), window: str = RANGE, dialect: Dialect = DEFAULT
) -> str:
    """How much a counter grew in `window`, summed by those labels."""
    return f"{_sum(metric, by)} ({growth(selector(metric, *where, dialect=dialect), window)})"


def stepped(metric: Metric, *where: Is, by: Iterable[Attribute] = (), dialect: Dialect = DEFAULT) -> str:
    """How much a counter grew since the step before, exactly: for what happens seldom and is drawn one by
    one. One sample a step is enough, where `increase` needs two and spreads one event over several steps.
    """
    series = selector(metric, *where, dialect=dialect)
    before = f"last_over_time({series}[{_FORGOTTEN}] offset {STEP})"
    return f"{_sum(metric, by)} (({series} unless {before}) or ({series} - {before} >= 0))"


def level(
    metric: Metric, *where: Is, by: Iterable[Attribute] = (), how: Literal["sum", "max"] = "sum"
) -> str:
    """The value of a gauge now. `max` for states and bounds: the series of a process that has just ended
    linger for five minutes, and would count twice in a sum."""
    names = _names(metric, by)
    return f"{how}{names} ({selector(metric, *where)})"


def quantile(
    share_below: float, metric: Metric, *where: Is, by: Iterable[Attribute] = (), window: str = RATE,
    bursts: bool = False, dialect: Dialect = DEFAULT,
) -> str:  # fmt: skip
    """The value below which that share of a histogram's points lies; nothing (never NaN) without points.

    Over time the first points of a series are passed by: to look an hour back for each bucket at each step is
    dear. `bursts` counts them all the same, for what comes seldom and all at once.
    """
    by = tuple(by)
    native = dialect.flavour == "native"
    series = selector(metric, *where, suffix="" if native else "_bucket", dialect=dialect)
    moved = f"rate({series}[{window}])" if window == RATE and not bursts else _moved(series, window)
    names = ", ".join(["le", *(label(_require(metric, one)) for one in by)])
    summed = _sum(metric, by) if native else f"sum by ({names})"
    return f"histogram_quantile({share_below:g}, {summed} ({moved})) >= 0"


def histogram_count(
    metric: Metric, *where: Is, by: Iterable[Attribute] = (), window: str = RANGE, dialect: Dialect = DEFAULT
) -> str:
    """How many points a histogram took (a rate per second in the window `RATE`)."""
    return _histogram("count", metric, where, by, window, dialect)


def histogram_total(
    metric: Metric, *where: Is, by: Iterable[Attribute] = (), window: str = RANGE, dialect: Dialect = DEFAULT
) -> str:
    """The sum of the points that a histogram took (a rate per second in the window `RATE`)."""
    return _histogram("sum", metric, where, by, window, dialect)


def histogram_mean(
    metric: Metric, *where: Is, by: Iterable[Attribute] = (), window: str = RATE, dialect: Dialect = DEFAULT
) -> str:
    """The mean of a histogram's points."""
    by = tuple(by)
    return share(
        histogram_total(metric, *where, by=by, window=window, dialect=dialect),
        histogram_count(metric, *where, by=by, window=window, dialect=dialect),
    )


def share(part: str, whole: str) -> str:
    """`part` of `whole`, and nothing (never NaN) where there is no whole."""
    return f"({part}) / ({whole} > 0)"


def or_zero(expression: str, traffic: str) -> str:
    """`expression`, or 0 where it has no series yet but there is `traffic`."""
    return f"({expression}) or 0 * ({traffic})"


def at_most(expression: str, bound: float) -> str:
    """`expression`, bounded from above."""
    return f"clamp_max({expression}, {bound:g})"


def _born(series: str, window: str) -> str:
    return f"last_over_time({series}[{window}]) unless last_over_time({series}[{_FORGOTTEN}] offset {window})"


def _pace(series: str) -> str:
    """How fast each counter of `series` grows per second in the window `RATE`, as `growth` counts it."""
    return f"({_born(series, RATE)}) / (${{__rate_interval_ms}} / 1000) or rate({series}[{RATE}])"


def _moved(series: str, window: str) -> str:
    return _pace(series) if window == RATE else growth(series, window)


def _histogram(
    part: Literal["count", "sum"], metric: Metric, where: tuple[Is, ...], by: Iterable[Attribute],
    window: str, dialect: Dialect,
) -> str:  # fmt: skip
    if dialect.flavour == "native":
        moved = _moved(selector(metric, *where, dialect=dialect), window)
        return f"histogram_{part}({_sum(metric, by)} ({moved}))"
    moved = _moved(selector(metric, *where, suffix=f"_{part}", dialect=dialect), window)
    return f"{_sum(metric, by)} ({moved})"


def _sum(metric: Metric, by: Iterable[Attribute]) -> str:
    return f"sum{_names(metric, by)}"


def _names(metric: Metric, by: Iterable[Attribute]) -> str:
    names = ", ".join(label(_require(metric, one)) for one in by)
    return f" by ({names})" if names else ""


def _require(metric: Metric, attribute: Attribute) -> Attribute:
    if attribute not in metric.labels:
        allowed = sorted(one.key for one in metric.labels)
        raise ValueError(f"{metric.name} has no label {attribute.key}: it has {allowed}")
    return attribute
