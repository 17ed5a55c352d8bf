"""Many prompts to one model: `Runtime.map` for a synchronous caller, `Runtime.amap` for a coroutine.

Both are iterators over `Item`s. A `Run` takes prompts from the iterable in the caller's own thread or task,
and only while at most twice `concurrency` of them have not been handed back: half of these may be under way
in a crew of threads or tasks, the rest waits to begin or to be taken.
"""

from __future__ import annotations

from underlay.mapping.item import Item, Prompt
from underlay.mapping.items import AsyncItems, Items
from underlay.mapping.mapper import CONCURRENCY, MOST, Mapper

__all__ = ["CONCURRENCY", "MOST", "AsyncItems", "Item", "Items", "Mapper", "Prompt"]
