"""The facade: one runtime, its clients and transports, its calls as a library, its statistics."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from underlay import collect as _collect
from underlay.errors import MissingExtraError
from underlay.library import Answer, Library
from underlay.mapping import Mapper
from underlay.metrics import Statistics
from underlay.pipeline.circuits import Name
from underlay.pipeline.engine import Engine
from underlay.providers.library import resolve_model
from underlay.providers.recognise import Recogniser
from underlay.receipts import Receipts
from underlay.settings import Settings, load
from underlay.telemetry.attributes import CacheResult
from underlay.transports import seam

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import httpx
    import httpx2

    from underlay.core.cache import Entry
    from underlay.metrics import ModelStats
    from underlay.pipeline.circuits import CircuitView
    from underlay.pipeline.engine import Clock
    from underlay.settings import Loaded
    from underlay.stores.store import Store
    from underlay.telemetry.listener import Listener

__all__ = ["Answer", "CacheView", "CircuitHandle", "Runtime", "SystemClock"]

P = ParamSpec("P")
R = TypeVar("R")


class SystemClock:
    """The machine's clocks."""

    # The functions themselves: a call asks for the time a dozen times.
    now = staticmethod(time.monotonic)
    """Seconds, monotonic."""
    wall = staticmethod(time.time)
    """Seconds since 1970, UTC."""


