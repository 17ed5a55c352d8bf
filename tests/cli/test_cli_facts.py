"""The phrases under a span: everything that was decided, nothing that is unknown."""

from __future__ import annotations

from typing import Any

import pytest
from cli_builder import Made, call, line

from underlay.cli.facts import error_of, facts, http_status, outcome, shown_attributes, tokens
from underlay.cli.span_model import Span, decode_line
from underlay.telemetry import attributes as a

OLD_HTTP = {"http.status_code": 502, "http.method": "GET"}


def _span(made: Made) -> Span:
    return decode_line(line(made))[0][0]


@pytest.mark.parametrize(
    ("more", "rows"),
    [
        ({"result": "bypass", "CACHE_REASON": "no-store"}, [["cache: bypass (no-store)"]]),
        ({"CACHE_STORED": False, "INPUT_TOKENS": 1, "OUTPUT_TOKENS": 2}, [
            ["cache: miss", "not stored"], ["tokens 1/2 in/out", "cost unknown"], ["attempt: success"],
        ]),
        ({"OUTPUT_TOKENS": 2000, "COST": 0.5}, [
            ["cache: miss"], ["tokens ?/2,000 in/out", "cost $0.5000"], ["attempt: success"],
        ]),
        ({}, [["cache: miss"], ["tokens unknown"], ["attempt: success"]]),
        ({"error": "429"}, [["cache: miss"], ["attempt: failure"], ["error: 429"]]),
        ({
            "result": "bypass", "CACHE_OBSERVED": "hit", "CIRCUIT_STATE": "open",
            "CIRCUIT_OBSERVED": "refused",
        }, [
            ["cache: bypass", "observing: would be a hit"],
            ["circuit: open", "observing: would be refused"],
        ]),
        ({"result": "refused"}, [["circuit", "refused, nothing was sent"]]),
        ({
            "result": "hit", "CACHE_READ_TOKENS": 9, "REASONING_TOKENS": 8, "REQUEST_STREAM": True,
            "TIME_TO_FIRST_CHUNK": 0.2,
        }, [
            ["cache: hit"], ["9 read from the provider's cache", "8 of reasoning"],
            ["stream", "first chunk after 200 ms"],
        ]),
        ({
            "result": "hit", "REQUEST_STREAM": True, "CHUNKS": 3, "ENDING": "truncated", "HTTP_STATUS": 200,
            "RESPONSE_MODEL": "other",
        }, [
            ["cache: hit"], ["HTTP 200", "stream of 3 chunks", "ended truncated", "answered by other"],
        ]),
        ({"result": "coalesced", "CACHE_REASON": "absent", "COALESCE_WAIT": 0.5, "SAVED": 0.02}, [
            [
                "coalesced: read the answer of an identical call", "nothing was sent",
                "first bytes after 500 ms",
            ],
            ["saved $0.0200"],
        ]),
        ({"BATCH_MODE": "merged", "BATCH_SIZE": 2, "BATCH_TRIGGER": "size", "BATCH_WAIT": 0.02}, [
            ["cache: miss"],
            [
                "window: merged with 1 other into one request", "closed by size: it was full",
                "waited 20 ms",
            ],
            ["tokens unknown"], ["attempt: success"],
        ]),
        ({"BATCH_MODE": "released", "BATCH_SIZE": 10, "BATCH_TRIGGER": "deadline"}, [
            ["cache: miss"],
            [
                "window: released with 9 others, each its own request",
                "closed by deadline: a call could not wait longer",
            ],
            ["tokens unknown"], ["attempt: success"],
        ]),
        ({"BATCH_MODE": "alone", "BATCH_SIZE": 1, "BATCH_TRIGGER": "time", "BATCH_WAIT": 0.05}, [
            ["cache: miss"],
            ["window: nobody else came", "closed by time: its time was over", "waited 50 ms"],
            ["tokens unknown"], ["attempt: success"],
        ]),
        ({"BATCH_MODE": "alone", "COALESCE_OBSERVED": "coalesced", "BATCH_OBSERVED": "merged"}, [
            ["cache: miss", "observing: would be coalesced"], ["observing: would be merged"],
            ["tokens unknown"], ["attempt: success"],
        ]),
        ({"PACING_WAIT": 0.25, "CIRCUIT_STATE": "open"}, [
            ["cache: miss"], ["paced: waited 250 ms for its turn among many calls"],
            ["circuit: open"], ["tokens unknown"], ["attempt: success"],
        ]),
        ({"PACING_WAIT": 0.0}, [
            ["cache: miss"], ["paced: waited 0 ms for its turn among many calls"],
            ["tokens unknown"], ["attempt: success"],
        ]),
        ({"PACING_OBSERVED": "held", "COALESCE_OBSERVED": "coalesced", "BATCH_OBSERVED": "merged"}, [
            ["cache: miss", "observing: would be coalesced"], ["observing: would be merged"],
            ["observing: would be held for its event loop's turn"],
            ["tokens unknown"], ["attempt: success"],
        ]),
        ({"BATCH_SIZE": 3, "BATCH_TRIGGER": "tomorrow"}, [
            ["cache: miss"], ["window: nobody else came", "closed by tomorrow"],
            ["tokens unknown"], ["attempt: success"],
        ]),
    ],
)  # fmt: skip
def test_what_is_known_is_said(more: dict[str, Any], rows: list[list[str]]) -> None:
    """Each decision and measure has its phrase, and what is unknown is called unknown or left out."""
    assert facts(_span(call("w", **more))) == rows


