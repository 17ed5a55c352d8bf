"""Merged windows under the official OpenAI SDK, against the provider simulator over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from window_lab import Running, WindowLab

from underlay.simulator import Simulator, SimulatorOptions

EMBEDDER = "text-embedding-3-small"
WRITER = "gpt-3.5-turbo-instruct"
FIXED = {"linger": "fixed", "max_batch_size": 4}


@pytest.fixture(scope="module")
def running() -> Iterator[Simulator]:
    """One simulator for the module."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(running: Simulator) -> Simulator:
    """A simulator that nobody has called."""
    running.reset()
    return running


def sdk(lab: WindowLab, simulator: Simulator, **batch: Any) -> Any:
    """The official SDK over a runtime with such windows; it retries nothing."""
    lab.setup(llm_batch=batch, llm_cache={"mode": "off"}, coalesce={"mode": "off"})
    prefix, made = ("", openai.OpenAI) if lab.kind == "sync" else ("async_", openai.AsyncOpenAI)
    transport = getattr(lab.runtime, f"{prefix}{lab.family}_client")(verify=False)
    lab._clients.append(transport)
    return made(base_url=f"{simulator.url}/v1", api_key="key", http_client=transport, max_retries=0)


def embed(lab: WindowLab, client: Any, inputs: Any, *, settle: bool = True, **options: Any) -> Running:
    """One call of the SDK for embeddings, beside those that run."""

    async def ask() -> Any:
        made = client.embeddings.create(model=EMBEDDER, input=inputs, dimensions=8, **options)
        return (await lab._await(made)).model_dump(
            warnings=False
        )  # base64 that was asked for is no list of floats

    return lab.start(ask, settle=settle)


SHAPES: list[Any] = ["one", ["two", "three"], "four", ["five", "six", "seven"]]
TOKENS: list[Any] = [[1, 2, 3], [[4], [5, 6]], [7], [[8], [9], [10]]]


@pytest.mark.parametrize("inputs", [SHAPES, TOKENS], ids=["texts", "tokens"])
@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_every_caller_of_the_sdk_has_its_own_vectors(
    crowd: WindowLab, simulator: Simulator, inputs: list[Any], encoding: str | None
) -> None:
    """Four calls, one request, and each of the SDK's objects as it is without windows."""
    more = {} if encoding is None else {"encoding_format": encoding}
    calls = [
        embed(crowd, client, each, **more) for client in [sdk(crowd, simulator, **FIXED)] for each in inputs
    ]
    counts = simulator.counts().of("embeddings")
    assert (counts.requests, counts.inputs) == (1, 7)
    assert crowd.faults == {}
    bare = sdk(crowd, simulator, mode="off")
    assert [call.result() for call in calls] == [embed(crowd, bare, each, **more).result() for each in inputs]


@pytest.mark.parametrize("times", [1, 2])
def test_completions_of_the_sdk_are_merged(crowd: WindowLab, simulator: Simulator, times: int) -> None:
    """Legacy completions: each caller has its own texts, also several of each prompt."""
    prompts: list[Any] = ["Once", ["upon", "a time"], "there", "was"]

    def complete(client: Any) -> list[Any]:
        async def ask(prompt: Any) -> Any:
            made = client.completions.create(model=WRITER, prompt=prompt, max_tokens=8, n=times)
            return (await crowd._await(made)).model_dump()

        calls = [crowd.start(lambda prompt=prompt: ask(prompt)) for prompt in prompts]  # type: ignore[misc]
        return [call.result() for call in calls]

    merged = complete(sdk(crowd, simulator, **FIXED))
    counts = simulator.counts().of("completions")
    assert (counts.requests, counts.inputs) == (1, 5)
    alone = complete(sdk(crowd, simulator, mode="off"))
    assert [each["choices"] for each in merged] == [each["choices"] for each in alone]
    assert [each["usage"]["prompt_tokens"] for each in merged] == [
        each["usage"]["prompt_tokens"] for each in alone
    ]
    assert sum(each["usage"]["completion_tokens"] for each in merged) == sum(
        each["usage"]["completion_tokens"] for each in alone
    )
    assert len({each["id"] for each in merged}) == 4


@pytest.mark.parametrize("linger", ["adaptive", "learned"])
def test_a_crowd_of_callers(crowd: WindowLab, simulator: Simulator, linger: str) -> None:
    """Forty calls at once: fewer requests than calls under `adaptive`, and nobody has another's vector."""
    client = sdk(crowd, simulator, linger=linger)
    calls = [embed(crowd, client, f"text {number}", settle=False) for number in range(40)]
    crowd.settle()
    given = [call.result()["data"][0]["embedding"] for call in calls]
    counts = simulator.counts().of("embeddings")
    assert counts.inputs == 40
    assert (
        counts.requests < 40 or linger == "learned"
    )  # which has nothing to learn from where time stands still
    bare = sdk(crowd, simulator, mode="off")
    whole = embed(crowd, bare, [f"text {number}" for number in range(40)]).result()
    assert given == [each["embedding"] for each in whole["data"]]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429", openai.RateLimitError),
        ("503", openai.InternalServerError),
        ("drop", openai.APIConnectionError),
    ],
)
def test_the_sdks_own_errors(
    crowd: WindowLab, simulator: Simulator, fault: str, error: type[Exception]
) -> None:
    """What fails for all is raised in each caller as the SDK raises it, after one request."""
    client = sdk(crowd, simulator, **FIXED)
    simulator.fault(fault, count=1)
    calls = [embed(crowd, client, each) for each in SHAPES]
    assert [type(call.error) for call in calls] == [error] * 4
    assert simulator.counts().of("embeddings").requests == 1


def test_only_the_guilty_caller_is_refused(crowd: WindowLab) -> None:
    """A provider that takes fewer tokens than it is known for refuses the merged request; apart, it refuses the
    one call that is too large by itself."""
    with Simulator(SimulatorOptions(max_request_tokens=20)) as small:
        client = sdk(crowd, small, **FIXED)
        calls = [embed(crowd, client, each) for each in ["one", "x" * 120, ["two", "three"], "four"]]
        assert [type(call.error) for call in calls] == [
            type(None),
            openai.BadRequestError,
            type(None),
            type(None),
        ]
        assert [len(call.value["data"]) for call in calls if call.error is None] == [1, 2, 1]
        assert small.counts().of("embeddings").requests == 5


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_coded_reply_is_each_callers_own(crowd: WindowLab, simulator: Simulator, coding: str) -> None:
    """A reply that is compressed, asked for or not, reaches each caller in plain."""
    client = sdk(crowd, simulator, **FIXED)
    simulator.fault(coding, count=1)
    calls = [embed(crowd, client, each) for each in SHAPES]
    bare = sdk(crowd, simulator, mode="off")
    assert [call.result() for call in calls] == [embed(crowd, bare, each).result() for each in SHAPES]


def test_the_sdks_retry_is_a_call_of_its_own(
    crowd: WindowLab, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a shared 503 every caller's SDK retries, and the retries share a request again."""

    async def no_sleep(_: float) -> None:
        return

    monkeypatch.setattr(openai._base_client.time, "sleep", lambda _: None)
    monkeypatch.setattr(openai._base_client.anyio, "sleep", no_sleep)
    client = sdk(crowd, simulator, **FIXED).with_options(max_retries=1)
    simulator.fault("503", count=1)
    calls = [embed(crowd, client, each) for each in SHAPES]
    assert [len(call.result()["data"]) for call in calls] == [1, 2, 1, 3]
    assert simulator.counts().of("embeddings").requests == 2
