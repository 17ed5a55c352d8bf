"""The bench of the tests of threads' turns: one client family, what its threads have, pools that say what is idle, and
work beside the test's own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from replies import CHAT, dumped
from transport_lab import CHAT_ASK, CHAT_URL, JSON_TYPE, KEY, Lab

from underlay.pipeline.baton import Baton, Turn
from underlay.stores.memory import MemoryStore
from underlay.telemetry.events import CallEnded

PATIENCE = 15.0  # seconds of real time after which a test that hangs fails
FREE, TAKEN = False, True  # the turn to send


class Lane(Lab):
    """One family, synchronous, and what its threads have."""

    @property
    def baton(self) -> Looked:
        """What those have one after the other who send."""
        baton = self.runtime.engine.state.pacing.sending
        assert isinstance(baton, Looked)
        return baton

    @property
    def taken(self) -> bool:
        """Whether somebody has it now."""
        return self.baton._lock.locked()

    def setup(self, replies: Any = (), **settings: Any) -> Lane:
        """A runtime with other settings."""
        super().setup(replies, **settings)
        if self.runtime.engine.state.pacing.sending is not None:
            self.look()
        return self

    def look(self, longest: float = PATIENCE) -> None:
        """A baton that says when somebody waits for it."""
        self.runtime.engine.state.pacing.sending = Looked(longest)

    def ask(self, client: Any, text: str = "Hi", **options: Any) -> Any:
        """One whole call."""
        body = {**CHAT_ASK, "messages": [{"role": "user", "content": text}]}
        return client.post(CHAT_URL, json=body, headers=KEY, **options)

    def probing(self, seen: list[bool]) -> Any:
        """A client over a transport of the app's own that notes what is taken meanwhile."""
        script = self.script.transport(self.family, "sync")  # type: ignore[arg-type]

        def handle(request: Any) -> Any:
            seen.append(self.taken)
            return self.inner(script, request)

        return self.client(self.transport(handle))

    def pooled(self, handle: Callable[[Any], Any]) -> Any:
        """The family's own transport over a pool that answers like this."""
        transport = self.module.HTTPTransport(verify=False)
        transport._pool.close()
        transport._pool = type("Pool", (Pool,), {"__module__": core_of(self.family).__name__})(handle)
        return transport

    def answer(self, content: Any = None) -> Any:
        """What a pool answers."""
        core = import_module(f"httpcore{self.family.removeprefix('httpx')}")
        headers = [(name.encode(), value.encode()) for name, value in JSON_TYPE.items()]
        return core.Response(200, headers=headers, content=dumped(CHAT) if content is None else content)

    def clean(self) -> None:
        """The turn is free, and nothing of ours failed."""
        assert self.taken == FREE
        assert self.faults == {}
        assert self.runtime.engine.state.flights._leads == {}
        assert [len(call.of(CallEnded)) for call in self.recorder.calls] == [1] * len(self.recorder.calls)


def core_of(family: str) -> Any:
    """What a client family's pools are made of."""
    return import_module(f"httpcore{family.removeprefix('httpx')}")


class Pool:
    """A connection pool without connections. Its class says that it is of this module of pools."""

    def __init__(self, handle: Callable[[Any], Any], *, idle: bool = True) -> None:
        self.handle_request = handle
        self.connections = [Connection(idle=each) for each in (False, idle)]

    def close(self) -> None:
        """Nothing is open."""


class Connection:
    """One of a pool's."""

    def __init__(self, *, idle: bool, expired: bool = False, there: bool = True) -> None:
        self._idle = idle
        self._there = there
        self._expired = expired

    def is_idle(self) -> bool:
        """Whether nobody uses it."""
        return self._idle

    def can_handle_request(self, origin: Any) -> bool:
        """Whether it leads there."""
        return bool(origin.host == b"api.openai.com" and self._there)

    def has_expired(self) -> bool:
        """Whether it was idle for too long, or the server has closed it."""
        return self._expired


class Looked(Baton):
    """Says when somebody waits for it, and does this then."""

    def __init__(self, longest: float = PATIENCE) -> None:
        super().__init__(longest)
        self.asked = threading.Event()
        self.then: Callable[[], object] = lambda: None

    def wait(self) -> Any:
        """Say so, and wait."""
        self.asked.set()
        self.then()
        return super().wait()


class Shared(MemoryStore[Any]):
    """A store that others share: whoever asks it may have to wait."""

    local = False
    poll = 1.0

    def __init__(self, told: Callable[[], object]) -> None:
        super().__init__(10, 1_000_000)
        self._told = told

    def get(self, key: bytes, now: float) -> Any:
        """Look, and tell."""
        self._told()
        return super().get(key, now)

    def put(self, key: bytes, entry: Any, now: float, token: int = 0) -> bool:
        """Keep, and tell."""
        self._told()
        return super().put(key, entry, now, token)

    def lease(self, key: bytes, now: float, ttl: float, token: int = 0) -> Any:
        """Lease, and tell."""
        self._told()
        return super().lease(key, now, ttl, token)

    def free(self, key: bytes, token: int) -> None:
        """Free, and tell."""
        self._told()
        super().free(key, token)


class Beside(threading.Thread):
    """Work beside the test's own."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Do it."""
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """What came of it."""
        self.join(PATIENCE)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error
        return self._value


def held(baton: Baton) -> Turn:
    """Take it, as another thread does that does not hand it on."""
    turn = baton.take()
    assert turn is not None
    turn.thread = 0  # no thread's: that of one that has ended is given to the next
    return turn
