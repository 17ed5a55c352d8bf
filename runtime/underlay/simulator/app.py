"""The simulator's ASGI application: which path is which dialect, the list of models, and the admin paths.

The dialects' paths answer with and without `/v1`, and under any prefix, as company gateways have them. The
admin paths:

    GET    /_sim/health      {"status": "ok"}
    GET    /_sim/counts      the counts, see `Counts.as_json`
    GET    /_sim/requests    the latest requests, without credentials
    GET    /_sim/faults      the faults in the book
    POST   /_sim/faults      {"fault": "503", "model": "gpt-4o", "count": 3}, or a list; answers ids
    DELETE /_sim/faults      clears all, or one with ?id=3
    POST   /_sim/reset       counts to zero, faults back to those of the options
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from underlay.errors import MissingExtraError, SettingsError
from underlay.simulator import (
    anthropic,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_responses,
)
from underlay.simulator.endpoint import Endpoint, State
from underlay.simulator.errors import error_body, reply_headers, request_id
from underlay.simulator.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from underlay.simulator.wire import App

__all__ = ["build_app"]

_DIALECTS: Final = (
    ("/chat/completions", "openai", "chat", openai_chat.exchange),
    ("/responses", "openai", "responses", openai_responses.exchange),
    ("/embeddings", "openai", "embeddings", openai_embeddings.exchange),
    ("/completions", "openai", "completions", openai_completions.exchange),
    ("/messages", "anthropic", "messages", anthropic.exchange),
    ("/messages/count_tokens", "anthropic", "count_tokens", anthropic.count_tokens),
)
_RELEASED: Final = 1_735_689_600
"""Unix time at which every simulated model says it came out: 2025-01-01."""


def build_app(state: State) -> App:
    """The application over one simulator's state. Raises `MissingExtraError` without starlette."""
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route
    except ImportError as missing:
        raise MissingExtraError("simulator", "starlette") from missing

    routes = _admin_routes(state)
    for suffix, provider, kind, dialect in _DIALECTS:
        endpoint = Endpoint(state, provider, kind, dialect)
        routes += [Route(path, endpoint, methods=["POST"]) for path in (suffix, "/{prefix:path}" + suffix)]
    models = _models(state)
    routes += [Route(path, models, methods=["GET"]) for path in ("/models", "/{prefix:path}/models")]
    return Starlette(routes=routes, exception_handlers={HTTPException: _not_found})


async def _not_found(request: Request, error: Exception) -> Response:
    from starlette.responses import JSONResponse

    status = getattr(error, "status_code", 404)
    message = f"Invalid URL ({request.method} {request.url.path})"
    return JSONResponse(error_body(_provider(request), status, message, code="unknown_url"), status)


def _provider(request: Request) -> str:
    return "anthropic" if "anthropic-version" in request.headers else "openai"


def _models(state: State) -> Callable[[Request], Awaitable[Response]]:
    from starlette.responses import JSONResponse

    async def models(request: Request) -> Response:
        names, provider = state.options.models, _provider(request)
        number = next(state.numbers)
        state.ledger.add("models", "", requests=1, status=200)
        headers = reply_headers(
            provider,
            request_id(state.options.seed, number),
            number=number,
            tokens=0,
            spent=0.0,
            limited=False,
        )
        if provider == "openai":
            data = [
                {"id": name, "object": "model", "created": _RELEASED, "owned_by": "simulator"}
                for name in names
            ]
            return JSONResponse({"object": "list", "data": data}, headers=headers)
        shared: dict[str, Any] = {
            "type": "model",
            "created_at": "2025-01-01T00:00:00Z",
            "lifecycle": "active",
        }
        named: list[dict[str, Any]] = [{**shared, "id": name, "display_name": name} for name in names]
        ends = {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
        return JSONResponse({"data": named, "has_more": False, **ends}, headers=headers)

    return models


def _admin_routes(state: State) -> list[Any]:
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def counts(_request: Request) -> Response:
        return JSONResponse(state.ledger.counts().as_json())

    async def requests(_request: Request) -> Response:
        return JSONResponse([asdict(seen) for seen in state.ledger.seen()])

    async def reset(_request: Request) -> Response:
        state.ledger.reset()
        state.book.reset()
        return JSONResponse({"status": "ok"})

    async def faults(request: Request) -> Response:
        if request.method == "DELETE":
            return _clear(state, request.query_params.get("id"))
        if request.method == "POST":
            return _add(state, await request.body())
        return JSONResponse([_shown(number, fault) for number, fault in state.book.waiting().items()])

    return [
        Route("/_sim/health", health),
        Route("/_sim/counts", counts),
        Route("/_sim/requests", requests),
        Route("/_sim/reset", reset, methods=["POST"]),
        Route("/_sim/faults", faults, methods=["GET", "POST", "DELETE"]),
    ]


def _add(state: State, raw: bytes) -> Response:
    from starlette.responses import JSONResponse

    try:
        body = json.loads(raw)
        entries = body if isinstance(body, list) else [body]
        if not all(isinstance(entry, dict) for entry in entries):
            return _wrong('a fault is an object such as {"fault": "503", "model": "gpt-4o"}')
        found = [Fault.from_mapping(entry) for entry in entries]
    except SettingsError as wrong:
        return _wrong(str(wrong))
    except ValueError:
        return _wrong("the body is not JSON")
    return JSONResponse({"ids": [state.book.add(fault) for fault in found]})


def _clear(state: State, number: str | None) -> Response:
    from starlette.responses import JSONResponse

    if number is not None and not number.isdecimal():
        return _wrong(f"id = {number!r}: allowed is the number of a fault")
    return JSONResponse({"cleared": state.book.clear(None if number is None else int(number))})


def _wrong(message: str) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, 400)


def _shown(number: int, fault: Fault) -> dict[str, Any]:
    scope = {"model": fault.model, "provider": fault.provider, "path": fault.path, "count": fault.count}
    return {"id": number, "fault": fault.written(), **scope}
