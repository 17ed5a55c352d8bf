"""The queries of all panels and annotations: every name in them is one of the vocabulary, and every counter is
read as a counter."""

from __future__ import annotations

import re

import pytest

from underlay.telemetry import metrics as m
from underlay_dashboards import signals as s
from underlay_dashboards.manifest import Entry, entries
from underlay_dashboards.signals import Dialect

DIALECTS = (Dialect(), Dialect("native"), Dialect("classic", "upcoming"))
PROMQL = [
    pytest.param(dialect, entry, id=f"{dialect.flavour}-{dialect.generation}-{entry.key}-{entry.ref_id}")
    for dialect in DIALECTS
    for entry in entries(dialect)
    if entry.datasource == "prometheus" and entry.kind != "variable"
]
SELECTOR = re.compile(r"([a-zA-Z_]\w*)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
BY = re.compile(r"(?:sum|max) by \(([^)]*)\)")
WINDOW = re.compile(r"\[([^\]]+)\]")


def _metrics(dialect: Dialect) -> dict[str, m.Metric]:
    names: dict[str, m.Metric] = {}
    for metric in m.ALL:
        name = s.prometheus_name(metric, dialect.generation)
        if metric.kind == "histogram" and dialect.flavour == "classic":
            names |= {f"{name}{part}": metric for part in ("_bucket", "_sum", "_count")}
        else:
            names[name] = metric
    return names


@pytest.mark.parametrize(("dialect", "entry"), PROMQL)
def test_names_and_labels_are_those_of_the_vocabulary(dialect: Dialect, entry: Entry) -> None:
    """No query asks for a metric that is never sent, nor for a label or value that it never has."""
    names = _metrics(dialect)
    selectors = SELECTOR.findall(entry.expr)
    assert selectors
    allowed: set[str] = set()
    for name, inner in selectors:
        assert name in names
        labels = {s.label(one): one for one in names[name].labels}
        allowed |= set(labels)
        for label, _operator, value in MATCHER.findall(inner):
            assert label in labels or label in s.RESOURCE_LABELS
            if label in labels and labels[label].closed and not value.startswith("$"):
                assert set(value.split("|")) <= set(labels[label].values)
    if any(name.endswith("_bucket") for name, _ in selectors):
        allowed.add("le")
    for group in BY.findall(entry.expr):
        assert set(group.split(", ")) <= allowed | s.RESOURCE_LABELS


@pytest.mark.parametrize(("dialect", "entry"), PROMQL)
def test_legends_show_labels_that_the_answer_has(dialect: Dialect, entry: Entry) -> None:
    """A legend names only labels that the query keeps."""
    kept = {name for group in BY.findall(entry.expr) for name in group.split(", ")}
    texts = [entry.legend, *((entry.raw or {}).get(field, "") for field in ("textFormat", "titleFormat"))]
    assert set(re.findall(r"\{\{(\w+)\}\}", " ".join(texts))) <= kept


@pytest.mark.parametrize(("dialect", "entry"), PROMQL)
def test_counters_and_histograms_are_read_as_growth(dialect: Dialect, entry: Entry) -> None:
    """A counter stands inside rate, increase, or one of the two forms that count a new series from zero."""
    names = _metrics(dialect)
    growing = [name for name, metric in names.items() if metric.kind != "gauge"]
    series = rf"(?:{'|'.join(sorted(map(re.escape, growing), key=len, reverse=True))})\{{[^}}]*\}}"
    window = r"\[[^\]]+\](?: offset \$__\w+)?"
    left = re.sub(rf"(?:rate|increase|last_over_time)\({series}{window}\)", "@", entry.expr)
    left = re.sub(rf"\({series} unless @\) or \({series} - @ >= 0\)", "@", left)
    assert not re.search(series, left)


@pytest.mark.parametrize(("dialect", "entry"), PROMQL)
def test_windows_follow_the_dashboard(dialect: Dialect, entry: Entry) -> None:
    """Graphs count in $__rate_interval, single numbers in $__range; only the look-back for what was there
    before is fixed."""
    without_past = re.sub(r"last_over_time\([^\[]+\[1h\] offset \$__\w+\)", "", entry.expr)
    windows = set(WINDOW.findall(without_past))
    assert windows <= ({s.RANGE} if entry.mode == "instant" else {s.RATE})


@pytest.mark.parametrize(("dialect", "entry"), PROMQL)
def test_every_query_follows_the_variables(dialect: Dialect, entry: Entry) -> None:
    """Service, provider and model narrow every series that has the label."""
    names = _metrics(dialect)
    for name, inner in SELECTOR.findall(entry.expr):
        asked = {(label, value) for label, _, value in MATCHER.findall(inner)}
        assert ("service_name", "$service") in asked
        keys = {one.key for one in names[name].labels}
        assert (("gen_ai_provider_name", "$provider") in asked) == ("gen_ai.provider.name" in keys)
        assert (("gen_ai_request_model", "$model") in asked) == ("gen_ai.request.model" in keys)


@pytest.mark.parametrize(("dialect", "entry"), PROMQL)
def test_brackets_close(dialect: Dialect, entry: Entry) -> None:
    """Every query is well formed as far as brackets go."""
    for opened, closed in ("()", "[]", "{}"):
        assert entry.expr.count(opened) == entry.expr.count(closed)


def test_every_metric_of_the_vocabulary_is_shown() -> None:
    """No metric leaves the process without a place on a dashboard."""
    shown = {name for entry in entries() for name, _ in SELECTOR.findall(entry.expr)}
    missing = [
        metric.name
        for metric in m.ALL
        if not any(name.startswith(s.prometheus_name(metric)) for name in shown)
    ]
    assert missing == []


def test_bucket_flavour_is_never_mixed() -> None:
    """Native queries know neither buckets nor `le`; classic ones never ask for a bare histogram."""
    for entry in entries(Dialect("native")):
        assert "_bucket" not in entry.expr
        assert not re.search(r"\ble\b", entry.expr)
