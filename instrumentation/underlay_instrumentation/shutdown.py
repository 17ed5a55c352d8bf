"""Sends what is left when the process ends, within a bound: at exit, on SIGTERM, in fork children.

A thread per provider waits for the moment. It is made at the start because Python refuses to start threads
while it is ending (since 3.12), and because only a thread can be waited for with a bound.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import signal
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from underlay_instrumentation.faults import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from underlay_instrumentation.delivery import Tally

__all__ = ["Shutdown", "Stoppable", "inert"]

_INIT_PROCESS: Final = 1


class Stoppable:
    """One provider: how to flush it and how to shut it down."""

    def __init__(self, flush: Callable[[], object], shutdown: Callable[[], object]) -> None:
        self.flush = flush
        self.shutdown = shutdown


class _Worker:
    """A parked thread that runs what it is handed."""

    def __init__(self) -> None:
        # SimpleQueue.put may be interrupted by a signal handler that puts too.
        self._orders: queue.SimpleQueue[tuple[Callable[[], object], threading.Event]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="underlay-flush", daemon=True).start()

    def order(self, work: Callable[[], object]) -> threading.Event:
        """Have `work` done; the event is set when it is."""
        done = threading.Event()
        self._orders.put((work, done))
        return done

    def _run(self) -> None:
        while True:
            work, done = self._orders.get()
            try:
                work()
            except Exception as error:  # noqa: BLE001 - the process ends whether telemetry could be sent or not
                fault("the last telemetry export", error)
            done.set()


class Shutdown:
    """Flushes and stops the providers that `configure` made, within `timeout` seconds; calling it again does
    nothing.

    `destination` says in one line where telemetry goes. `providers` empty: nothing was configured, and there
    is nothing to do.
    """

    def __init__(
        self,
        destination: str,
        providers: Sequence[Stoppable] = (),
        *,
        timeout: float = 0.0,
        tally: Tally | None = None,
        close: Callable[[], object] | None = None,
    ) -> None:
        self.destination = destination
        self._providers = tuple(providers)
        self._timeout = timeout
        self._tally = tally
        self._close = close
        self._called = False
        self._workers = [_Worker() for _ in self._providers]

    def __call__(self) -> None:
        """Send what is left and stop. Says in one line on stderr what could not be sent."""
        if self._called:
            return
        self._called = True
        in_time = self._run([provider.shutdown for provider in self._providers])
        if in_time and self._close is not None:
            self._close()
        line = self._tally.line() if self._tally is not None else ""
        if line:
            late = "" if in_time else f" within {self._timeout:g} s of the end"
            _say(line + late)

    def flush(self) -> None:
        """Send what is there and go on."""
        if not self._called:
            self._run([provider.flush for provider in self._providers])

    def install(self) -> None:
        """Run at exit, on SIGTERM, and in fork children at their end."""
        if not self._providers:
            return
        atexit.register(self)
        _on_sigterm(self)
        if hasattr(os, "register_at_fork"):
            after = weakref.WeakMethod(self._after_fork)
            os.register_at_fork(after_in_child=lambda: (method := after()) and method())

    def _run(self, works: Sequence[Callable[[], object]]) -> bool:
        deadline = time.monotonic() + self._timeout
        events = [worker.order(work) for worker, work in zip(self._workers, works, strict=True)]
        # Every provider has had its order by now, so a slow one takes nothing from the others.
        return all(event.wait(max(0.0, deadline - time.monotonic())) for event in events)

    def _after_fork(self) -> None:
        self._called = False
        if self._tally is not None:
            self._tally.reset()
        self._workers = [_Worker() for _ in self._providers]
        # multiprocessing's fork children leave by os._exit and run these finalizers, not atexit.
        util: Any = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.register_after_fork(self, _finalize_in_child)


def _finalize_in_child(shutdown: Shutdown) -> None:
    util: Any = sys.modules["multiprocessing.util"]
    util.Finalize(None, shutdown, exitpriority=0)


def _on_sigterm(shutdown: Shutdown) -> None:
    """Flush on SIGTERM, then do what would have been done without us. An app that sets its own handler later
    replaces this one."""
    if threading.current_thread() is not threading.main_thread():
        return
    previous = signal.getsignal(signal.SIGTERM)
    # None: a handler that is not Python's, which could not be called.
    if previous is None or previous is signal.SIG_IGN:
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if callable(previous):
            shutdown.flush()
            previous(number, frame)
        elif os.getpid() == _INIT_PROCESS:
            # The kernel ignores the default action for process 1: the program goes on, and so does its
            # telemetry.
            shutdown.flush()
        else:
            shutdown()
            # By the signal itself, so that the parent sees what it would have seen (128 + 15 in a shell).
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, handle)


def inert(reason: str) -> Shutdown:
    """A shutdown that has nothing to do, and says why."""
    return Shutdown(reason)


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
