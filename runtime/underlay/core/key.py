"""Decides which calls are the same call: the key of a request.

Default-deny: everything in the request is part of the key except the headers named in `NEUTRAL`, each with
its reason. A field that a provider adds tomorrow is in the key today. The canonical form sorts *top-level*
body fields only: nested order, number spelling and strings stay as sent, because structured output follows
the property order of its schema.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from json.decoder import scanstring  # type: ignore[attr-defined]
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from underlay.records import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "CREDENTIALS",
    "NEUTRAL",
    "NEUTRAL_COOKIES",
    "NEUTRAL_PREFIXES",
    "Body",
    "Headers",
    "Unkeyable",
    "body_of",
    "digest",
    "head_of",
    "key_of",
    "scope_of",
    "sort_headers",
]

NEUTRAL: Final[Mapping[bytes, str]] = {
    b"connection": "hop by hop",
    b"keep-alive": "hop by hop",
    b"te": "hop by hop",
    b"proxy-connection": "hop by hop",
    b"content-length": "follows from the body",
    b"user-agent": "names the client, not the question",
    b"traceparent": "differs on every call",
    b"tracestate": "differs on every call",
    b"baggage": "describes the caller's trace",
    b"b3": "differs on every call",
    b"x-b3-traceid": "differs on every call",
    b"x-b3-spanid": "differs on every call",
    b"x-b3-parentspanid": "differs on every call",
    b"x-b3-sampled": "differs on every call",
    b"x-b3-flags": "differs on every call",
    b"uber-trace-id": "differs on every call",
    b"x-cloud-trace-context": "differs on every call",
    b"x-amzn-trace-id": "differs on every call",
    b"x-request-id": "differs on every call",
    b"x-client-request-id": "differs on every call",
    b"request-id": "differs on every call",
    b"x-correlation-id": "differs on every call",
    b"idempotency-key": "differs on every call and promises the same effect, not another answer",
    b"x-idempotency-key": "differs on every call",
    b"cache-control": "our control header: says how to use the cache, not what is asked",
}
"""Headers that are not in the key, with the reason."""

NEUTRAL_PREFIXES: Final[Mapping[bytes, str]] = {
    b"x-stainless-": "the SDK's description of its own platform and retry count",
    b"underlay-": "our control headers",
}
"""Header prefixes that are not in the key, with the reason."""

CREDENTIALS: Final[frozenset[bytes]] = frozenset(
    (
        b"authorization",
        b"proxy-authorization",
        b"x-api-key",
        b"api-key",
        b"x-goog-api-key",
        b"cookie",
        b"ocp-apim-subscription-key",
    )
)
"""Headers that say who asks. They enter the key as a keyed hash, the scope, and never as themselves."""

NEUTRAL_COOKIES: Final[Mapping[bytes, str]] = {
    b"__cf_bm": "Cloudflare's bot score: set by the first answer, renewed every 30 minutes",
    b"_cfuvid": "Cloudflare's rate limiting: set by the first answer to each client object",
    b"__cflb": "Cloudflare's choice of a server",
}
"""Cookies that do not say who asks, with the reason. The providers' front sets them, clients send them back,
and as part of the scope they would make a client's second call another caller's."""

_KEEP, _NEUTRAL, _CREDENTIAL, _CACHE_CONTROL, _OURS = range(5)
_CONTROL_PREFIX: Final = b"underlay-"
_kinds: dict[bytes, tuple[int, bytes]] = {}
_KINDS_LIMIT = 4096  # header names come from outside: bounded, recomputed when full


def _kind(name: bytes) -> tuple[int, bytes]:
    lower = name.lower()
    if lower in CREDENTIALS:
        kind = _CREDENTIAL
    elif lower == b"cache-control":
        kind = _CACHE_CONTROL
    elif lower.startswith(_CONTROL_PREFIX):
        kind = _OURS
    elif lower in NEUTRAL or lower.startswith(tuple(NEUTRAL_PREFIXES)):
        kind = _NEUTRAL
    else:
        kind = _KEEP
    if len(_kinds) >= _KINDS_LIMIT:
        _kinds.clear()
    _kinds[name] = (kind, lower)
    return kind, lower


@record(frozen=True, slots=True)
class Headers:
    """A request's headers, sorted by what they mean to the key: `kept` (lower-case name, value) in order of
    name, `credentials` as sent, the values of `Cache-Control`, and whether control headers of ours are
    there."""

    kept: tuple[tuple[bytes, bytes], ...]
    credentials: tuple[tuple[bytes, bytes], ...]
    cache_control: tuple[bytes, ...] = ()
    controlled: bool = False


def sort_headers(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Split raw headers into those in the key and those that say who asks. Order among equal names is
    kept."""
    kept: list[tuple[bytes, bytes]] = []
    credentials: list[tuple[bytes, bytes]] = []
    cache_control: tuple[bytes, ...] = ()
    controlled = False
    for name, value in raw:
        known = _kinds.get(name)
        kind, lower = known if known is not None else _kind(name)
        if kind == _KEEP:
            kept.append((lower, value))
        elif kind == _CREDENTIAL:
            if lower == b"cookie" and not (value := _telling_cookies(value)):
                continue
            credentials.append((lower, value))
        elif kind == _CACHE_CONTROL:
            cache_control = (*cache_control, value)
        elif kind == _OURS:
            controlled = True
    kept.sort(key=itemgetter(0))
    return Headers(tuple(kept), tuple(credentials), cache_control, controlled)


