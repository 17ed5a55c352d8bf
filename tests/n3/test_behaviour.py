"""The behaviour that the contract's tests look at: cache, batching, breaker, metrics, all together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from underlay.errors import MissingCredentialError, ProviderError, SettingsError, UnknownModelError
from underlay.n3 import (
    _CircuitBreaker,
    _CircuitBreakerError,
    _get_batch_stats,
    _get_cache_stats,
    _get_circuit_breaker,
    _get_circuit_breaker_stats,
    _get_llm_stats,
    _llm_call,
    _LLMCache,
    _LLMMetrics,
    _reset_circuit_breaker,
)
from underlay.telemetry.events import AttemptStarted, CallEnded, CallStarted
from underlay.telemetry.listener import QuietHandle
from underlay.testing import FakeClock

from .conftest import House, together
from .test_acceptance import WINDOWS, boom


def opened(clock: FakeClock, **bounds: Any) -> _CircuitBreaker:
    """A breaker that one failure has opened."""
    breaker = _CircuitBreaker(failure_threshold=1, clock=clock, **bounds)
    with pytest.raises(ConnectionError):
        breaker.call(boom)
    return breaker


def bring_down(house: House, model: str = "gpt-4o") -> None:
    """Five failures."""
    with house.simulator.outage(model):
        for number in range(5):
            with pytest.raises(ProviderError):
                _llm_call(f"Down {number}?", model)


@pytest.mark.parametrize(("age", "response"), [(9.999, "kept"), (10, None)])
def test_an_entry_lives_for_its_ttl(age: float, response: str | None) -> None:
    """Until the ttl is over it is served, from then on it is gone, and no longer counted."""
    clock = FakeClock(start=0)
    cache = _LLMCache(ttl=10, clock=clock)
    cache.put("p", "m", {}, "kept")
    clock.advance(age)
    assert cache.get("p", "m", {}) == response
    assert cache.get_stats()["size"] == (response is not None)


def test_the_least_recently_used_goes_first() -> None:
    """When full, the entry that was not asked for is the one to go."""
    cache = _LLMCache(maxsize=2)
    cache.put("a", "m", {}, 1)
    cache.put("b", "m", {}, 2)
    assert cache.get("a", "m", {}) == 1
    cache.put("c", "m", {}, 3)
    assert [cache.get(name, "m", {}) for name in "abc"] == [1, None, 3]
    assert cache.get_stats() == {"size": 2, "hits": 3, "misses": 1, "hit_rate": 0.75, "evictions": 1}


@pytest.mark.parametrize(
    ("prompt", "model", "params", "same"),
    [
        ("p", "m", {"b": 2, "a": 1}, True),
        ("q", "m", {"a": 1, "b": 2}, False),
        ("p", "n", {"a": 1, "b": 2}, False),
        ("p", "m", {"a": 1, "b": 3}, False),
        ("p", "m", {"a": 1}, False),
        ("p", "m", {}, False),
        ("p", "m", None, False),
        ("p", "m", {"a": "1", "b": 2}, False),
        ("p", "m", {"a": 1.0, "b": 2}, False),
        ("p", "m", {"a": True, "b": 2}, False),
    ],
)
def test_the_key_is_prompt_model_and_parameters(
    prompt: str, model: str, params: dict[str, Any] | None, same: bool
) -> None:
    """Another prompt, model, value or type of a value is another entry; another order of the parameters is
    not."""
    cache = _LLMCache()
    cache.put("p", "m", {"a": 1, "b": 2}, "kept")
    assert cache.get(prompt, model, params) == ("kept" if same else None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"schema": {"x": 1, "y": 2}}, {"schema": {"y": 2, "x": 1}}),
        ({"stop": "\U0001f600"}, {"stop": "\ud83d\ude00"}),
        ({"stop": None}, {"stop": "null"}),
        ({"stop": ["a", "b"]}, {"stop": ["a,b"]}),
    ],
)
def test_parameters_that_only_look_alike_are_apart(one: dict[str, Any], other: dict[str, Any]) -> None:
    """The order within a schema, text that stands for a value and a split character are differences."""
    cache = _LLMCache()
    cache.put("p", "m", one, "one")
    assert cache.get("p", "m", other) is None
    assert cache.get("p", "m", one) == "one"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("p", "m", {"fine": 1, "tool": object()}), r"params\['tool'\] = object: allowed is what JSON"),
        (("p", "m", {"top_p": float("nan")}), r"params\['top_p'\] = float"),
        ((b"p", "m", {}), "prompt = bytes"),
    ],
)
def test_what_json_cannot_carry_is_named(arguments: tuple[Any, ...], said: str) -> None:
    """A parameter without one meaning raises instead of finding somebody else's answer."""
    with pytest.raises(TypeError, match=said):
        _LLMCache().get(*arguments)
    with pytest.raises(TypeError, match=said):
        _LLMCache().put(*arguments, "response")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: _LLMCache(maxsize=0), "maxsize = 0 from code: allowed is"),
        (lambda: _LLMCache(ttl=0), "ttl = 0 from code: allowed is"),
        (lambda: _CircuitBreaker(failure_threshold=0), "failure_threshold = 0 from code: allowed is"),
        (lambda: _CircuitBreaker(recovery_timeout=-1), "recovery_timeout = -1 from code: allowed is"),
        (lambda: _CircuitBreaker(success_threshold=0), "success_threshold = 0 from code: allowed is"),
    ],
)
def test_a_wrong_bound_is_named(make: Callable[[], object], said: str) -> None:
    """The classic objects take what the settings take, and say what is wrong as they do."""
    with pytest.raises(SettingsError, match=said):
        make()


