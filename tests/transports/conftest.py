"""The benches of the transports' tests, once per way in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from transport_lab import WAYS, Lab
from window_lab import WindowLab


@pytest.fixture(params=WAYS)
def lab(request: pytest.FixtureRequest) -> Lab:
    """One way in, over an empty script."""
    return Lab(request.param)


@pytest.fixture(params=WAYS)
def crowd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[WindowLab]:
    """One way in for calls at the same time. When the test is over all must have ended, and nothing be left."""
    with WindowLab(request.param, monkeypatch).running() as lab:
        yield lab
