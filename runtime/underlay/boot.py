"""Zero-code start, called from the `sitecustomize` of `underlay run`: telemetry, then the runtime."""

from __future__ import annotations

import sys

from underlay.global_runtime import bridges, instrument
from underlay.settings import load

__all__ = ["start"]


def start() -> None:
    """Start underlay in this process.

    Raises SettingsError when a setting is wrong: the caller says so in one message and lets the app run.
    Unknown variables are said on standard error and change nothing.
    """
    loaded = load()
    for warning in loaded.warnings:
        print(f"underlay: {warning}", file=sys.stderr)  # noqa: T201 standard error is where this belongs
    if loaded.settings.disabled:
        return
    for entry in bridges().select(name="autostart"):
        entry.load()(loaded.settings)
    instrument()
