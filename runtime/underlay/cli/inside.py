"""Looks inside a program's real start-up for `underlay doctor -- command`: same Python, same options, same
environment.

The program itself is not run: its interpreter is started as `underlay run` would start it, and examines
itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from underlay.cli.finding import Finding
from underlay.cli.run import child_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["examine_command", "interpreter_of", "startup"]

_CODE: Final = "from underlay.cli import main; main(['doctor', '--inside', '--json'])"
_PATIENCE: Final = 20.0
_OPTIONS_WITH_VALUE: Final = ("-W", "-X")


def examine_command(command: Sequence[str]) -> list[Finding]:
    """The findings of the command's own interpreter, or one that says why it could not be asked."""
    interpreter = interpreter_of(command)
    if interpreter is None:
        evidence = f"{command[0]} is not started by a Python that can be told from here"
        return [Finding("startup", "startup.inside", "skip", evidence, "underlay doctor -- python app.py")]
    if any("S" in option for option in interpreter[1:] if option[:2] not in _OPTIONS_WITH_VALUE):
        # Such an interpreter finds no installed package, so that it could not be asked.
        evidence = "Python's option -S runs no sitecustomize, so underlay is not started"
        return [Finding("startup", "startup.started", "fail", evidence, "start python without -S")]
    try:
        done = subprocess.run(  # noqa: S603 - the user's own interpreter
            [*interpreter, "-c", _CODE],
            env=child_environment(os.environ),
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        evidence = f"{interpreter[0]} could not be asked: {type(error).__name__}"
        return [Finding("startup", "startup.inside", "fail", evidence)]
    try:
        found = [Finding(**item) for item in json.loads(done.stdout)["findings"]]
    except (ValueError, KeyError, TypeError):
        fix = f"{interpreter[0]} -m pip install underlay"
        return [
            Finding(
                "startup", "startup.inside", "fail", f"underlay is not importable in {interpreter[0]}", fix
            )
        ]
    said = [
        line.removeprefix("underlay: ") for line in done.stderr.splitlines() if line.startswith("underlay: ")
    ]
    return [*(Finding("startup", "startup.said", "warn", line) for line in said), *found]


def startup() -> Finding:
    """Whether underlay was started in this process; asked inside the program's interpreter."""
    from underlay.transports.seam import installed

    if installed():
        return Finding("startup", "startup.started", "ok", "underlay starts in this program")
    if _switched_off():
        evidence = "underlay is switched off, so this program runs without it"
        return Finding("startup", "startup.started", "note", evidence, "unset UNDERLAY_DISABLED")
    if sys.flags.ignore_environment:
        evidence = "Python's option -I or -E ignores PYTHONPATH, so underlay is not started"
        return Finding("startup", "startup.started", "fail", evidence, "start python without -I and -E")
    return Finding(
        "startup",
        "startup.started",
        "fail",
        "underlay does not start in this program",
        "underlay config show",
    )


def _switched_off() -> bool:
    from underlay.errors import SettingsError
    from underlay.settings import load

    try:
        return load().settings.disabled
    except SettingsError:
        return False  # the settings' own group says what is wrong


def interpreter_of(command: Sequence[str]) -> list[str] | None:
    """The Python and its options that a command starts: its first word, or the one in its script's first
    line.
    """
    found = shutil.which(command[0])
    if found is None:
        return None
    if Path(found).name.lower().startswith(("python", "pypy")):
        return [found, *_options(command[1:])]
    try:
        with open(found, "rb") as script:
            first = script.readline(512)
    except OSError:
        return None
    words = first[2:].decode("utf-8", "replace").split() if first.startswith(b"#!") else []
    if words and Path(words[0]).name == "env":
        words = words[1:]
    python = shutil.which(words[0]) if words and "python" in Path(words[0]).name else None
    return [python, *words[1:]] if python else None


def _options(words: Sequence[str]) -> list[str]:
    """Python's own options in front of the script, -m or -c."""
    options: list[str] = []
    rest: Any = iter(words)
    for word in rest:
        if (
            not word.startswith("-")
            or word == "-"
            or any(letter in word for letter in "cm" if word[:2] not in _OPTIONS_WITH_VALUE)
        ):
            break
        options.append(word)
        if word in _OPTIONS_WITH_VALUE:
            options += [value for value in (next(rest, None),) if value is not None]
    return options
