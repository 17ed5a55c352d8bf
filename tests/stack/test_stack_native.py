"""Up, status, logs and down on native servers (fakes that answer as the real ones do)."""

from __future__ import annotations

import json
import os
import signal
import socket

import pytest
from stack_fakes import Machine, program

from underlay import stack
from underlay.stack import processes
from underlay.stack.state import locked, read_state


@pytest.fixture
def up(machine: Machine) -> object:
    """Start the fake stack; whatever runs at the end of the test is stopped."""
    machine.install()

    def start(**options: object) -> stack.Status:
        arguments: dict[str, object] = {
            "any_ports": True,
            "environ": machine.environ,
            "timeout_s": 20.0,
            **options,
        }
        return stack.up(**arguments)  # type: ignore[arg-type]

    yield start
    stack.down(environ=machine.environ)


def pid(machine: Machine, service: str) -> int:
    """The pid of a server that was started."""
    state = read_state(machine.home)
    assert state is not None
    return state.servers[service].process.pid


def test_up_starts_everything_and_status_tells_the_same(machine: Machine, up) -> None:  # type: ignore[no-untyped-def]
    """All endpoints but Grafana's have an address, in the document of the contract; status agrees."""
    lines: list[str] = []
    status = up(say=lines.append)
    document = status.document()
    assert {key: document[key] for key in ("schema", "mode")} == {"schema": 1, "mode": "native"}
    assert list(document["endpoints"]) == ["otlp_http", "otlp_grpc", "prometheus", "jaeger", "grafana"]
    assert document["endpoints"].pop("grafana") is None
    assert all(address.startswith("http://127.0.0.1:") for address in document["endpoints"].values())
    assert stack.status(environ=machine.environ).document() == status.document()
    assert lines[-1] == "all servers are ready"
    assert json.loads(json.dumps(status.document())) == status.document()


def test_servers_get_no_secret_and_no_otel_variable(machine: Machine, up) -> None:  # type: ignore[no-untyped-def]
    """Of the user's environment the servers see a few system variables and the stack's own, nothing else."""
    up(environ={**machine.environ, "OPENAI_API_KEY": "x", "OTEL_TRACES_SAMPLER": "always_on", "OTEL_X": "y"})
    words = "\n".join(stack.logs("collector", environ=machine.environ))
    assert "UNDERLAY_OTLP_HTTP_PORT" in words
    assert "OPENAI_API_KEY" not in words
    assert "OTEL_X" not in words


def test_up_again_changes_nothing(machine: Machine, up) -> None:  # type: ignore[no-untyped-def]
    """A stack that runs is left alone: the same servers, the same ports."""
    first = up()
    pids = [pid(machine, name) for name in ("collector", "prometheus", "jaeger")]
    assert up().endpoints == first.endpoints
    assert [pid(machine, name) for name in ("collector", "prometheus", "jaeger")] == pids


def test_up_restarts_only_what_died(machine: Machine, up) -> None:  # type: ignore[no-untyped-def]
    """A server that was killed comes back at its old address; the others are not touched."""
    first = up()
    before = {name: pid(machine, name) for name in ("collector", "prometheus", "jaeger")}
    os.kill(before["collector"], signal.SIGKILL)
    while stack.status(environ=machine.environ).endpoints["otlp_http"] is not None:
        assert before
    status = stack.status(environ=machine.environ)
    assert status.endpoints["jaeger"] == first.endpoints["jaeger"]
    assert "collector is not running" in status.notes
    assert up().endpoints == first.endpoints
    assert pid(machine, "collector") != before.pop("collector")
    assert {name: pid(machine, name) for name in before} == before


def test_down_stops_all_and_says_what_it_kept(machine: Machine, up) -> None:  # type: ignore[no-untyped-def]
    """Servers end, data and logs stay and are named; a second down finds nothing to stop."""
    up()
    pids = [pid(machine, name) for name in ("collector", "prometheus", "jaeger")]
    stopped = stack.down(environ=machine.environ)
    assert stopped.services == ("collector", "jaeger", "prometheus")
    assert stopped.kept == (str(machine.home / "data"), str(machine.home / "logs"))
    assert all(processes._beginning(number) is None for number in pids)
    assert stack.down(environ=machine.environ).services == ()
    status = stack.status(environ=machine.environ)
    assert not status.running
    assert status.mode == "native"


def test_ports_survive_a_restart(machine: Machine, up) -> None:  # type: ignore[no-untyped-def]
    """With any ports, the addresses are those of the run before."""
    first = up(environ={**machine.environ})
    stack.down(environ=machine.environ)
    assert up().endpoints == first.endpoints


def test_down_deletes_data_only_when_told(machine: Machine, up) -> None:  # type: ignore[no-untyped-def]
    """`delete_data` removes data and logs and names them as deleted."""
    up()
    stopped = stack.down(delete_data=True, environ=machine.environ)
    assert stopped.kept == ()
    assert stopped.deleted == (str(machine.home / "data"), str(machine.home / "logs"))
    assert not (machine.home / "data").exists()


def test_a_server_that_dies_is_told_with_its_last_words(machine: Machine, up) -> None:  # type: ignore[no-untyped-def]
    """A server that ends at once fails the start with the end of its log, and what was started is stopped."""
    (machine.bin / "jaeger.broken").touch()
    with pytest.raises(stack.NotReadyError, match=r"(?s)jaeger ended at once; the end of .*no such luck"):
        up()
    state = read_state(machine.home)
    assert state is not None
    assert state.servers == {}


