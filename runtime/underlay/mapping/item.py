"""What comes of one prompt of a map, and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from underlay.library import Answer

__all__ = ["Item", "Prompt", "aask", "ask"]

Prompt: TypeAlias = str | Sequence[Mapping[str, object]]
"""One user message, or messages as the provider's API has them."""


@dataclass(frozen=True, slots=True)
class Item:
    """What came of one prompt: `answer`, or the `error` that `Runtime.call` would have raised. `index` is the
    prompt's place among the prompts, from 0."""

    index: int
    prompt: Prompt = field(repr=False)
    answer: Answer | None
    error: Exception | None

    @property
    def text(self) -> str:
        """The answer's text. Raises `error` where there is no answer."""
        if self.error is None:
            assert self.answer is not None  # noqa: S101 an item has the one or the other
            return self.answer.text
        try:
            raise self.error
        finally:
            del self  # the traceback would hold the item, which holds the error


def ask(call: Callable[..., Answer], model: str, index: int, prompt: Prompt) -> Item:
    """Ask through `Runtime.call`. Whatever `Exception` that raises is the item's."""
    try:
        return Item(index, prompt, call(_prompt(prompt, index), model=model), None)
    except Exception as error:  # noqa: BLE001 one item's failure is that item's
        return Item(index, prompt, None, error)


async def aask(acall: Callable[..., Awaitable[Answer]], model: str, index: int, prompt: Prompt) -> Item:
    """The same through `Runtime.acall`."""
    try:
        return Item(index, prompt, await acall(_prompt(prompt, index), model=model), None)
    except Exception as error:  # noqa: BLE001 as above
        return Item(index, prompt, None, error)


def _prompt(prompt: Prompt, index: int) -> Prompt:
    # A message that is not in a list would be sent as the list of its keys. The prompt itself is not shown.
    if isinstance(prompt, bytes | bytearray) or not isinstance(prompt, str | Sequence):
        raise ValueError(
            f"prompt {index} is a {type(prompt).__name__}: allowed is text or a list of messages"
        )
    return prompt