def test_the_cache_is_safe_under_threads() -> None:
    """Eight threads lose and invent nothing, and the bound holds."""
    cache = _LLMCache(maxsize=50)

    def work(_: int) -> None:
        for number in range(500):
            cache.put(f"{number % 80}", "m", {}, number % 80)
            assert cache.get(f"{number % 80}", "m", {}) in (None, number % 80)

    together(8, work)
    stats = cache.get_stats()
    assert stats["size"] == 50
    assert stats["hits"] + stats["misses"] == 4000


@pytest.mark.xfail(reason=WINDOWS, raises=AssertionError, strict=True)
def test_fifty_calls_make_five_dispatches(house: House) -> None:
    """Fifty concurrent calls at a bound of ten are five dispatches of ten."""
    together(50, lambda number: _llm_call(f"prompt {number}", "gpt-4o"))
    stats = _get_batch_stats()
    assert (stats["batches_processed"], stats["avg_batch_size"]) == (5, 10.0)


@pytest.mark.xfail(reason=WINDOWS, raises=AssertionError, strict=True)
def test_models_never_share_a_batch(house: House) -> None:
    """Ten calls each of two models at once are two dispatches."""
    models = ("gpt-4o", "gpt-4o-mini")
    together(20, lambda number: _llm_call(f"prompt {number}", models[number % 2]))
    assert _get_batch_stats()["batches_processed"] == 2


@pytest.mark.xfail(reason=WINDOWS, raises=AssertionError, strict=True)
def test_what_can_be_merged_is_one_request(house: House) -> None:
    """Ten concurrent embeddings are one merged request with ten inputs."""
    together(10, lambda number: _llm_call(f"text {number}", "text-embedding-3-small"))
    counts = house.simulator.counts().of("embeddings")
    assert (counts.requests, counts.inputs) == (1, 10)


def test_a_success_ends_a_row_of_failures() -> None:
    """Only failures in a row open the breaker."""
    breaker = _CircuitBreaker(failure_threshold=2, clock=FakeClock())
    for _ in range(3):
        with pytest.raises(ConnectionError):
            breaker.call(boom)
        breaker.call(lambda: "ok")
    assert breaker.get_state() == "closed"


def test_a_half_open_breaker_opens_again_on_one_failure() -> None:
    """One failed probe is enough, and the full timeout begins again."""
    clock = FakeClock()
    breaker = opened(clock, recovery_timeout=60)
    clock.advance(60)
    with pytest.raises(ConnectionError):
        breaker.call(boom)
    clock.advance(59)
    assert breaker.get_state() == "open"
    clock.advance(1)
    assert breaker.get_state() == "half_open"


def test_a_refused_call_is_not_made() -> None:
    """An open breaker raises without calling, and says when to come back."""
    clock, called = FakeClock(), []
    breaker = opened(clock, recovery_timeout=60)
    clock.advance(20)
    with pytest.raises(_CircuitBreakerError) as refused:
        breaker.call(called.append, 1)
    assert (called, refused.value.retry_after) == ([], 40)
    assert breaker.get_stats() == {
        "state": "open",
        "total_calls": 2,
        "successful_calls": 0,
        "failed_calls": 1,
        "rejected_calls": 1,
        "success_rate": 0.0,
        "state_changes": 1,
    }


def test_an_interrupted_probe_gives_its_slot_back() -> None:
    """A KeyboardInterrupt in a probe says nothing, and the next caller may probe."""
    clock = FakeClock()
    breaker = opened(clock, recovery_timeout=60, success_threshold=1)
    clock.advance(60)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaker.call(interrupted)
    assert breaker.call(lambda: "ok") == "ok"
    assert breaker.get_state() == "closed"


