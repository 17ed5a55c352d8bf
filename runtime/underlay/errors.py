"""The exception tree of underlay.

    UnderlayError
    ├── SettingsError (ValueError)        a setting is wrong; names every wrong field at once
    ├── MissingExtraError (ImportError)   an optional part is not installed; names the install command
    ├── StoreError                        the store that `llm_cache.store` names cannot be used
    ├── CircuitOpenError                  a call was refused because the provider's circuit is open
    ├── CallError                         `Runtime.call` could not get an answer
    │   ├── UnknownModelError             no provider is known for the model
    │   ├── MissingCredentialError        the provider's API key is not set
    │   └── ProviderError                 the provider answered with an error
    └── WouldSuspendError                 a fault of ours: the synchronous driver met a real suspension

Only library use raises. Under an SDK, a refusal is a *reply* in the provider's own error shape, because the
SDKs retry what a transport raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CallError",
    "CircuitOpenError",
    "MissingCredentialError",
    "MissingExtraError",
    "Problem",
    "ProviderError",
    "SettingsError",
    "StoreError",
    "UnderlayError",
    "UnknownModelError",
    "WouldSuspendError",
]


class UnderlayError(Exception):
    """Root of everything that underlay raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong setting: which field, what was given, what is allowed, where it came from, and the nearest
    right name."""

    field: str
    value: str
    allowed: str
    source: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.field} = {self.value} from {self.source}: allowed is {self.allowed}{hint}"


class SettingsError(UnderlayError, ValueError):
    """One or more settings are wrong. `problems` has them all, so that one run shows every fault."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class MissingExtraError(UnderlayError, ImportError):
    """A part that is optional at install is needed now. The message is the command that installs it."""

    def __init__(self, extra: str, module: str) -> None:
        self.extra = extra
        super().__init__(f"{module} is not installed: pip install 'underlay[{extra}]'", name=module)


class StoreError(UnderlayError):
    """The file that the setting `llm_cache.store` names cannot be used as a store; `path` is the file."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        super().__init__(f"llm_cache.store: {path!r} cannot be used: {reason}")


class CircuitOpenError(UnderlayError):
    """The circuit of a (provider, model) is open, so the call was not sent.

    `retry_after` is in seconds: the time until a probe may be sent.
    """

    def __init__(self, provider: str, model: str, retry_after: float) -> None:
        self.provider = provider
        self.model = model
        self.retry_after = retry_after
        super().__init__(f"circuit open for {provider}/{model}: retry after {retry_after:.1f} s")


class CallError(UnderlayError):
    """`Runtime.call` or `Runtime.acall` could not get an answer."""


class UnknownModelError(CallError):
    """No provider is known for a model name."""

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(
            f"model {model!r}: no provider is known for this name; known are gpt-*, o*, chatgpt-*, "
            "text-embedding-* (openai) and claude-* (anthropic); add others under the setting `models`"
        )


class MissingCredentialError(CallError):
    """The environment variable that holds a provider's API key is not set."""

    def __init__(self, provider: str, variable: str) -> None:
        self.provider = provider
        self.variable = variable
        super().__init__(f"{variable} is not set: it holds the API key for {provider}")


class ProviderError(CallError):
    """The provider answered with an error status, or the answer could not be read.

    `status` is the HTTP status, `kind` the provider's own error type (its closed vocabulary, never its
    message text), `request_id` the provider's id of the request where it gave one.
    """

    def __init__(
        self, provider: str, model: str, status: int, kind: str, request_id: str | None = None
    ) -> None:
        self.provider = provider
        self.model = model
        self.status = status
        self.kind = kind
        self.request_id = request_id
        suffix = f", request {request_id}" if request_id else ""
        super().__init__(f"{provider}/{model} answered {status} {kind}{suffix}")


class WouldSuspendError(UnderlayError):
    """A synchronous call met something that only an event loop can wait for: a fault of underlay, handled by
    sending the call untouched."""
