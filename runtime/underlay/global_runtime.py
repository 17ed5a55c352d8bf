"""The runtime under every client of the process: `underlay.instrument()` and its undoing."""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from threading import Lock
from typing import TYPE_CHECKING

from underlay.runtime import Runtime
from underlay.transports import seam

if TYPE_CHECKING:
    from collections.abc import Mapping

    from underlay.settings import Settings

__all__ = ["BRIDGE", "bridges", "current", "instrument", "uninstrument"]

BRIDGE = "underlay.bridge"
"""Entry-point group through which telemetry is found, so that nothing here imports OpenTelemetry."""

_log = logging.getLogger("underlay")
_lock = Lock()
_runtime: Runtime | None = None


@cache
def bridges() -> EntryPoints:
    """What is registered in `BRIDGE`, read once: it means opening a file of every installed distribution."""
    return entry_points(group=BRIDGE)


def instrument(settings: Mapping[str, object] | Settings | None = None) -> Runtime:
    """Put one runtime under every httpx and httpx2 client of this process, made before or after.

    Idempotent: called again without settings, or with the same, it returns the runtime that is there; other
    settings are an error, because clients are already answering by the first ones. Raises SettingsError for
    wrong settings and ValueError for other ones.
    """
    global _runtime
    with _lock:
        if _runtime is not None:
            if settings is not None and Runtime(settings).settings != _runtime.settings:
                raise ValueError(
                    "underlay.instrument: settings differ from those in force; underlay.uninstrument() first"
                )
            return _runtime
        runtime = Runtime(settings)
        _listen(runtime)
        if not runtime.settings.disabled:
            seam.install(runtime.engine)
        _runtime = runtime
        return runtime


def uninstrument() -> None:
    """Take the runtime out again. Clients go on as if it had never been; calls under way end under it."""
    global _runtime
    with _lock:
        seam.remove()
        runtime, _runtime = _runtime, None
    if runtime is None:
        return
    for listener in runtime.engine.watch.listeners:
        # A listener that reads the runtime's statistics has something to let go of.
        close = getattr(listener, "close", None)
        if close is not None:
            close()


def current() -> Runtime | None:
    """The runtime that is under this process's clients, if one is."""
    return _runtime


def _listen(runtime: Runtime) -> None:
    for entry in bridges().select(name="opentelemetry"):
        try:
            runtime.listen(entry.load()(runtime))
        except Exception as error:  # noqa: BLE001 the app runs, without telemetry
            _log.warning("underlay: telemetry is off: %s in %s", type(error).__name__, entry.value)
