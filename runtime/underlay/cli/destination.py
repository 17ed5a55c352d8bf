"""Where telemetry goes, for `underlay doctor`: told from environment and settings; nothing is sent."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from underlay.cli.finding import Finding
from underlay.errors import SettingsError
from underlay.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["elsewhere", "endpoint_of", "examine_exporter", "listening", "without_credentials"]

_ALLOW_FILE: Final = "export UNDERLAY_TELEMETRY__FILE=auto"
_COLLECTOR: Final = ("localhost", 4318)


def examine_exporter() -> Iterator[Finding]:
    """Say where traces of a program under `underlay run` would go, and whether local files can be written."""
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


def elsewhere(environ: Mapping[str, str]) -> str:
    """Where `underlay run` sends traces now instead of to the local file, as "to …"; empty when the file is
    where they go.
    """
    told, _ = _destination(environ)
    return "" if _local_file()[1] == "always" else told


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
