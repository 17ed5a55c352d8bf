"""`underlay config show`, `underlay paths` and `underlay completion`: what is in force and where things
are.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from underlay.cli.output import Line, Screen, drawing_options, fit, next_steps, print_json, show
from underlay.cli.telemetry_file import PATTERN
from underlay.settings import Loaded, Row, describe, load

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["completion", "config", "folders", "paths", "settings_table"]

_COLUMNS: Final = (("setting", 34), ("value", 18), ("default", 18))


@click.group(short_help="Show the settings in force and where they come from.")
def config() -> None:
    """Show the settings in force and where they come from.

    \b
    Examples:
      underlay config show
      underlay config show --json
    """


@config.command(name="show")
@click.option("--changed", is_flag=True, help="Only settings that differ from their default.")
@drawing_options
def show_command(changed: bool, color: str, as_json: bool, quiet: bool) -> None:
    """Show every setting, its value, its default and its source."""
    loaded = load()
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    rows = [row for row in describe(loaded) if not changed or row.value != row.default]
    if as_json:
        print_json({"settings": [row._asdict() for row in rows], "warnings": list(loaded.warnings)})
        return
    if not rows:
        click.echo("Every setting has its default.", err=True)
    else:
        screen = Screen.of(sys.stdout, color)
        show(settings_table(rows, screen.width, screen.glyphs.more), screen)
    next_steps(quiet, "underlay doctor")


def settings_table(rows: Sequence[Row], width: int, more: str) -> list[Line]:
    """The settings as lines: on a wide screen a table with the source, on a narrow one the default and
    source below.
    """
    wide = width >= 100
    name_width = min(34, width - 20)
    source_width = width - 34 - 2 * 20 - 2
    lines: list[Line] = []
    if wide:
        head = [fit(title, size, more) for title, size in _COLUMNS]
        lines.append([("  ".join([*head, "source"]), "dim")])
    for row in rows:
        style = "bold" if row.value != row.default else ""
        # A size says its unit itself, as in 8MiB.
        value = f"{row.value} {row.unit}" if row.unit and row.value[-1].isdigit() else row.value
        if wide:
            cells = (fit(row.field, 34, more), fit(value, 18, more), fit(row.default, 18, more))
            lines.append([("  ".join(cells), style), ("  " + fit(row.source, source_width, more), "dim")])
            continue
        lines.append(
            [(fit(row.field, name_width, more) + "  " + fit(value, width - name_width - 2, more), style)]
        )
        if style:
            lines.append([(fit(f"  from {row.source}; default {row.default}", width, more), "dim")])
    return lines


@click.command(short_help="List every file that underlay reads or writes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def paths(as_json: bool) -> None:
    """List every file that underlay reads or writes.

    \b
    Examples:
      underlay paths
      underlay paths --json
    """
    entries = folders(load())
    if as_json:
        print_json(
            {
                "paths": [
                    {"path": path, "access": access, "meaning": meaning} for path, access, meaning in entries
                ]
            }
        )
        return
    for path, access, meaning in entries:
        click.echo(f"{path}\n  {access}: {meaning}")


def folders(loaded: Loaded) -> list[tuple[str, str, str]]:
    """Every place as (path, reads or writes, meaning)."""
    telemetry = loaded.settings.telemetry
    named = os.environ.get("UNDERLAY_CONFIG", "").strip()
    places = [
        (
            str(Path(telemetry.directory).absolute() / PATTERN),
            "writes",
            "telemetry of programs under `underlay run` when no collector is there; each file up to "
            f"{telemetry.file_max_bytes} bytes, {telemetry.file_keep} older ones kept; readable by you alone",
        ),
    ]
    if named:
        places.append((str(Path(named).expanduser().absolute()), "reads", "settings (UNDERLAY_CONFIG)"))
    return places


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "powershell"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell; nothing is installed.

    \b
    Examples:
      eval "$(underlay completion bash)"
      underlay completion fish > ~/.config/fish/completions/underlay.fish
    """
    from click.shell_completion import get_completion_class

    from underlay.cli.group import cli

    complete = get_completion_class(shell)
    if complete is None:
        raise click.UsageError(f"This version of click knows no completion for {shell}: pip install -U click")
    click.echo(complete(cli, {}, "underlay", "_UNDERLAY_COMPLETE").source())
