"""Searches in Jaeger as Grafana's Jaeger data source takes them. grafana-foundation-sdk has no builder for
them; this is the query model of Grafana 11 to 13.

Grafana runs the first query of a panel only, lists one row per trace, and knows neither `or` nor the mere
presence of a tag: a search names one service and the values of its tags.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery

from underlay_dashboards.style import JAEGER

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.common import DataSourceRef

    from underlay_dashboards.signals import Is

__all__ = ["ERROR_TAG", "Search", "Trace", "tag"]

ERROR_TAG = "error=true"
"""How Jaeger tags a span whose OpenTelemetry status is an error."""


def tag(condition: Is) -> str:
    """A condition as a tag of a search (logfmt). Raises ValueError for what a search cannot say."""
    if condition.negated or len(condition.values) != 1:
        raise ValueError(f"{condition.attribute.key}: a search takes one value, not {condition.values}")
    return f"{condition.attribute.key}={condition.values[0]}"


class _Target(Dataquery):
    """A query that serialises to the given fields."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def to_json(self) -> dict[str, object]:
        """The fields, as the SDK's encoder asks for them."""
        return dict(self._fields)


@dataclass(frozen=True, slots=True)
class Search(Builder[Dataquery]):
    """Traces of one service that hold spans with all of `tags`; `min_duration` like "500ms" or a variable.
    Empty fields do not restrict."""

    service: str
    tags: tuple[str, ...] = ()
    operation: str = ""
    min_duration: str = ""
    limit: int = 50
    ref_id: str = "A"
    datasource: DataSourceRef = JAEGER

    def build(self) -> Dataquery:
        """The query for the SDK's `with_target`."""
        return _Target(
            {
                "datasource": self.datasource,
                "limit": self.limit,
                "minDuration": self.min_duration,
                "operation": self.operation,
                "queryType": "search",
                "refId": self.ref_id,
                "service": self.service,
                "tags": " ".join(self.tags),
            }
        )


@dataclass(frozen=True, slots=True)
class Trace(Builder[Dataquery]):
    """One trace by its id, or a variable that holds one."""

    trace_id: str
    ref_id: str = "A"
    datasource: DataSourceRef = JAEGER

    def build(self) -> Dataquery:
        """The query for the SDK's `with_target`. A query without a type is one for an id."""
        return _Target({"datasource": self.datasource, "query": self.trace_id, "refId": self.ref_id})
