"""`underlay run`: becomes the app, with our start-up folder first on its PYTHONPATH.

The process is replaced, not wrapped: signals, exit code, terminal and standard streams are the app's own.
Python's options -I and -E, which ignore PYTHONPATH, keep underlay out; `underlay doctor -- …` says so.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["AUTO", "child_environment", "observing", "run"]

AUTO: Final = Path(__file__).resolve().parent.parent / "auto"
"""Folder with the `sitecustomize` that starts underlay."""

_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126
# There, exec starts a second process and returns to the shell at once.
_NO_EXEC: Final = os.name == "nt"


class RunCommand(click.Command):
    """Splits at the first `--`: what stands before are our options, what follows is the app's, untouched."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse our part; a usage error when there is no `--` or nothing behind it."""
        ours, command = (
            (args[: args.index("--")], args[args.index("--") + 1 :]) if "--" in args else (args, [])
        )
        asks_help = bool({"-h", "--help"}.intersection(ours))
        if not ctx.resilient_parsing and not command and not asks_help:
            raise click.UsageError("Give the program behind --, as in: underlay run -- python app.py", ctx)
        rest = super().parse_args(ctx, ours)
        ctx.params["command"] = tuple(command)
        return rest


@click.command(
    cls=RunCommand,
    options_metavar="[OPTIONS] -- COMMAND [ARGS]...",
    short_help="Run a program with underlay under its LLM clients.",
)
@click.option(
    "--observe", is_flag=True, help="Only watch: decide and report, change no call. [UNDERLAY_<PILLAR>__MODE]"
)
@click.option(
    "--preset", metavar="NAME", help="Named set of values in place of the defaults. [UNDERLAY_PRESET]"
)
def run(observe: bool, preset: str | None, command: tuple[str, ...]) -> None:
    """Run a program with underlay under its LLM clients.

    \b
    Examples:
      underlay run -- python app.py
      underlay run --observe -- gunicorn app:api --workers 4
      UNDERLAY_LLM_CACHE__TTL=60 underlay run -- python -m app

    The program runs unchanged, with its own exit code and signals. Telemetry goes to the endpoint of the
    usual OTEL_* variables, else to localhost:4318 when something listens there, else to a file that
    `underlay trace last` reads.
    """
    if preset is not None:
        _check_preset(preset)
    environment = child_environment(os.environ)
    if preset is not None:
        environment["UNDERLAY_PRESET"] = preset
    if observe:
        environment.update(observing(environment))
    _become(command, environment)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with our start-up folder first on PYTHONPATH, once."""
    entries = environ["PYTHONPATH"].split(os.pathsep) if environ.get("PYTHONPATH") else []
    path = [str(AUTO), *(entry for entry in entries if entry != str(AUTO))]
    return {**environ, "PYTHONPATH": os.pathsep.join(path)}


def observing(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that make every pillar observe, without those of pillars that the environment switches
    off.
    """
    from underlay.settings import PILLARS

    changed: dict[str, str] = {}
    for pillar in PILLARS:
        mode, enabled = (f"UNDERLAY_{pillar.upper()}__{name}" for name in ("MODE", "ENABLED"))
        off = environ.get(mode, "").strip().lower() == "off"
        if not off and environ.get(enabled, "").strip().lower() not in ("0", "false", "no", "off"):
            changed[mode] = "observe"
    return changed


def _check_preset(name: str) -> None:
    from underlay.settings import PRESETS

    if name not in PRESETS:
        raise click.BadParameter(f"{name!r} is none of {', '.join(PRESETS)}.", param_hint="--preset")


def _become(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process by the command, or exit as a shell would: 127 when it is not found, 126 when it
    cannot be run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if not command[0]:
        _stop("the empty name: command not found", _NOT_FOUND)
    try:
        if _NO_EXEC:
            sys.exit(_run_child(command, environment))
        os.execvpe(command[0], list(command), dict(environment))  # noqa: S606 - the purpose of the command
    except (FileNotFoundError, NotADirectoryError):
        _stop(f"{command[0]}: command not found", _NOT_FOUND)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a command"
        _stop(f"{command[0]}: {reason.lower()}", _NOT_EXECUTABLE)


def _run_child(command: Sequence[str], environment: Mapping[str, str]) -> int:
    import subprocess

    return subprocess.call(list(command), env=dict(environment))  # noqa: S603 - the user's own command


def _stop(message: str, code: int) -> NoReturn:
    click.echo(f"underlay: {message}", err=True)
    sys.exit(code)
