"""Statistics: exact percentiles over a bounded window, counts that add up, bounds that hold."""

from __future__ import annotations

import itertools
import sys
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statistics_lab import ended, filled, started, window
from transport_lab import CHAT_ASK, Lab, json_reply

from underlay import MissingExtraError, Runtime
from underlay.metrics import OTHER, Statistics, percentile
from underlay.settings import StatisticsSettings
from underlay.telemetry import metrics as vocabulary
from underlay.telemetry.attributes import (
    BatchMode,
    BatchTrigger,
    CacheResult,
    CircuitState,
    Stage,
    Verdict,
)
from underlay.telemetry.events import (
    AttemptEnded,
    CacheLooked,
    CircuitChanged,
    CircuitRefused,
    Faulted,
    Usage,
)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=300), st.integers(1, 99))
def test_percentiles_are_those_of_the_standard_library(samples: list[float], share: int) -> None:
    """Definition 7 of Hyndman and Fan is what `statistics.quantiles(method="inclusive")` computes."""
    wanted = quantiles(samples, n=100, method="inclusive")[share - 1]
    assert percentile(sorted(samples), share / 100) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_stay_within_the_samples(samples: list[float]) -> None:
    """The ends are the smallest and the largest, and more share is never less."""
    ordered = sorted(samples)
    values = [percentile(ordered, share / 20) for share in range(21)]
    assert (values[0], values[-1]) == (ordered[0], ordered[-1])
    assert all(
        one is not None and two is not None and one <= two + 1e-9 * (1 + two)
        for one, two in itertools.pairwise(values)
    )


def test_no_samples_have_no_percentile() -> None:
    """None, never 0."""
    assert percentile([], 0.5) is None
    assert filled(ended(result=CacheResult.HIT)).latency(0.5) is None


def test_the_window_is_bounded_and_keeps_the_latest() -> None:
    """Beyond the window the oldest latency goes; the count of calls does not."""
    stats = filled(*[ended(float(number)) for number in range(100)], settings=StatisticsSettings(window=10))
    assert list(stats.latencies) == [float(number) for number in range(90, 100)]
    assert (stats.calls, stats.latency(0.0), stats.latency(0.5), stats.latency(1.0)) == (
        100,
        90.0,
        94.5,
        99.0,
    )


@pytest.mark.parametrize("result", list(CacheResult))
@pytest.mark.parametrize("status", [200, 500, None])
def test_latencies_are_of_calls_that_a_provider_answered(result: CacheResult, status: int | None) -> None:
    """Hits, refusals and calls without a reply have no latency in the statistics."""
    stats = filled(ended(3.0, result, status=status))
    answered = result in (CacheResult.MISS, CacheResult.BYPASS) and status is not None
    assert list(stats.latencies) == ([3.0] if answered else [])
    assert stats.results == {result: 1}


def test_what_is_counted() -> None:
    """Tokens, cost, savings, errors, lookups, refusals and unpriced answers, each from the event that says it."""
    usage = Usage(10, 4)
    stats = filled(
        CacheLooked(CacheResult.MISS),
        AttemptEnded(1, 1.0, Verdict.SUCCESS, 200, usage=usage, cost_usd=0.5),
        AttemptEnded(1, 1.0, Verdict.SUCCESS, 200, usage=Usage(None, 2)),
        AttemptEnded(1, 1.0, Verdict.FAILURE, 500, "server_error"),
        CacheLooked(CacheResult.HIT, saved_usd=0.25, saved_usage=usage),
        CacheLooked(CacheResult.HIT, observed=True, saved_usd=9.0, saved_usage=usage),
        CircuitRefused(CircuitState.OPEN, 1.0),
        CircuitRefused(CircuitState.OPEN, 1.0, observed=True),
        ended(error_type="server_error"),
    )
    assert stats.tokens == {"input": 10, "output": 6}
    assert stats.tokens_saved == {"input": 10, "output": 4}
    assert (stats.cost, stats.cost_saved, stats.unpriced, stats.refusals) == (0.5, 0.25, 1, 1)
    assert stats.upstream == {"success": 2, "failure": 1}
    assert stats.lookups == {"miss": 1, "hit": 2}
    assert stats.errors == {"server_error": 1}


def test_models_and_errors_beyond_the_bound_are_counted_together() -> None:
    """Names come from outside: a flood of them grows no memory and loses no call."""
    statistics = Statistics(StatisticsSettings(max_models=3))
    for number in range(20):
        statistics.start(started(f"m{number}")).event(ended())
    models = statistics.models()
    assert list(models) == [("p", "m0"), ("p", "m1"), ("p", "m2"), (OTHER, OTHER)]
    assert models[OTHER, OTHER].calls == 17
    stats = filled(*[ended(error_type=f"e{number}") for number in range(200)])
    assert len(stats.errors) <= 51
    assert sum(stats.errors.values()) == 200


