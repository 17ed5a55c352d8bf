"""Which calls are ours: by host, method, path and content type, before a body is read.

Known hosts speak their dialects at every path that ends right. On any other host (a loopback server, a
company gateway) only a JSON POST whose path ends as the APIs' paths do is a candidate, and its body must have
the API's required fields (`Candidate.ask` says so), because a shorter test would cache other people's
services.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from underlay.providers.anthropic_messages import AnthropicMessages
from underlay.providers.hosts import HOSTS, SUFFIXES
from underlay.providers.openai_chat import OpenAIChat
from underlay.providers.openai_completions import OpenAICompletions
from underlay.providers.openai_embeddings import OpenAIEmbeddings
from underlay.providers.openai_responses import OpenAIResponses
from underlay.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from underlay.providers.dialect import Ask, Dialect

__all__ = [
    "ANTHROPIC_MESSAGES",
    "BASE_URL_VARIABLES",
    "DIALECTS",
    "OPENAI_CHAT",
    "OPENAI_COMPLETIONS",
    "OPENAI_EMBEDDINGS",
    "OPENAI_RESPONSES",
    "Candidate",
    "Recogniser",
    "may_be_ours",
]

OPENAI_CHAT: Final = OpenAIChat()
OPENAI_RESPONSES: Final = OpenAIResponses()
OPENAI_EMBEDDINGS: Final = OpenAIEmbeddings()
OPENAI_COMPLETIONS: Final = OpenAICompletions()
ANTHROPIC_MESSAGES: Final = AnthropicMessages()

DIALECTS: Final[tuple[Dialect, ...]] = (
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    OPENAI_EMBEDDINGS,
    OPENAI_COMPLETIONS,
    ANTHROPIC_MESSAGES,
)
"""Every dialect, one object each: they have no state."""

BASE_URL_VARIABLES: Final[Mapping[str, str]] = {
    "OPENAI_BASE_URL": "openai",
    "OPENAI_API_BASE": "openai",
    "ANTHROPIC_BASE_URL": "anthropic",
    "AZURE_OPENAI_ENDPOINT": "azure.ai.openai",
    "GROQ_BASE_URL": "groq",
    "MISTRAL_BASE_URL": "mistral_ai",
    "DEEPSEEK_BASE_URL": "deepseek",
    "XAI_BASE_URL": "x_ai",
    "PERPLEXITY_BASE_URL": "perplexity",
    "OPENROUTER_BASE_URL": "openrouter",
    "TOGETHER_BASE_URL": "together_ai",
    "FIREWORKS_BASE_URL": "fireworks_ai",
}
"""Environment variables that SDKs read their base URL from, and the provider that each is about."""

_FAMILIES: Final = frozenset({"openai", "anthropic"})
_PORTS: Final = {"http": 80, "https": 443}


def _end_of(path: str) -> str:
    return path[path.rfind("/") + 1 :]


# The longest first: `/chat/completions` ends in `/completions` too.
_LONGEST_FIRST: Final = sorted(DIALECTS, key=lambda dialect: len(dialect.suffix), reverse=True)
_BY_END: Final[Mapping[str, tuple[Dialect, ...]]] = {
    end: tuple(dialect for dialect in _LONGEST_FIRST if _end_of(dialect.suffix) == end)
    for end in {_end_of(dialect.suffix) for dialect in DIALECTS}
}
# Mistral's fill in the middle takes a prompt and answers in the shape of chat.
_OTHERS: Final = ("/fim/completions",)

_SEEN_LIMIT = 1024  # addresses remembered; an app calls a handful
_ENDS: Final = frozenset(name.encode() for name in _BY_END)


def may_be_ours(raw_path: bytes) -> bool:
    """Whether a path's last segment is that of an API, its query aside: the question that sends unrelated
    traffic on its way."""
    return raw_path.partition(b"?")[0].rpartition(b"/")[2] in _ENDS


@record(frozen=True, slots=True)
class Candidate:
    """A call that may be one of ours. `known` is true when its host is. `model` is the deployment that an
    Azure path names, else empty."""

    provider: str
    dialect: Dialect
    known: bool
    model: str = ""

    def ask(self, body: object) -> Ask | None:
        """What the parsed body asks for, or None when it is not of this API: then the call is not ours."""
        if not isinstance(body, dict):
            return None
        if self.model and "model" not in body:
            body = {**body, "model": self.model}
        return self.dialect.ask(body)


class Recogniser:
    """The table of hosts, built once from settings and environment, and the question put to it for every
    request.

    `hosts` maps a host, host:port or URL of the user's to a provider name. `environ` is read for
    `BASE_URL_VARIABLES` only, and a host that is known anyway keeps its name. `unknown` false turns
    recognition on unknown hosts off (the setting `recognise: known`).
    """

    __slots__ = ("_own", "_seen", "_unknown")

    def __init__(
        self,
        hosts: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        unknown: bool = True,
    ) -> None:
        own: dict[str, str] = {}
        for variable, provider in BASE_URL_VARIABLES.items():
            own.setdefault(_key_of((environ or {}).get(variable, "")), provider)
        for name, provider in (hosts or {}).items():
            own[_key_of(name)] = provider
        own.pop("", None)
        self._own = own
        self._seen: dict[tuple[str, int | None, str, str | None], Candidate | None] = {}
        self._unknown = unknown

    def recognise(
        self, method: str, host: str, port: int | None, path: str, content_type: str | None
    ) -> Candidate | None:
        """A candidate, or None for a call that is not ours. `path` may carry a query; `port` None is the
        scheme's own.

        Unrelated traffic leaves at the method or at one dictionary look-up of the path's last segment.
        """
        if method != "POST":
            return None
        asked = (host, port, path, content_type)
        try:
            return self._seen[asked]
        except KeyError:
            pass
        if "?" in path:
            path = path[: path.index("?")]
        dialects = _BY_END.get(_end_of(path))
        if dialects is None:
            return None
        dialect = next((each for each in dialects if path.endswith(_bare(each))), None)
        candidate = None
        if dialect is not None and not path.endswith(_OTHERS):
            candidate = self._candidate(dialect, host.lower(), port, path, content_type)
        if len(self._seen) >= _SEEN_LIMIT:
            self._seen.clear()
        self._seen[asked] = candidate
        return candidate

    def _candidate(
        self, dialect: Dialect, host: str, port: int | None, path: str, content_type: str | None
    ) -> Candidate | None:
        if content_type is not None and not _is_json(content_type):
            return None
        provider = self._provider(dialect, host, port, path)
        if provider is None:
            if not self._unknown or content_type is None or not path.endswith(dialect.suffix):
                return None
            return Candidate(dialect.family, dialect, known=False)
        # The hosts that speak only Anthropic's API may leave the version out of the path; elsewhere
        # `/messages` is the end of other APIs too (OpenAI's threads).
        if not path.endswith(dialect.suffix if provider != "anthropic" else _bare(dialect)):
            return None
        return Candidate(provider, dialect, known=True, model=_deployment(path))

    def _provider(self, dialect: Dialect, host: str, port: int | None, path: str) -> str | None:
        provider = HOSTS.get(host)
        if provider is not None:
            return provider
        provider = (self._own.get(f"{host}:{port}") if port is not None else None) or self._own.get(host)
        if provider is not None:
            # A gateway may be named for one family and serve both.
            return dialect.family if provider in _FAMILIES else provider
        provider = next((name for suffix, name in SUFFIXES if host.endswith(suffix)), None)
        # One Foundry host serves Azure OpenAI and other models under different prefixes.
        if provider == "azure.ai.inference" and path.startswith("/openai/"):
            return "azure.ai.openai"
        return provider


def _bare(dialect: Dialect) -> str:
    return dialect.suffix.removeprefix("/v1")


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _deployment(path: str) -> str:
    _, found, rest = path.partition("/openai/deployments/")
    return rest.partition("/")[0] if found else ""


def _key_of(name: str) -> str:
    """The key of the table for a host, host:port or URL; empty for an empty or malformed one."""
    name = name.strip()
    try:
        parts = urlsplit(name if "//" in name else f"//{name}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    # Clients leave a scheme's own port out of the requests that they make.
    return host if port in (None, _PORTS.get(parts.scheme)) else f"{host}:{port}"
