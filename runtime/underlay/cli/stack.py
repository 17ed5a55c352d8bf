"""`underlay stack`: the bundled Collector, Prometheus, Jaeger and Grafana, started and stopped."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import click

from underlay.cli.output import next_steps, print_json
from underlay.stack import SERVICES, StackError
from underlay.stack import down as stop
from underlay.stack import logs as read_logs
from underlay.stack import status as ask
from underlay.stack import up as start

if TYPE_CHECKING:
    from underlay.stack import Status

__all__ = ["stack"]

_MISSING = 3


@click.group(short_help="Start and stop the bundled Collector, Prometheus, Jaeger and Grafana.")
def stack() -> None:
    """Start and stop the bundled Collector, Prometheus, Jaeger and Grafana.

    \b
    Examples:
      underlay stack up
      underlay stack status --json
      underlay stack logs collector
      underlay stack down

    Uses Docker Compose or Podman where an engine answers, else native binaries with the same configuration
    files (Grafana then stays out). Everything listens on this machine only.
    """


@stack.command(short_help="Start it and wait until it answers.")
@click.option("--any-ports", is_flag=True, help="Where a port is taken, use a free one and say which.")
@click.option("--mode", type=click.Choice(("native", "compose")), help="Insist on one way to run it.")
@click.option("--json", "as_json", is_flag=True, help="End with the document of `status --json`.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no next steps.")
def up(any_ports: bool, mode: str | None, as_json: bool, quiet: bool) -> None:
    """Start it and wait until it answers.

    \b
    Examples:
      underlay stack up
      underlay stack up --any-ports --json
    """
    say = None if quiet else lambda line: click.echo(line, err=True)
    try:
        started = start(any_ports=any_ports, mode=mode, say=say)  # type: ignore[arg-type]  # click checked it
    except StackError as error:
        _fail(error)
    _show(started, as_json)
    if not as_json:
        next_steps(quiet, f"{_pointer(started)}underlay run -- python app.py", "underlay stack down")


@stack.command(short_help="Stop it; data stays unless told otherwise.")
@click.option("--volumes", is_flag=True, help="Delete the stored metrics and traces as well.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def down(volumes: bool, yes: bool) -> None:
    """Stop it; data stays unless told otherwise.

    \b
    Examples:
      underlay stack down
      underlay stack down --volumes --yes
    """
    if volumes and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("--volumes deletes the stored metrics and traces: add --yes")
        click.confirm("Delete the stored metrics and traces?", abort=True)
    try:
        stopped = stop(delete_data=volumes)
    except StackError as error:
        _fail(error)
    click.echo(f"stopped: {', '.join(stopped.services) or 'nothing was running'}")
    for verb, things in (("kept", stopped.kept), ("deleted", stopped.deleted)):
        for thing in things:
            click.echo(f"{verb}: {thing}")


@stack.command(short_help="Say what runs, and where.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON document.")
def status(as_json: bool) -> None:
    """Say what runs, and where. Exit code 1 when nothing does.

    \b
    Examples:
      underlay stack status
      underlay stack status --json
    """
    found = ask()
    _show(found, as_json)
    if not found.running:
        sys.exit(1)


@stack.command(short_help="Print what a server logged last.")
@click.argument("service", type=click.Choice(SERVICES))
@click.option("-n", "--lines", type=click.IntRange(1), default=100, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what comes.")
def logs(service: str, lines: int, follow: bool) -> None:
    """Print what a server logged last.

    \b
    Examples:
      underlay stack logs collector
      underlay stack logs prometheus -n 20 --follow
    """
    try:
        for line in read_logs(service, lines=lines, follow=follow):
            click.echo(line)
    except StackError as error:
        _fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _pointer(found: Status) -> str:
    """What a program needs to be told to find a Collector that is not on the usual port."""
    endpoint = found.endpoints["otlp_http"] or ""
    return "" if endpoint.endswith(":4318") else f"OTEL_EXPORTER_OTLP_ENDPOINT={endpoint} "


def _show(found: Status, as_json: bool) -> None:
    if as_json:
        print_json(found.document())
        return
    for note in found.notes:
        click.echo(note, err=True)
    if not found.running:
        click.echo("The stack does not run: underlay stack up")
        return
    click.echo(f"mode        {found.mode}")
    for name, url in found.endpoints.items():
        click.echo(f"{name:<11} {url or '-'}")


def _fail(error: StackError) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    sys.exit(_MISSING)
