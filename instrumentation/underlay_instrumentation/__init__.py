"""The OpenTelemetry side of underlay: events in, spans, metrics and log events out.

The names below are loaded on first use, so that a process without auto-instrumentation does not pay for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from underlay_instrumentation.autostart import Shutdown, configure
    from underlay_instrumentation.entry import bridge
    from underlay_instrumentation.instrumentor import UnderlayInstrumentor, post_instrument
    from underlay_instrumentation.listener import OpenTelemetryListener

__all__ = [
    "OpenTelemetryListener",
    "Shutdown",
    "UnderlayInstrumentor",
    "bridge",
    "configure",
    "post_instrument",
]

_HOMES = {
    "OpenTelemetryListener": "listener",
    "Shutdown": "autostart",
    "UnderlayInstrumentor": "instrumentor",
    "bridge": "entry",
    "configure": "autostart",
    "post_instrument": "instrumentor",
}


def __getattr__(name: str) -> object:
    """Load a public name from the module that has it."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
