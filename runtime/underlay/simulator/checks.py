"""Says everything that is wrong with a set of options at once, in the project's own error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from underlay.errors import Problem, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["require"]


def require(source: str, checks: Iterable[tuple[bool, str, object, str]]) -> None:
    """Raise `SettingsError` with every failed check; a check is (holds, field, value, what is allowed)."""
    problems = [
        Problem(field=field, value=repr(value), allowed=allowed, source=source)
        for holds, field, value, allowed in checks
        if not holds
    ]
    if problems:
        raise SettingsError(problems)
