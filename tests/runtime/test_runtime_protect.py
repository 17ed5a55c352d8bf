"""`Runtime.protect`: a callable of any client behind the same pipeline, synchronous and asynchronous."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
from transport_lab import CHAT_ASK, CHAT_URL, Lab, json_reply

from underlay import CircuitOpenError, Runtime
from underlay.pipeline import perform, stages
from underlay.telemetry.attributes import Stage
from underlay.telemetry.events import AttemptEnded, CallEnded
from underlay.testing import FakeClock

WAYS = ["sync", "asyncio", "trio"]


class OwnError(Exception):
    """An exception of the app's client."""


class Reopens:
    """Pickles, and refuses to come back."""

    def __reduce__(self) -> Any:
        return (_refuse, ())


def _refuse() -> Any:
    raise TypeError("made by a newer release")


class Bench:
    """A runtime and a way to run a protected callable."""

    def __init__(self, way: str, **settings: Any) -> None:
        self.way = way
        self.lab = Lab(f"{way}-httpx").setup([], **settings)
        self.asked: list[Any] = []

    def protect(self, work: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """Protect `work` in this bench's kind; every call of it is remembered."""
        options = {"model": "gpt-4o", "provider": "own", **options}

        def called(*args: Any, **kwargs: Any) -> Any:
            self.asked.append(args)
            return work(*args, **kwargs)

        async def acalled(*args: Any, **kwargs: Any) -> Any:
            self.asked.append(args)
            return work(*args, **kwargs)

        if self.way == "sync":
            return self.lab.runtime.protect(**options)(called)
        guarded = self.lab.runtime.protect(**options)(acalled)
        assert inspect.iscoroutinefunction(guarded)

        def run(*args: Any, **kwargs: Any) -> Any:
            async def main() -> Any:
                return await guarded(*args, **kwargs)

            return asyncio.run(main()) if self.way == "asyncio" else trio.run(main)

        return run


@pytest.fixture(params=WAYS)
def bench(request: pytest.FixtureRequest) -> Bench:
    """One way to call."""
    return Bench(
        request.param,
        circuit_breaker={"failure_threshold": 2, "recovery_timeout": 30, "success_threshold": 1},
    )


def test_with_a_key_the_callable_runs_once(bench: Bench) -> None:
    """The same key is answered from the cache with an equal, fresh object; another key is another call."""
    ask = bench.protect(lambda prompt: {"text": [prompt]}, key=lambda prompt: prompt)
    first, second = ask("a"), ask("a")
    assert first == second == {"text": ["a"]}
    second["text"].append("changed")
    assert ask("a") == {"text": ["a"]}
    assert ask("b") == {"text": ["b"]}
    assert bench.asked == [("a",), ("b",)]
    assert bench.lab.last().result == "miss"


def test_without_a_key_nothing_is_kept(bench: Bench) -> None:
    """No `key`, or None from it: every call runs, and its books are kept."""
    plain = bench.protect(lambda prompt: prompt)
    some = bench.protect(lambda prompt: prompt, key=lambda prompt: None)
    for ask in (plain, plain, some, some):
        assert ask("a") == "a"
    assert len(bench.asked) == 4
    assert [call.of(CallEnded)[0].result for call in bench.lab.recorder.calls] == ["bypass"] * 4
    assert bench.lab.attempt.verdict == "success"


def test_the_same_key_of_another_function_is_another_call(bench: Bench) -> None:
    """Function, model and provider are in the key."""

    def one(_: str) -> str:
        return "one"

    for options in ({}, {"model": "other"}, {"provider": "other"}):
        bench.protect(one, key=lambda prompt: prompt, **options)("a")
    assert len(bench.asked) == 3


@pytest.mark.parametrize("error", [OwnError("x"), OSError("y")])
def test_what_it_raises_is_raised_on_and_counts(bench: Bench, error: Exception) -> None:
    """The very exception reaches the caller and counts as the provider's failure; a streak opens the circuit,
    and then the callable is not run."""

    def work() -> Any:
        raise error

    ask = bench.protect(work)
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            ask()
        assert caught.value is error
        assert bench.lab.attempt.verdict == "failure"
    with pytest.raises(CircuitOpenError) as refused:
        ask()
    assert (refused.value.provider, refused.value.model, refused.value.retry_after) == ("own", "gpt-4o", 30)
    assert len(bench.asked) == 2


def test_stop_iteration_of_a_function_stays_what_it_is() -> None:
    """A synchronous callable that raises StopIteration: the caller gets that object, not a RuntimeError."""
    error = StopIteration("own")

    def work() -> Any:
        raise error

    with pytest.raises(StopIteration) as caught:
        Bench("sync").protect(work)()
    assert caught.value is error


def test_a_circuit_recovers_through_it(bench: Bench) -> None:
    """After the recovery time a good call closes the circuit."""
    good: list[bool] = []

    def work() -> str:
        if not good:
            raise OwnError
        return "fine"

    ask = bench.protect(work)
    for _ in range(2):
        with pytest.raises(OwnError):
            ask()
    good.append(True)
    bench.lab.clock.advance(30)
    assert ask() == "fine"
    assert bench.lab.runtime.circuit("gpt-4o", "own").state == "closed"


def test_a_result_that_cannot_be_pickled_is_returned_and_not_kept(bench: Bench) -> None:
    """A lock, say, reaches its caller as the very object, each time anew."""
    ask = bench.protect(lambda: threading.Lock(), key=lambda: "k")
    assert ask() is not ask()
    assert len(bench.asked) == 2
    assert not bench.lab.attempt.stored
    assert bench.lab.faults == {}


def test_a_result_that_does_not_come_back_is_asked_for_again(bench: Bench) -> None:
    """A kept result that cannot be unpickled costs the caller nothing: the callable runs again."""
    ask = bench.protect(Reopens, key=lambda: "k")
    for _ in range(3):
        assert isinstance(ask(), Reopens)
    assert len(bench.asked) == 3


@pytest.mark.parametrize("result", [None, 0, "", b"", False, []])
def test_an_empty_result_is_a_result(bench: Bench, result: Any) -> None:
    """None and its like are kept and come back as they are."""
    ask = bench.protect(lambda: result, key=lambda: "k")
    assert [ask(), ask()] == [result, result]
    assert len(bench.asked) == 1


def test_it_keeps_name_and_signature(bench: Bench) -> None:
    """The decorated function looks like the one it wraps."""

    def asking(prompt: str, *, temperature: float = 0) -> str:
        """Ask."""
        return prompt

    guarded = bench.lab.runtime.protect(model="m")(asking)
    assert (guarded.__name__, guarded.__doc__) == ("asking", "Ask.")
    assert inspect.signature(guarded) == inspect.signature(asking)
    assert guarded("a", temperature=1) == "a"


def test_a_model_that_is_known_names_its_provider() -> None:
    """Without a provider the model's own is taken, and `custom` where none is known."""
    lab = Lab("sync-httpx").setup([])
    for model, provider in (
        ("gpt-4o", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("house-model", "custom"),
    ):
        lab.runtime.protect(model=model)(lambda: 1)()
        assert lab.recorder.calls[-1].started.provider == provider


@pytest.mark.parametrize("stage", [stage for stage, _ in stages.STAGES])
def test_a_fault_of_ours_runs_it_once_all_the_same(
    bench: Bench, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stage raises, the callable runs exactly once and its result is returned."""

    async def step(flow: Any) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setattr(
        perform, "STAGES", tuple((name, step if name is stage else run) for name, run in stages.STAGES)
    )
    assert bench.protect(lambda: "fine", key=lambda: "k")() == "fine"
    assert (len(bench.asked), bench.lab.faults) == (1, {stage: 1})


def test_a_call_inside_is_part_of_it() -> None:
    """A protected function that asks through a client under the same runtime is one attempt: a probe of it does
    not refuse itself, and the circuit recovers."""
    bench = Bench("sync")
    lab = bench.lab
    lab.setup(
        [*[json_reply({}, 500)] * 2, json_reply()],
        circuit_breaker={"failure_threshold": 2, "recovery_timeout": 30, "success_threshold": 1},
    )
    client = lab.client()

    def work() -> int:
        response = client.post(CHAT_URL, json=CHAT_ASK)
        response.raise_for_status()
        return int(response.status_code)

    ask = bench.protect(work, provider="openai")
    for _ in range(2):
        with pytest.raises(lab.module.HTTPStatusError):
            ask()
    assert lab.runtime.circuit("gpt-4o").state == "open"
    lab.clock.advance(30)
    assert ask() == 200
    assert lab.runtime.circuit("gpt-4o").state == "closed"
    assert sum(len(call.of(AttemptEnded)) for call in lab.recorder.calls) == 3
    client.close()


def test_a_key_that_is_no_text_is_named() -> None:
    """A key function that returns bytes or an object is an error that says what is allowed, not one of JSON's."""
    runtime = Runtime(clock=FakeClock())

    @runtime.protect(model="local", provider="local", key=lambda prompt: prompt.encode())  # type: ignore[arg-type,return-value]
    def local(prompt: str) -> str:
        return prompt

    with pytest.raises(
        TypeError, match=r"protect: key\(\.\.\.\) of .*local = bytes: allowed is a str, or None"
    ):
        local("hi")