@pytest.mark.parametrize(
    ("more", "row"),
    [
        ({"BATCH_MODE": "merged", "BATCH_SIZE": 6, "BATCH_INPUTS": 8, "BATCH_FILL": 0.03125}, [
            "6 calls merged into one request of 8 inputs", "3% full",
            "closed by idle: nothing else was in flight", "the first waited 50 ms",
        ]),
        ({"BATCH_MODE": "merged", "BATCH_SIZE": 200, "BATCH_INPUTS": 200, "BATCH_PART": 2, "BATCH_APART": True}, [
            "200 calls merged into one request of 200 inputs", "part 2 of its links",
            "closed by idle: nothing else was in flight", "the first waited 50 ms",
            "the calls were sent one by one after all",
        ]),
        ({"BATCH_MODE": "released", "BATCH_SIZE": 10, "BATCH_FILL": 1.0}, [
            "10 calls released", "100% full", "closed by idle: nothing else was in flight",
            "the first waited 50 ms",
        ]),
        ({"BATCH_MODE": "alone", "BATCH_SIZE": 1}, [
            "1 call, nobody else came", "closed by idle: nothing else was in flight",
            "waited 50 ms",
        ]),
    ],
)  # fmt: skip
def test_a_dispatch_says_what_left_and_why(more: dict[str, Any], row: list[str]) -> None:
    """The span of a window that left says how many calls it had, what became of them, and what closed it."""
    attributes = {getattr(a, name).key: value for name, value in more.items()}
    attributes |= {a.BATCH_TRIGGER.key: "idle", a.BATCH_WAIT.key: 0.05}
    made = Made("batch dispatch m", "t", "s", 0, 1, attributes=attributes)
    assert facts(_span(made)) == [row]


def test_one_word_for_a_call() -> None:
    """A failed call is called failed, a refused one refused, any other by how it was answered."""
    assert outcome(_span(call("w", error="x"))) == "failed"
    assert outcome(_span(call("w", result="refused", error="x"))) == "refused"
    assert outcome(_span(call("w", result="hit"))) == "hit"


def test_failures_have_a_kind() -> None:
    """The error's type, else the HTTP status by either generation of the conventions, else just that."""
    assert error_of(_span(call("w", error="boom", HTTP_STATUS=500))) == "boom"
    old = _span(
        Made("GET", "t", "s", 0, 1, attributes={"http.status_code": 502, "http.method": "GET"}, error=True)
    )
    assert (error_of(old), http_status(old)) == ("502", 502)
    assert facts(old) == [["GET HTTP 502"], ["error: 502"]]
    assert error_of(_span(Made("x", "t", "s", 0, 1, error=True))) == "error"
    assert tokens(old) == ""


def test_only_the_vocabulary_is_shown() -> None:
    """Attributes that are not ours or plainly harmless are left out."""
    assert shown_attributes({"gen_ai.input.messages": "x", "url.full": "x", "gen_ai.request.model": "m"}) == {
        "gen_ai.request.model": "m"
    }