def test_one_probe_at_a_time() -> None:
    """While a probe is under way every other caller is refused."""
    clock = FakeClock()
    breaker = opened(clock, recovery_timeout=60, success_threshold=1)
    clock.advance(60)

    def probe() -> str:
        with pytest.raises(_CircuitBreakerError):
            breaker.call(boom)
        return "ok"

    assert breaker.call(probe) == "ok"
    assert breaker.get_state() == "closed"


def test_call_passes_arguments_and_returns_the_result() -> None:
    """`call(fn, *args, **kwargs)` is `fn(*args, **kwargs)`."""
    assert _CircuitBreaker().call(int, "ff", base=16) == 255


def test_call_takes_no_coroutine_function() -> None:
    """A coroutine function would count as a success before it ran, so it is an error."""

    async def later() -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="fn is a coroutine function"):
        _CircuitBreaker().call(later)


def test_reset_closes_a_breaker() -> None:
    """After `reset` the next call is made."""
    breaker = opened(FakeClock())
    breaker.reset()
    assert (breaker.get_state(), breaker.call(lambda: "ok")) == ("closed", "ok")


def test_the_breaker_is_safe_under_threads() -> None:
    """Of eight threads that fail at once every failure is counted, and the circuit opens once."""
    breaker = _CircuitBreaker(failure_threshold=8, clock=FakeClock())

    def fail(_: int) -> None:
        with pytest.raises(ConnectionError):
            breaker.call(boom)

    together(8, fail)
    stats = breaker.get_stats()
    assert (stats["state"], stats["failed_calls"], stats["state_changes"]) == ("open", 8, 1)


def test_reset_closes_an_open_circuit(house: House) -> None:
    """`_reset_circuit_breaker` lets the next call through."""
    bring_down(house)
    _reset_circuit_breaker("gpt-4o")
    assert _get_circuit_breaker("gpt-4o").get_state() == "closed"
    assert _llm_call("Up?", "gpt-4o")


def test_the_state_follows_the_clock(house: House) -> None:
    """One reader sees open, then half open when due, without a call in between."""
    breaker = _get_circuit_breaker("gpt-4o")
    assert breaker.get_state() == "closed"
    bring_down(house)
    assert breaker.get_state() == "open"
    house.clock.advance(59.9)
    assert breaker.get_state() == "open"
    house.clock.advance(0.1)
    assert breaker.get_state() == "half_open"


def test_a_hit_needs_no_provider(house: House) -> None:
    """What is cached is answered while the circuit is open, and says nothing about the provider."""
    answer = _llm_call("Kept", "gpt-4o")
    bring_down(house)
    assert _llm_call("Kept", "gpt-4o") == answer
    assert _get_circuit_breaker_stats("gpt-4o")["total_calls"] == 6


def test_an_answer_is_asked_again_after_its_ttl(house: House) -> None:
    """After 3600 s the second identical call reaches the provider."""
    for _ in range(2):
        _llm_call("Once", "gpt-4o")
    assert house.upstream == 1
    house.clock.advance(3600)
    _llm_call("Once", "gpt-4o")
    assert house.upstream == 2
    assert _get_cache_stats() == {"size": 1, "hits": 1, "misses": 2, "hit_rate": 1 / 3, "evictions": 0}


def test_an_error_is_not_kept(house: House) -> None:
    """A failed call is neither served again nor counted in the size."""
    with house.simulator.outage("gpt-4o"), pytest.raises(ProviderError):
        _llm_call("Hello?", "gpt-4o")
    assert _get_cache_stats()["size"] == 0
    assert _llm_call("Hello?", "gpt-4o")


def test_the_callers_own_fault_says_nothing_of_the_provider(house: House) -> None:
    """A 400 is an error of the model and no failure of its circuit."""
    house.simulator.fault("400", model="gpt-4o", count=1)
    with pytest.raises(ProviderError):
        _llm_call("Hello", "gpt-4o")
    stats = _get_circuit_breaker_stats("gpt-4o")
    assert (stats["total_calls"], stats["failed_calls"], stats["success_rate"]) == (1, 0, 1.0)
    assert _get_llm_stats()["by_model"]["gpt-4o"]["errors"] == 1


