"""The group of all commands: their names and one-line helps as data, their modules loaded on use."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final

import click

from underlay._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COMMANDS", "cli"]


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives (`module:name` under `underlay.cli`) and its line in `underlay --help`."""

    target: str
    brief: str


COMMANDS: Final[Mapping[str, Entry]] = {
    "run": Entry("run:run", "Run a program with underlay under its LLM clients."),
    "traces": Entry("traces:traces", "List the calls of the local telemetry files."),
    "trace": Entry("trace:trace", "Draw one trace as a tree with times."),
    "doctor": Entry("doctor:doctor", "Say what is covered, what is not, and how to fix it."),
    "config": Entry("config:config", "Show the settings in force and where they come from."),
    "stack": Entry("stack:stack", "Start and stop the bundled Collector, Prometheus, Jaeger and Grafana."),
    "simulate": Entry("simulate:simulate", "Serve a simulated provider on this machine."),
    "paths": Entry("config:paths", "List every file that underlay reads or writes."),
    "completion": Entry("config:completion", "Print the completion script of a shell."),
}
"""Every command in the order of the help. A command's own help starts with the same line (tested)."""

_HELP: Final = """\b
Examples:
  underlay run -- python app.py     run an app, unchanged
  underlay trace last               see its last call
  underlay doctor -- python app.py  find out why nothing is seen

underlay sits under the LLM clients of a Python program and caches, breaks circuits, prices and traces
their calls. Switch it off with UNDERLAY_DISABLED=1.
"""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used, and not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; None when there is no such name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, name = entry.target.split(":")
        command: click.Command = getattr(import_module(f"underlay.cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one may have been meant."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(_no_such(args[0]))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a reader who has seen enough of the output (`| head`) is no failure."""
        try:
            result: object = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # The interpreter flushes once more at exit: into nothing, rather than into the closed pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        return result

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.brief) for name, entry in COMMANDS.items()])


def _no_such(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(COMMANDS)}."
    return f"No such command {name!r}.{hint}"


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 the answer is no, 2 usage or settings, 3 something is missing, "
    "130 interrupted.",
    help=_HELP,
)
@click.version_option(__version__, message="underlay %(version)s")
def cli() -> None:
    """Entry of every command."""
