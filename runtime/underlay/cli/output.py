"""How results reach the terminal: colour, width, encoding, units, JSON. rich is imported only by what draws.

Results go to stdout, everything else to stderr. Lines are lists of (text, style) pieces, so that what is
drawn can be tested without a terminal.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from typing import Any, Final, TextIO, TypeVar

import click

__all__ = [
    "SCHEMA",
    "Glyphs",
    "Line",
    "Screen",
    "choose_color",
    "clean",
    "drawing_options",
    "duration",
    "fit",
    "local_time",
    "next_steps",
    "plain",
    "print_json",
    "rfc3339",
    "show",
    "usd",
    "usd_text",
]

SCHEMA: Final = 1
"""Version of every `--json` document; goes up when a key changes its meaning or disappears."""

Line = list[tuple[str, str]]
"""One line of output: pieces of text, each with a rich style (empty for none)."""

_NARROWEST: Final = 40
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters that drawings are made of."""

    branch: str
    last: str
    down: str
    blank: str
    bar: str
    more: str
    dot: str
    arrow: str


_UNICODE: Final = Glyphs("├─ ", "└─ ", "│  ", "   ", "█", "…", " · ", "→")
_ASCII: Final = Glyphs("|- ", "`- ", "|  ", "   ", "#", "~", ", ", "->")


@dataclass(frozen=True, slots=True)
class Screen:
    """What is drawn on: columns, whether colour is wanted, and the encoding of what the characters must fit
    in.
    """

    width: int
    color: bool
    encoding: str

    @property
    def glyphs(self) -> Glyphs:
        """Line-drawing characters where the encoding has them, ASCII otherwise."""
        try:
            "├└│█…·→µ".encode(self.encoding)
        except (UnicodeEncodeError, LookupError):
            return _ASCII
        return _UNICODE

    @classmethod
    def of(cls, stream: TextIO, color: str) -> Screen:
        """The screen behind `stream`; `color` is auto, always or never."""
        width = max(_NARROWEST, shutil.get_terminal_size().columns)
        wanted = choose_color(color, os.environ, stream.isatty())
        return cls(width, wanted, getattr(stream, "encoding", None) or "ascii")


def choose_color(option: str, environ: Mapping[str, str], terminal: bool) -> bool:
    """Whether to colour: the option, then NO_COLOR, FORCE_COLOR or CLICOLOR_FORCE, TERM=dumb, then whether
    it is a terminal.
    """
    if option != "auto":
        return option == "always"
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    return terminal and environ.get("TERM") != "dumb"


def drawing_options(command: _Command) -> _Command:
    """Give a command that draws its `--color`, `--json` and `--quiet`."""
    options = (
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            help="Colour the output (auto: on a terminal; also NO_COLOR, FORCE_COLOR).",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a drawing."),
        click.option("-q", "--quiet", is_flag=True, help="Leave out the next steps."),
    )
    for option in options:
        command = option(command)
    return command


def show(lines: Sequence[Line], screen: Screen) -> None:
    """Print lines to stdout, coloured where the screen wants it and never wider than it."""
    from rich.console import Console
    from rich.text import Text

    # Not printed by rich: it ends the process with 1 when a reader leaves early (`| head`).
    drawn = StringIO()
    console = Console(
        file=drawn,
        width=screen.width,
        force_terminal=screen.color,
        no_color=not screen.color,
        color_system="standard" if screen.color else None,
        highlight=False,
        legacy_windows=False,
    )
    for line in lines:
        text = Text.assemble(*((clean(piece, screen.encoding), style) for piece, style in line))
        text.rstrip()
        console.print(text, no_wrap=True, overflow="crop", markup=False, emoji=False)
    sys.stdout.write(drawn.getvalue())


def plain(lines: Sequence[Line]) -> str:
    """The text of lines without their styles, as a file would get it."""
    return "\n".join("".join(piece for piece, _ in line).rstrip() for line in lines)


def print_json(document: Mapping[str, object]) -> None:
    """Print one JSON document with its schema version to stdout."""
    import json

    click.echo(json.dumps({"schema": SCHEMA, **document}, indent=2, ensure_ascii=True))


def next_steps(quiet: bool, *commands: str) -> None:
    """Say on stderr what one could do next, at most two commands."""
    if not quiet:
        for command in commands[:2]:
            click.echo(f"next: {command}", err=True)


def clean(text: str, encoding: str = "utf-8") -> str:
    """Make foreign text safe to print: control characters (a terminal obeys them) and what the encoding
    lacks become `?`.
    """
    printable = "".join(character if character.isprintable() else "?" for character in text)
    try:
        return printable.encode(encoding, "replace").decode(encoding)
    except LookupError:
        return printable.encode("ascii", "replace").decode("ascii")


def fit(text: str, width: int, more: str, *, right: bool = False) -> str:
    """Cut or pad text to exactly `width` columns; `more` marks a cut. Counts columns, not characters."""
    from rich.cells import cell_len, set_cell_size

    text = clean(text)
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, max(0, width - len(more))) + more if width >= len(more) else " " * width
    pad = " " * (width - length)
    return pad + text if right else text + pad


def duration(seconds: float) -> str:
    """A duration for people, at most eight characters wide below a hundred hours."""
    if 0 < seconds < 0.01:
        return f"{seconds * 1000:.2f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def usd(amount: float) -> str:
    """An amount for people: cents and up with four decimals, less with six."""
    if 0 < amount < 0.000001:
        return "<$0.000001"
    return f"${amount:.4f}" if amount >= 0.01 or amount == 0 else f"${amount:.6f}"


def usd_text(amount: float | None) -> str | None:
    """For JSON: decimal text without an exponent, to twelve digits (sums of floats have no more)."""
    return None if amount is None else format(Decimal(f"{amount:.12g}"), "f")


def rfc3339(time_ns: int) -> str:
    """A moment for JSON: RFC 3339 in UTC, microseconds."""
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns % 10**9 // 1000:06d}Z"


def local_time(time_ns: int) -> str:
    """A moment for people, in the local zone, to the second: `2026-11-24 16:03:01`."""
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC).astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S}"
