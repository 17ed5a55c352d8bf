"""The command that writes the dashboards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from underlay_dashboards.__main__ import RENDERED, main
from underlay_dashboards.render import documents, write
from underlay_dashboards.signals import Dialect


def test_what_is_committed_is_what_the_vocabulary_gives(capsys: pytest.CaptureFixture[str]) -> None:
    """The dashboards in the repository are those of today's vocabulary."""
    assert main(["render", "--check"]) == 0, capsys.readouterr().err


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    """Two processes with different hash seeds write the same bytes, with sorted keys."""
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-m", "underlay_dashboards", "render", "--out", str(tmp_path / seed)],
            check=True, capture_output=True, env={"PYTHONHASHSEED": seed, "PATH": ""},
        )  # fmt: skip
    first, second = (sorted((tmp_path / seed).glob("*.json")) for seed in ("1", "2"))
    assert [path.name for path in first] == ["underlay-calls.json", "underlay-overview.json"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        keys = list(json.loads(one.read_text()))
        assert keys == sorted(keys)


def test_check_names_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that was changed, removed or added makes the check fail and is named; nothing is written."""
    write(tmp_path)
    assert main(["render", "--check", "--out", str(tmp_path)]) == 0
    (tmp_path / "underlay-calls.json").unlink()
    (tmp_path / "underlay-overview.json").write_text("{}\n")
    (tmp_path / "mine.json").write_text("{}\n")
    assert main(["render", "--check", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "underlay-calls.json is missing" in said
    assert "underlay-overview.json differs" in said
    assert "mine.json is no dashboard of ours" in said
    assert (tmp_path / "underlay-overview.json").read_text() == "{}\n"


def test_render_makes_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder is made, and each file that is written is named."""
    assert main(["render", "--out", str(tmp_path / "new"), "--flavour", "native"]) == 0
    assert capsys.readouterr().out.count("wrote ") == len(list((tmp_path / "new").glob("*.json"))) == 2


def test_a_dialect_changes_queries_and_nothing_else() -> None:
    """Flavour and generation leave ids, places, titles and units alone."""

    def bare(document: dict[str, object]) -> str:
        text = json.dumps(document)
        for panel in json.loads(text)["panels"]:
            for target in panel.get("targets", []):
                if target.get("expr"):
                    text = text.replace(json.dumps(target["expr"]), '""')
        return text

    plain = documents()
    for other in (Dialect("native"), Dialect("classic", "upcoming")):
        changed = documents(other)
        assert changed != plain
        assert {uid: bare(one) for uid, one in changed.items()} == {
            uid: bare(one) for uid, one in plain.items()
        }


def test_the_default_folder_is_the_one_that_ships() -> None:
    """Without --out the command writes where the wheel and the stack take the dashboards from."""
    assert Path(__file__).parents[2] / "dashboards" / "rendered" == RENDERED
