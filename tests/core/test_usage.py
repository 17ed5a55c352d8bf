"""Token counts: one shape for every API, with unknown apart from zero."""

from __future__ import annotations

import pytest

from underlay.core.usage import (
    Billing,
    anthropic_billing,
    anthropic_usage,
    chat_billing,
    chat_usage,
    embeddings_usage,
    merge_anthropic,
    responses_billing,
    responses_usage,
)
from underlay.telemetry.events import Usage


def test_chat_reads_cached_and_reasoning_details() -> None:
    """A chat completion's cached and reasoning tokens are parts of input and output."""
    raw = {
        "prompt_tokens": 1117,
        "completion_tokens": 46,
        "total_tokens": 1163,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0, "cache_write_tokens": 12},
        "completion_tokens_details": {"reasoning_tokens": 7, "audio_tokens": 0},
    }
    assert chat_usage(raw) == Usage(1117, 46, 1024, 12, 7)


def test_chat_without_details_leaves_them_unknown() -> None:
    """Details that were not reported are unknown, not zero; a reported zero is zero."""
    assert chat_usage({"prompt_tokens": 5, "completion_tokens": 0}) == Usage(5, 0)


@pytest.mark.parametrize("huge", [2**53, 10**400, 1e300])
def test_a_count_that_no_double_tells_apart_is_unknown(huge: float) -> None:
    """A nonsense count neither raises nor reaches telemetry, where a sum beyond 64 bits would lose the batch."""
    assert chat_usage({"prompt_tokens": huge, "completion_tokens": 2}) == Usage(None, 2)
    assert chat_usage({"prompt_tokens": 2**53 - 1}) == Usage(2**53 - 1)


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 8}, 8),
        ({"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 4}, 4),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 4}, 0),
    ],
)
def test_chat_reads_cached_tokens_where_other_servers_put_them(raw: dict[str, object], read: int) -> None:
    """DeepSeek and Moonshot name cached tokens at the top; OpenAI's own place goes first."""
    usage = chat_usage(raw)
    assert usage is not None
    assert usage.cache_read_tokens == read


def test_reasoning_reported_beside_the_completion_is_added() -> None:
    """xAI leaves reasoning out of the completion, as its total shows; output has it all the same."""
    raw = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 35,
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    usage = chat_usage(raw)
    assert usage is not None
    assert (usage.output_tokens, usage.reasoning_tokens) == (25, 20)


def test_responses() -> None:
    """The Responses API's names give the same shape."""
    raw = {
        "input_tokens": 36,
        "input_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 0},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 64},
        "total_tokens": 123,
    }
    assert responses_usage(raw) == Usage(36, 87, 30, 0, 64)


def test_embeddings_have_no_output() -> None:
    """Embeddings report what went in; output stays unknown unless a server says it is 0."""
    assert embeddings_usage({"prompt_tokens": 8, "total_tokens": 8}) == Usage(8)
    assert embeddings_usage({"prompt_tokens": 8, "completion_tokens": 0}) == Usage(8, 0)


def test_anthropic_adds_cached_tokens_to_the_input() -> None:
    """Anthropic's input leaves out cached tokens; ours never does, so that no cost can become negative."""
    raw = {
        "input_tokens": 50,
        "cache_read_input_tokens": 1000,
        "cache_creation_input_tokens": 200,
        "output_tokens": 10,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    assert anthropic_usage(raw) == Usage(1250, 10, 1000, 200, 4)


def test_anthropic_cached_tokens_alone_do_not_make_an_input() -> None:
    """Without `input_tokens` the input is unknown, however much was cached."""
    usage = anthropic_usage({"cache_read_input_tokens": 1000, "output_tokens": 1})
    assert usage is not None
    assert usage.input_tokens is None


def test_anthropic_stream_merges_start_and_cumulative_delta() -> None:
    """The last delta's counts replace those of the start; what it does not say, or says as null, stays."""
    start = {"input_tokens": 25, "cache_read_input_tokens": 7, "output_tokens": 1, "service_tier": "standard"}
    merged = merge_anthropic(start, {"output_tokens": 15, "input_tokens": None})
    assert anthropic_usage(merged) == Usage(32, 15, 7)
    assert merge_anthropic(None, None) is None
    assert merge_anthropic(start, "odd") == start
    assert merge_anthropic(None, {"output_tokens": 2}) == {"output_tokens": 2}


@pytest.mark.parametrize("wrong", [None, True, False, -1, "12", 1.5, [], {}, float("nan")])
@pytest.mark.parametrize(
    ("read", "key"),
    [
        (chat_usage, "prompt_tokens"),
        (responses_usage, "input_tokens"),
        (embeddings_usage, "prompt_tokens"),
        (anthropic_usage, "input_tokens"),
    ],
)
def test_a_count_of_another_kind_is_unknown(read: object, key: str, wrong: object) -> None:
    """Booleans, negatives, strings and fractions are not counts."""
    assert callable(read)
    assert read({key: wrong}) is None


@pytest.mark.parametrize("read", [chat_usage, responses_usage, embeddings_usage, anthropic_usage])
@pytest.mark.parametrize("raw", [None, [], "usage", 3, {}, {"prompt_tokens_details": 5}])
def test_no_usage_is_none(read: object, raw: object) -> None:
    """Where nothing is known there is no usage at all, and no exception."""
    assert callable(read)
    assert read(raw) is None


def test_a_whole_float_is_a_count() -> None:
    """Some servers write 12.0."""
    assert chat_usage({"prompt_tokens": 12.0}) == Usage(12)


def test_billing_of_a_chat() -> None:
    """The service tier and the audio parts are kept for the price."""
    answer = {
        "service_tier": "flex",
        "usage": {
            "prompt_tokens_details": {"audio_tokens": 3},
            "completion_tokens_details": {"audio_tokens": 0},
        },
    }
    assert chat_billing(answer) == Billing(
        input_audio_tokens=3, output_audio_tokens=0, context={"service_tier": "flex"}
    )
    assert chat_billing({"usage": None}) is None
    untold = {"usage": {"prompt_tokens_details": {"audio_tokens": 0}}}
    assert chat_billing(untold) == Billing(input_audio_tokens=0)


def test_billing_of_a_response_counts_searches_only() -> None:
    """A web search call is charged; opening a page it found is not."""
    answer = {
        "service_tier": "priority",
        "output": [
            {"type": "web_search_call", "action": {"type": "search", "query": "q"}},
            {"type": "web_search_call", "action": {"type": "open_page"}},
            {"type": "message"},
            "odd",
        ],
    }
    assert responses_billing(answer) == Billing(web_searches=1, context={"service_tier": "priority"})
    assert responses_billing({}) is None


def test_billing_of_a_message_keeps_the_hour_long_writes() -> None:
    """The split of cache writes by time to live is kept, because their prices differ."""
    raw = {
        "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 90},
        "server_tool_use": {"web_search_requests": 2},
        "service_tier": "standard",
        "speed": "fast",
    }
    assert anthropic_billing(raw) == Billing(
        cache_write_1h_tokens=90, web_searches=2, context={"service_tier": "standard", "speed": "fast"}
    )
    assert anthropic_billing(None) is None
    assert anthropic_billing({"input_tokens": 1}) is None
