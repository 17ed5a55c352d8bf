"""`Runtime.map` and `amap`: what comes in which order, how much is held, and what a failing item does."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from map_lab import WAYS, Bench, asynchronous, texts

from underlay import CircuitOpenError, MissingCredentialError, ProviderError, Runtime, UnknownModelError
from underlay.mapping import CONCURRENCY, MOST
from underlay.telemetry.attributes import CacheResult

marked: ContextVar[str] = ContextVar("marked", default="nobody")


@pytest.fixture(params=WAYS)
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One way to map."""
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return Bench(request.param, monkeypatch)


class Counted:
    """An endless iterator of prompts that knows how far it is ahead of what was taken."""

    def __init__(self, prompts: Iterator[Any] | None = None) -> None:
        self._prompts = prompts or map(str, itertools.count())
        self.pulled = self.taken = self.furthest = 0

    def __iter__(self) -> Counted:
        return self

    def __next__(self) -> Any:
        prompt = next(self._prompts)
        self.pulled += 1
        self.furthest = max(self.furthest, self.pulled - self.taken)
        return prompt


@pytest.mark.parametrize("ordered", [True, False])
def test_items_come_in_their_order_or_as_they_finish(bench: Bench, ordered: bool) -> None:
    """A slow first call comes first all the same; with `ordered=False` whoever is done is not held up."""

    async def scenario() -> None:
        gate = bench.provider.gates["0"] = bench.event()

        def told(done: int, total: int | None) -> None:
            if done == 7:
                gate.set()

        got = await bench.rest(bench.map(texts(8), ordered=ordered, concurrency=4, progress=told))
        assert [item.index for item in got] == list(range(8)) if ordered else got[-1].index == 0
        assert sorted(item.text for item in got) == texts(8)
        assert all((item.prompt, item.text) == (str(item.index), str(item.index)) for item in got)
        assert {item.error for item in got} == {None}

    bench.run(scenario)


def test_so_many_calls_are_under_way_and_no_more(bench: Bench) -> None:
    """`concurrency` calls go out at once, and the next one when one of them has ended."""

    async def scenario() -> None:
        together, begun = bench.event(), bench.provider.begun
        bench.provider.gates = dict.fromkeys(texts(4), together)
        bench.provider.on_call = lambda _: len(begun) == 4 and together.set()  # threads come in any order
        got = await bench.rest(bench.map(texts(40), concurrency=4))
        assert [item.text for item in got] == texts(40)
        assert bench.provider.most == 4

    bench.run(scenario)


def test_without_a_word_sixteen_are(bench: Bench) -> None:
    """The default is reached and kept."""

    async def scenario() -> None:
        together, begun = bench.event(), bench.provider.begun
        bench.provider.gates = dict.fromkeys(texts(CONCURRENCY), together)
        bench.provider.on_call = lambda _: len(begun) == CONCURRENCY and together.set()
        await bench.rest(bench.map(texts(3 * CONCURRENCY)))
        assert bench.provider.most == CONCURRENCY == 16

    bench.run(scenario)


def test_a_slow_head_holds_up_the_source(bench: Bench) -> None:
    """While the first call hangs, the others of twice `concurrency` finish and no further prompt is asked
    for."""

    async def scenario() -> None:
        gate = bench.provider.gates["0"] = bench.event()
        prompts = Counted()
        seen = []

        def told(done: int, total: int | None) -> None:
            if done == 5:
                seen.append((prompts.pulled, len(bench.provider.begun)))
                gate.set()

        items = bench.map(prompts, concurrency=3, progress=told)
        assert [(await bench.next(items)).index for _ in range(4)] == [0, 1, 2, 3]  # type: ignore[union-attr]
        assert seen == [(6, 6)]
        assert prompts.pulled == 6 + 3  # one in for each one out
        await bench.close(items)

    bench.run(scenario)


def test_ten_thousand_prompts_are_never_held_at_once(bench: Bench) -> None:
    """The source is at no time further ahead of what was taken than twice `concurrency`."""

    async def scenario() -> None:
        prompts = Counted(itertools.repeat("same", 10_000))
        items = bench.map(prompts, concurrency=8)
        while await bench.next(items) is not None:
            prompts.taken += 1
        assert (prompts.pulled, prompts.taken) == (10_000, 10_000)
        assert prompts.furthest <= 2 * 8

    bench.run(scenario)


def test_nothing_begins_before_the_first_item_is_asked_for(bench: Bench) -> None:
    """A map that nobody iterates over reads no prompt and makes no call."""

    async def scenario() -> None:
        prompts = Counted()
        await bench.close(bench.map(prompts))
        bench.map(prompts)
        assert (prompts.pulled, bench.provider.begun, await bench.others()) == (0, [], 0)

    bench.run(scenario)


