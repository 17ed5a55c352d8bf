"""From a request to a call: is it one of ours, what does it ask, and under which key may its answer be
kept."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

from underlay.core.cache import NO_DIRECTIVES, directives_of
from underlay.core.key import Body, Unkeyable, body_of, digest, head_of, key_of, scope_of, sort_headers
from underlay.pipeline.circuits import Name
from underlay.pipeline.ports import url_of
from underlay.records import record

if TYPE_CHECKING:
    from underlay.core.cache import Directives, RawHeaders
    from underlay.core.key import Headers
    from underlay.pipeline.ports import Exchange
    from underlay.providers.dialect import Ask, Dialect
    from underlay.providers.recognise import Candidate
    from underlay.settings import CacheSettings

__all__ = ["Asked", "Known", "Memo", "Singles", "key_for", "recognise"]

_MEMO_LIMIT = 4096  # requests remembered, about 300 bytes each


@record(frozen=True, slots=True)
class Known:
    """What a request's bytes mean: found once, then remembered by their digest. `key` is empty when the
    answer may not be kept, and `uncacheable` says why. `window` is the key of all but the inputs, under which
    calls can be merged; empty where this one cannot."""

    ask: Ask
    key: bytes
    uncacheable: str
    circuit: Name
    window: bytes = b""


@record(frozen=True, slots=True)
class Asked:
    """One call of ours: its dialect, what it asks, how this caller wants the cache used, and whether control
    headers of ours must be taken off before it leaves. `host_known`: the provider's limits are known too."""

    dialect: Dialect
    ask: Ask
    key: bytes
    uncacheable: str
    circuit: Name
    directives: Directives
    controlled: bool = False
    window: bytes = b""
    host_known: bool = False


class Memo:
    """Raw digest -> what it means, bounded, least recently used out first: a hit parses nothing."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    def get(self, raw: bytes) -> Known | None:
        """What these bytes mean, if they were seen."""
        if raw not in self._known:  # who asks something new needs no lock to find nothing
            return None
        with self._lock:
            known = self._known.get(raw)
            if known is not None:
                self._known.move_to_end(raw)
            return known

    def put(self, raw: bytes, known: Known) -> None:
        """Remember."""
        with self._lock:
            if len(self._known) >= _MEMO_LIMIT:
                self._known.popitem(last=False)
            self._known[raw] = known


class Singles:
    """The window keys under which answers to single inputs were stored, bounded."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._windows: OrderedDict[bytes, None] = OrderedDict()

    def add(self, window: bytes) -> None:
        """An answer to a single input was stored."""
        if window in self._windows:
            return
        with self._lock:
            self._windows[window] = None
            if len(self._windows) > _MEMO_LIMIT:
                self._windows.popitem(last=False)

    def __contains__(self, window: bytes) -> bool:
        return window in self._windows


def key_for(exchange: Exchange, body: bytes, settings: CacheSettings, secret: bytes) -> bytes:
    """The key that the same request would have with another body; empty where it has none."""
    parsed = body_of(body)
    if isinstance(parsed, Unkeyable):
        return b""
    return key_of(_head(exchange, sort_headers(exchange.headers), settings, secret), parsed)


def _head(exchange: Exchange, headers: Headers, settings: CacheSettings, secret: bytes) -> bytes:
    return _known_head(
        secret,
        settings.namespace,
        exchange.method,
        exchange.scheme,
        exchange.host,
        exchange.port,
        exchange.target,
        headers.kept,
        headers.credentials,
    )


@lru_cache(maxsize=256)  # the HMAC in it costs more than all else in a hit's key
def _known_head(
    secret: bytes,
    namespace: str | None,
    method: str,
    scheme: bytes,
    host: str,
    port: int | None,
    target: bytes,
    kept: RawHeaders,
    credentials: RawHeaders,
) -> bytes:
    scope = scope_of(secret, credentials, namespace)
    return head_of(scope, method.encode(), url_of(scheme, host, port, target), kept)


def recognise(
    exchange: Exchange, candidate: Candidate, settings: CacheSettings, secret: bytes, memo: Memo
) -> Asked | None:
    """The call that this request is, or None when its body is not one of the API's: then it passes
    untouched."""
    headers = sort_headers(exchange.headers)
    head = _head(exchange, headers, settings, secret)
    raw = digest(head, exchange.body)
    known = memo.get(raw)
    if known is None:
        known = _read(exchange.body, candidate, settings, head)
        if known is None:
            return None
        memo.put(raw, known)
    return Asked(
        candidate.dialect,
        known.ask,
        known.key,
        known.uncacheable,
        known.circuit,
        directives_of(headers.cache_control) if headers.cache_control else NO_DIRECTIVES,
        headers.controlled,
        known.window,
        candidate.known,
    )


def _read(raw: bytes, candidate: Candidate, settings: CacheSettings, head: bytes) -> Known | None:
    body = body_of(raw)
    ask = candidate.ask(body.fields)
    if ask is None:
        return None
    circuit = Name(candidate.provider, ask.model)
    if isinstance(body, Unkeyable):
        return Known(ask, b"", body.reason, circuit)
    reason = ask.uncacheable or (
        "sampling" if settings.sampling == "deterministic" and not ask.deterministic else ""
    )
    window = b""
    if ask.inputs is not None:
        rest = [member for member in body.members if member[0] != ask.inputs.field]
        rest.append(("", ask.inputs.kind))  # no field is called that, and kinds never mix
        window = key_of(head, Body(body.fields, tuple(rest)))
    return Known(ask, b"" if reason else key_of(head, body), reason, circuit, window)
