"""python -m underlay_dashboards render: write the dashboards, or check that they are up to date."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RENDERED = Path(__file__).resolve().parent.parent / "rendered"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0; 1 when `--check` finds a difference; 3 without the SDK."""
    parser = argparse.ArgumentParser(prog="python -m underlay_dashboards", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    render = commands.add_parser("render", help="write the dashboards as JSON")
    render.add_argument("--out", type=Path, default=RENDERED, help="folder (default: %(default)s)")
    render.add_argument("--check", action="store_true", help="write nothing; fail when a file would change")
    render.add_argument(
        "--flavour",
        choices=("classic", "native"),
        default="classic",
        help="how histograms are stored: explicit buckets, or exponential ones (default: %(default)s)",
    )
    render.add_argument(
        "--generation",
        choices=("released", "upcoming"),
        default="released",
        help="generation of the GenAI metric names (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    # The SDK warns at import, in favour of a schema that Grafana's file provisioning does not take.
    warnings.filterwarnings("ignore", "Prefer using dashboardv2.Dashboard", DeprecationWarning)
    try:
        from underlay_dashboards.render import differences, write
        from underlay_dashboards.signals import Dialect
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("grafana_foundation_sdk"):
            raise
        print("the dashboards are built with grafana-foundation-sdk: pip install 'underlay[dashboards]'")  # noqa: T201
        return 3
    dialect = Dialect(options.flavour, options.generation)
    if options.check:
        found = differences(options.out, dialect)
        for line in found:
            print(f"{options.out}: {line}", file=sys.stderr)  # noqa: T201
        if found:
            print("run `make dashboards` and commit what it writes", file=sys.stderr)  # noqa: T201
        return 1 if found else 0
    for path in write(options.out, dialect):
        print(f"wrote {path}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