def test_a_hit_counts_no_latency_and_no_tokens(house: House) -> None:
    """Percentiles and tokens are those of calls that a provider answered."""
    _llm_call("Once", "gpt-4o")
    before = _get_llm_stats()["by_model"]["gpt-4o"]
    for _ in range(9):
        _llm_call("Once", "gpt-4o")
    after = _get_llm_stats()["by_model"]["gpt-4o"]
    assert (after["calls"], after["tokens"]) == (10, before["tokens"])
    assert len(house.runtime.stats()["openai", "gpt-4o"].latencies) == 1
    assert [call.of(CallEnded)[0].result for call in house.recorder.calls] == ["miss"] + ["hit"] * 9


class Slow(QuietHandle):
    """A listener by which a quarter of a second passes while a provider is asked."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def start(self, _: CallStarted) -> Slow:
        """A call began."""
        return self

    def event(self, event: object) -> None:
        """An attempt takes its time."""
        if isinstance(event, AttemptStarted):
            self._clock.advance(0.25)


def test_latencies_are_milliseconds(house: House) -> None:
    """An answer that took a quarter of a second reads 250, and nine hits at no time change nothing."""
    house.runtime.listen(Slow(house.clock))
    for _ in range(10):
        _llm_call("Once", "gpt-4o")
    stats = _get_llm_stats()
    assert stats["cache_hit_rate"] == 0.9
    percentiles = [
        stats["by_model"]["gpt-4o"][name] for name in ("latency_p50", "latency_p95", "latency_p99")
    ]
    assert percentiles == [250, 250, 250]


def test_a_refusal_has_no_latency(house: House) -> None:
    """Calls that no provider answered are errors by their type and not in the percentiles."""
    house.runtime.listen(Slow(house.clock))
    bring_down(house)
    for number in range(7):
        with pytest.raises(_CircuitBreakerError):
            _llm_call(f"Refused {number}", "gpt-4o")
    stats = _get_llm_stats()["by_model"]["gpt-4o"]
    assert (stats["calls"], stats["errors_by_type"]["circuit_open"]) == (12, 7)
    assert stats["latency_p50"] == 250


def test_recorded_errors_and_hits() -> None:
    """Errors are counted by type, hits as a rate; neither has a latency, and a hit spends no tokens."""
    metrics = _LLMMetrics()
    metrics.record_call("gpt-4", 1, 10, True)
    metrics.record_call("gpt-4", 30_000, 0, False, error="timeout")
    metrics.record_call("gpt-4", 1001, 20, False)
    metrics.record_call("claude", 5, 1, False)
    stats = metrics.get_stats()
    assert (stats["total_calls"], stats["cache_hit_rate"]) == (4, 0.25)
    assert stats["by_model"]["gpt-4"] == {
        "calls": 3,
        "latency_p50": 1001,
        "latency_p95": 1001,
        "latency_p99": 1001,
        "tokens": 20,
        "errors": 1,
        "errors_by_type": {"timeout": 1},
    }
    assert stats["by_model"]["claude"]["calls"] == 1


@pytest.mark.parametrize(("latency", "tokens", "name"), [(float("nan"), 0, "latency_ms"), (1, -1, "tokens")])
def test_a_wrong_measure_is_named(latency: float, tokens: int, name: str) -> None:
    """A latency or a number of tokens that cannot be is an error, and counts nothing."""
    metrics = _LLMMetrics()
    with pytest.raises(ValueError, match=f"{name} = .*: allowed is 0 or more"):
        metrics.record_call("gpt-4", latency, tokens, False)
    assert metrics.get_stats()["total_calls"] == 0


def test_metrics_are_safe_under_threads() -> None:
    """Of eight threads no call and no token is lost."""
    metrics = _LLMMetrics()

    def record(_: int) -> None:
        for _ in range(250):
            metrics.record_call("gpt-4", 100, 2, False)

    together(8, record)
    stats = metrics.get_stats()["by_model"]["gpt-4"]
    assert (stats["calls"], stats["tokens"], stats["latency_p99"]) == (2000, 4000, 100)


def test_concurrent_calls_are_all_counted(house: House) -> None:
    """Twenty callers at once: every one answered, sent once and counted."""
    answers = together(20, lambda number: _llm_call(f"prompt {number}", "gpt-4o"))
    assert len(set(answers)) == house.upstream == _get_llm_stats()["total_calls"] == 20
    assert _get_cache_stats()["size"] == 20


def test_what_cannot_be_asked_is_said(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown model and a missing key are errors that say what to do."""
    with pytest.raises(UnknownModelError, match="model 'mystery-1'"):
        _llm_call("Hello", "mystery-1")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(MissingCredentialError, match="OPENAI_API_KEY is not set"):
        _llm_call("Hello", "gpt-4o")
    assert house.upstream == 0
