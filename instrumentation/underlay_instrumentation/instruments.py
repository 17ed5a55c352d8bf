"""OpenTelemetry instruments, made from the vocabulary: a histogram, observable counter or gauge for every
metric of the table.

Counters and gauges are read from the runtime's statistics when a reader collects. OpenTelemetry cannot take
an observable instrument back, so one `Instruments` serves a meter for the life of the process and reads
whichever runtimes are there.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Protocol

from opentelemetry.metrics import Observation

from underlay.telemetry import metrics
from underlay_instrumentation.faults import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Histogram, Meter

    from underlay.telemetry.metrics import Generation, Metric

__all__ = ["Instruments", "RuntimeView"]


class RuntimeView(Protocol):
    """What the instruments read of a runtime."""

    def collect(self, key: str, /) -> Iterable[tuple[tuple[str | int, ...], float]]:
        """The current values of the metric with that key: label values in the order of `Metric.labels` ("" is
        absent), value."""
        ...


class Instruments:
    """The instruments of one meter. Safe to share between threads and listeners."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._lock = threading.Lock()
        self._histograms: dict[str, Histogram] = {}
        self._views: list[Callable[[], RuntimeView | None]] = []
        self._observing = False

    def histogram(self, metric: Metric, generation: Generation) -> Histogram:
        """Return the histogram of a metric under its name in that generation of the conventions."""
        name = metrics.metric_name(metric, generation)
        with self._lock:
            histogram = self._histograms.get(name)
            if histogram is None:
                histogram = self._meter.create_histogram(
                    name,
                    unit=metric.unit,
                    description=metric.brief,
                    explicit_bucket_boundaries_advisory=list(metric.buckets),
                )
                self._histograms[name] = histogram
            return histogram

    def observe(self, view: RuntimeView, generation: Generation) -> None:
        """Read `view` at every collection from now on, until `forget` or until it is garbage."""
        with self._lock:
            self._views = [
                *(reference for reference in self._views if reference() not in (None, view)),
                _weakly(view),
            ]
            first, self._observing = not self._observing, True
        if first:
            for metric in metrics.ALL:
                if metric.kind != "histogram":
                    self._create(metric, metrics.metric_name(metric, generation))

    def forget(self, view: RuntimeView) -> None:
        """Stop reading `view`."""
        with self._lock:
            self._views = [reference for reference in self._views if reference() not in (None, view)]

    def _create(self, metric: Metric, name: str) -> None:
        def read(_options: CallbackOptions) -> Iterable[Observation]:
            return self._read(metric)

        create = (
            self._meter.create_observable_counter
            if metric.kind == "counter"
            else self._meter.create_observable_gauge
        )
        create(name, callbacks=[read], unit=metric.unit, description=metric.brief)

    def _read(self, metric: Metric) -> list[Observation]:
        """Observations over all runtimes: sums, but the state of a circuit (unit 1) stays 0 or 1."""
        values: dict[tuple[str | int, ...], float] = {}
        for reference in tuple(self._views):
            view = reference()
            if view is None:
                continue
            try:
                for labels, value in view.collect(metric.key):
                    before = values.get(labels, 0)
                    values[labels] = max(before, value) if metric.unit == "1" else before + value
            except Exception as error:  # noqa: BLE001 - the reader's other instruments go on
                fault(f"reading the metric {metric.name}", error)
        keys = tuple(label.key for label in metric.labels)
        return [
            Observation(
                value,
                {
                    key: part
                    for key, part in zip(keys, labels, strict=False)
                    if part != "" and part is not None
                },
            )
            for labels, value in values.items()
        ]


def _weakly(view: RuntimeView) -> Callable[[], RuntimeView | None]:
    """A reference that does not keep `view` alive, where its class allows one."""
    try:
        return weakref.ref(view)
    except TypeError:
        return lambda: view
