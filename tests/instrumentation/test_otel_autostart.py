"""`configure` in processes of their own: what it sets up, where telemetry arrives, and how a process ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from otel_collector import Collector
from otel_programs import lines, names, run, script


def test_without_a_collector_everything_goes_to_the_file(tmp_path: Path) -> None:
    """Nothing named and nothing listening: all three signals are in the local file at the end, and nothing is said."""
    done = run(script(tmp_path, "work(); print(shutdown.destination)"))
    assert (done.stdout, done.stderr, done.returncode) == ("files in t\n", "", 0)
    assert {key for line in lines(tmp_path) for key in line} == {
        "resourceSpans", "resourceMetrics", "resourceLogs",
    }  # fmt: skip
    (spans,) = [line for line in lines(tmp_path) if "resourceSpans" in line]
    resource = {pair["key"]: pair["value"] for pair in spans["resourceSpans"][0]["resource"]["attributes"]}
    assert resource["service.name"] == {"stringValue": "shop"}


def test_a_named_endpoint_gets_all_signals(tmp_path: Path, collector: Collector) -> None:
    """OTLP over HTTP to the usual variable, flushed at exit, with the script's name as service; no file is made."""
    done = run(script(tmp_path, "work(); print('app')"), OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert (done.stdout, done.stderr, done.returncode) == ("app\n", "", 0)
    assert set(collector.bodies) == {"/v1/traces", "/v1/metrics", "/v1/logs"}
    assert collector.spans() == [("shop", "work")]
    assert lines(tmp_path) == []


def test_a_collector_that_listens_is_reached_directly(tmp_path: Path, collector: Collector) -> None:
    """What was found on this machine is not asked through the proxy of the environment."""
    code = "work()"
    path = script(tmp_path, code, listens=True)
    path.write_text(
        path.read_text().replace(
            "from opentelemetry import trace",
            f"destinations._PORTS['http/protobuf'] = {collector.port}\nfrom opentelemetry import trace",
        )
    )
    done = run(path, HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9")
    assert done.stderr == ""
    assert collector.spans() == [("shop", "work")]


def test_names_of_the_user_win(tmp_path: Path, collector: Collector) -> None:
    """OTEL_SERVICE_NAME and service.name among the resource attributes beat the script's name."""
    path = script(tmp_path, "work()")
    run(path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SERVICE_NAME="mine")
    run(
        path,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_RESOURCE_ATTRIBUTES="a=b, service.name=other",
    )
    assert collector.spans() == [("mine", "work"), ("other", "work")]


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, "nowhere: OTEL_SDK_DISABLED is true"),
        (
            {
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
            },
            "nowhere",
        ),
    ],
)
def test_what_is_switched_off_is_not_set_up(tmp_path: Path, extra: dict[str, str], told: str) -> None:
    """A disabled SDK, or no exporter for any signal, leaves the process without providers, threads and files."""
    code = """
import threading
work()
from underlay_instrumentation.sink import configured
print(shutdown.destination, configured(trace.get_tracer_provider()), threading.active_count())
"""
    done = run(script(tmp_path, code), **extra)
    assert (done.stdout, done.stderr) == (f"{told} False 1\n", "")
    assert lines(tmp_path) == []


def test_one_signal_may_be_off(tmp_path: Path) -> None:
    """Without traces there are metrics and logs, and no tracer provider."""
    run(script(tmp_path, "work()"), OTEL_TRACES_EXPORTER="none")
    assert {key for line in lines(tmp_path) for key in line} == {"resourceMetrics", "resourceLogs"}


def test_an_sdk_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """When the program has providers already, none is replaced and none is added."""
    path = script(tmp_path, "print(trace.get_tracer_provider() is mine, shutdown.destination)")
    before = (
        "from opentelemetry import trace\nfrom opentelemetry.sdk.trace import TracerProvider\n"
        "mine = TracerProvider(); trace.set_tracer_provider(mine)\n"
    )
    path.write_text(before + path.read_text())
    assert run(path).stdout == "True as the program's own OpenTelemetry SDK does\n"


def test_a_wrong_exporter_takes_nothing_else_away(tmp_path: Path) -> None:
    """An exporter that does not exist is told once, and the other signals and the app go on."""
    done = run(script(tmp_path, "work(); print('app')"), OTEL_TRACES_EXPORTER="nonesuch")
    assert (done.stdout, done.returncode) == ("app\n", 0)
    assert done.stderr.splitlines() == [
        "underlay: the traces exporter nonesuch failed with LookupError; the program goes on without it"
    ]
    assert {key for line in lines(tmp_path) for key in line} == {"resourceMetrics", "resourceLogs"}


def test_a_console_exporter_is_the_users_choice(tmp_path: Path) -> None:
    """Other exporters are found by their names."""
    done = run(script(tmp_path, "work()"), OTEL_TRACES_EXPORTER="console")
    assert '"name": "work"' in done.stdout


def test_intervals_of_the_user_win(tmp_path: Path) -> None:
    """OTEL_METRIC_EXPORT_INTERVAL beats the setting; without it the setting holds."""
    code = """
import gc
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader as Reader
print([found._export_interval_millis for found in gc.get_objects() if isinstance(found, Reader)])
"""
    path = script(tmp_path, code)
    assert run(path).stdout == "[5000.0]\n"
    assert run(path, OTEL_METRIC_EXPORT_INTERVAL="7000").stdout == "[7000.0]\n"


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_http_clients_are_instrumented_when_they_are_imported(tmp_path: Path, family: str) -> None:
    """The HTTP span comes with the client that the program imports, and is not paid for before."""
    code = f"""
assert "httpx" not in sys.modules and "httpx2" not in sys.modules
import {family} as http
from http.server import BaseHTTPRequestHandler, HTTPServer
import threading
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204); self.end_headers()
    def log_message(self, *a): ...
server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.handle_request, daemon=True).start()
http.get(f"http://127.0.0.1:{{server.server_address[1]}}/", trust_env=False)
server.server_close()
"""
    done = run(script(tmp_path, code))
    assert done.stderr == ""
    assert names(tmp_path) == ["GET"]


def test_http_instrumentation_can_be_switched_off(tmp_path: Path) -> None:
    """OTEL_PYTHON_DISABLED_INSTRUMENTATIONS is honoured, by name and by star."""
    code = "import httpx; print(hasattr(httpx.HTTPTransport.handle_request, '__wrapped__'))"
    path = script(tmp_path, code)
    assert run(path).stdout == "True\n"
    for value in ("httpx", "a, *"):
        assert run(path, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=value).stdout == "False\n"


def test_a_fault_of_ours_leaves_the_program_alone(tmp_path: Path) -> None:
    """When setting up fails, the program runs, and the reason is a type and no text."""
    code = """
autostart._configure = lambda settings: 1 / 0
print(autostart.configure(None).destination)
"""
    done = run(script(tmp_path, code))
    assert done.stdout == "nowhere: setting up OpenTelemetry failed with ZeroDivisionError\n"
    assert done.returncode == 0


def test_a_declarative_file_that_cannot_be_used_leaves_the_program_alone(tmp_path: Path) -> None:
    """OTEL_CONFIG_FILE rules where it is set; when it cannot be used, one line says so and the program runs."""
    done = run(script(tmp_path, "work(); print('app')"), OTEL_CONFIG_FILE=str(tmp_path / "none.yaml"))
    assert (done.stdout, done.returncode, len(done.stderr.splitlines())) == ("app\n", 0, 1)
    assert lines(tmp_path) == []
