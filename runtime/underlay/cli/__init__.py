"""The command line.

`main` is the entry point; commands live in modules of their own and load when they are used.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

USAGE = 2
"""Exit code of a wrong command line or a wrong setting."""
MISSING = 3
"""Exit code when something that is needed is missing: an extra, a program, data."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (`sys.argv` by default) and exit: 0 done, 1 the answer is no, 2 usage or
    settings, 3 something is missing, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        # Answered before click is imported, which takes three times as long as everything else here.
        from underlay._version import __version__

        sys.stdout.write(f"underlay {__version__}\n")
        sys.exit(0)
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    import click

    from underlay.cli.group import cli
    from underlay.errors import MissingExtraError, SettingsError

    try:
        code = cli.main(args=words, prog_name="underlay", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SettingsError as error:
        return _explain(*(f"wrong setting: {problem}" for problem in error.problems), code=USAGE)
    except MissingExtraError as error:
        return _explain(str(error), code=MISSING)
    return code if isinstance(code, int) else 0


def _explain(*messages: str, code: int) -> int:
    for message in messages:
        sys.stderr.write(f"error: {message}\n")
    return code