def test_a_server_that_never_answers_is_told_at_the_deadline(machine: Machine, up) -> None:  # type: ignore[no-untyped-def]
    """A server that runs but is not healthy fails the start when the time is up."""
    (machine.bin / "otelcol.mute").touch()
    with pytest.raises(stack.NotReadyError, match="collector was not ready after 0 s"):
        up(timeout_s=0.4)


def test_status_is_honest_about_a_server_that_stopped_answering(machine: Machine, up) -> None:  # type: ignore[no-untyped-def]
    """A server whose health fails has no address, and a note says why."""
    up()
    (machine.bin / "prometheus.mute").touch()
    status = stack.status(environ=machine.environ)
    assert status.endpoints["prometheus"] is None
    assert "prometheus runs but does not answer" in status.notes


def test_a_taken_port_is_told_before_anything_starts(machine: Machine, up) -> None:  # type: ignore[no-untyped-def]
    """A port in use fails the start with its variable, and no server was started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(
            stack.PortTakenError, match=f"port {number} for jaeger .* set UNDERLAY_JAEGER_PORT"
        ):
            up(environ={**machine.environ, "UNDERLAY_JAEGER_PORT": str(number)})
    assert read_state(machine.home) is None


def test_nothing_to_run_with_says_what_to_install(machine: Machine) -> None:
    """Without an engine and without servers, one error says what was looked for and what to do."""
    program(machine.path / "docker", "#!/bin/sh\nexit 1\n")
    with pytest.raises(stack.NothingToRunWithError) as caught:
        stack.up(environ=machine.environ)
    message = str(caught.value)
    assert "\n" not in message
    for words in (
        "docker is installed, but no engine answers it",
        "podman is not installed",
        "prometheus (not found), jaeger (not found), collector (not found)",
        "Start Docker or Podman",
        "make stack-binaries",
    ):
        assert words in message


def test_containers_asked_for_without_an_engine_are_refused(machine: Machine) -> None:
    """Insisting on containers gives no native servers in their place."""
    machine.install()
    with pytest.raises(stack.NothingToRunWithError, match="no container engine can be used"):
        stack.up(mode="compose", environ=machine.environ)


def test_a_native_stack_that_runs_is_not_joined_by_containers(machine: Machine, up) -> None:  # type: ignore[no-untyped-def]
    """While native servers run, asking for containers says to stop them, and an engine that appears changes
    nothing.
    """
    first = up()
    with pytest.raises(stack.StackError, match="underlay stack down"):
        up(mode="compose")
    program(machine.path / "docker", "#!/bin/sh\necho 28.2.2\n")
    assert up().document() == first.document()


def test_two_commands_at_once_are_refused(machine: Machine) -> None:
    """While one command changes the stack, another one is told so at once."""
    with locked(machine.home), pytest.raises(stack.StackError, match="another `underlay stack` command"):
        stack.up(environ=machine.environ)


def test_a_damaged_state_file_is_named(machine: Machine) -> None:
    """A state that cannot be read is an error with its path, never a guess about which process to kill."""
    machine.home.mkdir()
    for text in ("", "{}", '{"schema": 2}', '{"schema": 1, "mode": "x"}', "[1]"):
        (machine.home / "state.json").write_text(text, encoding="utf-8")
        with pytest.raises(stack.StackError, match=r"state\.json is damaged"):
            stack.status(environ=machine.environ)


def test_before_the_first_start(machine: Machine) -> None:
    """A stack that was never started has no endpoint, nothing to stop and no logs."""
    assert not stack.status(environ=machine.environ).running
    assert stack.down(environ=machine.environ) == stack.Stopped((), ())
    with pytest.raises(stack.StackError, match="never started"):
        stack.logs("collector", environ=machine.environ)
    with pytest.raises(
        stack.StackError, match=r"service = 'tempo': allowed is collector, prometheus, jaeger, grafana"
    ):
        stack.logs("tempo", environ=machine.environ)


def test_logs_gives_the_last_lines_and_follows(machine: Machine) -> None:
    """The last lines come first, then with follow what is written later, line by whole line."""
    path = machine.home / "logs" / "jaeger.log"
    path.parent.mkdir(parents=True)
    (machine.home / "state.json").write_text(
        '{"schema": 1, "mode": "native", "ports": {}, "servers": {}}', encoding="utf-8"
    )
    path.write_text("".join(f"line {n}\n" for n in range(20_000)), encoding="utf-8")
    assert list(stack.logs("jaeger", lines=2, environ=machine.environ)) == ["line 19998", "line 19999"]
    assert list(stack.logs("jaeger", lines=0, environ=machine.environ)) == []
    following = stack.logs("jaeger", lines=1, follow=True, environ=machine.environ)
    assert next(following) == "line 19999"
    with path.open("a", encoding="utf-8") as file:
        file.write("new\nhalf")
    assert next(following) == "new"


def test_a_long_log_is_set_aside_at_the_next_start(
    machine: Machine, up, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """A log beyond the limit becomes the old one; the new one starts empty."""
    up()
    stack.down(environ=machine.environ)
    monkeypatch.setattr("underlay.stack.native.LOG_LIMIT_BYTES", 1)
    up()
    assert (machine.home / "logs" / "jaeger.log.1").exists()
