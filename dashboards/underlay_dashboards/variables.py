"""What a reader chooses at the top of a dashboard: data source, service, provider, model.

Each choice narrows the next. "All" of a list is the pattern `.*`, so that series without the label stay in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import dashboard as db
from grafana_foundation_sdk.models import dashboard as dm

from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import Ending
from underlay_dashboards import signals as s
from underlay_dashboards.style import PROMETHEUS

if TYPE_CHECKING:
    from underlay.telemetry.attributes import Attribute

__all__ = [
    "JAEGER_UID", "PROMETHEUS_UID", "ending", "extra_tags", "model", "one_service", "prometheus_source",
    "provider", "services", "slower_than", "tag_choice", "trace_id", "traces_source",
]  # fmt: skip

PROMETHEUS_UID = "underlay-prometheus"
"""The data source that the stack provisions, chosen first where there are several."""

JAEGER_UID = "underlay-jaeger"
"""The data source for traces that the stack provisions."""

_ANY = ".*"
_NO_TAG = " "
_LABEL_VALUES, _QUERY_RESULT = 1, 3  # how Grafana's editor of variables numbers them


def _source(name: str, label: str, kind: str, uid: str, text: str) -> db.DatasourceVariable:
    return (
        db.DatasourceVariable(name)
        .label(label)
        .type(kind)
        .current(dm.VariableOption(text=text, value=uid))
        .allow_custom_value(False)  # noqa: FBT003 - the SDK's setter
    )


def prometheus_source() -> db.DatasourceVariable:
    """Where metrics come from."""
    return _source("datasource", "metrics", "prometheus", PROMETHEUS_UID, "Prometheus")


def traces_source() -> db.DatasourceVariable:
    """Where traces come from."""
    return _source("traces", "traces", "jaeger", JAEGER_UID, "Jaeger")


def _query(name: str, text: str, expression: str, kind: int = _LABEL_VALUES) -> db.QueryVariable:
    return (
        db.QueryVariable(name)
        .label(text)
        .datasource(PROMETHEUS)
        .definition(expression)
        .query({"query": expression, "refId": "PrometheusVariableQueryEditor-VariableQuery", "qryType": kind})
        .refresh(dm.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dm.VariableSort.ALPHABETICAL_ASC)
        .allow_custom_value(False)  # noqa: FBT003 - the SDK's setter
    )


def _many(variable: db.QueryVariable) -> db.QueryVariable:
    return (
        variable.multi(True)  # noqa: FBT003 - the SDK's setter
        .include_all(True)  # noqa: FBT003 - the SDK's setter
        .all_value(_ANY)
        .current(dm.VariableOption(text="All", value="$__all"))
    )


def _values(of: str, *where: str) -> str:
    name = s.prometheus_name(m.CALLS)
    return f"label_values({name}{{{', '.join(where)}}}, {of})"


def services() -> db.QueryVariable:
    """Services that made calls: any number of them."""
    return _many(_query("service", "service", _values(s.SERVICE_LABEL)))


def one_service() -> db.QueryVariable:
    """One service: a search in Jaeger takes exactly one."""
    return _query("service", "service", _values(s.SERVICE_LABEL))


_OF_SERVICE = f'{s.SERVICE_LABEL}=~"$service"'


def provider() -> db.QueryVariable:
    """Providers that the chosen services called."""
    return _many(_query("provider", "provider", _values(s.label(a.PROVIDER), _OF_SERVICE)))


def model() -> db.QueryVariable:
    """Models that the chosen services asked the chosen providers for."""
    chosen = f'{s.label(a.PROVIDER)}=~"$provider"'
    return _many(_query("model", "model", _values(s.label(a.REQUEST_MODEL), _OF_SERVICE, chosen)))


def tag_choice(name: str, attribute: Attribute) -> db.QueryVariable:
    """A value of `attribute` for a search in Jaeger. The variable's value is the whole tag (`key=value`),
    shown without its key, so that "All" can be no tag at all: a search knows no pattern."""
    series = f"last_over_time({s.prometheus_name(m.CALLS)}{{{_OF_SERVICE}}}[{s.RANGE}])"
    labelled = f'label_replace({series}, "tag", "{attribute.key}=$1", "{s.label(attribute)}", "(.+)")'
    return (
        _query(name, name, f"query_result(count by (tag) ({labelled}))", _QUERY_RESULT)
        .regex('/tag="(?<value>[^"=]+=(?<text>[^"]+))"/')
        .include_all(True)  # noqa: FBT003 - the SDK's setter
        .all_value(_NO_TAG)
        .current(dm.VariableOption(text="All", value="$__all"))
    )


def ending() -> db.CustomVariable:
    """How the calls of the tables `Recent` and `Slow` ended."""
    return (
        db.CustomVariable("ending")
        .label("ended")
        .values(",".join(a.ENDING.values))
        .current(dm.VariableOption(text=Ending.COMPLETE.value, value=Ending.COMPLETE.value))
        .allow_custom_value(False)  # noqa: FBT003 - the SDK's setter
    )


def slower_than() -> db.CustomVariable:
    """The duration from which a call is slow."""
    return (
        db.CustomVariable("slower_than")
        .label("slower than")
        .values("100ms,500ms,1s,2s,5s,10s,30s")
        .current(dm.VariableOption(text="1s", value="1s"))
    )


def extra_tags() -> db.TextBoxVariable:
    """More tags to search for, in logfmt."""
    return (
        db.TextBoxVariable("filter")
        .label("more tags")
        .description(
            f"Tags that every table searches for as well, for example {a.CACHE_KEY.key}=93e365f1ed0da13c"
        )
        .default_value("")
    )


def trace_id() -> db.TextBoxVariable:
    """The trace that the row `One trace` draws."""
    return (
        db.TextBoxVariable("trace")
        .label("trace id")
        .description("The trace that the row `One trace` draws: 32 hexadecimal digits")
        .default_value("")
    )
