"""House style: one factory for each kind of panel, so that no panel forgets what the SDK leaves out (legend,
tooltip, calculation, datasource on panel and target, what an empty panel says)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from grafana_foundation_sdk.builders import common as cb
from grafana_foundation_sdk.builders import dashboard as db
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common as cm
from grafana_foundation_sdk.models import dashboard as dm
from grafana_foundation_sdk.models import prometheus as pm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana_foundation_sdk.cog.builder import Builder

    PanelBuilder = Builder[dm.Panel]

__all__ = [
    "BAD",
    "GOOD",
    "JAEGER",
    "NEUTRAL",
    "NO_TRAFFIC",
    "PROMETHEUS",
    "WARNING",
    "Query",
    "dashed",
    "data_table",
    "graph",
    "query",
    "states", "statuses_in_red",
    "thresholds",
    "tile",
]  # fmt: skip

PROMETHEUS = cm.DataSourceRef(type_val="prometheus", uid="${datasource}")
JAEGER = cm.DataSourceRef(type_val="jaeger", uid="${traces}")
NO_TRAFFIC = "no traffic"
GOOD, WARNING, BAD, NEUTRAL = "green", "orange", "red", "text"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query of a panel. `exemplar`: draw the traces behind a histogram as dots."""

    expression: str
    legend: str = ""
    exemplar: bool = False


def query(one: Query, number: int, *, instant: bool = False) -> prometheus.Dataquery:
    """The SDK's form of a query; the refIds of a panel are A, B, C, …"""
    built = (
        prometheus.Dataquery()
        .expr(one.expression)
        .ref_id(chr(ord("A") + number))
        .datasource(PROMETHEUS)
        .editor_mode(pm.QueryEditorMode.CODE)
        .legend_format(one.legend or "__auto")
    )
    if one.exemplar:
        built = built.exemplar(True)  # noqa: FBT003 - the SDK's setter
    return built.instant() if instant else built.range()


def thresholds(*steps: tuple[float | None, str]) -> db.ThresholdsConfig:
    """Colours from a value on; the first step starts at None."""
    return db.ThresholdsConfig().mode(dm.ThresholdsMode.ABSOLUTE).steps(
        [dm.Threshold(value=value, color=color) for value, color in steps]
    )  # fmt: skip


def tile(
    title: str, description: str, expression: str, unit: str, steps: Sequence[tuple[float | None, str]] = (),
    *, decimals: int | None = None, empty: str = NO_TRAFFIC,
) -> stat.Panel:  # fmt: skip
    """One number over the time range of the dashboard, coloured by its thresholds."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .with_target(query(Query(expression), 0, instant=True))
        .unit(unit)
        .min(0)
        .no_value(empty)
        .thresholds(thresholds(*(steps or [(None, NEUTRAL)])))
        .color_scheme(db.FieldColor().mode(dm.FieldColorModeId.THRESHOLDS))
        .reduce_options(cb.ReduceDataOptions().calcs(["lastNotNull"]).values(False))  # noqa: FBT003
        .color_mode(cm.BigValueColorMode.VALUE)
        .graph_mode(cm.BigValueGraphMode.NONE)
        .text_mode(cm.BigValueTextMode.VALUE)
        .justify_mode(cm.BigValueJustifyMode.AUTO)
        .orientation(cm.VizOrientation.AUTO)
    )
    return panel if decimals is None else panel.decimals(decimals)


def graph(
    title: str, description: str, queries: Sequence[Query], unit: str, *, stacked: bool = False,
    colors: Mapping[str, str] | None = None, calcs: Sequence[str] = ("lastNotNull", "max"),
    legend: Literal["table", "list", "right"] = "list", bars: bool = False, empty: str = NO_TRAFFIC,
) -> timeseries.Panel:  # fmt: skip
    """Lines over time. `colors` fixes the colour of a series by the name in its legend, so that one thing has
    one colour on every panel; `empty` is what the panel says without a series."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .no_value(empty)
        .legend(_legend(legend, calcs))
        .tooltip(cb.VizTooltipOptions().mode(cm.TooltipDisplayMode.MULTI).sort(cm.SortOrder.DESCENDING))
        .line_width(1 if stacked or bars else 2)
        .fill_opacity(60 if bars else 35 if stacked else 0)
        .draw_style(cm.GraphDrawStyle.BARS if bars else cm.GraphDrawStyle.LINE)
        .line_interpolation(cm.LineInterpolation.LINEAR)
        .show_points(cm.VisibilityMode.AUTO)
        .span_nulls(False)  # noqa: FBT003 - a gap is a gap
        .color_scheme(db.FieldColor().mode(dm.FieldColorModeId.PALETTE_CLASSIC))
    )
    if stacked or bars:
        panel = panel.stacking(cb.StackingConfig().mode(cm.StackingMode.NORMAL).group("A"))
    for number, one in enumerate(queries):
        panel = panel.with_target(query(one, number))
    for name, color in (colors or {}).items():
        panel = panel.override_by_name(name, [_fixed(color)])
    return panel


