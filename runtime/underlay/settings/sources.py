"""Where settings come from, and which source wins.

Later wins, field by field: defaults, preset, the TOML file named by `UNDERLAY_CONFIG` (no file is looked
for), environment, code. One exception: what the environment switches off stays off. All sources are checked
whole, so one error shows every fault, those of overridden values included.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, cast

from underlay.errors import Problem, SettingsError
from underlay.settings.parse import (
    HIDDEN,
    INVALID,
    Where,
    check,
    check_record,
    nearest,
    shown,
    shown_key,
    unknown_key,
)
from underlay.settings.schema import PILLARS, SECTIONS, Mode, Settings
from underlay.settings.spec import FrozenMap, Kind, Spec, specs_of

PREFIX: Final = "UNDERLAY_"
DEFAULT: Final = "default"
CODE: Final = "code"
"""Sources as they are shown, beside `preset NAME`, `file:PATH` and `environment NAME`."""

PRESETS: Final[Mapping[str, Mapping[str, Mapping[str, object]]]] = {
    "high_throughput": {"llm_cache": {"maxsize": 5000}, "llm_batch": {"max_batch_size": 20}},
    "low_latency": {"llm_batch": {"batch_timeout_ms": 10.0}},
    "unreliable_provider": {"circuit_breaker": {"failure_threshold": 3, "recovery_timeout": 120.0}},
}
"""Preset name -> the settings that it changes, in the shape that code and files use."""

PRESET_SPEC: Final = Spec(
    Kind.CHOICE, "Named set of values that replaces the defaults.", choices=tuple(PRESETS), optional=True
)

OTHER_VARIABLES: Final[Mapping[str, str]] = {
    "UNDERLAY_CONFIG": "Path of the TOML file with settings.",
    "UNDERLAY_DEBUG": "1 shows tracebacks where underlay would print one line.",
    "UNDERLAY_SUMMARY": "0 leaves out the lines that underlay run prints when the program ends.",
}
"""Variables of ours that hold no setting, with their meaning."""

OTHER_PREFIXES: Final = tuple(
    f"{PREFIX}{word}_"
    for word in (
        "STACK",
        "COLLECTOR",
        "COMPOSE",
        "PROMETHEUS",
        "JAEGER",
        "GRAFANA",
        "OTLP",
        "METRICS",
        "TRACES",
    )
)
"""First parts of the variables that the observability stack reads; they are not checked here."""

ReadFile: TypeAlias = Callable[[str], str]


class Value(NamedTuple):
    """A checked value and the source that it came from."""

    value: Any
    source: str


Layer: TypeAlias = dict[str, Value]
"""Dotted field name -> what one source says about it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings in force, the source of each (`llm_cache.ttl` -> `code`), warnings to pass on, the preset.

    Warnings are returned and not emitted: the caller knows whether a log, a terminal or a test wants them.
    """

    settings: Settings
    sources: Mapping[str, str]
    warnings: tuple[str, ...]
    preset: str | None = None


def load(
    code: Mapping[str, object] | Settings | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    read_file: ReadFile | None = None,
) -> Loaded:
    """Merge all sources into validated settings.

    `code` is a mapping in the shape of `RUNTIME_SETTINGS` (seconds and bytes as numbers), or a `Settings`,
    which speaks for every field. `environ` defaults to `os.environ`; `read_file` returns the text at a path
    and may raise OSError or ValueError. Raises `SettingsError` with all faults, but under
    `UNDERLAY_DISABLED=1` those of file and environment are warnings: the switch must work when they are what
    is broken.
    """
    variables = os.environ if environ is None else environ
    outside: list[Problem] = []
    inside: list[Problem] = []
    environment = _from_environment(variables, outside)
    file = _from_file(variables, read_file or _read_text, outside)
    given = _from_code(code, inside)
    off = _switched_off(environment)
    forgiven = "disabled" in off
    problems = inside if forgiven else [*outside, *inside]
    if problems:
        raise SettingsError(problems)
    chosen: Layer = {**file, **environment, **given}
    preset: str | None = chosen["preset"].value if "preset" in chosen else None
    merged: Layer = {**_from_preset(preset), **chosen, **off}
    notes = (*_unknown_variables(variables), *(map(str, outside) if forgiven else ()))
    settings = _build(merged)
    return Loaded(settings, FrozenMap(_sources(settings, merged)), notes, preset)


def variables() -> dict[str, str]:
    """Return the environment variable of every setting -> its dotted field name."""
    names = {f"{PREFIX}{path.upper().replace('.', '__')}": path for path in field_specs()}
    return {**names, f"{PREFIX}PRESET": "preset"}


def field_specs() -> dict[str, Spec]:
    """Return the spec of every setting by dotted field name, in the order of the documentation."""
    sections = {
        f"{path}.{name}": spec for path, cls in SECTIONS.items() for name, spec in specs_of(cls).items()
    }
    return {**sections, **specs_of(Settings)}


def _from_environment(environ: Mapping[str, str], problems: list[Problem]) -> Layer:
    specs = {**field_specs(), "preset": PRESET_SPEC}
    layer: Layer = {}
    for variable, path in variables().items():
        text = environ.get(variable, "")
        if not text.strip():  # as OpenTelemetry does: empty is unset
            continue
        source = f"environment {variable}"
        checked = check(specs[path], text, Where(path, source, text=True), problems)
        if checked is not INVALID:
            layer[path] = Value(checked, source)
    return layer


def _unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    known = {**variables(), **OTHER_VARIABLES}
    warnings: list[str] = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known and not name.startswith(OTHER_PREFIXES):
            near = nearest(name, known)
            hint = f"; did you mean {near}?" if near else ""
            warnings.append(f"{shown_key(name)} is not a setting of underlay and is ignored{hint}")
    return tuple(warnings)


def _from_file(environ: Mapping[str, str], read_file: ReadFile, problems: list[Problem]) -> Layer:
    path = environ.get("UNDERLAY_CONFIG", "").strip()
    if not path:
        return {}
    import tomllib  # only who names a file pays for it

    try:
        table = tomllib.loads(read_file(os.path.expanduser(path)))
    except (OSError, ValueError, RecursionError) as error:
        reason = (
            (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        )
        wanted = "the path of a readable TOML file in UTF-8"
        problems.append(Problem("UNDERLAY_CONFIG", repr(path), wanted, "environment UNDERLAY_CONFIG", reason))
        return {}
    return _from_table(table, Where("", f"file:{path}", text=True), problems)


def _read_text(path: str) -> str:
    with open(path, encoding="utf-8-sig") as file:
        return file.read()


def _from_code(code: object, problems: list[Problem]) -> Layer:
    if code is None:
        return {}
    if isinstance(code, Settings):
        layer = {path: Value(value_at(code, path), CODE) for path in field_specs()}
        if code.secret is None:
            del layer["secret"]
        # It speaks for every field, so no preset is in force whatever another source names.
        return {**layer, "preset": Value(None, CODE)}
    if isinstance(code, Mapping):
        return _from_table(cast("Mapping[object, object]", code), Where("", CODE), problems)
    problems.append(Problem("settings", shown(code), "a mapping or a Settings", CODE))
    return {}


def _from_table(table: Mapping[Any, object], where: Where, problems: list[Problem]) -> Layer:
    """Check a whole table of settings, from a file or from code."""
    single = {**specs_of(Settings), "preset": PRESET_SPEC}
    secret = single.pop("secret")
    layer: Layer = {}
    for name, given in table.items():
        place = where.below(shown_key(name))
        if name in SECTIONS:
            accepted = check_record(SECTIONS[name], given, place, problems)
            layer.update({f"{name}.{key}": Value(value, where.source) for key, value in accepted.items()})
        elif name in single:
            checked = check(single[name], given, place, problems)
            if checked is not INVALID:
                layer[name] = Value(checked, where.source)
        elif name == "secret":
            problems.append(Problem(place.field, HIDDEN, secret.allowed(), where.source))
        else:
            problems.append(unknown_key(place, name, {**SECTIONS, **single}))
    return layer


def _from_preset(name: str | None) -> Layer:
    if name is None:
        return {}
    return {
        f"{section}.{key}": Value(value, f"preset {name}")
        for section, values in PRESETS[name].items()
        for key, value in values.items()
    }


def _switched_off(environment: Layer) -> Layer:
    """Return what the environment switches off, to be laid over every other source."""
    names = {f"{pillar}.{key}" for pillar in PILLARS for key in ("enabled", "mode")} | {"disabled"}
    stop = {"disabled": True}
    return {
        path: given
        for path, given in environment.items()
        if path in names and given.value == stop.get(path, Mode.OFF if path.endswith(".mode") else False)
    }


def _build(merged: Layer) -> Settings:
    sections: dict[str, Any] = {
        path: cls(**{n: merged[f"{path}.{n}"].value for n in specs_of(cls) if f"{path}.{n}" in merged})
        for path, cls in SECTIONS.items()
    }
    single: dict[str, Any] = {n: merged[n].value for n in specs_of(Settings) if n in merged}
    return Settings(**sections, **single)


def _sources(settings: Settings, merged: Layer) -> dict[str, str]:
    """Say where each value came from; what a pillar's switch decided is credited to the switch."""
    paths = ("preset", *field_specs())
    sources = {path: merged[path].source if path in merged else DEFAULT for path in paths}
    for pillar in PILLARS:
        enabled, mode = f"{pillar}.enabled", f"{pillar}.mode"
        if settings.disabled:
            sources[enabled] = sources[mode] = sources["disabled"]
        elif enabled in merged and not merged[enabled].value:
            sources[mode] = sources[enabled]
        elif mode in merged and merged[mode].value is Mode.OFF:
            sources[enabled] = sources[mode]
    return sources


def value_at(settings: Settings, path: str) -> Any:
    """Return the value at a dotted field name such as `llm_cache.ttl`."""
    section, _, name = path.rpartition(".")
    return getattr(getattr(settings, section) if section else settings, name)
