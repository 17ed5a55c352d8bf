"""The behaviour that the contract's tests look at, on the classic objects: cache, breaker, metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from underlay.errors import SettingsError
from underlay.n3 import _CircuitBreaker, _CircuitBreakerError, _LLMCache, _LLMMetrics
from underlay.testing import FakeClock

from .conftest import together
from .test_acceptance import boom


def opened(clock: FakeClock, **bounds: Any) -> _CircuitBreaker:
    """A breaker that one failure has opened."""
    breaker = _CircuitBreaker(failure_threshold=1, clock=clock, **bounds)
    with pytest.raises(ConnectionError):
        breaker.call(boom)
    return breaker


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
        (("p", "m", {b"top_p": 1}), "params: allowed is what JSON"),
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
