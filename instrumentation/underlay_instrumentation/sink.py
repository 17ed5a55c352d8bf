"""Where telemetry goes: the tracer, the logger and the histograms, and whether anybody receives them.

`instrument()` may run before an SDK is configured. OpenTelemetry's own proxies turn real later for metrics
and logs; for spans the question is asked at the start of each call, by two look-ups, until there is a
provider.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from opentelemetry import _logs, metrics, trace
from opentelemetry.metrics import _internal as _metrics_api

from underlay import _version
from underlay.telemetry import metrics as m
from underlay_instrumentation.instruments import Instruments

if TYPE_CHECKING:
    from opentelemetry._logs import Logger, LoggerProvider
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Tracer, TracerProvider

    from underlay.telemetry.metrics import Generation

__all__ = ["SCHEMA_URL", "SCOPE", "Points", "Sink", "configured", "fixed_sink", "global_sink"]

SCOPE = "underlay"
"""Name of the instrumentation scope of all spans, metrics and log events."""

VERSION = _version.__version__

_NAMED = any(os.environ.get(f"OTEL_PYTHON_{kind}_PROVIDER") for kind in ("TRACER", "METER"))
"""Whether the environment names a provider: OpenTelemetry then makes it when it is first asked for."""

SCHEMA_URL: dict[Generation, str] = {
    "released": "https://opentelemetry.io/schemas/1.37.0",
    "upcoming": "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev",
}
"""Schema of the names by generation; `released` is what opentelemetry-util-genai 1.3 states for the same
names."""


@dataclass(frozen=True, slots=True)
class Points:
    """The histograms whose points are recorded as calls end."""

    call_duration: Histogram
    token_usage: Histogram
    first_chunk: Histogram
    output_chunk: Histogram
    time_saved: Histogram
    coalesce_wait: Histogram
    batch_size: Histogram
    batch_wait: Histogram
    state_duration: Histogram


class Sink:
    """One destination. `live` turns true once spans or points reach anybody, and stays so."""

    __slots__ = ("_generation", "_global", "_seen", "instruments", "live", "logger", "points", "tracer")

    def __init__(
        self, tracer: Tracer | None, instruments: Instruments, logger: Logger, generation: Generation
    ) -> None:
        self._generation: Generation = generation
        self._global = tracer is None
        self._seen: tuple[object, object] | None = None
        self.tracer = tracer
        self.logger = logger
        self.instruments = instruments
        self.live = not self._global
        self.points = Points(
            *(
                instruments.histogram(metric, generation)
                for metric in (
                    m.CALL_DURATION,
                    m.TOKEN_USAGE,
                    m.FIRST_CHUNK,
                    m.OUTPUT_CHUNK,
                    m.TIME_SAVED,
                    m.COALESCE_WAIT,
                    m.BATCH_SIZE,
                    m.BATCH_WAIT,
                    m.STATE_DURATION,
                )
            )
        )

    def refresh(self) -> bool:
        """Look whether global providers were set meanwhile; returns `live`. Cheap while nothing changes."""
        if _nothing_set():
            return self.live
        providers = (trace.get_tracer_provider(), metrics.get_meter_provider())
        if providers != self._seen:
            self._seen = providers
            self._resolve(*providers)
        return self.live

    def _resolve(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        if configured(tracers):
            tracer = tracers.get_tracer(SCOPE, VERSION, SCHEMA_URL[self._generation])
            # A provider may be set and give nothing: OTEL_SDK_DISABLED.
            if configured(tracer):
                self.tracer = tracer
                self.live = True
        if configured(meters) and configured(meters.get_meter(SCOPE, VERSION, SCHEMA_URL[self._generation])):
            self.live = True


def _nothing_set() -> bool:
    """Whether no global provider was ever set.

    Asking for one that is not there reads the environment each time, and this is on every call's path. Where
    a release of OpenTelemetry renames these, the question is asked.
    """
    if _NAMED:
        return False
    tracers = getattr(trace, "_TRACER_PROVIDER", _NAMED)
    meters = getattr(_metrics_api, "_METER_PROVIDER", _NAMED)
    return tracers is None and meters is None


def configured(part: object) -> bool:
    """Whether a provider, tracer or meter does anything. Whatever the API package itself defines is a proxy
    or a no-op."""
    return not type(part).__module__.startswith(
        ("opentelemetry.trace", "opentelemetry.metrics", "opentelemetry._logs")
    )


def fixed_sink(
    tracers: TracerProvider, meters: MeterProvider, loggers: LoggerProvider, generation: Generation
) -> Sink:
    """A sink on given providers."""
    schema = SCHEMA_URL[generation]
    return Sink(
        tracers.get_tracer(SCOPE, VERSION, schema),
        _shared(meters, generation),
        loggers.get_logger(SCOPE, VERSION, schema),
        generation,
    )


_lock = threading.Lock()
_fixed: WeakKeyDictionary[MeterProvider, dict[Generation, Instruments]] = WeakKeyDictionary()


def _shared(meters: MeterProvider, generation: Generation) -> Instruments:
    """The instruments of a provider. One set for all listeners, because a meter that is asked for an
    instrument again forgets the second one's callbacks."""
    if meters is metrics.get_meter_provider():
        return _global_instruments(generation)
    with _lock:
        made = _fixed.setdefault(meters, {})
        if generation not in made:
            made[generation] = Instruments(meters.get_meter(SCOPE, VERSION, SCHEMA_URL[generation]))
        return made[generation]


_instruments: Instruments | None = None


def _global_instruments(generation: Generation) -> Instruments:
    global _instruments
    with _lock:
        if _instruments is None:
            _instruments = Instruments(metrics.get_meter(SCOPE, VERSION, schema_url=SCHEMA_URL[generation]))
        return _instruments


def global_sink(generation: Generation) -> Sink:
    """A sink on the global providers as they are, or as they will be. All such sinks of a process share their
    instruments."""
    logger = _logs.get_logger(SCOPE, VERSION, schema_url=SCHEMA_URL[generation])
    sink = Sink(None, _global_instruments(generation), logger, generation)
    sink.refresh()
    return sink
