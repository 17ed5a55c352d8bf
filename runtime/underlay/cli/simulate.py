"""`underlay simulate`: the provider simulator as a command."""

from __future__ import annotations

import click

from underlay.simulator import Fault, Latency, SimulatorOptions, serve

__all__ = ["simulate"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command(short_help="Serve a simulated provider on this machine.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8790, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides texts, lengths and latencies.")
@click.option("--first-token", type=float, default=0.0, show_default=True, help="Seconds to the first token.")
@click.option(
    "--tokens-per-second", type=float, default=0.0, show_default=True, help="Pace after it; 0 is at once."
)
@click.option("--jitter", type=float, default=0.0, show_default=True, help="Spread of both, from 0 to 1.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="SPEC",
    help="Fault from the start on, such as 503 or 429; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Say where it listens as JSON.")
def simulate(
    host: str,
    port: int,
    seed: int,
    first_token: float,
    tokens_per_second: float,
    jitter: float,
    faults: tuple[str, ...],
    as_json: bool,
) -> None:
    """Serve a simulated provider on this machine: OpenAI and Anthropic, JSON and streams.

    \b
    Examples:
      underlay simulate
      underlay simulate --first-token 0.4 --tokens-per-second 80
      underlay simulate --fault 503

    Runs until Ctrl-C. Point a client at it with OPENAI_BASE_URL and ANTHROPIC_BASE_URL, as the first line
    says.
    """
    pace = Latency(first_token=first_token, tokens_per_second=tokens_per_second, jitter=jitter)
    options = SimulatorOptions(seed=seed, latency=pace, faults=tuple(Fault.parse(text) for text in faults))
    if host not in _LOOPBACK:
        click.echo(
            f"warning: {host} may be reached from other machines; the simulator asks for no key", err=True
        )
    try:
        serve(options, host, port, as_json=as_json)
    except OSError as error:
        raise click.UsageError(
            f"Cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}"
        ) from error
