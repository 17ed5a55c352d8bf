"""What the tests of merging draw from: bodies and replies in every spelling a server or client may use."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from underlay.simulator import SimulatorOptions, openai_completions, openai_embeddings, text
from underlay.simulator.replies import Context

__all__ = [
    "BODIES",
    "SPELLINGS",
    "TEXTS",
    "VECTORS",
    "body",
    "completed",
    "embedded",
    "inputs_in",
    "respelled",
    "written",
]

SPELLINGS: dict[str, dict[str, Any]] = {
    "compact": {"separators": (",", ":"), "ensure_ascii": False},
    "escaped": {"separators": (",", ":"), "ensure_ascii": True},
    "spaced": {},
    "indented": {"indent": 2, "ensure_ascii": False},
}
"""How JSON is written: as the SDKs do, as some servers do, as Python does, as OpenAI does."""

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
    st.sampled_from(['"', "\\", "]", '],"input":["x', "é😀", "a,b", "\n\t", "日本語", "x" * 90]),
)
TOKENS = st.lists(st.integers(0, 200_000), min_size=1, max_size=6)
NUMBERS = st.sampled_from(["0.1", "-0.00", "1e-05", "1.0E+2", "0.30000000000000004", "-7", "0"])
VECTORS = st.one_of(
    st.lists(NUMBERS, min_size=1, max_size=4).map(lambda numbers: "[" + ", ".join(numbers) + "]"),
    st.sampled_from(['"AACAPwAAAEA="', '"//8A+/=="', '"\\/w=="', "[]", "[[0.1,2],[3]]", "null"]),
)
"""Vectors as they are spelled, some of them as nobody would write them anew."""

REST = st.fixed_dictionaries(
    {"model": st.sampled_from(["m", "text-embedding-3-small"])},
    optional={
        "dimensions": st.integers(1, 9),
        "user": TEXTS,
        "extra": st.sampled_from([[1], {"input": 2}, 0.50]),
    },
)


def _bodies(inputs: Any) -> Any:
    values = st.lists(st.one_of(inputs, st.lists(inputs, min_size=1, max_size=4)), min_size=2, max_size=6)
    return st.tuples(values, REST, st.sampled_from(sorted(SPELLINGS)))


BODIES = st.one_of(_bodies(TEXTS), _bodies(TOKENS))
"""Values of the inputs of several requests of one kind, their other fields, and a spelling."""


def body(field: str, value: object, rest: dict[str, Any], spelling: str, *, last: bool = False) -> bytes:
    """A request's body, with its inputs before or after the other fields."""
    fields = {**rest, field: value} if last else {field: value, **rest}
    return json.dumps(fields, **SPELLINGS[spelling]).encode()


def inputs_in(value: Any) -> list[Any]:
    """The inputs in a value: one, or a list of them."""
    return value if isinstance(value, list) and isinstance(value[0], str | list) else [value]


def written(value: object, spelling: str, raw: list[str]) -> bytes:
    """A reply with "@0@", "@1@", … replaced by the text that the server writes there."""
    text = json.dumps(value, **SPELLINGS[spelling])
    for place, own in enumerate(raw):
        text = text.replace(f'"@{place}@"', own)
    return text.encode()


def embedded(asked: bytes) -> bytes:
    """The simulator's reply to a body for embeddings, of three dimensions."""
    parsed = json.loads(asked)
    return openai_embeddings.exchange(parsed, _context("embeddings", parsed, 0.0)).payload()


def completed(asked: bytes, share: float = 0.0) -> bytes:
    """The simulator's reply to a body for completions, with this share of the prompt from a cache."""
    parsed = json.loads(asked)
    return openai_completions.exchange(parsed, _context("completions", parsed, share)).payload()


def _context(path: str, parsed: dict[str, Any], share: float) -> Context:
    made = SimulatorOptions(dimensions=3, output_tokens=(1, 9))
    return Context(made, text.request_key(0, path, parsed), 7, 0, share)


def respelled(reply: bytes, usage: object, spelling: str, **fields: object) -> bytes:
    """The reply with another usage and other top-level fields."""
    return json.dumps({**json.loads(reply), "usage": usage, **fields}, **SPELLINGS[spelling]).encode()
