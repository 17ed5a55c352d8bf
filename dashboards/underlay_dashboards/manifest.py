"""What the dashboards ask, as a list: one entry for every query of a panel, every variable and every
annotation. Tests run each of them against real servers and compare the answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from underlay_dashboards.dashboards import BOARDS, EMPTY_BY_DESIGN
from underlay_dashboards.render import documents
from underlay_dashboards.signals import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from underlay_dashboards.dashboards import Board
    from underlay_dashboards.signals import Dialect

__all__ = ["Entry", "entries"]

Kind = Literal["target", "variable", "annotation"]
Mode = Literal["range", "instant", "search", "trace", "values"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a dashboard asks.

    `key` names the panel by its function, the variable or the annotation by its name; `ref_id` names one
    query of a panel. `expr` is the query as written, with variables: PromQL, the tags of a search, the id
    of a trace, the query of a variable, or the values of one that has a fixed list. `mode`: `range` and
    `instant` are asked of Prometheus, `search` and `trace` of Jaeger, `values` fill a variable. `raw` is
    the query's own JSON. `empty_reason` says why it may answer nothing, "" for all that must answer.
    """

    dashboard: str
    kind: Kind
    key: str
    ref_id: str
    title: str
    expr: str
    mode: Mode
    datasource: str
    panel_id: int = 0
    panel_type: str = ""
    legend: str = ""
    unit: str = ""
    min_interval: str = ""
    regex: str = ""
    empty_reason: str = ""
    raw: dict[str, Any] | None = None


def entries(dialect: Dialect = DEFAULT) -> tuple[Entry, ...]:
    """Everything that all dashboards ask, in the order of the dashboards."""
    found: list[Entry] = []
    for board in BOARDS:
        document = documents(dialect)[board.uid]
        found += _variables(board.uid, document)
        found += _annotations(board.uid, document)
        found += _targets(board, document)
    return tuple(found)


def _variables(uid: str, document: dict[str, Any]) -> Iterator[Entry]:
    for variable in document["templating"]["list"]:
        query = variable.get("query", "")
        datasource = variable.get("datasource", {}).get("type", "")
        yield Entry(
            dashboard=uid,
            kind="variable",
            key=variable["name"],
            ref_id="",
            title=variable.get("label", variable["name"]),
            expr=query["query"] if isinstance(query, dict) else query,
            mode="values",
            datasource=datasource,
            panel_type=variable["type"],
            regex=variable.get("regex", ""),
            raw=variable,
        )


def _annotations(uid: str, document: dict[str, Any]) -> Iterator[Entry]:
    for annotation in document.get("annotations", {}).get("list", []):
        yield Entry(
            dashboard=uid,
            kind="annotation",
            key=annotation["name"],
            ref_id="",
            title=annotation["name"],
            expr=annotation["expr"],
            mode="range",
            datasource=annotation["datasource"]["type"],
            legend=annotation["titleFormat"],
            min_interval=annotation["step"],
            raw=annotation,
        )


def _targets(board: Board, document: dict[str, Any]) -> Iterator[Entry]:
    keys = {cell.id: cell.key for section in board.sections for cell in section.cells}
    for panel in _panels(document["panels"]):
        key = keys[panel["id"]]
        for target in panel.get("targets", []):
            reason = EMPTY_BY_DESIGN.get(key) or EMPTY_BY_DESIGN.get(f"{key}.{target['refId']}", "")
            yield Entry(
                dashboard=board.uid,
                kind="target",
                key=key,
                ref_id=target["refId"],
                title=panel["title"],
                expr=target.get("expr") or target.get("tags") or target.get("query", ""),
                mode=_mode(target),
                datasource=target["datasource"]["type"],
                panel_id=panel["id"],
                panel_type=panel["type"],
                legend=target.get("legendFormat", ""),
                unit=panel.get("fieldConfig", {}).get("defaults", {}).get("unit", ""),
                min_interval=panel.get("interval", ""),
                empty_reason=reason,
                raw=target,
            )


def _mode(target: dict[str, Any]) -> Mode:
    if target["datasource"]["type"] == "jaeger":
        return "search" if target.get("queryType") == "search" else "trace"
    return "instant" if target.get("instant") else "range"


def _panels(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        if panel["type"] == "row":
            yield from _panels(panel.get("panels", []))
        else:
            yield panel
