"""The `--from` of the commands that read telemetry: what it means, and what to say when there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from underlay.cli.telemetry_file import TelemetryFiles, locate

__all__ = ["NothingFound", "default_folder", "from_option", "open_files", "report_skipped"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


class NothingFound(click.ClickException):
    """There is no telemetry, or not the part that was asked for: one sentence and the next command, exit
    code 1.
    """

    exit_code = 1

    def __init__(self, message: str, command: str) -> None:
        super().__init__(message)
        self.command = command

    def show(self, file: Any = None) -> None:
        """Print the sentence and the next command to stderr."""
        click.echo(self.message, err=True)
        click.echo(f"next: {self.command}", err=True)


def from_option(command: _Command) -> _Command:
    """Give a command its `--from`."""
    return click.option(
        "--from",
        "source",
        type=click.Path(exists=True, path_type=Path),
        help="Telemetry file, or folder of them; by default UNDERLAY_TELEMETRY__DIRECTORY (.underlay).",
    )(command)


def open_files(source: Path | None) -> TelemetryFiles:
    """The telemetry files to read; raises `NothingFound` when there are none, `SettingsError` for a wrong
    setting.
    """
    place = source if source is not None else default_folder()
    paths = locate(place)
    if not paths:
        raise NothingFound(f"No telemetry in {place} yet.", "underlay run -- python app.py")
    return TelemetryFiles(paths)


def default_folder() -> Path:
    """The folder of the local telemetry files by the settings in force."""
    from underlay.settings import load

    return Path(load().settings.telemetry.directory)


def report_skipped(files: TelemetryFiles) -> None:
    """Say on stderr how many lines were no telemetry, if any."""
    if files.skipped:
        lines = "1 line was" if files.skipped == 1 else f"{files.skipped} lines were"
        click.echo(f"note: {lines} torn or no OTLP/JSON, and skipped", err=True)
