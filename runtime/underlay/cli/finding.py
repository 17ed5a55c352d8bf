"""What a doctor's finding is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["LEVELS", "Finding", "Level"]

Level = Literal["ok", "note", "warn", "fail", "skip"]
LEVELS: Final[tuple[Level, ...]] = ("ok", "skip", "note", "warn", "fail")
"""From harmless to grave."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    `code` is stable and names it for scripts; `fix` is a command, or empty.
    """

    group: str
    code: str
    level: Level
    evidence: str
    fix: str = ""
