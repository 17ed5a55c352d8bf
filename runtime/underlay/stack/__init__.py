"""The bundled observability stack: start it, stop it, ask how it is. Plain functions; the command line calls
them.
"""

from __future__ import annotations

from underlay.stack.bundle import bundle_root
from underlay.stack.control import SERVICES, down, logs, status, up
from underlay.stack.errors import NothingToRunWithError, NotReadyError, PortTakenError, StackError
from underlay.stack.pins import Pins, read_pins
from underlay.stack.places import stack_bin, stack_home
from underlay.stack.report import Status, Stopped

__all__ = [
    "SERVICES",
    "NotReadyError",
    "NothingToRunWithError",
    "Pins",
    "PortTakenError",
    "StackError",
    "Status",
    "Stopped",
    "bundle_root",
    "down",
    "logs",
    "read_pins",
    "stack_bin",
    "stack_home",
    "status",
    "up",
]
