"""`underlay doctor`: findings, fixes, exit codes, and what it never shows."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from underlay.cli import checks, destination
from underlay.cli.destination import endpoint_of, without_credentials
from underlay.cli.doctor import report_lines
from underlay.cli.finding import LEVELS, Finding
from underlay.cli.inside import examine_command, interpreter_of
from underlay.cli.output import plain
from underlay.transports import seam

INVOKE = Any
COMMAND = Any
LISTENING = destination.listening


@pytest.fixture(autouse=True)
def _nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "listening", lambda host, port: False)


def _by_code(result: Any) -> dict[str, dict[str, str]]:
    return {item["code"]: item for item in json.loads(result.stdout)["findings"]}


def test_a_healthy_installation_is_exit_0(invoke: INVOKE, tmp_path: Path) -> None:
    """Versions, seams, bridge, settings, destination and prices are all looked at and nothing fails."""
    result = invoke("doctor", "--json")
    assert result.exit_code == 0
    found = _by_code(result)
    for code in (
        "python.version",
        "underlay.version",
        "client.openai",
        "seam.httpx.Client",
        "seam.httpx2.AsyncClient",
        "settings.in_force",
        "prices.table",
    ):
        assert found[code]["level"] == "ok"
    assert f"files in {tmp_path / '.underlay'}" in found["exporter.target"]["evidence"]
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    assert sum(document["counts"].values()) == len(document["findings"])


def test_every_finding_is_well_formed(invoke: INVOKE) -> None:
    """Codes are unique, levels closed, and what warns or fails has a fix."""
    findings = json.loads(invoke("doctor", "--json").stdout)["findings"]
    assert len({item["code"] for item in findings}) == len(findings)
    assert all(item["level"] in LEVELS and item["evidence"] for item in findings)
    assert all(item["fix"] for item in findings if item["level"] in ("warn", "fail"))


def test_a_seam_that_does_not_hold_fails_with_a_fix(invoke: INVOKE, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that a new release of its library uncovers is a failure, exit 1, and the report says what
    happens to calls.
    """
    monkeypatch.setattr(seam, "_METHOD", "_renamed")
    result = invoke("doctor", "--json")
    assert result.exit_code == 1
    found = _by_code(result)
    assert found["seam.httpx.Client"]["level"] == "fail"
    assert found["seam.httpx.Client"]["fix"] == "pip install --upgrade underlay"
    assert found["client.none"]["level"] == "warn"


