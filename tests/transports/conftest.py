"""The bench of the transports' tests, once per way in."""

from __future__ import annotations

import pytest
from transport_lab import WAYS, Lab


@pytest.fixture(params=WAYS)
def lab(request: pytest.FixtureRequest) -> Lab:
    """One way in, over an empty script."""
    return Lab(request.param)
