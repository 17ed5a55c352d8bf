"""OpenAI embeddings: POST …/embeddings.

The vector of an input depends on that input, the model and the number of dimensions, and on nothing else: not
on the seed, the encoding, or what stands beside it in the batch. Rule: SHAKE-256 of (model, dimensions, input
as JSON) gives one signed 32-bit number a dimension, and the vector is scaled to length 1 and rounded to
32-bit floats.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from typing import TYPE_CHECKING, Any, Final

from underlay.simulator import fields
from underlay.simulator.inputs import count_input, read_inputs
from underlay.simulator.openai_chat import failure
from underlay.simulator.replies import BadCall, Context, Exchange, Usage
from underlay.simulator.text import compact

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MODEL_DIMENSIONS", "exchange", "vector"]

MODEL_DIMENSIONS: Final = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
"""Dimensions of the published models, from the embeddings guide of OpenAI's documentation."""
_MOST_DIMENSIONS: Final = 8192


def exchange(body: Mapping[str, Any], context: Context) -> Exchange:
    """Embed one text or array of token ids, or many. Raises `BadCall` on a body that would be refused."""
    model = fields.text(body, "model")
    inputs = read_inputs(body, "input", context.options)
    own = MODEL_DIMENSIONS.get(model, context.options.dimensions)
    size = fields.whole(body, "dimensions", most=_MOST_DIMENSIONS) or own
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise BadCall(
            "'encoding_format' must be float or base64.", param="encoding_format", code="invalid_value"
        )
    usage = Usage(input=sum(map(count_input, inputs)))

    def payload() -> bytes:
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _encoded(vector(each, model, size), encoding),
            }
            for index, each in enumerate(inputs)
        ]
        counted = {"prompt_tokens": usage.input, "total_tokens": usage.input}
        return compact({"object": "list", "data": data, "model": model, "usage": counted}).encode()

    return Exchange(
        model=model,
        stream=False,
        usage=usage,
        payload=payload,
        frames=lambda: iter(()),
        failure=failure,
        inputs=len(inputs),
    )


def vector(value: str | list[int], model: str, dimensions: int) -> tuple[float, ...]:
    """The embedding of one input: `dimensions` 32-bit floats of length 1 (within their rounding)."""
    source = compact([model, dimensions, value]).encode("utf-8", "surrogatepass")
    raw = struct.unpack(f"<{dimensions}i", hashlib.shake_256(source).digest(4 * dimensions))
    length = math.sqrt(sum(number * number for number in raw)) or 1.0
    shape = f"<{dimensions}f"
    return struct.unpack(shape, struct.pack(shape, *(number / length for number in raw)))


def _encoded(numbers: tuple[float, ...], encoding: str) -> str | tuple[float, ...]:
    if encoding == "float":
        return numbers
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
