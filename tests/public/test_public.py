"""The public face: what can be imported, what that costs, what it may not do."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import underlay

LOADED = """
import json, sys
before = set(sys.modules)
import underlay
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""
OFFLINE = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError("network at import")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import underlay, underlay.runtime, underlay.cli, underlay.settings, underlay_instrumentation
underlay.instrument()
underlay.Runtime().engine.prices.resolve("openai", "gpt-4o")
print("offline")
"""


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_public_name_is_there() -> None:
    """`__all__`, `dir()` and the namespace agree, and each name can be had."""
    assert sorted(underlay.__all__) == dir(underlay)
    for name in underlay.__all__:
        assert getattr(underlay, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails as with any module."""
    with pytest.raises(AttributeError, match="no attribute 'instrumnet'"):
        underlay.instrumnet  # noqa: B018


def test_import_loads_nothing_but_itself() -> None:
    """`import underlay` loads no client, no OpenTelemetry and no command line."""
    loaded = set(json.loads(python(LOADED)))
    assert not loaded & {
        "httpx",
        "httpx2",
        "opentelemetry",
        "click",
        "rich",
        "openai",
        "anthropic",
        "asyncio",
        "ssl",
    }


def test_nothing_of_ours_calls_out_at_import_or_start() -> None:
    """Import, instrument and prices work without a network."""
    assert python(OFFLINE) == "offline"


def test_instrument_imports_no_client_that_the_app_does_not() -> None:
    """The families are hooked, not imported."""
    code = (
        "import sys, underlay; underlay.instrument(); print('httpx2' in sys.modules, 'openai' in sys.modules)"
    )
    assert python(code) == "False False"


def test_every_module_states_what_it_is_and_what_it_offers() -> None:
    """Each module has a docstring, and every name in its `__all__` exists."""
    for module in pkgutil.walk_packages(underlay.__path__, "underlay."):
        if module.name.endswith("__main__"):
            continue
        loaded = importlib.import_module(module.name)
        assert loaded.__doc__, module.name
        names = getattr(loaded, "__all__", ())
        assert not [name for name in names if not hasattr(loaded, name)], module.name
        made = {name: getattr(loaded, name) for name in names}
        things = {
            name: thing for name, thing in made.items() if inspect.isclass(thing) or inspect.isroutine(thing)
        }
        mute = [name for name, thing in things.items() if not thing.__doc__]
        assert not mute, module.name


def test_entry_points_lead_somewhere() -> None:
    """Whatever the wheel announces can be loaded."""
    groups = (
        "underlay.bridge",
        "opentelemetry_instrumentor",
        "opentelemetry_post_instrument",
        "console_scripts",
    )
    ours = [
        entry for group in groups for entry in entry_points(group=group) if entry.value.startswith("underlay")
    ]
    assert len(ours) == 5
    for entry in ours:
        assert callable(entry.load())