def test_process_events_are_counted() -> None:
    """Transitions by (left, entered), faults by stage."""
    statistics = Statistics(StatisticsSettings())
    statistics.event(CircuitChanged("p", "m", CircuitState.CLOSED, CircuitState.OPEN, "failures", 1.0))
    statistics.event(Faulted(Stage.CACHE, "RuntimeError"))
    assert statistics.models()["p", "m"].transitions == {("closed", "open"): 1}
    assert statistics.faults == {"cache": 1}


def test_a_copy_is_a_copy() -> None:
    """What was read does not change under the reader's hands, nor does the reader change what is counted."""
    statistics = Statistics(StatisticsSettings())
    handle = statistics.start(started())
    handle.event(ended())
    statistics.dispatch(window(3, BatchMode.RELEASED, BatchTrigger.SIZE))
    copy = statistics.models()["p", "m"]
    handle.event(ended())
    statistics.dispatch(window(4, BatchMode.RELEASED, BatchTrigger.SIZE))
    copy.results.clear()
    assert (copy.calls, len(copy.latencies)) == (0, 1)
    assert (copy.batches.total(), copy.batched.total()) == (1, 3)
    now = statistics.models()["p", "m"]
    assert (now.calls, now.batches.total(), now.batched.total()) == (2, 2, 7)


def _lab() -> Lab:
    """Three calls of one model: a miss, a hit, a failure."""
    lab = Lab("sync-httpx").setup(
        lambda got: json_reply({}, 500) if b"seed" in got.body else json_reply(),
        circuit_breaker={"failure_threshold": 1},
    )

    async def scenario() -> None:
        client = lab.client()
        for body in (CHAT_ASK, CHAT_ASK, {**CHAT_ASK, "seed": 1}):
            await lab.post(client, body=body)

    lab.run(scenario)
    return lab


def test_the_cache_in_numbers() -> None:
    """Size, bytes, hits, misses and rate of the runtime's cache."""
    view = _lab().runtime.cache
    assert (view.size, view.hits, view.misses, view.evictions, view.expirations) == (1, 1, 2, 0, 0)
    assert view.hit_rate == pytest.approx(1 / 3)
    assert view.size_bytes > 1000
    assert Runtime({}).cache.hit_rate == 0.0


def test_a_circuit_in_numbers() -> None:
    """State and totals of one circuit; a model that was never called is closed; its text says which it is."""
    runtime = _lab().runtime
    circuit = runtime.circuit("gpt-4o")
    counts = circuit.view().counts
    assert (circuit.state, counts.successes, counts.failures, counts.transitions) == ("open", 1, 1, 1)
    assert repr(circuit) == "<circuit openai/gpt-4o: open>"
    circuit.reset()
    assert circuit.state == "closed"
    assert runtime.circuit("never-seen").state == "closed"


def test_every_observable_metric_of_the_vocabulary_can_be_collected() -> None:
    """Each has samples of as many label values as it has labels, and the books agree with each other."""
    runtime = _lab().runtime
    samples = {}
    for metric in vocabulary.ALL:
        if metric.kind != "histogram":
            samples[metric.key] = list(runtime.collect(metric.key))
            for labels, value in samples[metric.key]:
                assert len(labels) == len(metric.labels), metric.key
                assert value >= 0
    assert sorted(samples[vocabulary.CALLS.key]) == [
        (("openai", "gpt-4o", "hit"), 1),
        (("openai", "gpt-4o", "miss"), 2),
    ]
    assert samples[vocabulary.TRANSITIONS.key] == [(("openai", "gpt-4o", "closed", "open"), 1)]
    assert samples[vocabulary.CIRCUIT.key] == [
        (("openai", "gpt-4o", state), float(state == "open")) for state in ("closed", "open", "half_open")
    ]
    with pytest.raises(KeyError):
        list(runtime.collect("no.such.metric"))


def test_a_family_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for httpx2 without httpx2 names the command."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'underlay\[httpx2\]'"):
        Runtime({}).httpx2_client()


@pytest.mark.parametrize(
    "name", ["httpx_client", "async_httpx_client", "httpx2_client", "async_httpx2_client"]
)
def test_ready_clients_wait_as_long_as_the_sdks(name: str) -> None:
    """A client without a timeout of its own gets the SDKs' 600 s, and its options are its own."""
    client = getattr(Runtime({}), name)(headers={"x": "1"})
    assert client.timeout.read == 600.0
    assert client.headers["x"] == "1"
    assert getattr(Runtime({}), name)(timeout=3).timeout.read == 3
