"""How the vocabulary is called in Prometheus, and the queries that are made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from underlay.telemetry import attributes as a
from underlay.telemetry import metrics as m
from underlay.telemetry.attributes import CacheResult
from underlay_dashboards import signals as s

SEEN = {
    "call_duration": "gen_ai_client_operation_duration_seconds",
    "token_usage": "gen_ai_client_token_usage",
    "first_chunk": "gen_ai_client_operation_time_to_first_chunk_seconds",
    "output_chunk": "gen_ai_client_operation_time_per_output_chunk_seconds",
    "time_saved": "underlay_cache_time_saved_seconds",
    "coalesce_wait": "underlay_coalesce_wait_duration_seconds",
    "batch_size": "underlay_batch_size",
    "batch_wait": "underlay_batch_wait_duration_seconds",
    "queued": "underlay_batch_queued",
    "state_duration": "underlay_circuit_breaker_state_duration_seconds",
    "calls": "underlay_calls_total",
    "upstream": "underlay_upstream_requests_total",
    "errors": "underlay_errors_total",
    "lookups": "underlay_cache_lookups_total",
    "evictions": "underlay_cache_evictions_total",
    "expirations": "underlay_cache_expirations_total",
    "entries": "underlay_cache_entries",
    "entries_limit": "underlay_cache_entries_limit",
    "bytes": "underlay_cache_size_bytes",
    "bytes_limit": "underlay_cache_size_limit_bytes",
    "circuit": "underlay_circuit_breaker_state_ratio",
    "transitions": "underlay_circuit_breaker_transitions_total",
    "refusals": "underlay_circuit_breaker_refusals_total",
    "tokens": "underlay_tokens_total",
    "tokens_saved": "underlay_tokens_saved_total",
    "cost": "underlay_cost_USD_total",
    "cost_saved": "underlay_cost_saved_USD_total",
    "unpriced": "underlay_cost_unpriced_total",
}
"""Names that Prometheus 3.16 gave to what our own instruments sent it."""


@pytest.mark.parametrize(("key", "name"), sorted(SEEN.items()))
def test_names_are_those_that_prometheus_gives(key: str, name: str) -> None:
    """A metric is looked for under the name that a real Prometheus stored it under."""
    assert s.prometheus_name(m.BY_KEY[key]) == name


def test_resource_labels_are_those_that_the_stack_promotes() -> None:
    """Labels of the resource are the attributes that the stack's Prometheus turns into labels."""
    path = Path(__file__).parents[2] / "observability" / "prometheus" / "prometheus.yml"
    otlp = yaml.safe_load(path.read_text())["otlp"]
    promoted = {name.replace(".", "_") for name in otlp["promote_resource_attributes"]}
    assert promoted == s.RESOURCE_LABELS
    assert otlp["translation_strategy"] == "UnderscoreEscapingWithSuffixes"


def test_the_upcoming_generation_has_its_own_names() -> None:
    """Dashboards follow the generation of the conventions that leaves the process."""
    assert s.prometheus_name(m.CALL_DURATION, "upcoming") == "gen_ai_client_inference_duration_seconds"


def test_a_condition_names_a_value_of_the_closed_set() -> None:
    """A value that a label can never have is refused when the query is built."""
    with pytest.raises(ValueError, match=r"underlay\.cache\.result: \['hti'\]"):
        s.Is(a.CACHE_RESULT, ("hti",))


def test_a_condition_names_a_label_of_the_metric() -> None:
    """A label that a metric does not have is refused when the query is built."""
    with pytest.raises(ValueError, match=r"underlay\.cache\.entries has no label underlay\.cache\.result"):
        s.level(m.ENTRIES, s.Is(a.CACHE_RESULT, (CacheResult.HIT,)))
    with pytest.raises(ValueError, match=r"underlay\.calls has no label error\.type"):
        s.total(m.CALLS, by=(a.ERROR_TYPE,))


def test_a_rate_names_what_it_counts() -> None:
    """The rate of a counter is in its own things; that of a histogram's points in what one point is."""
    assert s.unit_per_second(m.CALLS) == "count:call/s"
    assert s.unit_per_second(m.BATCH_SIZE, points="dispatch") == "count:dispatch/s"


def test_only_whole_things_are_counted() -> None:
    """Money and durations never get the unit of a number of things."""
    with pytest.raises(ValueError, match="measured in USD"):
        s.unit_of_count(m.COST_TOTAL)


def test_conditions_as_matchers() -> None:
    """One value is compared, several are a pattern, and both can be negated."""
    one, two = (CacheResult.HIT.value,), (CacheResult.HIT.value, CacheResult.MISS.value)
    assert s.Is(a.CACHE_RESULT, one).matcher() == 'underlay_cache_result="hit"'
    assert s.Is(a.CACHE_RESULT, one, negated=True).matcher() == 'underlay_cache_result!="hit"'
    assert s.Is(a.CACHE_RESULT, two).matcher() == 'underlay_cache_result=~"hit|miss"'
    assert s.Is(a.CACHE_RESULT, two, negated=True).matcher() == 'underlay_cache_result!~"hit|miss"'


def test_variables_narrow_what_has_their_label() -> None:
    """A metric of a model follows all three variables, one of the process only the service."""
    assert s.selector(m.REFUSALS) == (
        'underlay_circuit_breaker_refusals_total{service_name=~"$service", '
        'gen_ai_provider_name=~"$provider", gen_ai_request_model=~"$model"}'
    )
    assert s.selector(m.ENTRIES) == 'underlay_cache_entries{service_name=~"$service"}'


def test_one_definition_gives_both_flavours() -> None:
    """A percentile of classic buckets groups by `le`; one of native histograms has neither suffix nor `le`."""
    where = s.Is(a.CACHE_RESULT, (CacheResult.MISS,))
    classic = s.quantile(0.95, m.CALL_DURATION, where, by=(a.REQUEST_MODEL,))
    native = s.quantile(0.95, m.CALL_DURATION, where, by=(a.REQUEST_MODEL,), dialect=s.Dialect("native"))
    assert classic.startswith(
        "histogram_quantile(0.95, sum by (le, gen_ai_request_model) "
        "(rate(gen_ai_client_operation_duration_seconds_bucket{"
    )
    assert native.startswith(
        "histogram_quantile(0.95, sum by (gen_ai_request_model) (rate(gen_ai_client_operation_duration_seconds{"
    )
    assert s.histogram_total(m.TIME_SAVED).startswith("sum ((last_over_time(")
    assert s.histogram_total(m.TIME_SAVED, dialect=s.Dialect("native")).startswith("histogram_sum(sum (")


def test_a_counter_that_is_new_in_the_window_counts_from_zero() -> None:
    """The first export of a new series counts in full: Prometheus never saw the zero before it."""
    assert s.growth("x", "5m") == (
        "(last_over_time(x[5m]) unless last_over_time(x[1h] offset 5m)) or increase(x[5m])"
    )
