"""underlay: the middleware under every Python LLM client.

    import underlay
    underlay.instrument()          # every httpx and httpx2 client of this process, made before or after

or without touching the app: `underlay run -- python app.py`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from underlay._version import __version__

if TYPE_CHECKING:
    from underlay.errors import (
        CallError,
        CircuitOpenError,
        MissingCredentialError,
        MissingExtraError,
        ProviderError,
        SettingsError,
        UnderlayError,
        UnknownModelError,
    )
    from underlay.global_runtime import instrument, uninstrument
    from underlay.library import Answer
    from underlay.mapping import Item
    from underlay.runtime import Runtime
    from underlay.settings import Settings

__all__ = [
    "Answer",
    "CallError",
    "CircuitOpenError",
    "Item",
    "MissingCredentialError",
    "MissingExtraError",
    "ProviderError",
    "Runtime",
    "Settings",
    "SettingsError",
    "UnderlayError",
    "UnknownModelError",
    "__version__",
    "instrument",
    "uninstrument",
]

_HOMES = {
    "Answer": "library",
    "Item": "mapping",
    "Runtime": "runtime",
    "Settings": "settings",
    "instrument": "global_runtime",
    "uninstrument": "global_runtime",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use, so that `import underlay` costs next to nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"underlay.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
