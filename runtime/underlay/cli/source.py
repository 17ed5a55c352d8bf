"""The `--from` of the commands that read telemetry: what it means, and what to say when there is nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from underlay.cli.destination import elsewhere
from underlay.cli.telemetry_file import TelemetryFiles, locate

__all__ = [
    "NO_CALLS",
    "NothingFound",
    "default_folder",
    "from_option",
    "nothing_in",
    "open_files",
    "report_skipped",
    "say_empty",
]

NO_CALLS: Final = ("The telemetry holds no call to a model.", "underlay doctor -- python app.py")
"""The sentence for telemetry without calls, and the next command."""

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
        say_empty(self.message, self.command)


def say_empty(message: str, command: str) -> None:
    """Say on stderr that there is nothing, and what to do next."""
    click.echo(message, err=True)
    click.echo(f"next: {command}", err=True)


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
    files = TelemetryFiles(locate(place))
    if not files.paths:
        raise NothingFound(*nothing_in(place))
    return files


def nothing_in(place: Path) -> tuple[str, str]:
    """The sentence for a place without telemetry, and the next command."""
    told = elsewhere(os.environ)
    if told:
        sentence = f"No telemetry in {place}: `underlay run` sends it {told}."
        return sentence, "UNDERLAY_TELEMETRY__FILE=always underlay run -- python app.py"
    return f"No telemetry in {place} yet.", "underlay run -- python app.py"


def default_folder() -> Path:
    """The folder of the local telemetry files by the settings in force."""
    from underlay.settings import load

    return Path(load().settings.telemetry.directory)


def report_skipped(files: TelemetryFiles) -> None:
    """Say on stderr how many lines were no telemetry, if any."""
    if files.skipped:
        lines = "1 line was" if files.skipped == 1 else f"{files.skipped} lines were"
        click.echo(f"note: {lines} torn or no OTLP/JSON, and skipped", err=True)