def test_a_slow_source_holds_up_no_answer_for_long(bench: Bench) -> None:
    """Once an item is ready, one more prompt is asked for at most before it is handed out."""

    async def scenario() -> None:
        ready, first, gate = bench.event(), bench.event(), bench.event()
        bench.provider.gates = {"0": first, "1": gate, "2": gate}
        # The fourth call begins when the first one has ended.
        bench.provider.on_call = lambda prompt: prompt == "3" and ready.set()
        pulled: list[str] = []

        def slow() -> Iterator[str]:
            for prompt in texts(6):
                pulled.append(prompt)
                if prompt == "4":
                    first.set()
                    ready.wait()
                yield prompt

        async def aslow() -> AsyncIterator[str]:
            for prompt in texts(6):
                pulled.append(prompt)
                if prompt == "4":
                    first.set()
                    await ready.wait()
                yield prompt

        items = bench.map(slow() if bench.way == "sync" else aslow(), concurrency=3)
        assert (await bench.next(items)).text == "0"  # type: ignore[union-attr]
        assert pulled == texts(5)
        gate.set()
        await bench.rest(items)

    bench.run(scenario)


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda prompts: dict.fromkeys(prompts).keys()])
def test_any_iterable_will_do(bench: Bench, kind: Any) -> None:
    """Lists, iterators and views, and none at all."""

    async def scenario() -> None:
        assert [item.text for item in await bench.rest(bench.map(kind(texts(5))))] == texts(5)
        assert await bench.rest(bench.map(kind([]))) == []

    bench.run(scenario)


@pytest.mark.parametrize("bench", ["asyncio", "trio"], indirect=True)
def test_amap_takes_asynchronous_iterables(bench: Bench) -> None:
    """Prompts may come from an asynchronous generator."""

    async def scenario() -> None:
        got = [item async for item in bench.map(asynchronous(texts(20)), concurrency=3)]
        assert [item.text for item in got] == texts(20)

    bench.run(scenario)


def test_a_prompt_may_be_a_list_of_messages(bench: Bench) -> None:
    """Messages go to the API as they are."""

    async def scenario() -> None:
        messages = [{"role": "user", "content": "Hi"}]
        (item,) = await bench.rest(bench.map([messages]))
        assert (item.text, item.prompt) == ("Hi", messages)
        assert json.loads(bench.lab.script.sent[0].body)["messages"] == messages

    bench.run(scenario)


def test_calls_go_the_way_of_every_call(bench: Bench) -> None:
    """The cache answers repeats, an open circuit refuses, and each call is told to the listeners."""

    async def scenario() -> None:
        got = await bench.rest(bench.map(["a", "b", "a"], concurrency=1))
        assert [item.answer.cache for item in got] == [CacheResult.MISS, CacheResult.MISS, CacheResult.HIT]
        assert bench.lab.upstream == 2
        assert len(bench.lab.recorder.calls) == 3
        bench.provider.failing = set(texts(9))
        got = await bench.rest(bench.map(texts(9), concurrency=1))
        kinds = [type(item.error) for item in got]
        assert kinds == [ProviderError] * 5 + [CircuitOpenError] * 4

    bench.run(scenario)


def test_a_failing_item_stops_no_other(bench: Bench) -> None:
    """Its error is the item's, and raised by who asks for its text; the answers that were paid for come."""

    async def scenario() -> None:
        bench.provider.failing = {"1"}
        got = await bench.rest(bench.map(texts(4), concurrency=2))
        assert [item.index for item in got if item.error is None] == [0, 2, 3]
        assert got[1].answer is None
        assert isinstance(got[1].error, ProviderError)
        assert got[1].error.status == 500
        for _ in range(2):
            with pytest.raises(ProviderError) as caught:
                _ = got[1].text
            assert caught.value is got[1].error

    bench.run(scenario)


