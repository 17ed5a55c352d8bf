"""Values that nobody changes, on the path of every call.

`dataclass(frozen=True)` writes each field with `object.__setattr__`: 130 ns a field on CPython 3.11 against
20, and a call makes about a hundred fields. Here the type checkers alone refuse the write; the values
compare, hash and print as frozen ones do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:
    from dataclasses import dataclass

    def record(*, frozen, slots):
        """The same class with fields that are written directly. `frozen` makes it hashable, as it would
        be."""
        return dataclass(slots=slots, unsafe_hash=frozen)


__all__ = ["record"]
