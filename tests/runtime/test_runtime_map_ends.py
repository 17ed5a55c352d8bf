"""How a map ends: however it is left, nothing begins any more and no thread or task stays behind."""

from __future__ import annotations

import asyncio
import gc
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from map_lab import WAYS, Bench, texts, threads

import underlay.mapping.threads
from underlay import Item, ProviderError
from underlay.mapping import Mapper

LEFT_AT_EXIT = """
import threading
from underlay.mapping import Mapper

class Library:
    def call(self, prompt, *, model):
        if prompt == "0":
            hangs.wait()
        else:
            hangs.set()
            threading.Event().wait()

hangs = threading.Event()
items = Mapper(Library()).map(map(str, range(9)), model="m", concurrency=2)
print(next(items).index)
"""


@pytest.fixture
def bench(way: str, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One way to map."""
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return Bench(way, monkeypatch)


every_way = pytest.mark.parametrize("way", WAYS)
with_threads = pytest.mark.parametrize("way", ["sync"])
in_a_loop = pytest.mark.parametrize("way", ["asyncio", "trio"])


class Joined(threading.Thread):
    """A thread that says when it is waited for."""

    waited_for: threading.Event

    def join(self, timeout: float | None = None) -> None:
        """Wait for it, and say so first."""
        self.waited_for.set()
        super().join(timeout)


def hold(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the first call answer once another one is under way, and hang all others until their threads are
    waited for (or for ever: tasks are cancelled). An event that is set when one hangs."""
    hangs, gate = bench.event(), bench.event()
    bench.provider.gates = {**dict.fromkeys(texts(100), gate), "0": hangs}
    bench.provider.on_call = lambda prompt: prompt != "0" and hangs.set()
    Joined.waited_for = gate
    monkeypatch.setattr(underlay.mapping.threads, "Thread", Joined)
    return hangs


def endless() -> Any:
    """Prompts without end."""
    number = 0
    while True:
        yield str(number)
        number += 1


@with_threads
def test_a_loop_that_is_left_waits_for_its_threads(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `break` no thread is left, and what had not begun never did."""

    async def scenario() -> None:
        hold(bench, monkeypatch)
        for item in bench.map(endless(), concurrency=3):
            assert item.text == "0"
            break
        assert threads() == []
        assert bench.provider.under_way == 0
        assert len(bench.provider.begun) <= 1 + 3

    bench.run(scenario)


@with_threads
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_in_the_loop_leaves_no_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """It reaches the caller after the threads have ended."""

    async def scenario() -> None:
        hold(bench, monkeypatch)

        def asked() -> None:
            for _ in bench.map(endless(), concurrency=3):
                raise error

        with pytest.raises(error):
            asked()
        assert threads() == []

    bench.run(scenario)


@in_a_loop
def test_an_async_for_that_is_left_cancels_its_tasks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `break` the calls under way are cancelled as the loop turns, and no task is left."""

    async def scenario() -> None:
        hold(bench, monkeypatch)
        async for item in bench.map(endless(), concurrency=3):
            assert item.text == "0"
            break
        await bench.settle()
        assert await bench.others() == 0
        assert bench.provider.under_way == 0
        assert len(bench.provider.begun) <= 1 + 3

    bench.run(scenario)


@every_way
@pytest.mark.parametrize("how", ["close", "with"])
def test_a_map_that_is_closed_is_over(bench: Bench, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """When `close`, `aclose` or the `with` block has returned, no call is under way, no thread or task is
    left, and there is no further item."""

    async def scenario() -> None:
        hold(bench, monkeypatch)
        items = bench.map(endless(), concurrency=3)
        if how == "close":
            assert (await bench.next(items)).text == "0"  # type: ignore[union-attr]
            await bench.close(items)
        elif bench.way == "sync":
            with items as same:
                assert next(same).text == "0"
        else:
            async with items as same:
                assert (await anext(same)).text == "0"
        assert (await bench.others(), bench.provider.under_way) == (0, 0)
        begun = list(bench.provider.begun)
        assert await bench.next(items) is None
        await bench.close(items)
        assert bench.provider.begun == begun

    bench.run(scenario)


@every_way
def test_a_map_that_was_read_to_its_end_has_nothing_left(bench: Bench) -> None:
    """Threads and tasks are gone with the last item, while the iterator is still there."""

    async def scenario() -> None:
        items = bench.map(texts(20), concurrency=4)
        await bench.rest(items)
        assert await bench.others() == 0
        assert not [call for call in gc.callbacks if type(call).__module__.startswith("underlay")]

    bench.run(scenario)


@every_way
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_the_progress_raises_ends_the_map(bench: Bench, error: type[BaseException]) -> None:
    """The caller's own exception comes out as it is, and nothing stays behind."""

    def told(done: int, total: int | None) -> None:
        raise error

    async def scenario() -> None:
        items = bench.map(endless(), progress=told)
        with pytest.raises(error):
            await bench.next(items)
        assert (await bench.next(items), await bench.others()) == (None, 0)

    bench.run(scenario)


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Interrupts the main thread once, and returns when it has noticed. One signal is not enough: a thread that has just
    looked for signals, and is about to wait, sees the next one."""
    main, noticed = threading.main_thread().ident, threading.Event()
    assert main is not None

    def interrupt(*_: object) -> None:
        if not noticed.is_set():
            noticed.set()
            raise KeyboardInterrupt

    def strike() -> None:
        while not noticed.is_set():
            signal.pthread_kill(main, signal.SIGINT)
            noticed.wait(0.05)

    before = signal.signal(signal.SIGINT, interrupt)
    yield strike
    signal.signal(signal.SIGINT, before)


@with_threads
def test_ctrl_c_ends_a_map_that_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ctrl_c: Callable[[], None]
) -> None:
    """The signal interrupts the wait for an answer; what is under way ends, and what has not begun does
    not."""

    async def scenario() -> None:
        hold(bench, monkeypatch)
        bench.provider.gates["0"] = bench.provider.gates["1"]
        bench.provider.on_call = lambda prompt: ctrl_c()
        items = bench.map(endless(), concurrency=1)
        with pytest.raises(KeyboardInterrupt):
            await bench.rest(items)
        assert threads() == []
        assert bench.provider.begun == ["0"]

    bench.run(scenario)


@pytest.mark.parametrize("way", ["asyncio"])
def test_an_asyncio_caller_that_is_cancelled_takes_its_calls_along(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cancellation comes out when the tasks have ended."""

    async def scenario() -> None:
        hangs = hold(bench, monkeypatch)
        items = bench.map(endless(), concurrency=3)
        caller = asyncio.create_task(bench.rest(items))
        await hangs.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert (await bench.others(), bench.provider.under_way) == (0, 0)
        assert await bench.next(items) is None

    bench.run(scenario)


@pytest.mark.parametrize("way", ["trio"])
def test_a_trio_caller_that_is_cancelled_takes_its_calls_along(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the cancelled scope is left, the tasks have ended."""

    async def scenario() -> None:
        hangs = hold(bench, monkeypatch)
        items = bench.map(endless(), concurrency=3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.rest, items)
            await hangs.wait()
            nursery.cancel_scope.cancel()
        assert (await bench.others(), bench.provider.under_way) == (0, 0)
        assert await bench.next(items) is None

    bench.run(scenario)


@in_a_loop
def test_a_second_reader_is_told_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for an item, or closes, while another task waits for one gets an error and harms nobody."""

    async def scenario() -> None:
        gate = bench.provider.gates["0"] = bench.event()
        waits = bench.event()
        bench.provider.on_call = lambda prompt: waits.set()
        items = bench.map(texts(3))
        got: list[Any] = []

        async def reads() -> None:
            got.extend(await bench.rest(items))

        async def intrudes() -> None:
            await waits.wait()
            for intrude in (items.__anext__, items.aclose):
                with pytest.raises(RuntimeError, match="another one waits for the next"):
                    await intrude()
            gate.set()

        if bench.way == "asyncio":
            await asyncio.gather(reads(), intrudes())
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reads)
                nursery.start_soon(intrudes)
        assert [item.text for item in got] == texts(3)

    bench.run(scenario)


class Library:
    """Calls that end as they are told."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def call(self, prompt: str, *, model: str) -> Any:
        """Raise."""
        raise self.error

    async def acall(self, prompt: str, *, model: str) -> Any:
        """Raise."""
        raise self.error


@pytest.mark.parametrize("way", ["sync"])
def test_a_call_that_began_late_is_made_though_a_later_one_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`errors="raise"`: a thread that has taken the first prompt and is slow to call still does: its item is
    waited for."""
    failed = threading.Event()

    class Slow(queue.SimpleQueue):  # type: ignore[type-arg]
        def get(self, *args: Any, **options: Any) -> Any:
            got = super().get(*args, **options)
            if isinstance(got, tuple) and got[0] == 0:
                failed.wait()
            return got

        def put(self, item: Any, *args: Any, **options: Any) -> None:
            super().put(item, *args, **options)
            if isinstance(item, Item):
                failed.set()

    monkeypatch.setattr(underlay.mapping.threads, "SimpleQueue", Slow)

    async def scenario() -> None:
        bench.provider.failing = {"1"}
        items = bench.map(endless(), errors="raise", concurrency=2)
        assert next(items).text == "0"
        with pytest.raises(ProviderError):
            next(items)
        assert sorted(bench.provider.begun) == ["0", "1"]

    bench.run(scenario)


@every_way
def test_what_is_no_exception_is_the_callers(bench: Bench) -> None:
    """An exit inside a call is no item's error: it is raised where the items are asked for."""

    async def scenario() -> None:
        error = SystemExit(3)
        mapper = Mapper(Library(error))  # type: ignore[arg-type]
        items: Any = (mapper.map if bench.way == "sync" else mapper.amap)(endless(), model="m")
        with pytest.raises(SystemExit) as caught:
            await bench.next(items)
        assert caught.value is error
        assert (await bench.next(items), await bench.others()) == (None, 0)

    bench.run(scenario)


@pytest.mark.parametrize("way", ["asyncio"])
def test_a_call_that_cancels_itself_hangs_nobody(bench: Bench) -> None:
    """A cancellation from inside a call reaches the caller, as from `acall`."""

    async def scenario() -> None:
        mapper = Mapper(Library(asyncio.CancelledError()))  # type: ignore[arg-type]
        with pytest.raises(asyncio.CancelledError):
            await anext(mapper.amap(endless(), model="m"))

    bench.run(scenario)


@pytest.mark.parametrize("way", ["asyncio"])
def test_a_task_that_others_cancel_before_it_begins_hangs_nobody(bench: Bench) -> None:
    """Whoever cancels every task of the loop cancels a map's as well: its caller is told."""

    async def prompts() -> Any:
        yield "0"
        for task in asyncio.all_tasks() - {asyncio.current_task()}:  # type: ignore[arg-type]
            task.cancel()
        yield "1"

    async def scenario() -> None:
        with pytest.raises(asyncio.CancelledError):
            await bench.rest(bench.map(prompts()))
        assert await bench.others() == 0

    bench.run(scenario)


@with_threads
def test_the_garbage_collector_waits_for_no_call(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that dies in a cycle ends without being waited for: whoever collects may hold a lock that the
    call needs."""

    async def scenario() -> None:
        hold(bench, monkeypatch)
        cycle: list[Any] = [bench.map(endless(), concurrency=2)]
        assert next(cycle[0]).text == "0"
        cycle.append(cycle)
        left = threads()
        del cycle
        gc.collect()
        assert [thread for thread in left if thread.is_alive()]
        for thread in left:
            thread.join()
        assert bench.provider.under_way == 0

    bench.run(scenario)


@in_a_loop
def test_an_amap_that_dies_in_another_thread_is_cancelled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finaliser may run anywhere; the tasks end in their own loop."""

    async def scenario() -> None:
        hold(bench, monkeypatch)
        left = [bench.map(endless(), concurrency=3)]
        await anext(left[0])
        if bench.way == "asyncio":
            await asyncio.to_thread(left.clear)
            ended = asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]
            await asyncio.wait(ended) if ended else None
        else:
            await trio.to_thread.run_sync(left.clear)
            await bench.settle()
        assert (await bench.others(), bench.provider.under_way) == (0, 0)

    bench.run(scenario)


@in_a_loop
def test_an_amap_may_die_after_its_loop(bench: Bench) -> None:
    """Its tasks ended with the loop: nothing is raised and nothing is reported."""
    left: list[Any] = []

    async def scenario() -> None:
        bench.provider.gates["1"] = bench.event()
        left.append(bench.map(endless(), concurrency=2))
        await anext(left[0])

    bench.run(scenario)
    left.clear()
    gc.collect()


def test_a_program_ends_though_a_map_was_left_open() -> None:
    """A call that hangs does not keep the process, nor does the iterator that nobody closed."""
    done = subprocess.run(
        [sys.executable, "-c", LEFT_AT_EXIT], capture_output=True, text=True, check=False, timeout=50
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "0", "")