def test_a_model_or_key_that_is_missing_is_each_items_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent, and each item says why."""

    async def scenario() -> None:
        unknown = await bench.rest(bench.map(texts(3), model="no-such-model"))
        monkeypatch.delenv("OPENAI_API_KEY")
        keyless = await bench.rest(bench.map(texts(3)))
        assert [type(item.error) for item in unknown] == [UnknownModelError] * 3
        assert [type(item.error) for item in keyless] == [MissingCredentialError] * 3
        assert bench.lab.upstream == 0

    bench.run(scenario)


@pytest.mark.parametrize("prompt", [{"role": "user", "content": "secret"}, b"secret", 5, None, {"secret"}])
def test_what_is_no_prompt_is_that_items_error(bench: Bench, prompt: Any) -> None:
    """It is named by its place and type, is not shown, and is not sent."""

    async def scenario() -> None:
        good, bad = await bench.rest(bench.map(["Hi", prompt], concurrency=1))
        assert good.text == "Hi"
        allowed = f"prompt 1 is a {type(prompt).__name__}: allowed is text or a list of messages"
        assert (type(bad.error), str(bad.error)) == (ValueError, allowed)
        assert bench.lab.upstream == 1
        assert "secret" not in repr(bad)

    bench.run(scenario)


@pytest.mark.parametrize("ordered", [True, False])
def test_an_error_may_be_raised_instead(bench: Bench, ordered: bool) -> None:
    """`errors="raise"`: what comes before it is handed out, its own exception is raised, what had not begun
    never does, the source is asked for nothing more, and the map is over."""

    async def scenario() -> None:
        gate = bench.provider.gates["0"] = bench.event()
        bench.provider.failing = {"1"}
        prompts, pulled = Counted(), []

        def told(done: int, total: int | None) -> None:
            pulled.append(prompts.pulled)
            gate.set()

        items = bench.map(prompts, errors="raise", ordered=ordered, concurrency=2, progress=told)
        if ordered:
            assert (await bench.next(items)).text == "0"  # type: ignore[union-attr]
        with pytest.raises(ProviderError) as caught:
            await bench.next(items)
        assert caught.value.status == 500
        assert {"1"} <= set(bench.provider.begun) <= {"0", "1"}
        assert prompts.pulled == pulled[0]
        assert (await bench.next(items), await bench.others()) == (None, 0)

    bench.run(scenario)


def test_the_first_error_in_order_is_the_one_raised(bench: Bench) -> None:
    """An earlier prompt that fails later wins."""

    async def scenario() -> None:
        gate = bench.provider.gates["0"] = bench.event()
        bench.provider.failing = {"0"}
        prompts = ["0", b"no prompt"]
        items = bench.map(prompts, errors="raise", concurrency=2, progress=lambda done, total: gate.set())
        with pytest.raises(ProviderError):
            await bench.next(items)

    bench.run(scenario)


def test_an_error_of_the_source_comes_after_its_items(bench: Bench) -> None:
    """What was asked before the source failed is handed out; then its own exception is raised."""
    error = LookupError("no more")

    def prompts() -> Iterator[str]:
        yield from texts(3)
        raise error

    async def scenario() -> None:
        sources = [prompts()] if bench.way == "sync" else [prompts(), asynchronous(prompts())]
        for source in sources:
            items = bench.map(source)
            assert [(await bench.next(items)).text for _ in range(3)] == texts(3)  # type: ignore[union-attr]
            with pytest.raises(LookupError) as caught:
                await bench.next(items)
            assert caught.value is error
            assert (await bench.next(items), await bench.others()) == (None, 0)

    bench.run(scenario)


def test_each_call_sees_a_copy_of_the_callers_context(bench: Bench) -> None:
    """The context is that of the call of `map`, so that spans nest; what one call sets there, no other
    sees."""
    seen = []

    def on_call(prompt: str) -> None:
        seen.append(marked.get())
        marked.set(prompt)

    async def scenario() -> None:
        bench.provider.on_call = on_call
        token = marked.set("caller")
        items = bench.map(texts(6), concurrency=2)
        marked.reset(token)
        await bench.rest(items)
        assert seen == ["caller"] * 6
        assert marked.get() == "nobody"

    bench.run(scenario)


@pytest.mark.parametrize("name", ["map", "amap"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concurrency": 0}, "concurrency = 0: allowed is a whole number, 1 to 1000"),
        ({"concurrency": MOST + 1}, "concurrency = 1001: "),
        ({"concurrency": True}, "concurrency = True: "),
        ({"concurrency": 2.0}, "concurrency = 2.0: "),
        ({"model": None}, "model = None: allowed is the name of a model"),
        ({"model": ""}, "model = '': "),
        ({"ordered": "yes"}, "ordered = 'yes': allowed is True or False"),
        ({"errors": "ignore"}, "errors = 'ignore': allowed is 'keep' or 'raise'"),
        ({"progress": "bar"}, "progress = 'bar': allowed is True, False or a callable"),
        ({"prompts": "Say hello"}, "prompts = <str>: allowed is an Iterable"),
        ({"prompts": b"Say hello"}, "prompts = <bytes>: "),
        ({"prompts": {"role": "user"}}, "prompts = <dict>: "),
        ({"prompts": 5}, "prompts = <int>: "),
    ],
)
def test_a_wrong_argument_is_named_at_once(name: str, options: dict[str, Any], said: str) -> None:
    """The error names the argument, what was given and what is allowed; prompts are never shown."""
    given = {"prompts": ["a"], "model": "gpt-4o", **options}
    with pytest.raises(ValueError) as caught:
        getattr(Runtime(), name)(**given)
    assert str(caught.value).startswith(f"Runtime.{name}: {said}")
    assert "hello" not in str(caught.value)


def test_all_wrong_arguments_are_named_in_one_error() -> None:
    """One run shows every fault."""
    with pytest.raises(ValueError) as caught:
        Runtime().map(asynchronous(["a"]), model="", concurrency=-1)  # type: ignore[arg-type]
    lines = str(caught.value).splitlines()
    assert [line.split(" = ")[0] for line in lines] == [
        "Runtime.map: model",
        "Runtime.map: concurrency",
        "Runtime.map: prompts",
    ]
