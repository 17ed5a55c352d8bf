"""OpenAI's legacy completions: what is asked, and what came back."""

from __future__ import annotations

from typing import Any

import pytest
from replies import COMPLETION, COMPLETION_CHUNKS, chunks, dumped

from underlay.providers.dialect import Inputs, Outcome
from underlay.providers.openai_completions import OpenAICompletions
from underlay.telemetry.events import Usage

DIALECT = OpenAICompletions()
ASK: dict[str, Any] = {"model": "gpt-3.5-turbo-instruct", "prompt": "Say this is a test"}


def read(*pieces: bytes, stream: bool = True, status: int = 200) -> Outcome:
    observer = DIALECT.observe(stream=stream, status=status)
    for piece in pieces:
        observer.feed(piece)
    return observer.outcome()


def test_a_plain_request() -> None:
    """The least request completes a text, by the conventions' name for it."""
    ask = DIALECT.ask(ASK)
    assert ask is not None
    assert (ask.operation, ask.model, ask.stream) == ("text_completion", "gpt-3.5-turbo-instruct", False)
    assert (ask.deterministic, ask.uncacheable, ask.parameters) == (False, "", {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "m"},
        {"prompt": "x"},
        {**ASK, "model": ""},
        {**ASK, "prompt": ""},
        {**ASK, "prompt": []},
        {**ASK, "prompt": 3},
        {"model": "m", "messages": [{"role": "user", "content": "x"}]},
    ],
)
def test_another_body_is_not_a_completion(wrong: dict[str, Any]) -> None:
    """Without a model and a prompt of the right types the call is not ours."""
    assert DIALECT.ask(wrong) is None


def test_parameters_are_those_of_the_conventions() -> None:
    """The sampling fields come out; the text of the request never does."""
    body = {**ASK, "temperature": 0, "max_tokens": 7, "n": 2, "seed": 1, "best_of": 3, "suffix": "secret"}
    ask = DIALECT.ask(body)
    assert ask is not None
    assert ask.deterministic
    assert ask.parameters == {
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.seed": 1,
        "gen_ai.request.choice.count": 2,
    }


@pytest.mark.parametrize(
    "extra", [{"model": "openai/gpt-3.5:online"}, {"plugins": [{"id": "web"}]}, {"tools": [{"type": "web"}]}]
)
def test_an_answer_that_may_be_of_the_day_is_not_kept(extra: dict[str, Any]) -> None:
    """What the provider looks up is not cached, as with chat."""
    ask = DIALECT.ask({**ASK, **extra})
    assert ask is not None
    assert ask.uncacheable == "server_tool"


@pytest.mark.parametrize(
    ("extra", "inputs"),
    [
        ({}, Inputs("prompt", "text", 1, 20)),
        ({"n": 3, "best_of": 5}, Inputs("prompt", "text", 1, 20)),
        ({"n": None, "stream": False}, Inputs("prompt", "text", 1, 20)),
        ({"prompt": [[1, 2], [3]]}, Inputs("prompt", "tokens", 2, 3)),
        ({"stream": True}, None),
        ({"n": 0}, None),
        ({"n": "2"}, None),
        ({"n": True}, None),
    ],
)
def test_what_may_be_merged(extra: dict[str, Any], inputs: Inputs | None) -> None:
    """A stream cannot be told apart, and a number of choices that is none is the provider's to refuse."""
    ask = DIALECT.ask({**ASK, **extra})
    assert ask is not None
    assert ask.inputs == inputs


def test_answer() -> None:
    """The reference's answer gives usage, id, model and finish reason, and its text."""
    assert read(dumped(COMPLETION), stream=False) == Outcome(
        complete=True,
        usage=Usage(5, 7),
        model="gpt-3.5-turbo-instruct",
        response_id="cmpl-uqkvlQyYK7bGYrRHQ0eXlWi7",
        finish_reasons=("length",),
    )
    assert DIALECT.text(COMPLETION) == "\n\nThis is indeed a test"
    assert DIALECT.text({**COMPLETION, "choices": []}) is None


def test_stream() -> None:
    """A stream is whole at `[DONE]`, with the usage of its last chunk; cut before it, it is not."""
    whole = read(chunks(COMPLETION_CHUNKS))
    assert whole.complete
    assert (whole.usage, whole.finish_reasons) == (Usage(5, 7), ("length",))
    cut = read(chunks(COMPLETION_CHUNKS, done=False))
    assert not cut.complete
    assert not cut.storable


def test_errors() -> None:
    """A refusal is complete, not stored, and blames nobody; a server's error blames it."""
    refused = read(DIALECT.error_body("invalid_request_error", "no"), stream=False, status=400)
    assert (refused.error, refused.blame, refused.storable) == ("invalid_request_error", False, False)
    failed = read(b'data: {"error":{"type":"server_error"}}\n\n')
    assert (failed.complete, failed.error, failed.blame) == (True, "server_error", True)