def _telling_cookies(value: bytes) -> bytes:
    """A Cookie header's value without the neutral ones; empty when nothing is left."""
    cookies = [cookie.strip() for cookie in value.split(b";")]
    return b"; ".join([cookie for cookie in cookies if cookie.partition(b"=")[0] not in NEUTRAL_COOKIES])


def scope_of(secret: bytes, credentials: tuple[tuple[bytes, bytes], ...], namespace: str | None) -> bytes:
    """Who may share an answer: HMAC-SHA-256 of the credential headers, or the namespace that the user named
    for rotating tokens.

    An unknown credential is a new scope, so a mistake costs a miss and never a leak.
    """
    if namespace is not None:
        return b"n" + hmac.digest(secret, namespace.encode(), "sha256")
    return b"c" + hmac.digest(
        secret, _framed(part for header in sorted(credentials) for part in header), "sha256"
    )


def _framed(parts: Iterable[bytes]) -> bytes:
    """Join parts so that no two different lists give the same bytes: each is preceded by its length."""
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def head_of(scope: bytes, method: bytes, url: bytes, kept: Sequence[tuple[bytes, bytes]]) -> bytes:
    """All of a request but its body, framed: the same for every question that one client asks at one path."""
    flat = [scope, method, url]
    for name, value in kept:
        flat.append(name)
        flat.append(value)
    return b"%d;" % len(flat) + _framed(flat)


def digest(head: bytes, body: bytes) -> bytes:
    """SHA-256 over the request as it was sent: the index of the memo that spares a repeated call the
    parse."""
    hashed = hashlib.sha256(b"underlay.raw.1;" + head)
    hashed.update(body)
    return hashed.digest()


@record(frozen=True, slots=True)
class Body:
    """A JSON object body: its fields parsed, and each top-level field's text exactly as sent, sorted by
    name."""

    fields: Mapping[str, Any]
    members: tuple[tuple[str, str], ...]


@record(frozen=True, slots=True)
class Unkeyable:
    """The body has no canonical form, so the call is neither answered from the cache nor stored. `fields` is
    what could be read."""

    reason: str
    fields: Mapping[str, Any] | None = None


class _RepeatedNameError(ValueError):
    pass


class _NotANumberError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _RepeatedNameError
    return made


def _refuse_constant(_: str) -> Any:
    raise _NotANumberError


# Its scanner alone: the methods around it turn "no value here" (StopIteration) into an error with a position.
_scan = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant).scan_once  # type: ignore[attr-defined]
_SPACE = " \t\n\r"


def body_of(raw: bytes) -> Body | Unkeyable:
    """Parse a request body. Repeated names, NaN or Infinity and invalid UTF-8 have no one meaning:
    `Unkeyable`."""
    try:
        text = raw.decode("utf-8")
        return _members(text)
    except UnicodeDecodeError:
        return Unkeyable("invalid_utf8")
    except _RepeatedNameError:
        return Unkeyable("duplicate_names", _lenient(raw))
    except _NotANumberError:
        return Unkeyable("not_a_number", _lenient(raw))
    except (ValueError, IndexError, RecursionError, StopIteration):
        return Unkeyable("not_json")


def _lenient(raw: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None  # what follows the repeated name is no JSON
    return value if isinstance(value, dict) else None


def _members(text: str) -> Body:
    """Walk the top-level object, keeping each value's own text. Clients write no space between its parts: a
    function call for each would be most of the walk."""
    fields: dict[str, Any] = {}
    members: list[tuple[str, str]] = []
    at = _skip(text, 0)
    if text[at] != "{":
        raise ValueError("not an object")
    at = _skip(text, at + 1)
    if text[at] == "}":
        return _closed(text, at, fields, members)
    while True:
        if text[at] != '"':
            raise ValueError("not a name")
        name, at = scanstring(text, at + 1, True)  # noqa: FBT003 it takes no keywords
        if text[at] in _SPACE:
            at = _skip(text, at)
        if text[at] != ":":
            raise ValueError("no colon")
        start = at + 1
        if text[start] in _SPACE:
            start = _skip(text, start)
        value, at = _scan(text, start)
        if name in fields:
            raise _RepeatedNameError
        fields[name] = value
        members.append((name, text[start:at]))
        if text[at] in _SPACE:
            at = _skip(text, at)
        if text[at] == "}":
            return _closed(text, at, fields, members)
        if text[at] != ",":
            raise ValueError("no comma")
        at += 1
        if text[at] in _SPACE:
            at = _skip(text, at)


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at


def _closed(text: str, at: int, fields: dict[str, Any], members: list[tuple[str, str]]) -> Body:
    if text[at + 1 :].strip(_SPACE):
        raise ValueError("text after the object")
    members.sort()
    return Body(fields, tuple(members))


def key_of(head: bytes, body: Body) -> bytes:
    """The key: SHA-256 over scope, method, URL and kept headers (`head_of`), and the canonical body. 32
    bytes.

    A member's name and text are framed by their lengths in characters: UTF-8 gives no two texts the same
    bytes.
    """
    framed = "".join([f"{len(name)}:{name}{len(text)}:{text}" for name, text in body.members])
    return hashlib.sha256(b"underlay.key.2;" + head + framed.encode("utf-8", "surrogatepass")).digest()
