"""Which models are told apart is decided in the order of what happened."""

from __future__ import annotations

import pytest
from statistics_lab import ended, started, window

from underlay.metrics import OTHER, Statistics
from underlay.settings import StatisticsSettings
from underlay.telemetry.attributes import BatchMode, BatchTrigger, CircuitState
from underlay.telemetry.events import CircuitChanged


@pytest.mark.parametrize("what", ["window", "transition"])
def test_who_was_told_of_first_has_the_place(what: str) -> None:
    """A window or a transition of a second model takes no place from a call that was noted before it."""
    statistics = Statistics(StatisticsSettings(max_models=1))
    statistics.start(started("first")).event(ended())
    if what == "window":
        statistics.dispatch(window(2, BatchMode.ALONE, BatchTrigger.SIZE, model="second"))
    else:
        statistics.event(
            CircuitChanged("p", "second", CircuitState.CLOSED, CircuitState.OPEN, "failures", 1.0)
        )
    models = statistics.models()
    assert list(models) == [("p", "first"), (OTHER, OTHER)]
    assert models["p", "first"].calls == 1