@dataclass(frozen=True, slots=True)
class CacheView:
    """The cache in numbers: entries and bytes now; lookups that hit or missed, and entries pushed out or
    outlived, since the start."""

    size: int
    size_bytes: int
    hits: int
    misses: int
    evictions: int
    expirations: int

    @property
    def hit_rate(self) -> float:
        """Hits per lookup, 0..1; 0 without lookups."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 0.0


class CircuitHandle:
    """One circuit: read it, or close it by hand."""

    def __init__(self, engine: Engine, name: Name) -> None:
        self._engine = engine
        self.name = name

    def view(self) -> CircuitView:
        """State and totals now. An open circuit whose recovery is due reads `half_open`."""
        self._engine.settle_dropped()
        return self._engine.state.circuits.view(self.name, self._engine.clock.now())

    @property
    def state(self) -> str:
        """`closed`, `open` or `half_open`."""
        return self.view().state.value

    def reset(self) -> None:
        """Close it. Attempts under way settle nothing afterwards."""
        self._engine.state.circuits.reset(self.name, self._engine.clock.now())

    def __repr__(self) -> str:
        return f"<circuit {self.name.provider}/{self.name.model}: {self.state}>"


class Runtime:
    """One engine with everything that goes through it.

    `settings` is a mapping in the classic shape or a `Settings`; environment and the file named by
    UNDERLAY_CONFIG are read too (see `underlay.settings.load`). `clock` and `store` replace time and memory
    in tests, `listeners` are told of every call. Raises SettingsError naming every wrong setting.
    """

    def __init__(
        self,
        settings: Mapping[str, object] | Settings | None = None,
        *,
        clock: Clock | None = None,
        store: Store[Entry] | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.loaded: Loaded = load(settings)
        self.settings: Settings = self.loaded.settings
        self._statistics = Statistics(self.settings.statistics)
        recogniser = Recogniser(self.settings.hosts, os.environ, unknown=self.settings.recognise == "any")
        self.engine = Engine(
            self.settings,
            clock or SystemClock(),
            recogniser,
            (self._statistics, *listeners, Receipts()),
            store,
        )
        self._library = Library(self.engine)
        self.call = self._library.call
        self.acall = self._library.acall
        self.protect = self._library.protect
        self.close = self._library.close
        self.aclose = self._library.aclose
        mapper = Mapper(self._library)
        self.map = mapper.map
        self.amap = mapper.amap

    def listen(self, listener: Listener) -> None:
        """Add a listener. It is told of calls that begin from now on."""
        self.engine.watch.listeners = (*self.engine.watch.listeners, listener)

    def httpx_transport(self, inner: httpx.BaseTransport | None = None) -> httpx.BaseTransport:
        """A transport over `inner` (the family's own by default), for `httpx.Client(transport=...)` or
        `mounts=`."""
        transport: httpx.BaseTransport = self._transport("httpx", "sync", "HTTPTransport", inner)
        return transport

    def async_httpx_transport(
        self, inner: httpx.AsyncBaseTransport | None = None
    ) -> httpx.AsyncBaseTransport:
        """The same for `httpx.AsyncClient`."""
        transport: httpx.AsyncBaseTransport = self._transport("httpx", "async", "AsyncHTTPTransport", inner)
        return transport

    def httpx2_transport(self, inner: httpx2.BaseTransport | None = None) -> httpx2.BaseTransport:
        """The same for `httpx2.Client`. Raises MissingExtraError where httpx2 is not installed."""
        transport: httpx2.BaseTransport = self._transport("httpx2", "sync", "HTTPTransport", inner)
        return transport

    def async_httpx2_transport(
        self, inner: httpx2.AsyncBaseTransport | None = None
    ) -> httpx2.AsyncBaseTransport:
        """The same for `httpx2.AsyncClient`."""
        transport: httpx2.AsyncBaseTransport = self._transport("httpx2", "async", "AsyncHTTPTransport", inner)
        return transport

    def httpx_client(self, **options: Any) -> httpx.Client:
        """A ready `httpx.Client`; `options` are its own, and its timeout is the SDKs' 600 s unless given."""
        client: httpx.Client = self._client("httpx", "Client", options)
        return client

    def async_httpx_client(self, **options: Any) -> httpx.AsyncClient:
        """A ready `httpx.AsyncClient`."""
        client: httpx.AsyncClient = self._client("httpx", "AsyncClient", options)
        return client

    def httpx2_client(self, **options: Any) -> httpx2.Client:
        """A ready `httpx2.Client`, as in `OpenAI(http_client=runtime.httpx2_client())`."""
        client: httpx2.Client = self._client("httpx2", "Client", options)
        return client

    def async_httpx2_client(self, **options: Any) -> httpx2.AsyncClient:
        """A ready `httpx2.AsyncClient`."""
        client: httpx2.AsyncClient = self._client("httpx2", "AsyncClient", options)
        return client

    def stats(self) -> dict[tuple[str, str], ModelStats]:
        """What happened, per (provider, model): a copy."""
        self.engine.settle_dropped()
        return self._statistics.models()

    @property
    def cache(self) -> CacheView:
        """The response cache in numbers."""
        lookups = [stats.lookups for stats in self.stats().values()]
        counts = self.engine.state.store.counts()
        return CacheView(
            counts.entries,
            counts.size,
            sum(lookup[CacheResult.HIT] for lookup in lookups),
            sum(lookup[CacheResult.MISS] for lookup in lookups),
            counts.evictions,
            counts.expired,
        )

    def circuit(self, model: str, provider: str | None = None) -> CircuitHandle:
        """The circuit of a model. Its provider is found from the name, as for `call`, unless given."""
        if provider is None:
            target = resolve_model(model, self.settings.models, os.environ)
            provider = target.provider if target is not None else self._provider_seen(model)
        return CircuitHandle(self.engine, Name(provider, model))

    def collect(self, key: str) -> Iterable[_collect.Sample]:
        """The samples of one observable metric of the vocabulary, by its key: what telemetry reads at each
        collection."""
        return _collect.collect(key, self.engine, self._statistics)

    def _provider_seen(self, model: str) -> str:
        seen = (view.name for view in self.engine.state.circuits.views(self.engine.clock.now()))
        return next((name.provider for name in seen if name.model == model), "openai")

    def _transport(self, family: str, mode: str, default: str, inner: object) -> Any:
        module = _family(family)
        adapter = import_module(f"underlay.transports.{family}_{mode}")
        return adapter.UnderlayTransport(getattr(module, default)() if inner is None else inner, self.engine)

    def _client(self, family: str, name: str, options: dict[str, Any]) -> Any:
        options.setdefault("timeout", 600.0)
        _family(family)  # or a word on how to install it
        return seam.client(family, name, self.engine, **options)


def _family(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(name, name) from error
