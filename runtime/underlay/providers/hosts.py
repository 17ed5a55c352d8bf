"""Hosts whose every path of a dialect is that dialect, with the provider's name by the GenAI conventions (or
the nearest, where they have none)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HOSTS", "SUFFIXES"]

HOSTS: Final[Mapping[str, str]] = {
    "api.openai.com": "openai",
    "us.api.openai.com": "openai",
    "eu.api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "api.mistral.ai": "mistral_ai",
    "codestral.mistral.ai": "mistral_ai",
    "api.groq.com": "groq",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "x_ai",
    "us-east-1.api.x.ai": "x_ai",
    "eu-west-1.api.x.ai": "x_ai",
    "api.perplexity.ai": "perplexity",
    "api.moonshot.ai": "moonshot_ai",
    "api.moonshot.cn": "moonshot_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "openrouter.ai": "openrouter",
    "api.together.xyz": "together_ai",
    "api.together.ai": "together_ai",
    "api.fireworks.ai": "fireworks_ai",
    "api.cerebras.ai": "cerebras",
    "api.novita.ai": "novita",
    "inference.baseten.co": "baseten",
    "api.minimax.io": "minimax",
    "api.z.ai": "zai",
    "api.voyageai.com": "voyageai",
}
"""Provider names by exact host."""

SUFFIXES: Final[tuple[tuple[str, str], ...]] = (
    (".openai.azure.com", "azure.ai.openai"),
    (".openai.azure.us", "azure.ai.openai"),
    (".openai.azure.cn", "azure.ai.openai"),
    (".cognitiveservices.azure.com", "azure.ai.openai"),
    (".services.ai.azure.com", "azure.ai.inference"),
)
"""Provider names by the end of the host, for providers that give each customer one."""
