"""Where panels stand: ids that stay, and a grid without gaps to fall into.

The SDK numbers nothing, lets a line of panels run past the last column, and folds a row that holds its own
panels; so ids and positions are computed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.builders import dashboard as db
from grafana_foundation_sdk.models import dashboard as dm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from grafana_foundation_sdk.cog.builder import Builder

    from underlay_dashboards.signals import Dialect

__all__ = ["COLUMNS", "Cell", "Placed", "Section", "place"]

COLUMNS = 24


@dataclass(frozen=True, slots=True)
class Cell:
    """One panel of a dashboard. `id` stays for ever: links and alerts name it. `width` in columns, `height`
    in Grafana's units of 30 pixels."""

    id: int
    panel: Callable[[Dialect], Any]
    width: int
    height: int

    @property
    def key(self) -> str:
        """How code and tests name the panel."""
        return self.panel.__name__


@dataclass(frozen=True, slots=True)
class Section:
    """A row of a dashboard: a title bar with that id (none without a title), and panels from left to right,
    line by line."""

    title: str
    id: int
    cells: tuple[Cell, ...]
    collapsed: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A cell with its place."""

    cell: Cell
    position: dm.GridPos


def place(dashboard: db.Dashboard, sections: tuple[Section, ...], dialect: Dialect) -> db.Dashboard:
    """Add the sections' panels to the dashboard, each with its id and place. Raises ValueError for a panel
    that is wider than the grid and for an id given twice."""
    _unique(sections)
    top = 0
    for section in sections:
        row: db.Row | None = None
        if section.title:
            row = db.Row(section.title).id(section.id).grid_pos(dm.GridPos(x=0, y=top, w=COLUMNS, h=1))
            top += 1
        placed = tuple(_flow(section.cells, top))
        if row is not None and section.collapsed:
            row = row.collapsed(True)  # noqa: FBT003 - the SDK's setter
            for one in placed:
                row = row.with_panel(_panel(one, dialect))
        if row is not None:
            dashboard = dashboard.with_row(row)
        if section.collapsed:
            continue
        for one in placed:
            dashboard = dashboard.with_panel(_panel(one, dialect))
        top = max((one.position.y + one.position.h for one in placed), default=top)
    return dashboard


def _panel(placed: Placed, dialect: Dialect) -> Builder[dm.Panel]:
    panel: Builder[dm.Panel] = (
        placed.cell.panel(dialect).id(placed.cell.id).grid_pos(placed.position)
    )  # fmt: skip
    return panel


def _flow(cells: tuple[Cell, ...], top: int) -> Iterator[Placed]:
    left, line = 0, 0
    for cell in cells:
        if cell.width > COLUMNS:
            raise ValueError(f"panel {cell.key}: {cell.width} columns, the grid has {COLUMNS}")
        if left + cell.width > COLUMNS:
            left, top, line = 0, top + line, 0
        yield Placed(cell, dm.GridPos(x=left, y=top, w=cell.width, h=cell.height))
        left += cell.width
        line = max(line, cell.height)


def _unique(sections: tuple[Section, ...]) -> None:
    seen: dict[int, str] = {}
    for section in sections:
        names = [(section.id, section.title)] if section.title else []
        for number, name in [*names, *((cell.id, cell.key) for cell in section.cells)]:
            if number in seen:
                raise ValueError(f"id {number} is given to {seen[number]} and to {name}")
            seen[number] = name
