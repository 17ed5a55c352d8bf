"""The fixtures of the OpenTelemetry tests."""

from __future__ import annotations

import pytest
from otel_scenarios import Telemetry


@pytest.fixture
def telemetry() -> Telemetry:
    """Fresh providers in memory."""
    return Telemetry()
