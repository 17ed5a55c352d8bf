"""House rules for every panel: what the SDK leaves out is there, and nothing overlaps."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from underlay_dashboards import variables as v
from underlay_dashboards.dashboards import BOARDS, EMPTY_BY_DESIGN, OVERVIEW
from underlay_dashboards.layout import Cell, Section, place
from underlay_dashboards.manifest import entries
from underlay_dashboards.panels import cache
from underlay_dashboards.signals import DEFAULT

Boards = dict[str, dict[str, Any]]
Panels = list[tuple[str, dict[str, Any]]]

CONTRACT = {
    "Cache": {"hit_rate_over_time", "size_in_entries", "size_in_bytes", "evictions"},
    "Latency": {"percentiles", "before_against_after", "batch_against_individual"},
    "Throughput": {"calls_and_requests", "upstream", "batches", "average_batch_size"},
    "Reliability": {"circuit_states", "error_rate_by_kind", "trips_and_recoveries", "refusals"},
    "Cost": {"tokens_per_model", "cost_per_model", "savings", "reduction_over_time"},
}
"""The five sections of the N3 contract and what each must show."""

OURS = {"Flights and windows"}
"""Rows beyond the contract."""

FIRST_SCREEN = 18
"""Rows of the grid (38 pixels each with their gap) that fit under Grafana's bars at 1600 x 900."""


def test_every_section_of_the_contract_has_a_row() -> None:
    """The overview has one open row for each section of the contract, with every metric named there."""
    rows = {section.title: {cell.key for cell in section.cells} for section in OVERVIEW.sections[1:]}
    assert [title for title in rows if title not in OURS] == list(CONTRACT)
    assert set(rows) - set(CONTRACT) == OURS
    assert {title: keys - rows[title] for title, keys in CONTRACT.items() if keys - rows[title]} == {}
    assert not any(section.collapsed for section in OVERVIEW.sections)


def test_the_first_screen_needs_no_scrolling(boards: Boards) -> None:
    """Well, saved and wrong are answered above the first row."""
    first_row = next(one for one in boards[OVERVIEW.uid]["panels"] if one["type"] == "row")
    assert first_row["gridPos"]["y"] <= FIRST_SCREEN


def test_ids_are_unique_and_positive(boards: Boards) -> None:
    """Every panel and row has an id of its own: links and alerts name it."""
    for document in boards.values():
        ids = [one["id"] for one in document["panels"]]
        ids += [inner["id"] for one in document["panels"] for inner in one.get("panels", [])]
        assert len(ids) == len(set(ids))
        assert all(number > 0 for number in ids)


def test_nothing_overlaps_or_leaves_the_grid(boards: Boards) -> None:
    """Panels stand inside 24 columns and beside each other."""
    for document in boards.values():
        for panels in (document["panels"], *(one.get("panels", []) for one in document["panels"])):
            places = [(one["title"], one["gridPos"]) for one in panels]
            for title, at in places:
                assert at["x"] >= 0, title
                assert at["x"] + at["w"] <= 24, title
            for (one, a), (other, b) in itertools.combinations(places, 2):
                apart = (
                    a["x"] + a["w"] <= b["x"]
                    or b["x"] + b["w"] <= a["x"]
                    or a["y"] + a["h"] <= b["y"]
                    or b["y"] + b["h"] <= a["y"]
                )
                assert apart, f"{one} and {other}"


def test_lines_of_the_grid_are_full(boards: Boards) -> None:
    """No line of panels leaves a hole at its end."""
    for document in boards.values():
        lines: dict[int, int] = {}
        for one in document["panels"]:
            lines[one["gridPos"]["y"]] = lines.get(one["gridPos"]["y"], 0) + one["gridPos"]["w"]
        assert set(lines.values()) == {24}


def test_every_panel_says_what_it_shows(panels: Panels) -> None:
    """A title, a description of at least a sentence, and a unit where there are numbers."""
    for name, panel in panels:
        assert panel["title"], name
        assert len(panel["description"]) > 40, name
        assert panel["description"].endswith("."), name
        if panel["type"] in {"timeseries", "stat", "state-timeline"}:
            assert panel["fieldConfig"]["defaults"]["unit"], name


