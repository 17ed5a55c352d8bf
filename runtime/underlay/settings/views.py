"""Settings in other shapes: rows for people, data for JSON, a JSON Schema for editors; never the secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from underlay.settings.schema import SECTIONS, Settings
from underlay.settings.sources import PRESET_SPEC, Loaded, field_specs, value_at
from underlay.settings.spec import Kind, Spec, plain_number, specs_of

NOT_SET: Final = "not set"
_SUFFIXES: Final = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_DURATION_TEXT: Final = r"^\s*[0-9.]+([eE][+-]?[0-9]+)?\s*(us|ms|s|m|min|h|d)?\s*$"
_SIZE_TEXT: Final = r"^\s*[0-9.]+\s*([kKmMgGtT]?[iI]?[bB])?\s*$"


class Row(NamedTuple):
    """One setting as `doctor` and `config show` print it; values are spelled as in a variable."""

    field: str
    value: str
    default: str
    source: str
    unit: str
    meaning: str


def describe(loaded: Loaded) -> list[Row]:
    """Return every setting in force with its default, source, unit and meaning; a secret is only `set`."""
    defaults = Settings()
    preset = loaded.preset or NOT_SET
    rows = [Row("preset", preset, NOT_SET, loaded.sources["preset"], "", PRESET_SPEC.meaning)]
    for path, spec in field_specs().items():
        value = spell(spec, value_at(loaded.settings, path))
        default = spell(spec, value_at(defaults, path))
        rows.append(Row(path, value, default, loaded.sources[path], spec.shown_unit, spec.meaning))
    return rows


def spell(spec: Spec, value: Any) -> str:
    """Write a value as a file or variable would take it."""
    if spec.kind is Kind.SECRET:
        return NOT_SET if value is None else "set"
    if value is None:
        return NOT_SET
    if spec.kind is Kind.FLAG:
        return "true" if value else "false"
    if spec.kind is Kind.BYTES:
        return next((f"{value // n}{suffix}" for suffix, n in _SUFFIXES if value % n == 0), str(value))
    if spec.kind is Kind.DURATION:
        return plain_number(value)
    if spec.kind is Kind.MAP:
        import json  # a program that prints no settings does not need it

        return json.dumps(_plain(value), sort_keys=True)
    return str(value)


def as_mapping(settings: Settings) -> dict[str, Any]:
    """Return plain data (for JSON) that `load` accepts as code; the secret and what is None are left out."""
    sections = {path: _record(getattr(settings, path)) for path in SECTIONS}
    return {**sections, **_record(settings)}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the settings file, for editors.

    Narrower than the loader: TOML has its own types for flags and whole numbers, so their text forms are left
    out.
    """
    sections = {
        path: {"description": (cls.__doc__ or "").strip(), **_schema_of_record(cls, Settings())}
        for path, cls in SECTIONS.items()
    }
    single = {
        name: _schema(spec, value_at(Settings(), name))
        for name, spec in specs_of(Settings).items()
        if spec.kind is not Kind.SECRET
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of underlay",
        "type": "object",
        "additionalProperties": False,
        "properties": {"preset": _schema(PRESET_SPEC, None), **sections, **single},
    }


def _schema_of_record(cls: type[Any], settings: Settings | None = None) -> dict[str, Any]:
    holder = getattr(settings, cls.path) if settings is not None else cls()
    properties = {name: _schema(spec, getattr(holder, name)) for name, spec in specs_of(cls).items()}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _schema(spec: Spec, default: Any) -> dict[str, Any]:
    schema = {"description": spec.meaning, **_shape(spec)}
    if default is not None:
        schema["default"] = _plain(default)
    return schema


def _shape(spec: Spec) -> dict[str, Any]:
    if spec.kind is Kind.FLAG:
        return {"type": "boolean"}
    if spec.kind is Kind.CHOICE:
        return {"enum": list(spec.choices)}
    if spec.kind is Kind.MAP:
        item = spec.item
        values = _shape(item) if isinstance(item, Spec) else _schema_of_record(item) if item else {}
        return {"type": "object", "additionalProperties": values}
    if spec.kind in (Kind.COUNT, Kind.BYTES, Kind.DURATION):
        return _number(spec)
    return {"type": "string", "minLength": 1}


def _number(spec: Spec) -> dict[str, Any]:
    low = {"exclusiveMinimum" if spec.low_open else "minimum": spec.low}
    number = {"type": "number" if spec.kind is Kind.DURATION else "integer", **low, "maximum": spec.high}
    if spec.kind is Kind.COUNT:
        return number
    pattern = _DURATION_TEXT if spec.kind is Kind.DURATION else _SIZE_TEXT
    return {"anyOf": [number, {"type": "string", "pattern": pattern}]}


def _record(holder: Any) -> dict[str, Any]:
    """Return the set fields of a section, a route or the settings themselves as plain data."""
    names = [name for name, spec in specs_of(type(holder)).items() if spec.kind is not Kind.SECRET]
    values = {name: getattr(holder, name) for name in names}
    return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, str):
        return str(value)
    return _record(value) if hasattr(value, "__dataclass_fields__") else value
