"""Auto-instrumentation: what `opentelemetry-instrument` loads. Nothing here raises, because one exception
ends all instrumentation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from underlay_instrumentation.faults import fault

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["UnderlayInstrumentor", "post_instrument"]

_NAME = "underlay"
_TRUE = frozenset({"1", "true", "yes", "on"})


class UnderlayInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # its module opts out of types
    """Puts underlay under every httpx and httpx2 client of the process, as `underlay.instrument()` does."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Nothing: either family of clients may be absent, and clients are found when they are imported."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        if _switched_off():
            return
        try:
            import underlay

            underlay.instrument()
        except Exception as error:  # noqa: BLE001 - the app runs without us
            fault("underlay.instrument()", error)

    def _uninstrument(self, **kwargs: Any) -> None:
        try:
            import underlay

            underlay.uninstrument()
        except Exception as error:  # noqa: BLE001 - as above
            fault("underlay.uninstrument()", error)


def post_instrument() -> None:
    """Run after all instrumentors, whatever their order: instrument if that has not happened. Idempotent.

    OpenTelemetry calls this even for instrumentations that `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS` names, so
    it looks itself.
    """
    try:
        disabled = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
        if {name.strip() for name in disabled.split(",")} & {_NAME, "*"} or _switched_off():
            return
        instrumentor = UnderlayInstrumentor()
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(skip_dep_check=True)
    except Exception as error:  # noqa: BLE001 - an exception here would end the app's start
        fault("underlay's post_instrument", error)


def _switched_off() -> bool:
    return os.environ.get("UNDERLAY_DISABLED", "").strip().lower() in _TRUE
