"""Calls that the app makes through underlay itself: a prompt to a model, or any callable under protection."""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import weakref
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from underlay.errors import (
    CallError,
    CircuitOpenError,
    MissingCredentialError,
    ProviderError,
    UnknownModelError,
)
from underlay.pipeline.driver import drive
from underlay.pipeline.perform import perform
from underlay.providers.library import resolve_model
from underlay.receipts import receipt
from underlay.telemetry.attributes import CacheResult
from underlay.transports import seam
from underlay.transports.function import UNKEPT, FunctionPorts, candidate_for, exchange_for, result_of
from underlay.transports.homes import THREADS, current_home

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import httpx

    from underlay.pipeline.engine import Engine
    from underlay.providers.library import Target
    from underlay.receipts import Receipt
    from underlay.telemetry.events import Usage

__all__ = ["Answer", "Library"]

P = ParamSpec("P")
R = TypeVar("R")
_TIMEOUT = 600.0  # seconds: the official SDKs' own default for one call


@dataclass(frozen=True, slots=True)
class Answer:
    """What `Runtime.call` returns. `text` is the answer's text, empty where the API answers with none
    (embeddings); `body` is the whole JSON reply. `usage` and `cost_usd` are what this call used: None when
    unknown, and on a hit None, for nothing was spent."""

    text: str
    model: str
    usage: Usage | None
    cost_usd: float | None
    cache: CacheResult
    trace_id: str
    body: bytes


class Library:
    """Library calls of one runtime. Clients are made at the first call and kept."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._start()
        _libraries.add(self)

    def _start(self) -> None:
        self._lock = Lock()
        self._client: httpx.Client | None = None
        self._async_clients: dict[object, httpx.AsyncClient] = {}

    def call(self, prompt: str | Sequence[Mapping[str, object]], *, model: str) -> Answer:
        """Ask a model. `prompt` is one user message, or messages as the provider's API has them.

        Raises UnknownModelError, MissingCredentialError, ProviderError for an error reply, CircuitOpenError
        when the circuit is open, CallError when no reply came.
        """
        target, request = self._request(prompt, model)
        with receipt() as got:
            try:
                response = self._sync().send(request)
            except Exception as error:
                raise _unanswered(target, model, error) from error
        return _answer(target, model, response, got)

    async def acall(self, prompt: str | Sequence[Mapping[str, object]], *, model: str) -> Answer:
        """`call` for a coroutine: same arguments, same errors."""
        target, request = self._request(prompt, model)
        with receipt() as got:
            try:
                response = await self._async().send(request)
            except Exception as error:
                raise _unanswered(target, model, error) from error
        return _answer(target, model, response, got)

    def protect(
        self, *, model: str, provider: str | None = None, key: Callable[..., str | None] | None = None
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Put a function or coroutine function behind the pipeline, for clients that do not speak through
        httpx.

        `key` is given the call's arguments and returns what identifies the answer, or None to keep this one
        out of the cache; without a `key` nothing is cached. What the function raises counts as a failure of
        the provider and is raised on. Raises CircuitOpenError when the circuit is open.
        """
        target = resolve_model(model, self._engine.settings.models, os.environ) if provider is None else None
        named = provider or (target.provider if target is not None else "custom")

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            name = f"{function.__module__}.{function.__qualname__}"

            async def run(work: Callable[[], Awaitable[Any]], home: Any, identity: str | None) -> Any:
                ports = FunctionPorts(self._engine, home, work, keep=identity is not None)
                exchange = exchange_for(named, name, model, identity)
                reply = await perform(self._engine, exchange, candidate_for(named), ports)
                if reply.reader is None:
                    return ports.result
                frame = await reply.reader.read()
                while await reply.reader.read() is not None:
                    continue
                if reply.status != 200:
                    raise CircuitOpenError(named, model, _retry_after(reply.headers))
                if ports.sent:
                    return ports.result
                if frame is UNKEPT:  # another call's result, which only that one can have
                    return await run(work, home, None)
                return result_of(frame or b"")

            if inspect.iscoroutinefunction(function):

                @functools.wraps(function)
                async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                    identity = key(*args, **kwargs) if key is not None else None
                    return await run(lambda: function(*args, **kwargs), current_home(), identity)

                return cast("Callable[P, R]", awaited)

            @functools.wraps(function)
            def called(*args: P.args, **kwargs: P.kwargs) -> R:
                async def work() -> R:
                    return function(*args, **kwargs)

                identity = key(*args, **kwargs) if key is not None else None
                return cast("R", drive(run(work, THREADS, identity)))

            return called

        return decorate

    def _request(
        self, prompt: str | Sequence[Mapping[str, object]], model: str
    ) -> tuple[Target, httpx.Request]:
        import httpx  # at the first library call only: an app under `instrument()` may never need it

        target = resolve_model(model, self._engine.settings.models, os.environ)
        if target is None:
            raise UnknownModelError(model)
        credential = os.environ.get(target.api_key_env, "")
        if not credential:
            raise MissingCredentialError(target.provider, target.api_key_env)
        url, body = target.compose(prompt, model)
        return target, httpx.Request(
            "POST", url, headers=target.headers(credential), content=body, extensions={"timeout": _limits()}
        )

    def close(self) -> None:
        """Close the connections of synchronous calls. A later call opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close the connections of this loop's calls."""
        with self._lock:
            client = self._async_clients.pop(current_home().identity, None)
        if client is not None:
            await client.aclose()

    def _sync(self) -> httpx.Client:
        if self._client is not None:
            return self._client
        # Under the lock: a cold burst of threads would each spend a tenth of a second on the same thing.
        with self._lock:
            client: httpx.Client = self._client or seam.client(
                "httpx", "Client", self._engine, timeout=_TIMEOUT
            )
            self._client = client
            return client

    def _async(self) -> httpx.AsyncClient:
        home = current_home().identity
        with self._lock:
            client = self._async_clients.get(home)
            if client is None:
                # A client's connections belong to its loop; loops that are gone are forgotten with theirs.
                alive = {loop: old for loop, old in self._async_clients.items() if not _gone(loop)}
                client = seam.client("httpx", "AsyncClient", self._engine, timeout=_TIMEOUT)
                alive[home] = client
                self._async_clients = alive
            return client


