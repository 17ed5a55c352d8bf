"""Sets up an OpenTelemetry SDK for `underlay run`, when the program has none. Never raises, and writes
nothing on stdout."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from underlay_instrumentation import destinations
from underlay_instrumentation.delivery import (
    CountedLogs,
    CountedMetrics,
    CountedSpans,
    Tally,
    fold_exporter_logs,
)
from underlay_instrumentation.faults import fault
from underlay_instrumentation.file_exporters import (
    ENCODERS,
    FileLogExporter,
    FileMetricExporter,
    FileSpanExporter,
)
from underlay_instrumentation.http_spans import instrument_http_clients, when_imported
from underlay_instrumentation.late import LateLogs, LateMetrics, LateSpans
from underlay_instrumentation.local_file import LocalFile
from underlay_instrumentation.shutdown import Shutdown, Stoppable, inert
from underlay_instrumentation.sink import configured

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from underlay.settings import Settings, TelemetrySettings
    from underlay_instrumentation.destinations import Signal, Target

__all__ = ["Shutdown", "configure", "service_name"]

_TRUE: Final = "true"
_FILE_DELAY_MS: Final = 1000
"""How long spans wait before they are written to the local file: `underlay traces` is often run beside the
program."""

_OTLP_EXPORTERS: Final[Mapping[Signal, tuple[str, str]]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
_FILE_EXPORTERS: Final[Mapping[Signal, Callable[[LocalFile], Any]]] = {
    "traces": FileSpanExporter,
    "metrics": FileMetricExporter,
    "logs": FileLogExporter,
}
_LATE: Final[Mapping[Signal, Callable[[str, Callable[[], Any]], Any]]] = {
    "traces": LateSpans,
    "metrics": LateMetrics,
    "logs": LateLogs,
}
_COUNTED: Final[Mapping[Signal, Callable[[Any, Tally], Any]]] = {
    "traces": CountedSpans,
    "metrics": CountedMetrics,
    "logs": CountedLogs,
}


def configure(settings: Settings) -> Shutdown:
    """Set up providers for all signals unless some are set already or `OTEL_SDK_DISABLED` is true.

    The result flushes and stops them; it is installed at exit and on SIGTERM already, and says where
    telemetry goes.
    """
    try:
        return _configure(settings)
    except Exception as error:  # noqa: BLE001 - the program runs without telemetry rather than not at all
        fault("setting up OpenTelemetry", error)
        return inert(f"nowhere: setting up OpenTelemetry failed with {type(error).__name__}")


def service_name(argv: list[str]) -> str:
    """A name for the program, from the command line of its interpreter: the module of `-m`, else the script's
    name."""
    arguments = argv[1:]
    for position, argument in enumerate(arguments):
        if argument == "-m" and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument == "-c":
            break
        if argument in ("-W", "-X"):
            continue
        if argument.startswith("-") or (position and arguments[position - 1] in ("-W", "-X")):
            continue
        path = Path(argument)
        return path.parent.name if path.stem == "__main__" and path.parent.name else path.stem
    return "python"


def _why_not() -> str:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == _TRUE:
        return "nowhere: OTEL_SDK_DISABLED is true"
    providers = (trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider())
    return "as the program's own OpenTelemetry SDK does" if any(map(configured, providers)) else ""


def _configure(settings: Settings) -> Shutdown:
    reason = _why_not()
    if reason:
        return inert(reason)
    if os.environ.get("OTEL_CONFIG_FILE"):
        return _configure_by_file(settings.telemetry)
    telemetry = settings.telemetry
    targets = destinations.plan(os.environ, telemetry.file, destinations.listening)
    told = destinations.describe(targets, telemetry.directory)
    if not any(targets.values()):
        return inert(told)
    file = LocalFile(telemetry.directory, max_bytes=telemetry.file_max_bytes, keep=telemetry.file_keep)
    tally = Tally(_collector(targets))
    fold_exporter_logs()
    resource = _resource()
    providers = [
        _START[signal](resource, _exporters(signal, targets[signal], file, tally), telemetry)
        for signal in destinations.SIGNALS
        if targets[signal]
    ]
    when_imported(lambda: _load(targets))
    instrument_http_clients()
    shutdown = Shutdown(told, providers, timeout=telemetry.exit_timeout, tally=tally, close=file.close)
    shutdown.install()
    return shutdown


def _configure_by_file(telemetry: TelemetrySettings) -> Shutdown:
    """Leave everything to the declarative file, and add the flush at the end."""
    from opentelemetry.distro import OpenTelemetryConfigurator

    configurator = cast("Any", OpenTelemetryConfigurator)()
    configurator.configure()
    instrument_http_clients()
    providers: tuple[Any, ...] = (
        trace.get_tracer_provider(),
        metrics.get_meter_provider(),
        _logs.get_logger_provider(),
    )
    stoppables = [_stoppable(provider) for provider in providers if configured(provider)]
    shutdown = Shutdown("as OTEL_CONFIG_FILE says", stoppables, timeout=telemetry.exit_timeout)
    shutdown.install()
    return shutdown


def _stoppable(provider: Any) -> Stoppable:
    return Stoppable(provider.force_flush, provider.shutdown)


def _collector(targets: Mapping[Signal, tuple[Target, ...]]) -> str:
    names = dict.fromkeys(
        target.endpoint or target.name
        for several in targets.values()
        for target in several
        if target.name != "file"
    )
    return " and ".join(names)


def _resource() -> Resource:
    attributes = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    named = os.environ.get("OTEL_SERVICE_NAME") or any(
        pair.split("=", 1)[0].strip() == SERVICE_NAME for pair in attributes.split(",")
    )
    # What is passed here would win over the environment.
    return Resource.create({} if named else {SERVICE_NAME: service_name(sys.orig_argv)})


def _exporters(
    signal: Signal, targets: tuple[Target, ...], file: LocalFile, tally: Tally
) -> list[tuple[Any, bool]]:
    """The exporters of a signal, and whether each writes to the local file. One that cannot be made is told
    and left out."""
    made: list[tuple[Any, bool]] = []
    for target in targets:
        try:
            if target.name == "file":
                made.append((_FILE_EXPORTERS[signal](file), True))
            else:
                exporter = _otlp(signal, target) if target.name == "otlp" else _by_name(signal, target.name)
                reader = isinstance(exporter, MetricReader)
                made.append((exporter if reader else _COUNTED[signal](exporter, tally), False))
        except Exception as error:  # noqa: BLE001 - a wrong exporter name must not take the other signals away
            fault(f"the {signal} exporter {target.name}", error)
    return made


def _load(targets: Mapping[Signal, tuple[Target, ...]]) -> None:
    """Import what the first export needs. Done when the program imports an HTTP client, so that it neither
    costs a program without one nor runs beside the first calls."""
    for signal, several in targets.items():
        for target in several:
            for module in ENCODERS if target.name == "file" else ():
                import_module(module)
            if target.name == "otlp":
                import_module(_otlp_module(signal, target))
                if target.protocol != "grpc":
                    import_module("requests")


def _otlp_module(signal: Signal, target: Target) -> str:
    family = "grpc" if target.protocol == "grpc" else "http"
    return f"opentelemetry.exporter.otlp.proto.{family}.{_OTLP_EXPORTERS[signal][0]}"


def _otlp(signal: Signal, target: Target) -> Any:
    if target.protocol == "grpc":
        # Its threads and channels are better made before the program's own.
        return _make_otlp(signal, target)
    return _LATE[signal](f"the {signal} exporter {target.name}", lambda: _make_otlp(signal, target))


def _make_otlp(signal: Signal, target: Target) -> Any:
    exporter = getattr(import_module(_otlp_module(signal, target)), _OTLP_EXPORTERS[signal][1])
    if not target.found:
        return exporter()
    if target.protocol == "grpc":
        return exporter(endpoint=target.endpoint, insecure=True)
    # What was found on this machine is reached directly, also where the environment names a proxy.
    session = import_module("requests").Session()
    session.trust_env = False
    return exporter(endpoint=f"http://{target.endpoint}/v1/{signal}", session=session)


def _by_name(signal: Signal, name: str) -> Any:
    found = tuple(entry_points(group=f"opentelemetry_{signal}_exporter", name=name))
    if not found:
        raise LookupError(name)
    return found[0].load()()


def _delay(to_file: bool, variable: str) -> float | None:
    return _FILE_DELAY_MS if to_file and variable not in os.environ else None


def _start_traces(
    resource: Resource, exporters: list[tuple[Any, bool]], _telemetry: TelemetrySettings
) -> Stoppable:
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter, to_file in exporters:
        delay = _delay(to_file, "OTEL_BSP_SCHEDULE_DELAY")
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=delay))
    trace.set_tracer_provider(provider)
    return _stoppable(provider)


def _start_metrics(
    resource: Resource, exporters: list[tuple[Any, bool]], telemetry: TelemetrySettings
) -> Stoppable:
    own = "OTEL_METRIC_EXPORT_INTERVAL" in os.environ
    interval = None if own else telemetry.metric_interval * 1000
    readers = [
        exporter
        if isinstance(exporter, MetricReader)
        else PeriodicExportingMetricReader(exporter, export_interval_millis=interval)
        for exporter, _ in exporters
    ]
    provider = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return _stoppable(provider)


def _start_logs(
    resource: Resource, exporters: list[tuple[Any, bool]], _telemetry: TelemetrySettings
) -> Stoppable:
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    for exporter, to_file in exporters:
        delay = _delay(to_file, "OTEL_BLRP_SCHEDULE_DELAY")
        provider.add_log_record_processor(BatchLogRecordProcessor(exporter, schedule_delay_millis=delay))
    _logs.set_logger_provider(provider)
    return _stoppable(provider)


_START: Final[Mapping[Signal, Callable[[Resource, list[tuple[Any, bool]], TelemetrySettings], Stoppable]]] = {
    "traces": _start_traces,
    "metrics": _start_metrics,
    "logs": _start_logs,
}
