"""The bench of the pacing tests: one loop that starts many calls at once. Every send takes a while of the clock that
stands still otherwise, at once and without coming round, so that a burst takes as long as on a real client; the reply
is in its socket when the loop comes round, which is counted."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import trio
from transport_lab import CHAT, JSON_TYPE, Lab, dumped

from underlay.telemetry.events import AttemptStarted, CallEnded, Paced

LOOPS = [f"{mode}-{family}" for mode in ("asyncio", "trio") for family in ("httpx", "httpx2")]
COST = 0.125  # seconds that a send takes; what is added up of it is exact
FIRST = 3  # so many are sent until a turn of 250 ms is over: after 0, 125 and 250 ms it is not
HANG = 15.0  # seconds of real time after which a test that hangs fails


class Call:
    """One call of a burst: how it went, and when by the loop's rounds."""

    def __init__(self, name: object) -> None:
        self.name = name
        self.answer: str | None = None
        self.status: int | None = None
        self.error: BaseException | None = None
        self.sent_in: int | None = None
        self.answered_in: int | None = None
        self.done = False
        self.stop: Callable[[], object] = _nothing

    def __repr__(self) -> str:
        return f"<call {self.name}: sent in {self.sent_in}, {self.error or self.answer!r}>"


class PacingLab(Lab):
    """One loop and family, and a provider behind sends that take time. `on_call` is called as each call begins,
    `on_send` as each leaves: what it starts there is part of the send, and passes the seam."""

    def __init__(self, way: str) -> None:
        super().__init__(way)
        self.rounds = 0
        self.cost = COST
        self.calls: list[Call] = []
        self.arrived: list[Call] = []  # in the order in which they began: trio shuffles those of a batch
        self.sends: list[object] = []
        self.log: list[tuple[str, object]] = []
        self.on_call: Callable[[Call], object] = lambda _: None
        self.on_send: Callable[[object], object] = lambda _: None
        self.reply: Callable[[object], int] = lambda _: 200
        self._by_name: dict[object, list[Call]] = {}
        self._nursery: Any = None

    def paced(self, at_once: int = 2, **settings: Any) -> Any:
        """A client over a runtime that lets so many go each round, with nothing else that holds or merges."""
        pacing = {"turn_ms": 250, "at_once": at_once, **settings.pop("pacing", {})}
        self.setup([], pacing=pacing, **settings)
        return self.client(self.transport(self._handle))

    async def _handle(self, request: Any) -> Any:
        name = json.loads(request.content)["messages"][0]["content"]
        self.sends.append(name)
        self.log.append(("sent", name))
        for call in self._by_name.get(name, ()):
            if call.sent_in is None:
                call.sent_in = self.rounds
        self.clock.advance(self.cost)
        self.on_send(name)
        await self.pause()
        choice = {**CHAT["choices"][0], "message": {"role": "assistant", "content": f"to {name}"}}
        status = self.reply(name)
        answer = {**CHAT, "choices": [choice]} if status == 200 else {"error": {"message": "down"}}
        return self.module.Response(status, headers=JSON_TYPE, content=dumped(answer))

    async def pause(self) -> None:
        """Let the loop come round once."""
        await (asyncio.sleep(0) if self.mode == "asyncio" else trio.lowlevel.checkpoint())

    async def settle(self) -> None:
        """Let the loop come round until nothing of what could go on is left."""
        for _ in range(50):
            await self.pause()

    def run(self, scenario: Callable[[], Awaitable[Any]]) -> Any:
        """Run a scenario in a loop whose rounds are counted; whoever is left over is cancelled."""
        lab = self

        async def whole() -> Any:
            try:
                return await scenario()
            finally:
                for client in self._clients:
                    await client.aclose()
                self._clients.clear()

        if self.mode == "asyncio":

            class Selector(selectors.DefaultSelector):
                def select(self, timeout: float | None = None) -> Any:
                    lab.rounds += 1
                    return super().select(timeout)

            def loop() -> asyncio.AbstractEventLoop:
                return asyncio.SelectorEventLoop(Selector())

            with asyncio.Runner(loop_factory=loop) as runner:
                return runner.run(asyncio.wait_for(whole(), HANG))

        class Rounds(trio.abc.Instrument):
            def after_io_wait(self, timeout: float) -> None:
                lab.rounds += 1

        return trio.run(self._in_nursery, whole, instruments=[Rounds()])

    async def _in_nursery(self, whole: Callable[[], Awaitable[Any]]) -> Any:
        failed: BaseException | None = None
        with trio.fail_after(HANG):
            async with trio.open_nursery() as self._nursery:
                try:
                    return await whole()
                except Exception as error:
                    failed = error
                finally:
                    self._nursery.cancel_scope.cancel()
                    self._nursery = None
        assert failed is not None
        raise failed

    def start(self, client: Any, names: Iterable[object], **options: Any) -> list[Call]:
        """Start a call for each name, all in the loop's next turn."""
        made = []
        for name in names:
            call = Call(name)
            made.append(call)
            self.calls.append(call)
            self._by_name.setdefault(name, []).append(call)
            if self.mode == "asyncio":
                call.stop = asyncio.create_task(self._call(client, call, options)).cancel
            else:
                scope = trio.CancelScope()
                call.stop = scope.cancel
                self._nursery.start_soon(self._scoped, scope, client, call, options)
        return made

    async def _scoped(self, scope: trio.CancelScope, *work: Any) -> None:
        with scope:
            await self._call(*work)

    async def _call(self, client: Any, call: Call, options: dict[str, Any]) -> None:
        self.log.append(("came", call.name))
        self.arrived.append(call)
        self.on_call(call)
        try:
            response = await self.post(client, body=ask(call.name), **options)
            call.status = response.status_code
            call.answer = response.json().get("choices", [{}])[0].get("message", {}).get("content")
        except BaseException as error:
            call.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            call.done = True
            call.stop = _nothing  # it would keep the loop alive
            call.answered_in = self.rounds
            self.log.append(("answered", call.name))

    async def together(self, works: Sequence[Callable[[], Awaitable[Any]]]) -> list[Any]:
        """What each of these returns, started at once."""
        got: list[Any] = [None] * len(works)

        async def one(at: int, work: Callable[[], Awaitable[Any]]) -> None:
            got[at] = await work()

        if self.mode == "asyncio":
            await asyncio.gather(*[one(at, work) for at, work in enumerate(works)])
        else:
            async with trio.open_nursery() as nursery:
                for at, work in enumerate(works):
                    nursery.start_soon(one, at, work)
        return got

    async def all_done(self) -> None:
        """Come round until every call has ended."""
        await self.until(lambda: all(call.done for call in self.calls))

    async def until(self, reached: Callable[[], object]) -> None:
        """Come round until this is so. Only rounds are waited for, and no time."""
        for _ in range(5000):
            if reached():
                return
            await self.pause()
        raise AssertionError(f"it never came to that: {[call for call in self.calls if not call.done]}")

    async def burst(self, client: Any, names: Iterable[object], **options: Any) -> list[Call]:
        """Calls that are started at once, each to its end."""
        calls = self.start(client, names, **options)
        await self.all_done()
        return calls

    def sent_by_round(self) -> list[int]:
        """How many were sent between the loop's coming round, in order, for rounds with any."""
        counted = Counter(call.sent_in for call in self.calls if call.sent_in is not None)
        return [counted[at] for at in sorted(counted)]

    def waits(self) -> list[list[tuple[float, bool]]]:
        """What each call was told of its wait, in the order in which they began."""
        return [[(e.wait, e.observed) for e in call.of(Paced)] for call in self.recorder.calls]

    def books(self) -> list[tuple[str, int]]:
        """How each call ended and how many attempts it made, in the order in which they began. Each ends once."""
        assert [len(call.of(CallEnded)) for call in self.recorder.calls] == [1] * len(self.recorder.calls)
        return [
            (call.of(CallEnded)[0].ending.value, len(call.of(AttemptStarted))) for call in self.recorder.calls
        ]

    @property
    def turns(self) -> dict[Any, Any]:
        """What the runtime remembers of loops."""
        return self.runtime.engine.state.pacing._turns

    def right(self) -> None:
        """Every call has its own answer, nothing was sent twice, no fault of ours was met, and nobody waits."""
        assert [call for call in self.calls if call.answer != f"to {call.name}"] == []
        assert sorted(map(str, self.sends)) == sorted({str(call.name) for call in self.calls})
        self.clean()

    def clean(self) -> None:
        """No fault of ours was met, nobody waits for a turn or a time, and no lead is left."""
        assert self.faults == {}
        assert [turns.waiting for turns in self.turns.values()] == [0] * len(self.turns)
        assert self.clock.waiting == 0
        assert self.runtime.engine.state.flights._leads == {}


def _nothing() -> None:
    """There is nothing to stop any more."""


def ask(name: object) -> dict[str, Any]:
    """The request of that name."""
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": name}]}
