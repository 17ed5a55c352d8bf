"""The providers' error replies and the headers of all their replies."""

from __future__ import annotations

import hashlib
import time
from email.utils import formatdate
from typing import Any, Final

__all__ = ["error_body", "reply_headers", "request_id"]

_OPENAI: Final[dict[int, tuple[str, str | None, str]]] = {
    400: ("invalid_request_error", None, "Invalid request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Access denied."),
    404: (
        "invalid_request_error",
        "model_not_found",
        "The model does not exist or you do not have access to it.",
    ),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    503: (
        "server_error",
        "service_unavailable",
        "The engine is currently overloaded, please try again later.",
    ),
}
_ANTHROPIC: Final[dict[int, tuple[str, str]]] = {
    400: ("invalid_request_error", "Invalid request."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "Not found"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
    500: ("api_error", "Internal server error"),
    503: ("api_error", "Service temporarily unavailable"),
    504: ("timeout_error", "Request timed out"),
    529: ("overloaded_error", "Overloaded"),
}
_REQUEST_LIMIT: Final = 10_000
_TOKEN_LIMIT: Final = 2_000_000


def error_body(
    provider: str,
    status: int,
    message: str | None = None,
    *,
    param: str | None = None,
    code: str | None = None,
    type_: str | None = None,
    id_: str | None = None,
) -> dict[str, Any]:
    """The error object of one provider for a status; a message and a type of its own unless one is given."""
    if provider == "anthropic":
        kind, usual = _ANTHROPIC.get(
            status, ("api_error" if status >= 500 else "invalid_request_error", "Error")
        )
        error = {"type": type_ or kind, "message": message or usual}
        body: dict[str, Any] = {"type": "error", "error": error}
        return body if id_ is None else {**body, "request_id": id_}
    fallback = _OPENAI[500 if status >= 500 else 400]
    kind, usual_code, usual = _OPENAI.get(status, fallback)
    code = code or usual_code
    return {"error": {"message": message or usual, "type": type_ or kind, "param": param, "code": code}}


def request_id(seed: int, number: int) -> str:
    """An id for one request of one simulator, unique for its number."""
    return "req_" + hashlib.sha256(f"request/{seed}/{number}".encode()).hexdigest()[:32]


def reply_headers(
    provider: str, id_: str, *, number: int, tokens: int, spent: float, limited: bool
) -> dict[str, str]:
    """The headers each provider puts on every reply.

    `number` and `tokens` are this request's number and size, `spent` the seconds until now; `limited` is a
    429, which has nothing remaining.
    """
    now = time.time()
    requests = 0 if limited else _REQUEST_LIMIT - number % _REQUEST_LIMIT
    left = max(0, _TOKEN_LIMIT - tokens)
    common = {"date": formatdate(now, usegmt=True)}
    if provider == "anthropic":
        reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 60))
        counted = {"requests": (_REQUEST_LIMIT, requests), "tokens": (_TOKEN_LIMIT, left)}
        limits = {
            f"anthropic-ratelimit-{what}-{field}": str(value)
            for what, (limit, remaining) in counted.items()
            for field, value in (("limit", limit), ("remaining", remaining), ("reset", reset))
        }
        return common | limits | {"request-id": id_, "anthropic-organization-id": "org-simulator"}
    return common | {
        "x-request-id": id_,
        "openai-version": "2020-10-01",
        "openai-organization": "org-simulator",
        "openai-processing-ms": str(int(spent * 1000)),
        "x-ratelimit-limit-requests": str(_REQUEST_LIMIT),
        "x-ratelimit-remaining-requests": str(requests),
        "x-ratelimit-reset-requests": "6ms",
        "x-ratelimit-limit-tokens": str(_TOKEN_LIMIT),
        "x-ratelimit-remaining-tokens": str(left),
        "x-ratelimit-reset-tokens": "0s",
    }
