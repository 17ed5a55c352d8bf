"""The dashboards, rendered once for all tests of this folder."""

from __future__ import annotations

from typing import Any

import pytest

from underlay_dashboards.render import documents


@pytest.fixture(scope="session")
def boards() -> dict[str, dict[str, Any]]:
    """Every dashboard's JSON by uid, in the default dialect."""
    return documents()


@pytest.fixture(scope="session")
def panels(boards: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Every panel that is no row, folded ones included, as ("uid: title", panel)."""
    found: list[tuple[str, dict[str, Any]]] = []
    for uid, document in boards.items():
        for panel in document["panels"]:
            inner = [*panel.get("panels", []), panel]
            found += [(f"{uid}: {one['title']}", one) for one in inner if one["type"] != "row"]
    return found
