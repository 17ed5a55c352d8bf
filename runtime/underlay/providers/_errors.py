"""Error types of the providers: reading them, judging them, writing them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["anthropic_body", "anthropic_kind", "blames", "openai_body", "openai_kind"]

_WORD = re.compile(r"(?!\d+$)[A-Za-z0-9_.:/-]{1,64}")

_BLAMELESS = frozenset(
    {
        "authentication_error",
        "billing_error",
        "billing_hard_limit_reached",
        "bio_policy",
        "data_residency_mismatch",
        "empty_image_file",
        "failed_to_download_image",
        "insufficient_quota",
        "misalignment_policy_violation",
        "model_not_found",
        "not_found",
        "not_found_error",
        "permission_denied",
        "permission_error",
        "previous_response_not_found",
        "request_too_large",
        "requests",
        "string_above_max_length",
        "tokens",
        "too_many_requests",
    }
)
_BLAMELESS_PREFIXES = ("rate_limit", "invalid_", "context_length", "content_", "image_", "unsupported_")


def blames(kind: str, status: int = 200) -> bool:
    """True when an error speaks against the provider.

    A 4xx status says that the request or its sender is at fault (408 apart: the provider gave up reading), a
    5xx that the provider is. In a 2xx body the error's type decides, and a type nobody knows counts as the
    provider's.
    """
    if status >= 500:
        return True
    if 400 <= status < 500:
        return status == 408
    kind = kind.lower()
    return kind not in _BLAMELESS and not kind.startswith(_BLAMELESS_PREFIXES)


def openai_kind(body: object) -> str:
    """The error type in an OpenAI-shaped body, "" where there is no error.

    `code` is the finer name ("context_length_exceeded") and goes before `type`. A numeric code (OpenRouter,
    Azure) is no type. An error without a usable name is "unknown_error". Only names come out: never the
    message, which may quote the prompt.
    """
    error = body.get("error") if isinstance(body, dict) else None
    if not error:
        return ""
    if isinstance(error, dict):
        return _word(error.get("code")) or _word(error.get("type")) or "unknown_error"
    return _word(error) or "unknown_error"


def anthropic_kind(body: object) -> str:
    """The error type in an Anthropic-shaped body (`{"type": "error", "error": {"type": …}}`), "" where there
    is no error."""
    error = body.get("error") if isinstance(body, dict) else None
    if not error:
        return "unknown_error" if isinstance(body, dict) and body.get("type") == "error" else ""
    return (_word(error.get("type")) if isinstance(error, dict) else "") or "unknown_error"


def _word(value: object) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def openai_body(kind: str, message: str) -> bytes:
    """An error as OpenAI's SDK parses it into `APIError.message`, `.type`, `.param` and `.code`."""
    return _encoded({"error": {"message": message, "type": kind, "param": None, "code": kind}})


def anthropic_body(kind: str, message: str) -> bytes:
    """An error as Anthropic's SDK parses it into `APIStatusError.body`."""
    return _encoded({"type": "error", "error": {"type": kind, "message": message}})


def _encoded(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
