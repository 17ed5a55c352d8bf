"""What a test of an app under underlay needs, and what underlay's own tests use: a clock that stands still, a
transport that answers from a script, a listener that remembers.

    clock, script, recorder = FakeClock(), Script([Scripted(200, frames=[b'{"ok": true}'])]), Recorder()
    runtime = Runtime(clock=clock, listeners=[recorder])
    client = httpx.Client(transport=runtime.httpx_transport(script.transport("httpx", "sync")))
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from underlay.telemetry.listener import QuietHandle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from underlay.telemetry.events import BatchEnded, BatchStarted, CallEvent, CallStarted, ProcessEvent

__all__ = ["FakeClock", "Received", "RecordedCall", "RecordedDispatch", "Recorder", "Script", "Scripted"]

Family = Literal["httpx", "httpx2"]
Kind = Literal["sync", "async"]


class FakeClock:
    """Seconds that pass only when told to, and wake who waits for them.

    With `autojump`, a call that waits for a time (a window to close) is not made to wait: the clock jumps
    there at once, as that of trio's MockClock does. Without, it waits for `advance`.
    """

    def __init__(self, start: float = 1000.0, *, autojump: bool = False) -> None:
        self.autojump = autojump
        self._now = start
        self._lock = Lock()
        self._alarms: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        """The time, in seconds."""
        return self._now

    def wall(self) -> float:
        """The same time as seconds since 1970, from a fixed date in 2025."""
        return 1_750_000_000.0 + self._now

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises ValueError for a negative time: the clock is monotonic."""
        if seconds < 0:
            raise ValueError(f"FakeClock.advance: seconds = {seconds}: allowed is 0 or more")
        self._reach(self._now + seconds)

    def _reach(self, at: float) -> None:
        with self._lock:
            self._now = max(self._now, at)
            due = [alarm for alarm in self._alarms if alarm[0] <= self._now]
            self._alarms = [alarm for alarm in self._alarms if alarm[0] > self._now]
        for _, wake in due:
            wake()

    def call_at(self, at: float, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` once the time has come, from the thread that lets it pass. Returns what takes that
        back."""
        alarm = (at, wake)
        with self._lock:
            self._alarms.append(alarm)
        if self.autojump or at <= self._now:
            self._reach(at)

        def cancel() -> None:
            with self._lock, suppress(ValueError):
                self._alarms.remove(alarm)

        return cancel

    @property
    def waiting(self) -> int:
        """How many calls wait for a time."""
        with self._lock:
            return len(self._alarms)


@dataclass(frozen=True, slots=True)
class Scripted:
    """One reply. `frames` are the body's chunks in order; an exception among them is raised in its place, a
    callable is called.

    `error` is raised instead of a reply.
    """

    status: int = 200
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = field(default_factory=dict)
    frames: Sequence[bytes | BaseException | Callable[[], object]] = ()
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it left: what a provider would have seen."""

    method: str
    url: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Script:
    """Replies in order, the last one for ever; or a function from what was received to a reply. Counts what
    it saw.

    `sent` has every request, `opened` and `closed` count bodies that were handed out and closed, `read`
    counts frames.
    """

    def __init__(self, replies: Iterable[Scripted] | Callable[[Received], Scripted]) -> None:
        self._lock = Lock()
        self._answer = replies if callable(replies) else None
        self._replies = deque(() if callable(replies) else replies)
        self.sent: list[Received] = []
        self.opened = 0
        self.closed = 0
        self.read = 0

    def transport(self, family: Family, kind: Kind) -> Any:
        """A transport of this family that plays the script. Several may share one script."""
        return (_SyncTransport if kind == "sync" else _AsyncTransport)(import_module(family), self)

    def reply(self, received: Received) -> Scripted:
        """The next reply. Raises LookupError when there is none."""
        with self._lock:
            self.sent.append(received)
            if self._answer is None:
                if not self._replies:
                    raise LookupError("Script: no reply is left")
                return self._replies[0] if len(self._replies) == 1 else self._replies.popleft()
        return self._answer(received)

    def frames(self, scripted: Scripted) -> Iterator[bytes]:
        """The body's frames, with what else the script asks for between them."""
        for step in scripted.frames:
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, bytes):
                self.read += 1
                yield step
            else:
                step()


class _Transport:
    def __init__(self, module: Any, script: Script) -> None:
        self._module = module
        self._script = script

    def _reply(self, request: Any, body: bytes) -> tuple[Scripted, Any]:
        received = Received(request.method, str(request.url), tuple(request.headers.raw), body)
        scripted = self._script.reply(received)
        if scripted.error is not None:
            raise scripted.error
        self._script.opened += 1
        headers = scripted.headers
        return scripted, list(headers.items() if isinstance(headers, Mapping) else headers)

    def __repr__(self) -> str:
        return f"<scripted {self._module.__name__} transport>"


class _SyncTransport(_Transport):
    def handle_request(self, request: Any) -> Any:
        scripted, headers = self._reply(request, request.read())
        script = self._script

        class Stream(self._module.SyncByteStream):  # type: ignore[misc,name-defined]
            def __iter__(self) -> Iterator[bytes]:
                return script.frames(scripted)

            def close(self) -> None:
                script.closed += 1

        return self._module.Response(scripted.status, headers=headers, stream=Stream())

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> _SyncTransport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _AsyncFrames:
    """Frames for asynchronous readers. No generator: one that is left early is reported by some loops."""

    def __init__(self, frames: Iterator[bytes]) -> None:
        self._frames = frames

    def __aiter__(self) -> _AsyncFrames:
        return self

    async def __anext__(self) -> bytes:
        frame = next(self._frames, None)
        if frame is None:
            raise StopAsyncIteration
        return frame


class _AsyncTransport(_Transport):
    async def handle_async_request(self, request: Any) -> Any:
        scripted, headers = self._reply(request, await request.aread())
        script = self._script

        class Stream(self._module.AsyncByteStream):  # type: ignore[misc,name-defined]
            def __aiter__(self) -> AsyncIterator[bytes]:
                return _AsyncFrames(script.frames(scripted))

            async def aclose(self) -> None:
                script.closed += 1

        return self._module.Response(scripted.status, headers=headers, stream=Stream())

    async def aclose(self) -> None:
        """Nothing is held."""

    async def __aenter__(self) -> _AsyncTransport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@dataclass(slots=True)
class RecordedCall:
    """One call as the listener was told of it."""

    started: CallStarted
    events: list[CallEvent] = field(default_factory=list)

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


@dataclass(slots=True)
class RecordedDispatch:
    """One dispatch of a window as the listener was told of it: `sends` counts how often its send was
    entered, `events` has its ends, which should be one."""

    started: BatchStarted
    events: list[BatchEnded] = field(default_factory=list)
    sends: int = 0


class Recorder:
    """A listener that remembers every event. `origin()` of a call is its number as bytes, of a dispatch "d"
    and its number."""

    def __init__(self) -> None:
        self.calls: list[RecordedCall] = []
        self.dispatches: list[RecordedDispatch] = []
        self.process: list[ProcessEvent] = []

    def start(self, started: CallStarted) -> _Recording:
        """A call began."""
        call = RecordedCall(started)
        self.calls.append(call)
        return _Recording(call, b"%d" % len(self.calls))

    def dispatch(self, started: BatchStarted) -> _RecordingDispatch:
        """A window left."""
        dispatch = RecordedDispatch(started)
        self.dispatches.append(dispatch)
        return _RecordingDispatch(dispatch, b"d%d" % len(self.dispatches))

    def event(self, event: ProcessEvent) -> None:
        """Something happened to the process."""
        self.process.append(event)


class _Recording(QuietHandle):
    __slots__ = ("_call", "_origin")

    def __init__(self, call: RecordedCall, origin: bytes) -> None:
        self._call = call
        self._origin = origin

    def origin(self) -> bytes:
        return self._origin

    def event(self, event: CallEvent) -> None:
        self._call.events.append(event)


class _RecordingDispatch:
    __slots__ = ("_dispatch", "_origin")

    def __init__(self, dispatch: RecordedDispatch, origin: bytes) -> None:
        self._dispatch = dispatch
        self._origin = origin

    def attempt(self) -> AbstractContextManager[object]:
        self._dispatch.sends += 1
        return nullcontext()

    def origin(self) -> bytes:
        return self._origin

    def event(self, event: BatchEnded) -> None:
        self._dispatch.events.append(event)
