"""What a setting is: its kind, unit, range and meaning, as data.

One `Spec` per field is the only description of that field. Validation, the environment parser, `describe`,
the JSON Schema and docs/settings.md all read it; none of them knows a field by name. No I/O here, no parsing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

V = TypeVar("V")

DURATION_MAX: Final = 315_360_000
"""Upper bound of every duration, in seconds (10 years): beyond it the platform's own timeouts overflow."""

BYTES_MAX: Final = 2**40
"""Upper bound of every size, in bytes (1 TiB)."""


class Kind(StrEnum):
    """The closed set of shapes that a setting may have."""

    FLAG = "flag"
    COUNT = "count"
    BYTES = "bytes"
    DURATION = "duration"
    CHOICE = "choice"
    TEXT = "text"
    HOST = "host"
    URL = "url"
    VARIABLE = "variable"
    STORE = "store"
    SECRET = "secret"  # noqa: S105  # the name of a kind
    MAP = "map"


_UNITS: Final[Mapping[Kind, str]] = {Kind.BYTES: "bytes", Kind.DURATION: "s"}
_FIXED: Final[Mapping[Kind, str]] = {
    Kind.FLAG: "true or false (as text also 1, 0, yes, no, on, off)",
    Kind.TEXT: "text of 1 to 200 characters, none of them a control character",
    Kind.HOST: "a host name or address, without scheme, port or path",
    Kind.URL: "an http:// or https:// URL without user name, password, query or fragment",
    Kind.VARIABLE: "the name of an environment variable, not the key itself",
    Kind.STORE: "memory, sqlite:///relative/path.db or sqlite:////absolute/path.db",
    Kind.SECRET: "text, from the environment variable UNDERLAY_SECRET only",
}


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything there is to know about one setting, apart from its name and default.

    `low` and `high` bound numbers in the setting's own unit (`low_open`: `low` itself is refused). `choices`
    are the words of a CHOICE, `make` turns an accepted word into the stored value. A MAP holds `item` values
    (a `Spec`, or a dataclass whose fields carry specs) under keys of `key`. `optional` admits None in code.
    """

    kind: Kind
    meaning: str
    unit: str = ""
    low: float = 0
    high: float = 1_000_000
    low_open: bool = False
    choices: tuple[str, ...] = ()
    make: type[str] = str
    optional: bool = False
    key: Spec | None = None
    item: Spec | type[Any] | None = None

    @property
    def shown_unit(self) -> str:
        """The unit that a plain number of this setting is in; empty where there is none."""
        return self.unit or _UNITS.get(self.kind, "")

    def allowed(self) -> str:
        """What is accepted, in words that fit behind "allowed:"."""
        if self.kind is Kind.CHOICE:
            return " | ".join(self.choices)
        if self.kind is Kind.MAP:
            return self._allowed_map()
        if self.kind in _FIXED:
            return _FIXED[self.kind]
        low = "more than" if self.low_open else "at least"
        limits = f"{low} {plain_number(self.low)}, at most {plain_number(self.high)}"
        if self.kind is Kind.COUNT:
            return f"a whole number, {limits}"
        if self.kind is Kind.BYTES:
            return f"a whole number of bytes, {limits} (as text also 64MiB, 1GB)"
        unit = "milliseconds" if self.unit == "ms" else "seconds"
        return f"a number of {unit}, {limits} (as text also 500ms, 1h)"

    def _allowed_map(self) -> str:
        if isinstance(self.item, Spec):
            return f"a table from {self._key_words()} to {self.item.allowed()}"
        names = ", ".join(specs_of(self.item)) if self.item is not None else ""
        return f"a table from {self._key_words()} to a table with the keys {names}"

    def _key_words(self) -> str:
        return "host name" if self.key is not None and self.key.kind is Kind.HOST else "name"


class Secret:
    """A text that no repr, str, log line or settings listing shows; `reveal()` alone gives it out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself, for the one place that needs it."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(hidden)"


class FrozenMap(Mapping[str, V], Generic[V]):
    """A read-only mapping that, unlike `types.MappingProxyType`, can be hashed, copied and pickled."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, V] | None = None) -> None:
        self._items = dict(items or {})

    def __getitem__(self, key: str) -> V:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


def flag(meaning: str) -> dict[str, Spec]:
    """Metadata of a field that is true or false, for `dataclasses.field` as that of its siblings below."""
    return {"spec": Spec(Kind.FLAG, meaning)}


def count(meaning: str, unit: str = "", *, low: int = 1, high: int = 1_000_000) -> dict[str, Spec]:
    """Metadata of a whole number from `low` to `high`; `unit` says what is counted."""
    return {"spec": Spec(Kind.COUNT, meaning, unit=unit, low=low, high=high)}


def size(meaning: str) -> dict[str, Spec]:
    """Metadata of a size in bytes, at least 1."""
    return {"spec": Spec(Kind.BYTES, meaning, low=1, high=BYTES_MAX)}


def duration(
    meaning: str, *, unit: str = "s", zero: bool = False, high: float = DURATION_MAX
) -> dict[str, Spec]:
    """Metadata of a time span in `unit` (s or ms), above 0 or, with `zero`, from 0."""
    return {"spec": Spec(Kind.DURATION, meaning, unit=unit, low_open=not zero, high=high)}


def choice(meaning: str, choices: tuple[str, ...], make: type[str] = str) -> dict[str, Spec]:
    """Metadata of one word out of `choices`, stored as `make(word)`."""
    return {"spec": Spec(Kind.CHOICE, meaning, choices=choices, make=make)}


def text(meaning: str, kind: Kind = Kind.TEXT, *, optional: bool = False) -> dict[str, Spec]:
    """Metadata of a text of the given kind; `optional` admits None, which files write by leaving it out."""
    return {"spec": Spec(kind, meaning, optional=optional)}


def table(meaning: str, key: Spec, item: Spec | type[Any]) -> dict[str, Spec]:
    """Metadata of a table from free names to values of one kind."""
    return {"spec": Spec(Kind.MAP, meaning, key=key, item=item)}


def specs_of(cls: type[Any]) -> dict[str, Spec]:
    """Return the specs of a dataclass's fields by field name, in order; fields without one are left out."""
    fields: Mapping[str, Any] = cls.__dataclass_fields__
    return {name: item.metadata["spec"] for name, item in fields.items() if "spec" in item.metadata}


def plain_number(value: float) -> str:
    """Write a number as a person would: 3600 rather than 3600.0, all digits otherwise."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)
