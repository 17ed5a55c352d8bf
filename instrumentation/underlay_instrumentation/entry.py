"""The entry point through which the runtime finds this package: a runtime in, a listener out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.telemetry import metrics
from underlay_instrumentation.listener import MAX_MODELS, OpenTelemetryListener

if TYPE_CHECKING:
    from underlay.telemetry.metrics import Generation
    from underlay_instrumentation.instruments import RuntimeView

__all__ = ["bridge"]


def bridge(runtime: RuntimeView) -> OpenTelemetryListener:
    """Return a listener for `runtime` on the global providers as they are; an SDK that is configured later is
    found then.

    Reads `runtime.settings.telemetry.conventions` and `runtime.settings.statistics.max_models` where they
    exist.
    """
    settings = getattr(runtime, "settings", None)
    conventions = getattr(getattr(settings, "telemetry", None), "conventions", "released")
    generation: Generation = conventions if conventions in metrics.GENERATIONS else "released"
    max_models = getattr(getattr(settings, "statistics", None), "max_models", MAX_MODELS)
    return OpenTelemetryListener(runtime, generation=generation, max_models=int(max_models))
