"""From the setting `llm_cache.store` to the store that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from underlay.stores.memory import MemoryStore

if TYPE_CHECKING:
    from underlay.core.cache import Entry
    from underlay.settings import CacheSettings
    from underlay.stores.store import Store

__all__ = ["open_store"]

_SQLITE: Final = "sqlite:///"


def open_store(settings: CacheSettings) -> Store[Entry]:
    """The store of these settings, with their bounds. Raises `StoreError` when its file cannot be used."""
    if not settings.store.startswith(_SQLITE):
        return MemoryStore(settings.maxsize, settings.max_bytes)
    from underlay.stores.sqlite import SqliteStore  # loads sqlite3: only who names a file pays for it

    return SqliteStore(settings.store.removeprefix(_SQLITE), settings.maxsize, settings.max_bytes)
