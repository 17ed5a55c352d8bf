"""The adapter for clients that do not speak through httpx: any callable, through the same pipeline.

A call becomes an exchange whose body is its model and its key; what the callable returns is the reply.
Results are kept pickled, so that a caller who changes its answer does not change everybody's; a result that
cannot be pickled is returned and not kept.
"""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from weakref import ReferenceType, ref

from underlay.pipeline.ports import Exchange, Mishap, Upstream
from underlay.providers.dialect import Ask, Outcome
from underlay.providers.recognise import Candidate
from underlay.telemetry.attributes import Ending, Verdict
from underlay.transports.common import BasePorts, Sending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from underlay.core.cache import Entry
    from underlay.pipeline.engine import Engine
    from underlay.pipeline.ports import Ports
    from underlay.stores.store import Store
    from underlay.transports.homes import Home

__all__ = ["UNKEPT", "FunctionPorts", "candidate_for", "exchange_for", "result_of"]

UNKEPT: Final = b"underlay.unkept"
"""The frame of a result that cannot be pickled: nobody else can have it."""

_HEADERS: Final = ((b"content-type", b"application/python-pickle"),)


class _Observer:
    """A result is whole as soon as it is there; one that could not be pickled is not for keeping."""

    __slots__ = ("_kept", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._kept = True

    def feed(self, data: bytes) -> None:
        self.ended = True
        self._kept = data is not UNKEPT

    def outcome(self) -> Outcome:
        return Outcome(complete=True, storable=self._kept)


class _FunctionDialect:
    """How a plain callable looks to the pipeline."""

    name = "function"
    family = "function"
    suffix = ""
    required: tuple[str, ...] = ("model",)
    merger = None

    def ask(self, body: Mapping[str, object]) -> Ask | None:
        return Ask(
            "chat",
            str(body["model"]),
            stream=False,
            deterministic=True,
            uncacheable="" if "key" in body else "no_key",
        )

    def observe(self, *, stream: bool, status: int) -> _Observer:
        return _Observer()

    def error_body(self, kind: str, message: str) -> bytes:
        return f"{kind}: {message}".encode()

    def text(self, body: object) -> str | None:
        return body if isinstance(body, str) else None


_DIALECT: Final = _FunctionDialect()

_running: ContextVar[tuple[ReferenceType[FunctionPorts], ...]] = ContextVar("underlay_running", default=())
"""Whose callables run in this context. Tasks that they start take it with them, and may outlive them."""


def candidate_for(provider: str) -> Candidate:
    """The candidate of every call to a callable of this provider."""
    return Candidate(provider, _DIALECT, known=True)


def exchange_for(provider: str, name: str, model: str, key: str | None) -> Exchange:
    """A call of the callable `name` as an exchange. Without a key its answer is not kept.

    Raises TypeError for a key that is not text: what stands for an answer must be the same bytes every time.
    """
    if key is not None and not isinstance(key, str):
        raise TypeError(f"protect: key(...) of {name} = {type(key).__name__}: allowed is a str, or None")
    fields = {"model": model} if key is None else {"model": model, "key": key}
    return Exchange("CALL", b"python", provider, None, b"/" + name.encode(), (), json.dumps(fields).encode())


class FunctionPorts(BasePorts):
    """One call's ports over a callable that takes no arguments. `keep` false: nobody else gets the result,
    and it is not pickled."""

    __slots__ = ("__weakref__", "_frame", "_function", "_keep", "result")

    def __init__(
        self, engine: Engine, home: Home, function: Callable[[], Awaitable[Any]], *, keep: bool = True
    ) -> None:
        super().__init__(engine, home)
        self._function = function
        self._keep = keep
        self._frame: bytes | None = None
        self.result: Any = None

    @property
    def _store(self) -> Store[Entry]:
        return self._engine.state.results

    def describe(self, error: BaseException) -> Mishap:
        common = self.describe_common(error)
        if common.ending is Ending.CANCELLED:
            return common
        # The callable is the provider's client: what it raises is the provider's failure, unless its class
        # says otherwise.
        return Mishap(Ending.FAILED, Verdict.FAILURE, common.name)

    async def send(self, request: Exchange | None) -> Upstream:
        self.sent = True
        attempt = Sending()  # what the callable asks through a client of its own is part of this attempt
        token = _running.set((*_running.get(), ref(self)))
        try:
            attempt.enter()
            self.result = await self._function()
        finally:
            attempt.open = False
            attempt.leave()
            with suppress(ValueError):  # closed by the garbage collector, in another context
                _running.reset(token)
        self._frame = _kept(self.result) if self._keep else UNKEPT
        return Upstream(200, _HEADERS, self)

    def inside(self, ports: Ports) -> bool:
        return any(running() is ports for running in _running.get())

    async def pull(self, upstream: Upstream) -> bytes | None:
        source = upstream.raw  # a follower's ports are others than those that have the result
        assert isinstance(source, FunctionPorts)  # noqa: S101 ports of this kind made it
        frame, source._frame = source._frame, None
        return frame

    async def close(self, upstream: Upstream) -> None:
        self._frame = None


def _kept(result: object) -> bytes:
    """The result pickled, or `UNKEPT` when it cannot be, or does not come back."""
    try:
        frame = pickle.dumps(result)
        result_of(frame)
    except Exception:  # noqa: BLE001 any object may refuse, in its own way
        return UNKEPT
    return frame


def result_of(frame: bytes) -> Any:
    """The kept result, as a fresh object. Only this process's own memory store holds such frames."""
    return pickle.loads(frame)  # noqa: S301
