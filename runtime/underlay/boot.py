"""Zero-code start, called from the `sitecustomize` of `underlay run`: telemetry, then the runtime under every
client.

Never raises: whatever is wrong is one line on standard error, and the app runs without underlay.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

from underlay.errors import SettingsError
from underlay.global_runtime import BRIDGE, instrument
from underlay.settings import load

__all__ = ["start"]


def start() -> None:
    """Start underlay in this process, or say in one line why not."""
    try:
        loaded = load()
        for warning in loaded.warnings:
            _say(warning)
        if loaded.settings.disabled:
            return
        for entry in entry_points(group=BRIDGE, name="autostart"):
            entry.load()(loaded.settings)
        instrument()
    except SettingsError as error:
        _say(f"wrong settings, so the app runs without underlay:\n{error}")
    except Exception as error:  # noqa: BLE001 the app runs
        _say(f"{type(error).__name__} at start, so the app runs without underlay: underlay doctor says more")


def _say(text: str) -> None:
    print(f"underlay: {text}", file=sys.stderr)  # noqa: T201 standard error is where this belongs