def _gone(loop: object) -> bool:
    is_closed = getattr(loop, "is_closed", None)
    return bool(is_closed()) if is_closed is not None else True


def _limits() -> dict[str, float]:
    return dict.fromkeys(("connect", "read", "write", "pool"), _TIMEOUT)


def _unanswered(target: Target, model: str, error: Exception) -> CallError:
    return CallError(f"{target.provider}/{model} did not answer: {type(error).__name__}")


def _retry_after(headers: Sequence[tuple[bytes, bytes]]) -> float:
    return float(next((value for name, value in headers if name.lower() == b"retry-after"), b"0"))


def _answer(target: Target, model: str, response: httpx.Response, got: Receipt) -> Answer:
    if response.headers.get("underlay-refused") == "circuit_open":
        raise CircuitOpenError(target.provider, model, float(response.headers.get("retry-after", math.nan)))
    ended, paid = got.ended, got.attempt
    request_id = response.headers.get("x-request-id") or response.headers.get("request-id")
    if not response.is_success:
        kind = ended.error_type if ended is not None and ended.error_type else str(response.status_code)
        raise ProviderError(target.provider, model, response.status_code, kind, request_id)
    try:
        body = json.loads(response.content)
    except ValueError as error:
        raise ProviderError(target.provider, model, response.status_code, "not_json", request_id) from error
    return Answer(
        target.dialect.text(body) or "",
        (paid.response_model if paid is not None else "") or model,
        paid.usage if paid is not None else None,
        paid.cost_usd if paid is not None else None,
        ended.result if ended is not None else CacheResult.BYPASS,
        ended.trace_id if ended is not None else "",
        response.content,
    )


_libraries: weakref.WeakSet[Library] = weakref.WeakSet()


def _after_fork() -> None:
    # Parent and child would write to the same sockets, and each could read the other's answer. Dropped, not
    # closed: another thread of the parent may have held the pool's lock.
    for library in list(_libraries):
        library._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
