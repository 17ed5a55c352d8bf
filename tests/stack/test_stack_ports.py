"""Ports: defaults, variables, free ones, and clear words when one is taken."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest

from underlay.stack import PortTakenError, StackError
from underlay.stack.ports import FREE_RANGE, PORTS, choose_ports, port_is_free, ports_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens on a loopback port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken


def test_defaults_are_taken_when_free() -> None:
    """Without variables every port of the mode gets its default."""
    chosen = choose_ports("compose", {}, any_ports=False, previous={"grafana": 5}, free=lambda _: True)
    assert chosen == {port.name: port.default for port in ports_of("compose")}


def test_native_opens_no_port_for_grafana_and_compose_none_for_jaegers_inside() -> None:
    """Each mode opens just the ports that it serves."""
    assert "grafana" not in [port.name for port in ports_of("native")]
    assert "jaeger_otlp" not in [port.name for port in ports_of("compose")]


def test_every_taken_port_is_named_with_its_variable() -> None:
    """One error names all ports that are in use, the variable that moves each, and the way out."""
    with pytest.raises(PortTakenError) as caught:
        choose_ports("native", {}, any_ports=False, previous={}, free=lambda n: n not in (4318, 9090))
    message = str(caught.value)
    assert (
        "port 4318 for otlp_http is in use by another program: free it or set UNDERLAY_OTLP_HTTP_PORT"
        in message
    )
    assert "UNDERLAY_PROMETHEUS_PORT" in message
    assert "UNDERLAY_JAEGER_PORT" not in message
    assert "--any-ports" in message


def test_a_variable_decides_even_with_any_ports() -> None:
    """A port that the user names is taken or refused, never silently replaced."""
    environ = {"UNDERLAY_JAEGER_PORT": "26686"}
    assert (
        choose_ports("native", environ, any_ports=True, previous={}, free=lambda _: True)["jaeger"] == 26686
    )
    with pytest.raises(PortTakenError, match="port 26686 for jaeger is in use"):
        choose_ports("native", environ, any_ports=True, previous={}, free=lambda n: n != 26686)


def test_any_ports_prefers_those_of_the_last_run() -> None:
    """With any ports, an address that dashboards and shells remember stays when it is free."""
    previous = {"jaeger": 40001, "prometheus": 40002}
    chosen = choose_ports("native", {}, any_ports=True, previous=previous, free=lambda n: n != 40002)
    assert chosen["jaeger"] == 40001
    assert chosen["prometheus"] == 9090


def test_any_ports_finds_distinct_free_ones() -> None:
    """When all defaults are taken, each port gets one of its own that no outgoing connection can be lent."""
    defaults = {port.default for port in PORTS}
    chosen = choose_ports("native", {}, any_ports=True, previous={}, free=lambda n: n not in defaults)
    assert all(number in FREE_RANGE for number in chosen.values())
    assert len(set(chosen.values())) == len(ports_of("native"))


def test_any_ports_with_none_free_is_an_error() -> None:
    """When not one port is free, the error names the ports as ever."""
    with pytest.raises(PortTakenError, match="port 4317 for otlp_grpc"):
        choose_ports("native", {}, any_ports=True, previous={}, free=lambda _: False)


def test_two_variables_may_not_name_one_port() -> None:
    """A number that is given twice is an error that names both; a default that is given away moves with any
    ports.
    """
    environ = {"UNDERLAY_JAEGER_PORT": "9090"}
    with pytest.raises(PortTakenError, match="port 9090 for prometheus is given to jaeger already"):
        choose_ports("native", environ, any_ports=False, previous={}, free=lambda _: True)
    chosen = choose_ports("native", environ, any_ports=True, previous={}, free=lambda _: True)
    assert chosen["jaeger"] == 9090
    assert chosen["prometheus"] in FREE_RANGE


@pytest.mark.parametrize("text", ["http", "0", "65536", "-1", "80.5", "²"])
def test_a_variable_without_a_port_is_refused(text: str) -> None:
    """A value that is no port is an error with the variable, the value and what is allowed."""
    words = re.escape(f"UNDERLAY_OTLP_GRPC_PORT={text!r}: allowed is a port number, 1 to 65535")
    with pytest.raises(StackError, match=words):
        choose_ports("native", {"UNDERLAY_OTLP_GRPC_PORT": text}, any_ports=True, previous={})


def test_a_port_somebody_listens_on_is_not_free(listener: socket.socket) -> None:
    """A listening port is taken; once closed, it is free again at once."""
    number = listener.getsockname()[1]
    assert not port_is_free(number)
    listener.close()
    assert port_is_free(number)


def test_a_port_taken_on_every_address_is_not_free() -> None:
    """A server on all addresses would answer in our place, so its port is taken too."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        assert not port_is_free(taken.getsockname()[1])
