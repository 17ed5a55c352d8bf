"""The seam of zero-code use: `_transport_for_url`, on the client classes of both families.

Wrapping there covers clients made before and after, mounts, proxies from the environment, subclasses and
copies, and undoing it leaves nothing behind. It is a private method: `probe` says whether this release still
has it, and where it does not, the app runs on uncovered.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from underlay.telemetry.attributes import Stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from underlay.pipeline.engine import Engine

__all__ = ["FAMILIES", "Seam", "client", "install", "installed", "probe", "remove"]

FAMILIES: Final = ("httpx", "httpx2")
_CLIENTS: Final = (("Client", "sync"), ("AsyncClient", "async"))
_METHOD: Final = "_transport_for_url"
_MARK: Final = "__underlay_seam__"


@dataclass(frozen=True, slots=True)
class Seam:
    """One client class: whether it can be covered, and what was found."""

    family: str
    client: str
    holds: bool
    detail: str


@dataclass(slots=True)
class _Patch:
    family: str
    owner: type
    original: Callable[..., Any]
    ours: Callable[..., Any]


_lock = RLock()  # a hook for what another thread has imported meanwhile is called as it is registered
_patches: list[_Patch] = []
_awaited: set[str] = set()  # families that are patched when they are imported
_engine: Engine | None = None


def probe(families: tuple[str, ...] = FAMILIES) -> list[Seam]:
    """Look at every installed family. Imports it."""
    return [_probe(family, client) for family in families for client, _ in _CLIENTS]


def _probe(family: str, client: str) -> Seam:
    if importlib.util.find_spec(family) is None:
        return Seam(family, client, holds=False, detail="not installed")
    module = importlib.import_module(family)
    # The class's own method: one that it inherits is shared with classes that are nobody's business here.
    method = vars(getattr(module, client, object)).get(_METHOD)
    if method is None:
        return Seam(
            family,
            client,
            holds=False,
            detail=f"not covered: {family} {_version(module)} has no {client}.{_METHOD}",
        )
    parameters = list(inspect.signature(getattr(method, "__wrapped__", method)).parameters)
    if parameters != ["self", "url"]:
        return Seam(family, client, holds=False, detail=f"not covered: {client}.{_METHOD} takes {parameters}")
    return Seam(family, client, holds=True, detail=f"{family} {_version(module)}")


def _version(module: ModuleType) -> str:
    return str(getattr(module, "__version__", "of unknown version"))


def install(engine: Engine) -> None:
    """Put `engine` under every client of both families: now where a family is imported, else when the app
    imports it.

    Idempotent: a second call changes the engine. No family is imported that the app does not import.
    """
    global _engine
    with _lock:
        _engine = engine
        for family in FAMILIES:
            if family in _awaited or any(patch.family == family for patch in _patches):
                continue
            if family in sys.modules:
                _patch_family(sys.modules[family])
            elif importlib.util.find_spec(family) is not None:
                import wrapt  # only where a hook is needed: it is not free to import

                _awaited.add(family)
                wrapt.register_post_import_hook(_imported, family)


def _imported(module: ModuleType) -> None:
    """The app has imported a family. Never raises: an import of the app's must not fail for us."""
    with _lock:
        _awaited.discard(module.__name__)
        if _engine is None:
            return
        try:
            _patch_family(module)
        except Exception as error:  # noqa: BLE001 never break the app
            _engine.faults.report(Stage.RECOGNISE, error)


def _patch_family(module: ModuleType) -> None:
    family = module.__name__
    for client, mode in _CLIENTS:
        if _probe(family, client).holds:
            _patch(getattr(module, client), family, mode)


def _patch(owner: type, family: str, mode: str) -> None:
    original = owner.__dict__[_METHOD]
    transport_class = importlib.import_module(f"underlay.transports.{family}_{mode}").UnderlayTransport

    def transport_for_url(self: Any, url: Any) -> Any:
        transport = original(self, url)
        engine = _engine
        # A transport of an explicit runtime is under this client already: it knows better.
        if engine is None or isinstance(transport, transport_class):
            return transport
        return transport_class(transport, engine)

    transport_for_url.__wrapped__ = original  # type: ignore[attr-defined]
    setattr(transport_for_url, _MARK, True)
    setattr(owner, _METHOD, transport_for_url)
    _patches.append(_Patch(family, owner, original, transport_for_url))


def client(family: str, name: str, engine: Engine, **options: Any) -> Any:
    """A ready client of a family, `Client` or `AsyncClient`, with `engine` under whatever transports its
    options make: TLS, proxies, mounts, limits and HTTP/2 stay the options' business."""
    base: type[Any] = getattr(importlib.import_module(family), name)
    adapter = importlib.import_module(f"underlay.transports.{family}_{dict(_CLIENTS)[name]}")
    transport_class = adapter.UnderlayTransport
    if not _probe(family, name).holds:
        # Given a transport, a client leaves its own options for TLS and proxies aside: the second best.
        default = getattr(importlib.import_module(family), name.replace("Client", "HTTPTransport"))
        return base(**{"transport": transport_class(default(), engine), **options})

    def transport_for_url(self: Any, url: Any) -> Any:
        transport = getattr(base, _METHOD)(self, url)
        if isinstance(transport, transport_class):
            if transport.engine is engine:
                return transport
            transport = transport.inner  # of the zero-code runtime: this client has one of its own
        return transport_class(transport, engine)

    names = {_METHOD: transport_for_url, "__module__": base.__module__, "__doc__": base.__doc__}
    return type(name, (base,), names)(**options)


def remove() -> None:
    """Take the seam out. Where somebody wrapped on top of it, ours stays under theirs and lets everything
    pass."""
    global _engine
    with _lock:
        _engine = None
        for patch in _patches:
            if patch.owner.__dict__.get(_METHOD) is patch.ours:
                setattr(patch.owner, _METHOD, patch.original)
        _patches.clear()
    from underlay.transports.wire import unwire  # where no client was ever made it brings TLS with it

    unwire()


def installed() -> bool:
    """Whether an engine is under the clients of this process."""
    return _engine is not None
