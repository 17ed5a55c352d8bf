"""The HTTP span of each attempt: OpenTelemetry's own instrumentation of httpx and httpx2, when the program
imports one of them."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from underlay_instrumentation.faults import fault

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["instrument_http_clients", "when_imported"]

_INSTRUMENTORS: Final = {"httpx": "HTTPXClientInstrumentor", "httpx2": "HTTPX2ClientInstrumentor"}


def when_imported(action: Callable[[], object]) -> None:
    """Do something when the program imports a client family, or now where it has. What it raises is told, and
    the program's import goes on."""
    from wrapt import register_post_import_hook

    def hook(module: Any) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the import that this hook runs in belongs to the program
            fault(f"what was to be done when {module.__name__} is imported", error)

    for family in _INSTRUMENTORS:
        register_post_import_hook(hook, family)


def instrument_http_clients() -> None:
    """Instrument the installed families as they are imported: a program that uses neither pays for neither.

    `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS` is honoured; the generation of the HTTP names stays what the user
    set.
    """
    disabled = {
        name.strip() for name in os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    }
    if "*" in disabled:
        return
    from wrapt import register_post_import_hook

    for family in _INSTRUMENTORS:
        if family not in disabled:
            register_post_import_hook(_instrument, family)


def _instrument(module: Any) -> None:
    try:
        module_of_otel = import_module("opentelemetry.instrumentation.httpx")
        instrumentor = getattr(module_of_otel, _INSTRUMENTORS[module.__name__], None)
        # Older releases know one family only.
        if instrumentor is not None and not instrumentor().is_instrumented_by_opentelemetry:
            instrumentor().instrument(skip_dep_check=True)
    except Exception as error:  # noqa: BLE001 - the import that this hook runs in belongs to the program
        fault("OpenTelemetry's httpx instrumentation", error)
