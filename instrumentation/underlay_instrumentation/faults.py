"""Faults of this package: told once per kind, then only in the debug log. Telemetry never raises into a
call."""

from __future__ import annotations

import logging

__all__ = ["fault"]

_log = logging.getLogger("underlay.instrumentation")
_told: set[tuple[str, str]] = set()


def fault(where: str, error: BaseException) -> None:
    """Log that `where` failed: by the exception's type alone, because its text may quote what an app sent."""
    kind = (where, type(error).__name__)
    level = logging.DEBUG if kind in _told else logging.WARNING
    _told.add(kind)
    _log.log(level, "underlay: %s failed with %s; the program goes on without it", *kind)
