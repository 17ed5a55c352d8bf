"""Calls that underlay makes itself (`runtime.call`): which provider serves a model, and the smallest request
that asks it a prompt."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from underlay.providers.hosts import HOSTS
from underlay.providers.recognise import (
    ANTHROPIC_MESSAGES,
    OPENAI_CHAT,
    OPENAI_COMPLETIONS,
    OPENAI_EMBEDDINGS,
)
from underlay.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from underlay.providers.dialect import Dialect

__all__ = [
    "ANTHROPIC_VERSION",
    "COMPLETION_TOKENS",
    "MAX_TOKENS",
    "Route",
    "Target",
    "compose",
    "resolve_model",
]

ANTHROPIC_VERSION: Final = "2023-06-01"
"""Value of the header that Anthropic requires."""

MAX_TOKENS: Final = 4096
"""Output bound sent to Anthropic, which requires one: the most that every Claude 3 and later model takes."""

COMPLETION_TOKENS: Final = 1024
"""Output bound sent to legacy completions, which stop after 16 tokens without one: a quarter of the smallest
window (gpt-3.5-turbo-instruct), which prompt and answer share."""

_OPENAI = re.compile(r"gpt-|chatgpt-|o\d|text-embedding-|(davinci|babbage)-002")
_COMPLETES = re.compile(r"gpt-3\.5-turbo-instruct|(davinci|babbage)-002")
_ANTHROPIC = re.compile(r"claude-")
_BASE_URLS: Final = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
_BASE_URL_VARIABLES: Final = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL"}
_KEY_VARIABLES: Final = {
    "anthropic": "ANTHROPIC_API_KEY",
    "azure.ai.openai": "AZURE_OPENAI_API_KEY",
    "cerebras": "CEREBRAS_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "fireworks_ai": "FIREWORKS_API_KEY",
    "gcp.gemini": "GEMINI_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistral_ai": "MISTRAL_API_KEY",
    "moonshot_ai": "MOONSHOT_API_KEY",
    "openai": "OPENAI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "perplexity": "PERPLEXITY_API_KEY",
    "together_ai": "TOGETHER_API_KEY",
    "x_ai": "XAI_API_KEY",
}


class Route(Protocol):
    """A value of the setting `models`: the wire family of a server, its address and its key's variable, None
    for the usual ones."""

    @property
    def provider(self) -> str: ...
    @property
    def base_url(self) -> str | None: ...
    @property
    def api_key_env(self) -> str | None: ...


@record(frozen=True, slots=True)
class Target:
    """Where a model is called. `provider` is a GenAI name, `base_url` has no slash at its end, `dialect` is
    the API to speak."""

    provider: str
    base_url: str
    api_key_env: str
    dialect: Dialect

    def headers(self, api_key: str) -> dict[str, str]:
        """Headers of a call with this credential."""
        if self.dialect.family == "anthropic":
            return {
                "content-type": "application/json",
                "accept": "application/json",
                "x-api-key": api_key,
                "anthropic-version": ANTHROPIC_VERSION,
            }
        return {
            "content-type": "application/json",
            "accept": "application/json",
            "authorization": f"Bearer {api_key}",
        }

    def compose(self, prompt: str | Sequence[Mapping[str, object]], model: str) -> tuple[str, bytes]:
        """The URL and the JSON body that ask `prompt` of `model` here."""
        path, body = compose(prompt, model, self.dialect)
        return self.base_url + path, body


def resolve_model(
    model: str, routes: Mapping[str, Route] | None = None, environ: Mapping[str, str] | None = None
) -> Target | None:
    """Where to call a model, or None when nobody is known to serve it.

    `routes` (name patterns with `*` and `?`, in their order) go first, because a user who names a model means
    it; then `gpt-*`, `chatgpt-*`, `o1` and its like, `text-embedding-*`, `davinci-002` and `babbage-002` are
    OpenAI's and `claude-*` are Anthropic's. `environ` is read for `OPENAI_BASE_URL` and `ANTHROPIC_BASE_URL`
    only.
    """
    environ = environ or {}
    for pattern, route in (routes or {}).items():
        if fnmatchcase(model, pattern):
            return _target(model, route.provider, route.base_url, route.api_key_env, environ)
    if _OPENAI.match(model):
        return _target(model, "openai", None, None, environ)
    if _ANTHROPIC.match(model):
        return _target(model, "anthropic", None, None, environ)
    return None


def compose(prompt: str | Sequence[Mapping[str, object]], model: str, dialect: Dialect) -> tuple[str, bytes]:
    """The path under the base URL and the JSON body. `prompt` is one user message, or messages as the API has
    them (chat).

    Anthropic's base URL leaves out the `/v1` that OpenAI's has in it, as their SDKs have it.
    """
    if dialect.name == OPENAI_EMBEDDINGS.name:
        return OPENAI_EMBEDDINGS.suffix, _encoded({"model": model, "input": prompt})
    if dialect.name == OPENAI_COMPLETIONS.name:
        return OPENAI_COMPLETIONS.suffix, _encoded(
            {"model": model, "prompt": prompt, "max_tokens": COMPLETION_TOKENS}
        )
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if dialect.family == "anthropic":
        return dialect.suffix, _encoded({"model": model, "max_tokens": MAX_TOKENS, "messages": messages})
    return OPENAI_CHAT.suffix, _encoded({"model": model, "messages": messages})


def _target(
    model: str, family: str, base_url: str | None, api_key_env: str | None, environ: Mapping[str, str]
) -> Target:
    base_url = base_url or environ.get(_BASE_URL_VARIABLES[family]) or _BASE_URLS[family]
    provider = HOSTS.get(urlsplit(base_url).hostname or "", family)
    variable = api_key_env or _KEY_VARIABLES.get(provider) or _KEY_VARIABLES[family]
    return Target(provider, base_url.rstrip("/"), variable, _dialect(model, family))


def _dialect(model: str, family: str) -> Dialect:
    if family == "anthropic":
        return ANTHROPIC_MESSAGES
    if _COMPLETES.match(model):
        return OPENAI_COMPLETIONS
    return OPENAI_EMBEDDINGS if "embed" in model else OPENAI_CHAT


def _encoded(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
