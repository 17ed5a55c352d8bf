"""The fixtures of the OpenTelemetry tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from otel_collector import Collector
from otel_scenarios import Telemetry


@pytest.fixture
def telemetry() -> Telemetry:
    """Fresh providers in memory."""
    return Telemetry()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A receiver that takes everything."""
    made = Collector()
    yield made
    made.close()
