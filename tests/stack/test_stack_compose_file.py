"""The compose file: hardened, on loopback, and in step with the native runner."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from stack_fakes import ROOT

from underlay.stack import read_pins, stack_bin
from underlay.stack.compose import SERVICES, VOLUMES
from underlay.stack.native import launches
from underlay.stack.ports import PORTS, choose_ports, ports_of

FILE = ROOT / "docker-compose.observability.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
EVERY = sorted(COMPOSE["services"])


@pytest.mark.parametrize("name", EVERY)
def test_every_container_is_hardened(name: str) -> None:
    """No container runs as root, writes to its root, gains a privilege, or takes memory, processor or disk at
    will.
    """
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert service["image"].startswith("docker.io/")
    assert service["restart"] == ("no" if name.endswith("-volume") else "unless-stopped")


@pytest.mark.parametrize("name", EVERY)
def test_files_are_mounted_to_be_read_and_exist(name: str) -> None:
    """A container gets its configuration read-only, from a folder that the bundle has, and data in named
    volumes.
    """
    for mount in COMPOSE["services"][name].get("volumes", []):
        if isinstance(mount, str):
            assert mount.partition(":")[0] in COMPOSE["volumes"]
            continue
        assert mount["read_only"] is True
        assert mount["bind"]["create_host_path"] is False
        assert mount["source"].startswith("./")
        if mount["source"] != "./dashboards/rendered":
            assert (ROOT / mount["source"]).is_dir()


def test_every_port_is_on_loopback_and_a_variable() -> None:
    """Each published port binds 127.0.0.1 and is moved by the variable, with the default, of the table of
    ports.
    """
    published = {
        port: name for name, service in COMPOSE["services"].items() for port in service.get("ports", [])
    }
    assert published == {
        f"127.0.0.1:${{{port.variable}:-{port.default}}}:{port.default}": port.service
        for port in ports_of("compose")
    }


def test_services_and_volumes_are_those_the_runner_knows() -> None:
    """The runner waits for every service that stays, and names every volume that is kept."""
    assert sorted(SERVICES) == [name for name in EVERY if not name.endswith("-volume")]
    assert sorted(VOLUMES) == sorted(COMPOSE["volumes"])


def test_containers_and_native_servers_get_the_same_flags() -> None:
    """Servers get the same flags in both modes but for paths and addresses, and the same variables."""
    ports = choose_ports("native", {}, any_ports=False, previous={}, free=lambda _port: True)
    programs = {name: Path(name) for name in ("prometheus", "jaeger", "collector")}
    native = launches(programs, ports, ROOT / "observability", Path("data"), {})
    for name, launch in native.items():
        container = [
            re.sub(r"\$\{\w+:-(\w+)\}", r"\1", flag) for flag in COMPOSE["services"][name]["command"]
        ]
        own = [flag for flag in launch.command[1:] if not flag.startswith("--web.listen-address=")]
        assert [_named(flag) for flag in own] == [_named(flag) for flag in container]
        fixed = set(COMPOSE["services"][name]["environment"]) - {"GOMEMLIMIT"}
        optional = {"UNDERLAY_COLLECTOR_LOGS", "UNDERLAY_TRACES_RETENTION"}
        assert fixed - optional <= set(launch.env)


def test_the_volume_owner_is_the_user_of_the_servers() -> None:
    """The volumes that a helper makes belong to the user that writes them, and are made before it starts."""
    for name in ("collector", "jaeger"):
        server, helper = COMPOSE["services"][name], COMPOSE["services"][f"{name}-volume"]
        assert helper["user"] == server["user"] == COMPOSE["services"]["prometheus"]["user"]
        assert server["depends_on"] == {f"{name}-volume": {"condition": "service_completed_successfully"}}
        assert helper["network_mode"] == "none"
        volume = helper["volumes"][0].partition(":")[0]
        assert any(mount.startswith(f"{volume}:") for mount in server["volumes"] if isinstance(mount, str))


def test_grafana_has_no_default_password_and_asks_nobody_outside() -> None:
    """Grafana needs a password to start, lets nobody in without one, and calls no server of its makers."""
    env = COMPOSE["services"]["grafana"]["environment"]
    assert env["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_ADMIN_PASSWORD:?")
    for name in (
        "AUTH_ANONYMOUS_ENABLED",
        "USERS_ALLOW_SIGN_UP",
        "ANALYTICS_REPORTING_ENABLED",
        "ANALYTICS_CHECK_FOR_UPDATES",
        "ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
        "NEWS_NEWS_FEED_ENABLED",
        "SNAPSHOTS_ENABLED",
        "SNAPSHOTS_EXTERNAL_ENABLED",
        "PUBLIC_DASHBOARDS_ENABLED",
        "PLUGINS_PREINSTALL_AUTO_UPDATE",
        "PLUGINS_PLUGIN_ADMIN_ENABLED",
    ):
        assert env[f"GF_{name}"] == "false"
    assert env["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    assert env["GF_SECURITY_DISABLE_GRAVATAR"] == "true"


def test_prometheus_opens_no_door_to_delete_or_reload() -> None:
    """Neither the admin nor the lifecycle API of Prometheus is on."""
    flags = " ".join(COMPOSE["services"]["prometheus"]["command"])
    assert "admin-api" not in flags
    assert "lifecycle" not in flags


@pytest.mark.stack
def test_docker_compose_accepts_the_file(real_environ: dict[str, str]) -> None:
    """The real docker-compose accepts the file, and refuses an unset password and unset pins."""
    program = stack_bin(real_environ) / "docker-compose"
    if not program.is_file():
        pytest.skip("docker-compose is not built: scripts/build_stack.py --with-compose")
    pins = read_pins().environment()
    given = {**pins, "GRAFANA_ADMIN_PASSWORD": "x"}
    cases = {
        "": given,
        "GRAFANA_ADMIN_PASSWORD": pins,
        "UNDERLAY_JAEGER_VERSION": {k: v for k, v in given.items() if k != "UNDERLAY_JAEGER_VERSION"},
    }
    for missing, variables in cases.items():
        answer = subprocess.run(
            [str(program), "--file", str(FILE), "config", "--quiet"],
            env={"PATH": os.environ["PATH"], "HOME": real_environ["UNDERLAY_STACK_HOME"], **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (answer.returncode == 0) is (missing == "")
        assert missing in answer.stderr
        assert missing or answer.stderr == ""


def _named(flag: str) -> str:
    """Return a flag without the path it holds, if it holds one."""
    name, _, text = flag.partition("=")
    return name if "/" in text or name == "--storage.tsdb.path" else flag


def test_port_names_and_variables_are_unique() -> None:
    """No two ports share a name, a variable or a default."""
    for field in ("name", "variable", "default"):
        values = [getattr(port, field) for port in PORTS]
        assert len(set(values)) == len(values)
