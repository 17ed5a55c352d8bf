"""Up, status and down in containers, against a pretended engine that notes what it is told."""

from __future__ import annotations

import shutil
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from stack_fakes import ROOT, Machine

from underlay import stack
from underlay.stack import compose, read_pins
from underlay.stack.engine import Engine
from underlay.stack.state import State, read_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ENGINE = Engine("docker", "docker", ("docker", "compose"))


@dataclass(slots=True)
class Told:
    """An engine that does what it is told: containers run from `up` to `down`."""

    up: bool = False
    code: int = 0
    calls: list[tuple[tuple[str, ...], dict[str, str]]] = field(default_factory=list)

    def __call__(self, command: Sequence[str], env: Mapping[str, str]) -> tuple[int, str]:
        """Note a command and answer it."""
        self.calls.append((tuple(command), dict(env)))
        if "ps" in command:
            return 0, "\n".join(compose.SERVICES) if self.up else ""
        if self.code:
            return self.code, "one\ntwo: no such image\n"
        self.up = "up" in command
        return 0, ""

    @property
    def last(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """The last command that was not a question."""
        return next(call for call in reversed(self.calls) if "ps" not in call[0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bundle with one dashboard."""
    folder = tmp_path / "bundle"
    (folder / "dashboards" / "rendered").mkdir(parents=True)
    (folder / "dashboards" / "rendered" / "overview.json").write_text("{}", encoding="utf-8")
    shutil.copy(ROOT / "docker-compose.observability.yml", folder)
    return folder


def start(machine: Machine, root: Path, told: Told, **options: object) -> stack.Status:
    """Start the containers on free ports."""
    arguments: dict[str, object] = {"any_ports": True, "timeout_s": 0.0, "say": lambda _line: None, **options}
    environ = {**machine.environ, **arguments.pop("environ", {})}  # type: ignore[dict-item]
    arguments.setdefault("ask", lambda _port, _path: True)
    return compose.up(machine.home, root, ENGINE, read_pins(), environ, run=told, **arguments)  # type: ignore[arg-type]


def test_up_gives_the_engine_pins_ports_and_a_password(machine: Machine, root: Path) -> None:
    """The compose file is interpolated with the pins, the chosen ports and a password that is not the
    default.
    """
    told = Told()
    status = start(machine, root, told)
    command, env = told.last
    assert command[-2:] == ("up", "--detach")
    assert str(root / "docker-compose.observability.yml") in command
    assert read_pins().environment().items() <= env.items()
    assert len(env["GRAFANA_ADMIN_PASSWORD"]) >= 24
    for name, address in status.document()["endpoints"].items():
        assert address == f"http://127.0.0.1:{env[f'UNDERLAY_{name.upper()}_PORT']}"
    assert status.mode == "compose"


def test_the_password_is_made_once_kept_private_and_never_told(machine: Machine, root: Path) -> None:
    """The secret file is for its owner only, stays the same, and no note holds its content."""
    told = Told()
    status = start(machine, root, told)
    path = machine.home / "grafana-admin-password"
    secret = told.last[1]["GRAFANA_ADMIN_PASSWORD"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(machine.home.stat().st_mode) == 0o700
    assert path.read_text(encoding="ascii").strip() == secret
    assert str(path) in " ".join(status.notes)
    assert secret not in repr(status)
    start(machine, root, told)
    assert told.last[1]["GRAFANA_ADMIN_PASSWORD"] == secret


def test_a_password_of_ones_own_is_used_and_not_written(machine: Machine, root: Path) -> None:
    """GRAFANA_ADMIN_PASSWORD in the environment wins, and no file is made of it."""
    told = Told()
    start(machine, root, told, environ={"GRAFANA_ADMIN_PASSWORD": "own"})
    assert told.last[1]["GRAFANA_ADMIN_PASSWORD"] == "own"
    assert not (machine.home / "grafana-admin-password").exists()


def test_up_again_keeps_the_ports(machine: Machine, root: Path) -> None:
    """While the containers run, their ports stay, although they look taken."""
    told = Told()
    first = start(machine, root, told)
    again = start(machine, root, told, any_ports=False)
    assert again.endpoints == first.endpoints


def test_the_engines_words_reach_the_user(machine: Machine, root: Path) -> None:
    """When the engine refuses, the error ends with what it said."""
    with pytest.raises(stack.StackError, match=r"(?s)did not start \(exit code 17\):.*no such image"):
        start(machine, root, Told(code=17))


def test_a_service_that_does_not_answer_is_named(machine: Machine, root: Path) -> None:
    """At the deadline the error names the service and the way to its log."""
    with pytest.raises(
        stack.NotReadyError, match=r"prometheus did not answer .* `underlay stack logs prometheus`"
    ):
        start(machine, root, Told(), ask=lambda _port, path: path != "/-/ready")


def test_without_dashboards_nothing_starts(machine: Machine, root: Path) -> None:
    """Grafana without dashboards is a fault of the installation, told before anything runs."""
    (root / "dashboards" / "rendered" / "overview.json").unlink()
    told = Told()
    with pytest.raises(stack.StackError, match="no dashboards in"):
        start(machine, root, told)
    assert told.calls == []


def test_down_keeps_the_volumes_and_names_them(machine: Machine, root: Path) -> None:
    """Containers go, volumes and password stay and are named; deleting is asked for and removes both."""
    told = Told()
    start(machine, root, told)
    state = read_state(machine.home)
    assert state is not None
    assert state.mode == "compose"
    arguments = (machine.home, root, ENGINE, read_pins(), machine.environ, state)
    kept = compose.down(*arguments, delete_data=False, run=told)
    assert kept.services == compose.SERVICES
    assert "volume underlay_prometheus-data" in kept.kept
    assert told.last[0][-1] == "down"
    deleted = compose.down(*arguments, delete_data=True, run=told)
    assert deleted.kept == ()
    assert "volume underlay_grafana-data" in deleted.deleted
    assert told.last[0][-2:] == ("down", "--volumes")
    assert not (machine.home / "grafana-admin-password").exists()


def test_status_believes_the_engine_not_the_port(machine: Machine) -> None:
    """A service without a running container has no address, whoever answers on its port."""
    status = compose.status(ENGINE, State("compose", {"grafana": 1, "prometheus": 2}), run=Told())
    assert not status.running
    late = compose.status(ENGINE, State("compose", {"grafana": 1, "prometheus": 1}), run=Told(up=True))
    assert "grafana runs but does not answer" in late.notes
