"""How much one merged request may hold, by provider: (inputs, tokens). The entry "" stands for all others.

A number that a provider does not document is that of "". Too large a number costs every member a request of
its own (the merged one is a 4xx), so "" is what small servers take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COMPLETIONS", "EMBEDDINGS"]

# Text Embeddings Inference as it starts: 32 inputs a request (--max-client-batch-size), 16,384 tokens a batch
# (--max-batch-tokens).
_INPUTS: Final = 32
_TOKENS: Final = 16_384

EMBEDDINGS: Final[Mapping[str, tuple[int, int]]] = {
    "": (_INPUTS, _TOKENS),
    # API reference, "Create embeddings": arrays of 2,048 or less, 300,000 tokens over all inputs.
    "openai": (2048, 300_000),
    # "Azure OpenAI quotas and limits": 2,048 inputs in an array. The models are OpenAI's, and so the tokens.
    "azure.ai.openai": (2048, 300_000),
    # Refusals of the API: "Too many tokens in batch. Max is 16384", "Too many inputs" (3210) past 512.
    "mistral_ai": (512, 16_384),
    # Refusal of the API: "at most 100 requests can be in one batch".
    "gcp.gemini": (100, _TOKENS),
    # API reference, "Text embedding models": 1,000 inputs; 120,000 tokens for the models that take least.
    "voyageai": (1000, 120_000),
    # API references, "Create embeddings": arrays of 2,048 or less.
    "fireworks_ai": (2048, _TOKENS),
    "novita": (2048, _TOKENS),
}

COMPLETIONS: Final[Mapping[str, tuple[int, int]]] = {
    # Nobody documents how many prompts one request takes, or a number of tokens over all of them. LangChain's
    # OpenAI client sends 20; the tokens are 20 times the window of gpt-3.5-turbo-instruct.
    "": (20, 20 * 4096),
}