def test_every_panel_starts_at_zero_and_speaks_when_empty(panels: Panels) -> None:
    """Axes start at 0, and a panel without data says so in words."""
    for name, panel in panels:
        if panel["type"] in {"timeseries", "stat", "state-timeline"}:
            assert panel["fieldConfig"]["defaults"]["min"] == 0, name
        if panel["type"] in {"timeseries", "stat", "state-timeline", "table"}:
            assert panel["fieldConfig"]["defaults"]["noValue"], name


def test_legends_and_tooltips_are_on(panels: Panels) -> None:
    """What the SDK leaves off is on."""
    for name, panel in panels:
        if panel["type"] in {"timeseries", "state-timeline"}:
            assert panel["options"]["legend"]["showLegend"] is True, name
        if panel["type"] == "timeseries":
            assert panel["options"]["tooltip"]["mode"] == "multi", name
        if panel["type"] == "stat":
            assert panel["options"]["reduceOptions"]["calcs"] == ["lastNotNull"], name


def test_data_sources_are_variables_on_panel_and_target(panels: Panels) -> None:
    """Panel and query name the same data source, and it is the one that the reader chose."""
    for name, panel in panels:
        if panel["type"] == "text":
            assert not panel.get("targets"), name
            continue
        assert panel["datasource"]["uid"] in {"${datasource}", "${traces}"}, name
        assert panel["targets"], name
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"], name


def test_refids_are_unique_in_a_panel(panels: Panels) -> None:
    """Two queries of one panel never share a refId."""
    for name, panel in panels:
        ids = [target["refId"] for target in panel.get("targets", [])]
        assert len(ids) == len(set(ids)), name


def test_queries_are_range_or_instant(panels: Panels) -> None:
    """Single numbers are asked once, graphs over time."""
    for name, panel in panels:
        for target in panel.get("targets", []):
            if target["datasource"]["type"] == "prometheus":
                assert (target["instant"], target["range"]) == (
                    (True, False) if panel["type"] == "stat" else (False, True)
                ), name


def test_durations_carry_exemplars(panels: Panels) -> None:
    """The graphs of durations and waits draw the traces behind them as dots."""
    drawn = {
        panel["title"] for _, panel in panels for target in panel.get("targets", []) if target.get("exemplar")
    }
    assert drawn == {
        "Latency per model", "Before and after the cache", "Streams", "Wait of coalesced calls", "Wait in windows",
    }  # fmt: skip


def test_a_jaeger_panel_has_one_query(panels: Panels) -> None:
    """Grafana's Jaeger data source runs the first query of a panel only."""
    for name, panel in panels:
        if panel.get("datasource", {}).get("type") == "jaeger":
            assert len(panel["targets"]) == 1, name


def test_searches_name_one_service_and_tags_of_the_vocabulary() -> None:
    """A search takes one service, known tags, and what the reader adds."""
    from underlay.telemetry import attributes as a

    keys = {one.key: one for one in a.ALL}
    for entry in entries():
        if entry.mode != "search":
            continue
        raw = entry.raw or {}
        assert raw["service"] == "$service"
        tags = entry.expr.split(" ")
        assert tags[-3:] == ["${provider:raw}", "${model:raw}", "$filter"]
        for tag in tags[:-3]:
            key, value = tag.split("=")
            if tag == "error=true":
                continue
            assert key in keys
            assert value.startswith("$") or value in keys[key].values


def test_links_and_annotations_are_in_sight(boards: Boards) -> None:
    """Nothing is hidden in the controls menu, and the two dashboards link to each other."""
    text = json.dumps(boards)
    assert "inControlsMenu" not in text
    assert not any("placement" in link for document in boards.values() for link in document["links"])
    for document in boards.values():
        assert {link["url"].removeprefix("/d/") for link in document["links"]} == set(boards) - {
            document["uid"]
        }


def test_annotations_mark_each_state_that_a_circuit_enters(boards: Boards) -> None:
    """Opening, probing and recovering are three marks in the colours of the states."""
    marks = {one["name"]: one["iconColor"] for one in boards[OVERVIEW.uid]["annotations"]["list"]}
    assert marks == {"circuit closed": "green", "circuit half_open": "yellow", "circuit open": "red"}


