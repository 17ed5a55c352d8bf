"""The versions of the stack, read from the one table `observability/versions.env`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from underlay.stack.bundle import config_dir
from underlay.stack.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PINS_FILE = "versions.env"
_LINE = re.compile(r"(?P<name>UNDERLAY_[A-Z_]+_VERSION)=(?P<value>\d+\.\d+\.\d+)")


@dataclass(frozen=True, slots=True)
class Pins:
    """Versions without a leading `v`: of the servers (image tag and native program alike) and of their Go
    modules.
    """

    collector: str
    prometheus: str
    jaeger: str
    grafana: str
    collector_stable_module: str
    prometheus_module: str
    jaeger_module: str
    compose_module: str

    def environment(self) -> dict[str, str]:
        """Return the pins under the names that the compose file and the build templates interpolate."""
        return {_variable(field): getattr(self, field) for field in self.__slots__}


def read_pins(path: Path | None = None) -> Pins:
    """Read the table at `path` (default: the bundled one).

    Raises `StackError` for a line that is no pin, a pin that is missing, repeated or unknown.
    """
    file = path or config_dir() / PINS_FILE
    found: dict[str, str] = {}
    for number, raw in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or match["name"] in found:
            raise StackError(f"{file}:{number}: {line!r} is not one new pin UNDERLAY_<NAME>_VERSION=<x.y.z>")
        found[match["name"]] = match["value"]
    return _pins(file, found)


def _pins(file: Path, found: Mapping[str, str]) -> Pins:
    """Turn the table's lines into `Pins`; the names must be exactly the known ones."""
    names = {_variable(field): field for field in Pins.__slots__}
    if set(found) != set(names):
        missing, unknown = sorted(set(names) - set(found)), sorted(set(found) - set(names))
        raise StackError(f"{file}: missing pins {missing}, unknown pins {unknown}")
    return Pins(**{names[name]: value for name, value in found.items()})


def _variable(field: str) -> str:
    """Return the name of a field of `Pins` in the table."""
    return f"UNDERLAY_{field.upper()}_VERSION"
