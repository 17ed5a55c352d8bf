"""The bench of the transports' tests, and a process that is as it was after each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import pytest

import underlay

CLIENTS = [(module, name) for module in (httpx, httpx2) for name in ("Client", "AsyncClient")]


@pytest.fixture(autouse=True)
def clean() -> Iterator[list[Any]]:
    """No seam before and after; gives the original methods."""
    underlay.uninstrument()
    before = [getattr(module, name).__dict__["_transport_for_url"] for module, name in CLIENTS]
    yield before
    underlay.uninstrument()
    assert [getattr(module, name).__dict__["_transport_for_url"] for module, name in CLIENTS] == before
