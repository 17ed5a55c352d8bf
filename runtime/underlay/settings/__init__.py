"""Validated settings: what they are (schema), where they come from (sources), how they are shown (views)."""

from __future__ import annotations

from underlay.settings.schema import (
    PILLARS,
    SECTIONS,
    BatchSettings,
    CacheSettings,
    CircuitBreakerSettings,
    CoalesceSettings,
    Conventions,
    Dialect,
    Mode,
    ModelRoute,
    Pillar,
    Recognise,
    Sampling,
    Section,
    Settings,
    StatisticsSettings,
    TelemetrySettings,
)
from underlay.settings.sources import (
    OTHER_PREFIXES,
    OTHER_VARIABLES,
    PRESETS,
    Loaded,
    field_specs,
    load,
    variables,
)
from underlay.settings.spec import FrozenMap, Kind, Secret, Spec
from underlay.settings.views import Row, as_mapping, describe, json_schema

__all__ = [
    "OTHER_PREFIXES",
    "OTHER_VARIABLES",
    "PILLARS",
    "PRESETS",
    "SECTIONS",
    "BatchSettings",
    "CacheSettings",
    "CircuitBreakerSettings",
    "CoalesceSettings",
    "Conventions",
    "Dialect",
    "FrozenMap",
    "Kind",
    "Loaded",
    "Mode",
    "ModelRoute",
    "Pillar",
    "Recognise",
    "Row",
    "Sampling",
    "Secret",
    "Section",
    "Settings",
    "Spec",
    "StatisticsSettings",
    "TelemetrySettings",
    "as_mapping",
    "describe",
    "field_specs",
    "json_schema",
    "load",
    "variables",
]