def statuses_in_red(panel: timeseries.Panel) -> timeseries.Panel:
    """Draw series that are named by an HTTP error status in shades of red: the palette starts with green."""
    shades = dm.DynamicConfigValue(id_val="color", value={"mode": "shades", "fixedColor": "red"})
    return panel.override_by_regexp(r"/^[45]\d\d$/", [shades])


def dashed(panel: timeseries.Panel, name: str, color: str) -> timeseries.Panel:
    """Draw the series of that name as a dashed line without filling: a bound, not a measurement."""
    return panel.override_by_name(
        name,
        [
            _fixed(color),
            dm.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 6]}),
            dm.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
            dm.DynamicConfigValue(
                id_val="custom.stacking", value={"mode": cm.StackingMode.NONE.value, "group": "B"}
            ),
        ],
    )


def states(
    title: str, description: str, one: Query, values: Mapping[int, tuple[str, str]]
) -> statetimeline.Panel:
    """States over time as coloured bars: `values` gives the name and colour of each number. What is unknown
    is said to be unknown, never drawn as good."""
    mapped: list[dm.ValueMapping] = [
        dm.ValueMap(
            options={
                str(value): dm.ValueMappingResult(text=name, color=color, index=index)
                for index, (value, (name, color)) in enumerate(values.items())
            }
        ),
        dm.SpecialValueMap(
            options=dm.DashboardSpecialValueMapOptions(
                match=dm.SpecialValueMatch.NULL_AND_NAN,
                result=dm.ValueMappingResult(text="unknown", color="gray", index=len(values)),
            )
        ),
    ]
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .with_target(query(one, 0))
        .unit("none")
        .min(0)
        .no_value(NO_TRAFFIC)
        .mappings(mapped)
        .thresholds(thresholds((None, "gray")))
        .color_scheme(db.FieldColor().mode(dm.FieldColorModeId.THRESHOLDS))
        .merge_values(True)  # noqa: FBT003 - the SDK's setter
        .show_value(cm.VisibilityMode.AUTO)
        .row_height(0.8)
        .fill_opacity(75)
        .line_width(0)
        .legend(_legend("list", ()))
        .tooltip(cb.VizTooltipOptions().mode(cm.TooltipDisplayMode.SINGLE).sort(cm.SortOrder.NONE))
    )


def data_table(
    title: str, description: str, source: cm.DataSourceRef, widths: Mapping[str, int]
) -> table.Panel:
    """A table without targets: `widths` (pixels) of the columns that have a name."""
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(source)
        .no_value(NO_TRAFFIC)
        .show_header(True)  # noqa: FBT003 - the SDK's setter
        .cell_height(cm.TableCellHeight.SM)
    )
    for name, width in widths.items():
        panel = panel.override_by_name(name, [dm.DynamicConfigValue(id_val="custom.width", value=width)])
    return panel


def _legend(mode: Literal["table", "list", "right"], calcs: Sequence[str]) -> cb.VizLegendOptions:
    return (
        cb.VizLegendOptions()
        .show_legend(True)  # noqa: FBT003 - the SDK leaves legends off
        .display_mode(cm.LegendDisplayMode.LIST if mode == "list" else cm.LegendDisplayMode.TABLE)
        .placement(cm.LegendPlacement.RIGHT if mode == "right" else cm.LegendPlacement.BOTTOM)
        .calcs([] if mode == "list" else list(calcs))
    )


def _fixed(color: str) -> dm.DynamicConfigValue:
    return dm.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})
