"""What `underlay doctor` looks at, one function a group. Each gives findings and changes nothing.

Values of the environment are never shown, but for our own settings (no secret is among those shown) and the
addresses of OTEL_* endpoints, without credentials and query.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from importlib import metadata
from pathlib import Path
from typing import Final

from underlay._version import __version__
from underlay.cli.destination import examine_exporter
from underlay.cli.finding import Finding, Level
from underlay.errors import SettingsError, StoreError
from underlay.settings import Loaded, describe, load
from underlay.stores.opening import open_store

__all__ = ["GROUPS", "examine"]

_CLIENTS: Final = (
    "httpx",
    "httpx2",
    "openai",
    "anthropic",
    "google-genai",
    "mistralai",
    "langchain-core",
    "llama-index-core",
    "litellm",
)
_TELEMETRY: Final = (
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-exporter-otlp-json-common",
)
_OURS: Final = "underlay"
_OLD_PRICES_DAYS: Final = 120


def examine() -> list[Finding]:
    """Look at everything, group by group.

    Imports the client families, makes no connection but to this machine.
    """
    return [finding for group in GROUPS.values() for finding in group()]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    old = sys.version_info < (3, 11)
    fix = "python3.11 -m venv .venv" if old else ""
    yield Finding(
        "python", "python.version", "fail" if old else "ok", f"Python {version} at {sys.executable}", fix
    )
    yield Finding("python", "underlay.version", "ok", f"underlay {__version__}")


def _clients() -> Iterator[Finding]:
    for package in _CLIENTS:
        version = _version(package)
        level: Level = "ok" if version else "skip"
        yield Finding("clients", f"client.{package}", level, f"{package} {version or 'is not installed'}")
    yield from _seams()
    if _version("google-genai") and _version("aiohttp"):
        yield Finding(
            "clients",
            "client.aiohttp",
            "warn",
            "google-genai sends its async calls through aiohttp, because aiohttp is installed: those are not "
            "covered (its sync calls are). Passing an httpx client to it covers both",
            "pip uninstall aiohttp",
        )


def _seams() -> Iterator[Finding]:
    from underlay.transports.seam import FAMILIES, probe

    covered = False
    for seam in probe(FAMILIES):
        code = f"seam.{seam.family}.{seam.client}"
        if not _version(seam.family):
            yield Finding("clients", code, "skip", f"{seam.family} is not installed")
        elif seam.holds:
            covered = True
            yield Finding("clients", code, "ok", f"{seam.family}.{seam.client} is covered: {seam.detail}")
        else:
            evidence = f"{seam.family}.{seam.client} is {seam.detail}; calls pass untouched"
            yield Finding("clients", code, "fail", evidence, "pip install --upgrade underlay")
    if not covered:
        yield Finding(
            "clients",
            "client.none",
            "warn",
            "no client that underlay covers is installed",
            "pip install httpx",
        )


def _instrumentors() -> Iterator[Finding]:
    for name, meaning in (
        ("opentelemetry", "events become spans and metrics"),
        ("autostart", "`underlay run` exports them"),
    ):
        found = bool(metadata.entry_points(group="underlay.bridge", name=name))
        evidence = (
            f"bridge {name} is installed: {meaning}"
            if found
            else f"bridge {name} is not installed: no telemetry"
        )
        fix = "" if found else "pip install --force-reinstall underlay"
        yield Finding("telemetry", f"bridge.{name}", "ok" if found else "warn", evidence, fix)
    for package in _TELEMETRY:
        version = _version(package)
        fix = "" if version else f"pip install {package}"
        yield Finding(
            "telemetry",
            f"package.{package}",
            "ok" if version else "warn",
            f"{package} {version or 'is not installed'}",
            fix,
        )
    others = sorted(
        {entry.name for entry in metadata.entry_points(group="opentelemetry_instrumentor")} - {_OURS}
    )
    if others:
        yield Finding(
            "telemetry", "instrumentors.others", "note", f"other instrumentors: {', '.join(others)}"
        )


def _settings() -> Iterator[Finding]:
    try:
        loaded = load()
    except SettingsError as error:
        for problem in error.problems:
            yield Finding("settings", "settings.wrong", "fail", str(problem), _settings_fix(problem.source))
        return
    for warning in loaded.warnings:
        yield Finding("settings", "settings.unknown", "warn", warning, "underlay config show")
    yield _in_force(loaded)
    yield from _store(loaded)
    if loaded.settings.disabled:
        yield Finding(
            "settings",
            "settings.disabled",
            "warn",
            f"underlay is switched off ({loaded.sources['disabled']})",
            "unset UNDERLAY_DISABLED",
        )


def _settings_fix(source: str) -> str:
    variable = source.removeprefix("environment ")
    return f"unset {variable}" if variable != source else "underlay config show"


def _in_force(loaded: Loaded) -> Finding:
    changed = [
        f"{row.field} = {row.value} ({row.source})" for row in describe(loaded) if row.value != row.default
    ]
    evidence = "changed: " + "; ".join(changed) if changed else "every setting has its default"
    return Finding("settings", "settings.in_force", "ok", evidence)


def _store(loaded: Loaded) -> Iterator[Finding]:
    """Whether a store of files can be used. One that is not there yet is not made for it."""
    where = loaded.settings.llm_cache.store
    file = where.removeprefix("sqlite:///")
    if file == where:
        return
    folder = Path(file).absolute().parent
    try:
        if Path(file).exists():
            open_store(loaded.settings.llm_cache).close()
        elif not os.access(folder, os.W_OK | os.X_OK):
            raise StoreError(file, f"the folder {folder} is not there, or may not be written to")
    except StoreError as error:
        fix = _settings_fix(loaded.sources["llm_cache.store"])
        yield Finding("settings", "settings.store", "fail", str(error), fix)
    else:
        yield Finding("settings", "settings.store", "ok", f"answers are kept in {file}")


def _prices() -> Iterator[Finding]:
    import json
    from importlib.resources import files

    try:
        table = json.loads((files("underlay") / "data" / "prices.json").read_bytes())
        day = date.fromisoformat(table["date"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "pip install --force-reinstall underlay"
        yield Finding(
            "prices", "prices.table", "fail", f"the price table cannot be read: {type(error).__name__}", fix
        )
        return
    age = (datetime.now(UTC).date() - day).days
    old = age > _OLD_PRICES_DAYS
    evidence = f"price table of {day}, {age} days old" if age > 0 else f"price table of {day}"
    yield Finding(
        "prices",
        "prices.table",
        "note" if old else "ok",
        evidence,
        "pip install --upgrade underlay" if old else "",
    )


Group = Callable[[], Iterator[Finding] | Sequence[Finding]]

GROUPS: Final[Mapping[str, Group]] = {
    "python": _python,
    "clients": _clients,
    "telemetry": _instrumentors,
    "exporter": examine_exporter,
    "settings": _settings,
    "prices": _prices,
}
"""Group name -> what looks at it, in the order of the report."""
