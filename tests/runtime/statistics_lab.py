"""Statistics from hand-made events."""

from __future__ import annotations

from typing import Any

from underlay.metrics import ModelStats, Statistics
from underlay.settings import StatisticsSettings
from underlay.telemetry.attributes import BatchMode, BatchTrigger, CacheResult, Ending
from underlay.telemetry.events import BatchStarted, CallEnded, CallStarted


def started(model: str = "m", provider: str = "p") -> CallStarted:
    """A call of a model."""
    return CallStarted(provider, "chat", model, False, "host", None)


def ended(duration: float = 1.0, result: CacheResult = CacheResult.MISS, **more: Any) -> CallEnded:
    """The end of a call."""
    return CallEnded(result, Ending.COMPLETE, duration, **{"status": 200, **more})


def window(size: int, mode: BatchMode, trigger: BatchTrigger, model: str = "m") -> BatchStarted:
    """A window of so many calls leaves."""
    return BatchStarted("p", "chat", model, mode, trigger, (b"",) * size, size, size, 10, 0.05)


def filled(*events: Any, settings: StatisticsSettings | None = None) -> ModelStats:
    """The statistics of one model after these events."""
    statistics = Statistics(settings or StatisticsSettings())
    handle = statistics.start(started())
    for event in events:
        handle.event(event)
    return statistics.models()["p", "m"]
