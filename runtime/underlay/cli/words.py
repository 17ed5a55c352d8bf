"""Parameter types of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from underlay.settings.parse import INVALID, Where, check
from underlay.settings.spec import Kind, Spec

if TYPE_CHECKING:
    from underlay.errors import Problem

__all__ = ["Seconds"]

_DURATION = Spec(Kind.DURATION, "A duration of the command line.")


if TYPE_CHECKING:
    _DurationType = click.ParamType[float]
else:
    # Older releases of click that we support have no type argument here.
    _DurationType = click.ParamType


class Seconds(_DurationType):
    """A duration in the spelling of the settings (500ms, 2s, 1h, 2d; a number alone is seconds), as
    seconds.
    """

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Turn the text into seconds, or fail with what is allowed."""
        problems: list[Problem] = []
        seconds = check(_DURATION, value, Where("duration", "the command line", text=True), problems)
        if seconds is INVALID:
            self.fail(f"{value!r} is no duration: allowed is {problems[0].allowed}", param, ctx)
        return float(seconds)
