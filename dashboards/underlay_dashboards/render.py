"""From boards to files: classic dashboard JSON, the same bytes for the same vocabulary."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from underlay_dashboards.dashboards import BOARDS, build
from underlay_dashboards.signals import DEFAULT

if TYPE_CHECKING:
    from pathlib import Path

    from underlay_dashboards.signals import Dialect

__all__ = ["differences", "documents", "file_name", "write"]


def documents(dialect: Dialect = DEFAULT) -> dict[str, dict[str, Any]]:
    """Every dashboard as the JSON document that Grafana reads, by uid."""
    return {
        board.uid: _cleaned(json.loads(JSONEncoder(sort_keys=True).encode(build(board, dialect))))
        for board in BOARDS
    }


def file_name(uid: str) -> str:
    """The file that a dashboard is written to."""
    return f"{uid}.json"


def write(folder: Path, dialect: Dialect = DEFAULT) -> list[Path]:
    """Write every dashboard into `folder`, which is made if need be, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, text in _texts(dialect).items():
        (folder / name).write_text(text, encoding="utf-8")
        files.append(folder / name)
    return files


def differences(folder: Path, dialect: Dialect = DEFAULT) -> list[str]:
    """What keeps `folder` from being what `write` would make of it: one line a file; empty when nothing
    does."""
    expected = _texts(dialect)
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.json"))}
    lines = [f"{name} is missing" for name in expected if name not in found]
    lines += [f"{name} differs" for name, text in expected.items() if found.get(name, text) != text]
    return lines + [f"{name} is no dashboard of ours" for name in found if name not in expected]


def _texts(dialect: Dialect) -> dict[str, str]:
    return {
        file_name(uid): json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for uid, document in documents(dialect).items()
    }


def _cleaned(value: Any) -> Any:
    """The document without `placement: inControlsMenu`, which the SDK puts on every link and annotation and
    which hides them in a menu."""
    if isinstance(value, dict):
        return {
            key: _cleaned(inner)
            for key, inner in value.items()
            if not (key == "placement" and inner == "inControlsMenu")
        }
    if isinstance(value, list):
        return [_cleaned(inner) for inner in value]
    return value