@pytest.mark.parametrize(
    ("uid", "names"),
    [
        ("underlay-overview", ["datasource", "service", "provider", "model"]),
        (
            "underlay-calls",
            [
                "datasource",
                "traces",
                "service",
                "provider",
                "model",
                "ending",
                "slower_than",
                "filter",
                "trace",
            ],
        ),
    ],
)
def test_variables_in_their_order(boards: Boards, uid: str, names: list[str]) -> None:
    """Data source, then service, provider, model: each narrows the next, none uses what comes after it."""
    listed = boards[uid]["templating"]["list"]
    assert [one["name"] for one in listed] == names
    for index, one in enumerate(listed):
        used = set(re.findall(r"\$\{?([a-z_]+)", json.dumps(one.get("query", "")))) - {"__range"}
        assert used <= set(names[:index])


def test_every_variable_in_use_exists(boards: Boards) -> None:
    """No query names a variable that its dashboard does not have."""
    for document in boards.values():
        known = {one["name"] for one in document["templating"]["list"]}
        used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(document["panels"])))
        assert used <= known


def test_all_is_a_pattern_that_keeps_series_without_the_label(boards: Boards) -> None:
    """ "All" of the overview never leaves out a series because it lacks a label."""
    for one in boards[OVERVIEW.uid]["templating"]["list"]:
        if one["type"] == "query":
            assert one["includeAll"] is True
            assert one["multi"] is True
            assert one["allValue"] == ".*"


def test_the_provisioned_data_sources_come_first(boards: Boards) -> None:
    """The data sources that the stack provisions are chosen where a Grafana has several."""
    root = Path(__file__).parents[2]
    path = root / "observability" / "grafana" / "provisioning" / "datasources" / "underlay.yaml"
    provisioned = {one["type"]: one["uid"] for one in yaml.safe_load(path.read_text())["datasources"]}
    assert provisioned == {"prometheus": v.PROMETHEUS_UID, "jaeger": v.JAEGER_UID}
    for document in boards.values():
        for one in document["templating"]["list"]:
            if one["type"] == "datasource":
                assert one["current"]["value"] == provisioned[one["query"]]


def test_what_may_be_empty_exists_and_has_a_reason(boards: Boards) -> None:
    """The list of empty panels names panels and queries that are there, each with a reason."""
    keys = {cell.key for board in BOARDS for section in board.sections for cell in section.cells}
    queries = {f"{entry.key}.{entry.ref_id}" for entry in entries() if entry.kind == "target"}
    assert set(EMPTY_BY_DESIGN) <= keys | queries
    assert all(len(reason) > 20 for reason in EMPTY_BY_DESIGN.values())
    texts = {
        cell.key
        for board in BOARDS
        for section in board.sections
        for cell in section.cells
        if not any(entry.key == cell.key for entry in entries())
    }
    assert texts <= set(EMPTY_BY_DESIGN)


def test_the_manifest_lists_every_query_once(boards: Boards, panels: Panels) -> None:
    """Each query, variable and annotation of the documents has one entry, and no two share a name."""
    listed = entries()
    assert len({(one.dashboard, one.kind, one.key, one.ref_id) for one in listed}) == len(listed)
    targets = sum(len(panel.get("targets", [])) for _, panel in panels)
    chosen = sum(len(document["templating"]["list"]) for document in boards.values())
    marks = sum(len(document["annotations"].get("list", [])) for document in boards.values())
    assert len(listed) == targets + chosen + marks


def test_dashboards_are_read_only_and_in_the_readers_time(boards: Boards) -> None:
    """A change in the browser would be lost, so there is none; times are the reader's own."""
    for document in boards.values():
        assert document["editable"] is False
        assert document["timezone"] == "browser"
        assert document["refresh"] == "10s"
        assert "underlay" in document["tags"]


def test_layout_refuses_what_does_not_fit() -> None:
    """A panel wider than the grid and an id given twice are errors, not a broken dashboard."""
    from grafana_foundation_sdk.builders.dashboard import Dashboard

    wide = (Section("", 0, (Cell(1, cache.lookups, 25, 4),)),)
    with pytest.raises(ValueError, match="panel lookups: 25 columns, the grid has 24"):
        place(Dashboard("x"), wide, DEFAULT)
    twice = (Section("", 0, (Cell(1, cache.lookups, 4, 4), Cell(1, cache.evictions, 4, 4))),)
    with pytest.raises(ValueError, match="id 1 is given to lookups and to evictions"):
        place(Dashboard("x"), twice, DEFAULT)
