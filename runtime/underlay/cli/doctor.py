"""`underlay doctor`: what is covered, what is not, and how to fix it."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from textwrap import wrap
from typing import TYPE_CHECKING, Final

import click

from underlay.cli.checks import examine
from underlay.cli.finding import LEVELS, Finding
from underlay.cli.inside import examine_command, startup
from underlay.cli.output import Line, Screen, drawing_options, next_steps, print_json, show

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["doctor", "report_lines"]

_STYLES: Final = {"ok": "green", "skip": "dim", "note": "cyan", "warn": "yellow", "fail": "bold red"}
_LEVEL_WIDTH: Final = 6


@click.command(short_help="Say what is covered, what is not, and how to fix it.")
@click.option(
    "--fail-on",
    type=click.Choice(["fail", "warn"]),
    default="fail",
    show_default=True,
    help="Exit 1 from this level on.",
)
@click.option(
    "--inside",
    is_flag=True,
    hidden=True,
    help="Asked by a doctor outside: say whether underlay started here.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@drawing_options
@click.pass_context
def doctor(
    ctx: click.Context,
    fail_on: str,
    inside: bool,
    command: tuple[str, ...],
    color: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say what is covered, what is not, and how to fix it.

    \b
    Examples:
      underlay doctor
      underlay doctor -- python app.py     looks inside that Python, without running app.py
      underlay doctor --json --fail-on warn

    Nothing is changed, and no connection leaves this machine. Exit code 1 when something failed.
    """
    findings = examine_command(command) if command else [*([startup()] if inside else []), *examine()]
    if as_json:
        counts = Counter(finding.level for finding in findings)
        print_json(
            {
                "findings": [asdict(item) for item in findings],
                "counts": {level: counts[level] for level in LEVELS},
            }
        )
    else:
        screen = Screen.of(sys.stdout, color)
        show(report_lines(findings, screen.width), screen)
        next_steps(quiet, "underlay config show" if command else "underlay doctor -- python app.py")
    worst = max((LEVELS.index(finding.level) for finding in findings), default=0)
    ctx.exit(1 if worst >= LEVELS.index("warn" if fail_on == "warn" else "fail") else 0)


def report_lines(findings: Sequence[Finding], width: int) -> list[Line]:
    """The findings as lines of at most `width` columns, by group; what is not fine shows its code and its
    fix.
    """
    lines: list[Line] = []
    group = ""
    for finding in findings:
        if finding.group != group:
            lines += [[], [(finding.group, "bold")]] if lines else [[(finding.group, "bold")]]
            group = finding.group
        plain = finding.level in ("ok", "skip")
        text = finding.evidence if plain else f"{finding.evidence} [{finding.code}]"
        indent = " " * (_LEVEL_WIDTH + 2)
        first, *more = wrap(text, width - len(indent), break_on_hyphens=False) or [""]
        lines.append(
            [
                ("  ", ""),
                (finding.level.ljust(_LEVEL_WIDTH), _STYLES[finding.level]),
                (first, "dim" if finding.level == "skip" else ""),
            ]
        )
        lines += [[(indent + line, "")] for line in more]
        if finding.fix:
            lines += [
                [(indent + line, "bold")]
                for line in wrap(f"fix: {finding.fix}", width - len(indent), break_on_hyphens=False)
            ]
    counts = Counter(finding.level for finding in findings)
    lines += [[], [(", ".join(f"{counts[level]} {level}" for level in LEVELS if counts[level]), "bold")]]
    return lines
