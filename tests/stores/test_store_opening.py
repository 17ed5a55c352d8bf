"""From the setting to the store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from underlay.errors import StoreError
from underlay.settings import CacheSettings
from underlay.stores.memory import MemoryStore
from underlay.stores.opening import open_store
from underlay.stores.sqlite import SqliteStore


def test_memory_is_the_default() -> None:
    """Nothing set is a store of this process, with the bounds of the settings."""
    store = open_store(CacheSettings(maxsize=3, max_bytes=70))
    assert isinstance(store, MemoryStore)
    assert (store.maxsize, store.max_bytes) == (3, 70)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_path_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absolute: bool) -> None:
    """Four slashes before an absolute path, three before one that starts at the working directory."""
    monkeypatch.chdir(tmp_path)
    path = f"{tmp_path}/c.db" if absolute else "c.db"
    store = open_store(CacheSettings(maxsize=3, max_bytes=70, store=f"sqlite:///{path}"))
    assert isinstance(store, SqliteStore)
    assert (store.maxsize, store.max_bytes) == (3, 70)
    assert (tmp_path / "c.db").exists()
    store.close()


def test_what_cannot_be_opened_names_the_setting(tmp_path: Path) -> None:
    """The message says which field to change."""
    with pytest.raises(StoreError, match=r"^llm_cache\.store: "):
        open_store(CacheSettings(store=f"sqlite:///{tmp_path}/none/c.db"))


def test_memory_does_not_load_sqlite() -> None:
    """Only who names a file pays for the import."""
    code = (
        "import sys; before = set(sys.modules);"  # a coverage run has loaded it already
        "from underlay.settings import CacheSettings; from underlay.stores.opening import open_store;"
        "open_store(CacheSettings()); new = set(sys.modules) - before;"
        "print([name for name in ('sqlite3', 'underlay.stores.sqlite') if name in new])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
