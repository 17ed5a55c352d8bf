"""Which runtime is behind the names: settings, first use, the process's own runtime, forks."""

from __future__ import annotations

import copy
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Barrier
from typing import Any

import pytest

import underlay
from underlay import n3
from underlay.errors import SettingsError
from underlay.runtime import Runtime
from underlay.simulator import Simulator
from underlay.testing import FakeClock

from .conftest import House, together

forks = pytest.mark.filterwarnings(
    # The simulator's thread is there on purpose: so are the threads of a server that forks its workers.
    r"ignore:This process .* is multi-threaded:DeprecationWarning"
)


@pytest.fixture
def changeable(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """RUNTIME_SETTINGS, free to be changed; nothing was called yet."""
    settings = copy.deepcopy(n3.RUNTIME_SETTINGS)
    monkeypatch.setattr(n3, "RUNTIME_SETTINGS", settings)
    return settings


@pytest.fixture
def instrumented(simulator: Simulator) -> Iterator[Runtime]:
    """A process whose clients go through a runtime of its own."""
    yield underlay.instrument({"llm_cache": {"ttl": 60}})
    underlay.uninstrument()


def in_child(work: Callable[[], object]) -> str:
    """What `work` returns in a fork child, as text; "" when it raised."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)  # a child that hangs dies, and has answered nothing
        try:
            os.write(write, str(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        return answer.read()


def test_settings_changed_before_the_first_use_are_in_force(changeable: dict[str, dict[str, Any]]) -> None:
    """The app changes RUNTIME_SETTINGS, then calls."""
    changeable["llm_cache"]["maxsize"] = 1
    changeable["llm_batch"]["max_batch_size"] = 20
    for prompt in ("one", "two"):
        n3._llm_call(prompt, "gpt-4o")
    assert n3._get_cache_stats()["evictions"] == 1
    assert n3._get_batch_stats()["max_batch_size"] == 20


def test_a_pillar_that_is_switched_off_is_off(changeable: dict[str, dict[str, Any]]) -> None:
    """With the cache disabled every call reaches the provider, and the calls are counted all the same."""
    changeable["llm_cache"]["enabled"] = False
    for _ in range(2):
        n3._llm_call("Once", "gpt-4o")
    assert n3._get_cache_stats() == {"size": 0, "hits": 0, "misses": 0, "hit_rate": 0.0, "evictions": 0}
    assert n3._get_llm_stats()["total_calls"] == 2


def test_what_the_app_leaves_alone_is_left_to_the_environment(
    changeable: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable rules where RUNTIME_SETTINGS is untouched, code where it was changed."""
    monkeypatch.setenv("UNDERLAY_LLM_CACHE__TTL", "60")
    monkeypatch.setenv("UNDERLAY_LLM_CACHE__MAXSIZE", "7")
    changeable["llm_cache"]["maxsize"] = 5
    settings = n3.configure().settings.llm_cache
    assert (settings.ttl, settings.maxsize) == (60, 5)


def test_a_preset_is_not_undone_by_the_defaults(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UNDERLAY_PRESET tunes an N3 back end that tunes nothing itself."""
    monkeypatch.setenv("UNDERLAY_PRESET", "unreliable_provider")
    assert n3.configure().settings.circuit_breaker.failure_threshold == 3


@pytest.mark.parametrize(
    ("section", "given", "said"),
    [
        ("llm_cache", {"maxsize": -1}, "llm_cache.maxsize = -1 from code"),
        ("llm_cache", {"max_size": 5}, "did you mean maxsize"),
        ("llm_cache", 5, "llm_cache = 5 from code"),
        ("llm_cahce", {}, "did you mean llm_cache"),
    ],
)
def test_a_wrong_setting_is_named(
    changeable: dict[str, dict[str, Any]], section: str, given: Any, said: str
) -> None:
    """A mistake in RUNTIME_SETTINGS is an error at the first use that names it."""
    changeable[section] = given
    with pytest.raises(SettingsError, match=said):
        n3._llm_call("Hello", "gpt-4o")


def test_first_use_by_many_threads_makes_one_runtime(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight first callers share one cache."""
    made: list[Runtime] = []

    def counted(*arguments: Any, **named: Any) -> Runtime:
        made.append(Runtime(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(n3, "Runtime", counted)
    together(8, lambda number: n3._llm_call(f"prompt {number}", "gpt-4o"))
    assert len(made) == 1
    assert n3._get_cache_stats()["size"] == 8


def test_configure_begins_anew(house: House) -> None:
    """Another runtime has nothing of the first, and the names speak of it at once."""
    n3._llm_call("Once", "gpt-4o")
    house.runtime.close()
    runtime = n3.configure({"llm_batch": {"max_batch_size": 3}}, clock=FakeClock())
    assert runtime is not house.runtime
    assert (n3._get_cache_stats()["size"], n3._get_batch_stats()["max_batch_size"]) == (0, 3)


def test_the_processs_own_runtime_is_used(instrumented: Runtime) -> None:
    """Under `underlay.instrument()` the names speak of the runtime under every client."""
    for _ in range(2):
        n3._llm_call("Once", "gpt-4o")
    assert (instrumented.cache.hits, n3._get_cache_stats()["hits"]) == (1, 1)
    instrumented.close()


def test_after_uninstrument_nothing_is_left_behind(instrumented: Runtime) -> None:
    """The process's runtime is gone from these names with `underlay.uninstrument()`."""
    n3._llm_call("Once", "gpt-4o")
    underlay.uninstrument()
    assert n3._get_cache_stats()["size"] == 0
    instrumented.close()


def test_changes_that_are_not_in_force_are_said_once(
    instrumented: Runtime, changeable: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """Under a runtime that was there first, a changed setting that differs from it is logged by its name."""
    changeable["llm_cache"] |= {"ttl": 60, "maxsize": 5}
    with caplog.at_level(logging.WARNING, "underlay"):
        for _ in range(2):
            n3._get_cache_stats()
    said = [record.getMessage() for record in caplog.records if "RUNTIME_SETTINGS" in record.getMessage()]
    assert len(said) == 1
    assert "RUNTIME_SETTINGS llm_cache.maxsize: not in force" in said[0]


@forks
def test_a_fork_child_keeps_the_answers_and_counts_anew(house: House) -> None:
    """The child is answered from the entries that there were; its statistics are its own."""
    answer = n3._llm_call("Once", "gpt-4o")

    def child() -> object:
        return n3._llm_call("Once", "gpt-4o") == answer, n3._get_cache_stats()["hits"]

    assert in_child(child) == "(True, 1)"
    assert n3._get_cache_stats()["hits"] == 0


@forks
def test_a_fork_while_locks_are_held_hangs_nobody(simulator: Simulator) -> None:
    """A child that is made while another thread is inside the first use and the classic objects uses them all
    the same."""
    cache, breaker, metrics = n3._LLMCache(), n3._CircuitBreaker(), n3._LLMMetrics()
    cache.put("p", "m", {}, "kept")
    held = (n3._lock, cache._lock, cache._store._lock, breaker._lock, metrics._statistics._lock)
    gate = Barrier(2)

    def child() -> object:
        metrics.record_call("m", 1, 1, False)
        found, called = cache.get("p", "m", {}), breaker.call(len, "four")
        return found, called, metrics.get_stats()["total_calls"], n3._llm_call("Hello", "gpt-4o") != ""

    def hold() -> None:
        with ExitStack() as locks:
            for lock in held:
                locks.enter_context(lock)
            gate.wait()
            gate.wait()

    def fork() -> str:
        gate.wait()
        answer = in_child(child)
        gate.wait()
        return answer

    assert together(2, lambda number: (hold, fork)[number]())[1] == "('kept', 4, 1, True)"


@forks
def test_a_fork_child_opens_connections_of_its_own(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parent and child never write to one connection: each could read the other's answer."""
    opened: list[Any] = []
    connect = socket.create_connection

    def counted(*arguments: Any, **named: Any) -> socket.socket:
        opened.append(arguments[0])
        return connect(*arguments, **named)

    monkeypatch.setattr(socket, "create_connection", counted)
    n3._llm_call("parent", "gpt-4o")
    assert len(opened) == 1

    def child() -> int:
        n3._llm_call("child", "gpt-4o")
        return len(opened)

    assert in_child(child) == "2"