def test_wrong_settings_are_findings(invoke: INVOKE, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor reports wrong settings where other commands stop, with the command that takes them back."""
    monkeypatch.setenv("UNDERLAY_LLM_CACHE__TTL", "soon")
    result = invoke("doctor", "--json")
    assert result.exit_code == 1
    finding = _by_code(result)["settings.wrong"]
    assert (finding["level"], finding["fix"]) == ("fail", "unset UNDERLAY_LLM_CACHE__TTL")


def test_a_store_that_cannot_be_used_is_a_finding(
    invoke: INVOKE, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A missing folder or a foreign file fails with the setting to take back; a store that is not there yet is
    not made by looking."""
    (tmp_path / "foreign.db").write_text("not a database, but long enough to be looked at " * 40)
    for name, level in (("none/a.db", "fail"), ("foreign.db", "fail"), ("new.db", "ok")):
        monkeypatch.setenv("UNDERLAY_LLM_CACHE__STORE", f"sqlite:///{tmp_path / name}")
        finding = _by_code(invoke("doctor", "--json"))["settings.store"]
        assert (finding["level"], name in finding["evidence"]) == (level, True)
        assert finding["fix"] == ("unset UNDERLAY_LLM_CACHE__STORE" if level == "fail" else "")
    assert not (tmp_path / "new.db").exists()


def test_settings_in_force_name_their_source(invoke: INVOKE, monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs from the default is listed with where it came from; a switched-off underlay is a
    warning.
    """
    monkeypatch.setenv("UNDERLAY_DISABLED", "1")
    monkeypatch.setenv("UNDERLAY_NONSENSE", "1")
    result = invoke("doctor", "--json", "--fail-on", "warn")
    assert result.exit_code == 1
    found = _by_code(result)
    assert "disabled = true (environment UNDERLAY_DISABLED)" in found["settings.in_force"]["evidence"]
    assert found["settings.disabled"]["fix"] == "unset UNDERLAY_DISABLED"
    assert "UNDERLAY_NONSENSE" in found["settings.unknown"]["evidence"]


@pytest.mark.parametrize(
    ("environ", "said", "level"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, "nowhere: OTEL_SDK_DISABLED", "warn"),
        ({"OTEL_TRACES_EXPORTER": "none"}, "nowhere: OTEL_TRACES_EXPORTER", "warn"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "the exporter console", "ok"),
        ({"UNDERLAY_TELEMETRY__FILE": "never"}, "nowhere: telemetry.file is never", "warn"),
        ({"OTEL_CONFIG_FILE": "x.yaml"}, "OTEL_CONFIG_FILE", "ok"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:pw@host:4318/x?k=v"},
            "to http://host:4318/x (OTEL",
            "ok",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "console", "UNDERLAY_TELEMETRY__FILE": "always"},
            "the exporter console (OTEL_TRACES_EXPORTER), and to files in",
            "ok",
        ),
    ],
)
def test_where_telemetry_goes(
    invoke: INVOKE, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], said: str, level: str
) -> None:
    """The usual variables decide, and an address is shown without credentials and query."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    finding = _by_code(invoke("doctor", "--json"))["exporter.target"]
    assert said in finding["evidence"]
    assert finding["level"] == level


def test_a_collector_on_this_machine_is_found(invoke: INVOKE, monkeypatch: pytest.MonkeyPatch) -> None:
    """When something listens on the usual port, that is where telemetry goes."""
    monkeypatch.setattr(destination, "listening", lambda host, port: (host, port) == ("localhost", 4318))
    assert "where something listens" in _by_code(invoke("doctor", "--json"))["exporter.target"]["evidence"]


def test_listening_is_told_by_connecting() -> None:
    """A port with a listener is seen, one without is not."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert LISTENING("127.0.0.1", port)
    assert not LISTENING("127.0.0.1", port)


def test_google_genai_with_aiohttp_is_warned_about(invoke: INVOKE, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its async calls go around httpx when aiohttp is installed, and the doctor says so plainly."""
    real = checks._version
    monkeypatch.setattr(
        checks, "_version", lambda name: "1.0" if name in ("google-genai", "aiohttp") else real(name)
    )
    finding = _by_code(invoke("doctor", "--json"))["client.aiohttp"]
    assert finding["level"] == "warn"
    assert "not covered" in finding["evidence"]


def test_no_value_of_the_environment_is_shown(invoke: INVOKE, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in any variable that the doctor reads stay out of its output."""
    for name in ("OTEL_EXPORTER_OTLP_HEADERS", "UNDERLAY_SECRET", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "api-key=hush-hush-hush")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://hush@host/?hush")
    for options in ((), ("--json",)):
        assert "hush" not in invoke("doctor", *options).output


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h:4318", "http://h:4318"),
        ("https://u:p@h/v1?key=1#f", "https://h/v1"),
        ("http://[::1]:4318/", "http://[::1]:4318/"),
        ("secret", "an address that is no URL"),
        ("http://h:port", "an address that is no URL"),
        ("http://[bad", "an address that is no URL"),
    ],
)
def test_addresses_lose_their_secrets(url: str, shown: str) -> None:
    """User names, passwords, queries and fragments are cut, and what is no URL is not shown."""
    assert without_credentials(url) == shown


def test_the_traces_endpoint_wins() -> None:
    """The signal's own variable is asked before the common one."""
    both = {"OTEL_EXPORTER_OTLP_ENDPOINT": "b", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "a"}
    assert endpoint_of(both) == ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "a")
    assert endpoint_of({}) == ("", "")


def test_the_report_is_readable_at_60_columns(invoke: INVOKE, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long evidence wraps under itself; what is not fine shows its code and its fix."""
    finding = Finding("clients", "seam.x", "fail", "words " * 30, "pip install x")
    lines = plain(
        report_lines([Finding("python", "python.version", "ok", "Python"), finding], 60)
    ).splitlines()
    assert max(map(len, lines)) <= 60
    assert "  ok    Python" in lines
    assert "        fix: pip install x" in lines
    assert any("[seam.x]" in line for line in lines)
    assert lines[-1] == "1 ok, 1 fail"
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, invoke("doctor").stdout.splitlines()[3:])) <= 60


def test_an_unreadable_price_table_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A damaged installation is said to be one."""
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    [finding] = list(checks.GROUPS["prices"]())
    assert finding.level == "fail"


def test_a_folder_that_cannot_be_written_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telemetry that has nowhere to go is a failure, with the variable that moves it."""
    monkeypatch.setattr("os.access", lambda path, mode: False)
    found = {finding.code: finding for finding in checks.GROUPS["exporter"]()}
    assert found["exporter.folder"].level == "fail"
    assert "UNDERLAY_TELEMETRY__DIRECTORY" in found["exporter.folder"].fix


def test_the_command_is_looked_into_and_not_run(command: COMMAND, tmp_path: Path) -> None:
    """`doctor -- python app.py` asks that Python, started as `underlay run` would start it; app.py does not
    run.
    """
    app = tmp_path / "app.py"
    app.write_text("open('ran', 'w')\n")
    done = command("doctor", "--json", "--", sys.executable, str(app))
    found = {item["code"]: item for item in json.loads(done.stdout)["findings"]}
    assert found["startup.started"]["level"] == "ok"
    assert found["underlay.version"]["level"] == "ok"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("option", "said"), [("-I", "-I or -E"), ("-E", "-I or -E"), ("-S", "-S")])
def test_options_that_keep_underlay_out_are_named(option: str, said: str) -> None:
    """Python's options that skip the start-up file are the evidence."""
    found = {finding.code: finding for finding in examine_command([sys.executable, option, "app.py"])}
    assert found["startup.started"].level == "fail"
    assert said in found["startup.started"].evidence


def test_a_wrong_setting_is_seen_from_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What underlay says at the program's start is part of the report."""
    monkeypatch.setenv("UNDERLAY_LLM_CACHE__TTL", "soon")
    findings = examine_command([sys.executable, "app.py"])
    said = [finding for finding in findings if finding.code == "startup.said"]
    assert len(said) == 1
    assert "llm_cache.ttl" in said[0].evidence


def test_what_is_no_python_is_skipped() -> None:
    """A program without a Python that can be told is said to be one."""
    [finding] = examine_command(["/bin/ls"])
    assert (finding.code, finding.level) == ("startup.inside", "skip")
    assert examine_command(["no-such-program"])[0].level == "skip"


def test_a_python_without_underlay_fails(tmp_path: Path) -> None:
    """An interpreter that cannot import underlay is a failure with the install command."""
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    [finding] = examine_command([str(broken), "app.py"])
    assert finding.level == "fail"
    assert finding.fix == f"{broken} -m pip install underlay"


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["app.py", "-I"], []),
        (["-X", "dev", "-I", "app.py"], ["-X", "dev", "-I"]),
        (["-Wignore", "-m", "app"], ["-Wignore"]),
        (["-c", "code"], []),
        (["-Ic", "code"], []),
        (["-"], []),
        (["-X"], ["-X"]),
    ],
)
def test_pythons_own_options_are_kept(words: list[str], options: list[str]) -> None:
    """Options in front of the script belong to the interpreter and are kept for the look inside."""
    assert interpreter_of([sys.executable, *words]) == [sys.executable, *options]


def test_a_script_names_its_python(tmp_path: Path) -> None:
    """A console script is looked into through its first line."""
    script = tmp_path / "gunicorn"
    for first, expected in (
        (f"#!{sys.executable} -E", [sys.executable, "-E"]),
        ("#!/bin/sh", None),
        ("", None),
    ):
        script.write_text(f"{first}\n")
        script.chmod(0o755)
        assert interpreter_of([str(script)]) == expected
    script.write_text("#!/usr/bin/env python3\n")
    found = interpreter_of([str(script)])
    assert found is not None
    assert Path(found[0]).name == "python3"


def test_a_program_that_is_switched_off_is_no_failure(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """UNDERLAY_DISABLED is a decision: the doctor notes it and names the way back, and exits 0."""
    monkeypatch.setenv("UNDERLAY_DISABLED", "1")
    done = command("doctor", "--json", "--", sys.executable, "-c", "pass")
    found = {finding["code"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0
    assert found["startup.started"]["level"] == "note"
    assert found["startup.started"]["fix"] == "unset UNDERLAY_DISABLED"
