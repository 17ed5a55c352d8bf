"""Counts of one reply divided among several, and put together again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underlay.core.usage import shares, usage_parts, usage_sums

WEIGHTS = st.lists(st.integers(0, 1000), min_size=1, max_size=9)
COUNT = st.integers(0, 10**6)


@settings(deadline=None)
@given(total=COUNT, weights=WEIGHTS)
def test_parts_are_whole_and_add_up(total: int, weights: list[int]) -> None:
    """No part is a whole unit away from its exact share, and nothing is lost or made."""
    parts = shares(total, weights)
    assert sum(parts) == total
    even = weights if any(weights) else [1] * len(weights)
    assert all(abs(part - total * each / sum(even)) < 1 for part, each in zip(parts, even, strict=True))


@settings(deadline=None)
@given(total=COUNT, weights=st.lists(st.integers(1, 1000), min_size=2, max_size=9))
def test_more_weight_is_never_less(total: int, weights: list[int]) -> None:
    """Of two members the heavier has at least as much."""
    found = sorted(zip(weights, shares(total, weights), strict=True))
    assert [part for _, part in found] == sorted(part for _, part in found)


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (10, [1, 1, 1], [4, 3, 3]),
        (100, [21, 33, 46], [21, 33, 46]),
        (7, [9, 0], [7, 0]),
        (3, [0, 0], [2, 1]),
        (0, [5, 5], [0, 0]),
        (21, [1500, 1500, 900, 500, 500, 200], [6, 6, 4, 2, 2, 1]),
    ],
)
def test_the_largest_remainders_get_the_rest(total: int, weights: list[int], expected: list[int]) -> None:
    """What is left after rounding down goes by ones to the largest remainders, the first of equals before."""
    assert shares(total, weights) == expected


USAGE: dict[str, Any] = {
    "prompt_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 7, "audio_tokens": 0},
    "completion_tokens": 12,
    "completion_tokens_details": {"reasoning_tokens": 5, "by_step": [4, 8]},
    "total_tokens": 21,
    "cost": 0.5,
    "cost_details": {"upstream": 0.25},
    "total_time": 1.5,
    "queue": 8.0,
    "tokens_seen": 8.0,
    "tier": "default",
    "final": True,
    "none": None,
    "refund": -4,
}


def test_every_number_finds_its_weights() -> None:
    """What entered goes by the prompts, what was produced by the answers, totals by both; money is divided,
    a duration is everybody's, and nothing else is touched."""
    parts = usage_parts(USAGE, [2, 1], [1, 2])
    assert parts == [
        (6, 3),
        (5, 2),
        (0, 0),
        (4, 8),
        (2, 3),
        (1, 3),
        (3, 5),
        (10, 11),
        pytest.approx((0.5 * 10 / 21, 0.5 * 11 / 21)),
        pytest.approx((0.25 * 10 / 21, 0.25 * 11 / 21)),
        None,
        None,
        (4.0, 4.0),
        None,
    ]


@settings(deadline=None)
@given(prompt=COUNT, completion=COUNT, cached=COUNT, weights=st.data())
def test_parts_of_a_usage_agree_with_each_other(
    prompt: int, completion: int, cached: int, weights: Any
) -> None:
    """Each member's total is the sum of its two, and its details are within what they are details of."""
    usage = {
        "total_tokens": prompt + completion,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": min(cached, prompt)},
    }
    entered = weights.draw(WEIGHTS)
    produced = weights.draw(st.lists(st.integers(0, 99), min_size=len(entered), max_size=len(entered)))
    total, inputs, outputs, within = (part or () for part in usage_parts(usage, entered, produced))
    assert len(within) == len(entered)
    assert total == tuple(a + b for a, b in zip(inputs, outputs, strict=True))
    assert all(part <= whole for part, whole in zip(within, inputs, strict=True))
    assert (sum(inputs), sum(outputs), sum(within)) == (prompt, completion, min(cached, prompt))


@pytest.mark.parametrize("usage", [None, [], 5, "x", True, {}])
def test_no_usage_has_no_parts(usage: object) -> None:
    """What is no object of counts divides into nothing, and adds up to nothing."""
    assert usage_parts(usage, [1, 2], [1, 2]) == []
    assert usage_sums([usage, USAGE]) == []


def test_a_total_alone_goes_by_the_prompts() -> None:
    """Embeddings that report only a total are divided by their inputs."""
    assert usage_parts({"total_tokens": 10}, [3, 2], [3, 2]) == [(6, 4)]


def test_sums_follow_the_first() -> None:
    """Counts and money add up name by name; a name that others lack counts as theirs being nothing."""
    other = {"prompt_tokens": 1, "cost": 0.25, "total_time": 9.0, "prompt_tokens_details": {"new": 3}}
    sums = usage_sums([USAGE, other, None, json.loads('{"prompt_tokens": "x"}')])
    assert sums == [10, 7, 0, 12, 5, 4, 8, 21, 0.75, 0.25, None, None, 8.0, None]
