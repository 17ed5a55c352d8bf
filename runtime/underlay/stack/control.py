"""The four commands of the bundled stack. They decide between containers and native servers; the rooms do the
work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from underlay.stack import compose, native
from underlay.stack.binaries import Missing, Program, find_programs
from underlay.stack.bundle import bundle_root, config_dir
from underlay.stack.engine import Engine, NoEngine, find_engine
from underlay.stack.errors import NothingToRunWithError, StackError
from underlay.stack.pins import read_pins
from underlay.stack.places import stack_bin, stack_home
from underlay.stack.report import ENDPOINTS, Status, Stopped, status_of
from underlay.stack.state import State, locked, read_state

if TYPE_CHECKING:
    from underlay.stack.ports import Mode

NATIVE_TIMEOUT_S = 60.0
# the first start pulls nothing (compose did before), but Grafana migrates its database
COMPOSE_TIMEOUT_S = 180.0
SERVICES = tuple(dict.fromkeys(ENDPOINTS.values()))

Say = Callable[[str], None]


def up(
    *,
    any_ports: bool = False,
    mode: Mode | None = None,
    timeout_s: float | None = None,
    say: Say | None = None,
    environ: Mapping[str, str] | None = None,
) -> Status:
    """Start the stack, or what is missing of it, and return when everything answers.

    Containers when an engine answers, else native servers; `mode` insists on one. A stack that runs stays in
    its mode. `any_ports` takes free ports instead of failing; `timeout_s` bounds the wait until ready; `say`
    hears progress lines. Raises `NothingToRunWithError`, `PortTakenError`, `NotReadyError` or another
    `StackError`.
    """
    env = os.environ if environ is None else environ
    home, tell = stack_home(env), say or _silent
    with locked(home):
        insisted = _running_mode(read_state(home), mode) or mode
        engine = find_engine() if insisted != "native" else NoEngine(("native servers were asked for",))
        if isinstance(engine, Engine):
            wait_s = COMPOSE_TIMEOUT_S if timeout_s is None else timeout_s
            return compose.up(
                home, bundle_root(), engine, read_pins(), env, any_ports=any_ports, timeout_s=wait_s, say=tell
            )
        if insisted == "compose":
            raise NothingToRunWithError(f"no container engine can be used: {'; '.join(engine.reasons)}")
        programs = _native_programs(engine, env)
        wait_s = NATIVE_TIMEOUT_S if timeout_s is None else timeout_s
        return native.up(home, programs, config_dir(), env, any_ports=any_ports, timeout_s=wait_s, say=tell)


def down(*, delete_data: bool = False, environ: Mapping[str, str] | None = None) -> Stopped:
    """Stop the stack and say what was kept; `delete_data` also deletes metrics, traces, queues and logs."""
    env = os.environ if environ is None else environ
    home = stack_home(env)
    with locked(home):
        state = read_state(home)
        if state is None:
            return Stopped((), ())
        if state.mode == "native":
            return native.down(home, state, delete_data=delete_data)
        return compose.down(home, bundle_root(), _engine(), read_pins(), env, state, delete_data=delete_data)


def status(*, environ: Mapping[str, str] | None = None) -> Status:
    """Say what runs and answers. A stack that was never started is told as native with nothing running."""
    state = read_state(stack_home(environ))
    if state is None:
        return status_of("native", {}, (), "the stack was never started here")
    if state.mode == "native":
        return native.status(state)
    engine = find_engine()
    if isinstance(engine, NoEngine):
        return status_of("compose", {}, (), *engine.reasons)
    return compose.status(engine, state)


def logs(
    service: str, *, lines: int = 100, follow: bool = False, environ: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Return the last `lines` log lines of one service; with `follow` the iterator goes on until it is
    closed.

    Raises `StackError` for a service that the stack does not have.
    """
    env = os.environ if environ is None else environ
    home = stack_home(env)
    if service not in SERVICES:
        raise StackError(f"service = {service!r}: allowed is {', '.join(SERVICES)}")
    state = read_state(home)
    if state is None:
        raise StackError("the stack was never started here: `underlay stack up`")
    if state.mode == "native":
        return native.logs(home, service, lines=lines, follow=follow)
    return compose.logs(
        bundle_root(), _engine(), read_pins(), env, state, service, lines=lines, follow=follow
    )


def _running_mode(state: State | None, asked: Mode | None) -> Mode | None:
    """Return the mode of a native stack that runs now; raise `StackError` when another one is asked for.

    Containers need no look here: an engine that answers is chosen anyway.
    """
    if state is None or state.mode != "native" or not native.running_services(state):
        return None
    if asked == "compose":
        raise StackError("the stack runs on native servers: stop it first (`underlay stack down`)")
    return "native"


def _native_programs(engine: NoEngine, env: Mapping[str, str]) -> tuple[Program, ...]:
    """Return all native servers, or raise the one error that says what to install."""
    why = "; ".join(engine.reasons)
    if sys.platform == "win32":
        raise NothingToRunWithError(
            f"{why}; on Windows the stack runs in containers only: start Docker or Podman"
        )
    found = find_programs(read_pins(), stack_bin(env))
    missing = [item for item in found if isinstance(item, Missing)]
    if not missing:
        return tuple(item for item in found if isinstance(item, Program))
    lacking = ", ".join(f"{item.service} ({item.reason})" for item in missing)
    raise NothingToRunWithError(
        f"{why}; native servers lacking: {lacking}. Start Docker or Podman, or in a checkout of underlay run "
        "`make stack-binaries` (needs Go, takes about 10 minutes once)"
    )


def _engine() -> Engine:
    """Return the engine that runs the containers, or say why there is none."""
    engine = find_engine()
    if isinstance(engine, NoEngine):
        raise StackError(f"the stack was started in containers, and now {'; '.join(engine.reasons)}")
    return engine


def _silent(_line: str) -> None:
    """Hear a progress line and do nothing: nobody asked for them."""
