"""What `underlay doctor` looks at, one function a group. Each gives findings and changes nothing.

Values of the environment are never shown, but for our own settings (no secret is among those shown) and the
addresses of OTEL_* endpoints, without credentials and query.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib import metadata
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from underlay._version import __version__
from underlay.errors import SettingsError
from underlay.settings import Loaded, Settings, describe, load

__all__ = ["GROUPS", "LEVELS", "Finding", "Level", "endpoint_of", "examine", "without_credentials"]

Level = Literal["ok", "note", "warn", "fail", "skip"]
LEVELS: Final[tuple[Level, ...]] = ("ok", "skip", "note", "warn", "fail")
"""From harmless to grave."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    `code` is stable and names it for scripts; `fix` is a command, or empty.
    """

    group: str
    code: str
    level: Level
    evidence: str
    fix: str = ""


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
_ALLOW_FILE: Final = "export UNDERLAY_TELEMETRY__FILE=auto"
_COLLECTOR: Final = ("localhost", 4318)


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


def _exporter() -> Iterator[Finding]:
    folder, file = _local_file()
    told, fix = _destination(os.environ)
    if not told and file == "never":
        told, fix = "nowhere: telemetry.file is never, and nothing listens on localhost:4318", _ALLOW_FILE
    elif not told:
        told = f"to files in {folder}: no OTEL_EXPORTER_OTLP_ENDPOINT, and nothing listens on localhost:4318"
    elif file == "always" and not fix:
        told += f", and to files in {folder}"
    yield Finding("exporter", "exporter.target", "warn" if fix else "ok", f"telemetry goes {told}", fix)
    if file != "never":
        yield from _writable(folder)


def _destination(environ: Mapping[str, str]) -> tuple[str, str]:
    """Where `underlay run` would send traces, empty for nowhere but the local file; with what switches them
    on.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "nowhere: OTEL_SDK_DISABLED is true", "unset OTEL_SDK_DISABLED"
    if environ.get("OTEL_CONFIG_FILE"):
        return "where the file named by OTEL_CONFIG_FILE says", ""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter == "none":
        return "nowhere: OTEL_TRACES_EXPORTER is none", "unset OTEL_TRACES_EXPORTER"
    variable, endpoint = endpoint_of(environ)
    if variable and exporter in ("", "otlp"):
        return f"to {without_credentials(endpoint)} ({variable})", ""
    if exporter:
        return f"to the exporter {exporter} (OTEL_TRACES_EXPORTER)", ""
    return ("to http://localhost:4318, where something listens", "") if listening(*_COLLECTOR) else ("", "")


def _local_file() -> tuple[Path, str]:
    """The folder of the local telemetry files, and when they are written: auto, always or never."""
    try:
        telemetry = load().settings.telemetry
    except SettingsError:
        # The settings' own group reports the fault; the defaults are as good as anything here.
        telemetry = Settings().telemetry
    return Path(telemetry.directory).absolute(), telemetry.file


def _writable(place: Path) -> Iterator[Finding]:
    nearest = next(parent for parent in (place, *place.parents) if parent.exists())
    if not os.access(nearest, os.W_OK):
        fix = "export UNDERLAY_TELEMETRY__DIRECTORY=/a/folder/you/may/write"
        yield Finding("exporter", "exporter.folder", "fail", f"{nearest} cannot be written by this user", fix)


def endpoint_of(environ: Mapping[str, str]) -> tuple[str, str]:
    """The variable that names where traces go, and its value; two empty texts when none does."""
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        value = environ.get(variable, "").strip()
        if value:
            return variable, value
    return "", ""


def without_credentials(url: str) -> str:
    """A URL without user name, password, query and fragment; of what is no URL, nothing."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that is no URL"
    if not parts.scheme or not parts.hostname:
        return "an address that is no URL"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}{parts.path}"


def listening(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=0.2):
            return True
    except OSError:
        return False


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
    "exporter": _exporter,
    "settings": _settings,
    "prices": _prices,
}
"""Group name -> what looks at it, in the order of the report."""
