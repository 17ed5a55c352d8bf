"""What the processes of the tests run: importable, so that a spawned process finds it."""

from __future__ import annotations

import os
import random
import time
from multiprocessing.connection import Connection
from threading import Barrier
from typing import Any

from store_rigs import entry

from underlay.stores.sqlite import SqliteStore
from underlay.stores.store import Lease
from underlay.testing import FakeClock


def lead_or_follow(path: str, number: int, barrier: Barrier, turns: int, results: Any) -> None:
    """Ask for the same key as everybody else, turn by turn; report the turns led, and the secret."""
    clock = FakeClock(start=float(number))  # no two processes have the same monotonic clock
    barrier.wait()
    store = SqliteStore(path, 1000, 10**6, wall=lambda: 1e9)
    led: list[int] = []
    for turn in range(turns):
        key = b"%d" % (turn % 3)  # several generations of each key
        barrier.wait()
        answer = store.lease(key, clock.now(), 60.0)
        barrier.wait()
        if isinstance(answer, Lease):
            led.append(turn)
            assert store.put(key, entry(clock, turn), clock.now(), answer.token)
        barrier.wait()
        found = store.get(key, clock.now())
        assert found is not None
        assert found.usage is not None
        assert found.usage.output_tokens == turn
        assert found.stored_at == clock.now()
    results.put((led, store.secret()))
    store.close()


def hammer(path: str, number: int, barrier: Barrier, times: int, results: Any) -> None:
    """Do everything at random; report how often another answer came than the key's."""
    chance, clock = random.Random(number), FakeClock()
    store = SqliteStore(path, 20, 5000)
    wrong = 0
    barrier.wait()
    for _ in range(times):
        tag = chance.randrange(60)
        key, what = b"%d" % tag, chance.random()
        if what < 0.4:
            found = store.get(key, clock.now())
            wrong += found is not None and (found.usage is None or found.usage.output_tokens != tag)
        elif what < 0.8:
            answer = store.lease(key, clock.now(), 60.0)
            if isinstance(answer, Lease):
                store.put(key, entry(clock, tag, size=chance.randrange(1, 900)), clock.now(), answer.token)
        elif what < 0.9:
            store.put(key, entry(clock, tag, ttl=1e-6, size=tag), clock.now())
        else:
            store.delete(key)
        counts = store.counts()
        wrong += counts.entries > 20 or counts.size > 5000
    results.put(wrong)
    store.close()


def lead_and_hang(path: str, pipe: Connection) -> None:
    """Take the lease of a key for ever, say so, and wait to be killed."""
    store = SqliteStore(path, 10, 1000, wall=lambda: 1e9)
    answer = store.lease(b"k", 0.0, 1e9)
    assert isinstance(answer, Lease)
    pipe.send((os.getpid(), answer.token))
    time.sleep(600)  # the test ends it long before
