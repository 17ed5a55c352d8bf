"""The store of one process: a state machine against a plain model, threads, and the fork child's copy."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from underlay.stores.memory import MemoryStore
from underlay.stores.store import KEPT_GRANTS, LOOK, Lease, StoreCounts


@dataclass(frozen=True)
class Thing:
    """What the store must know of a value."""

    stored_at: float
    ttl: float
    size: int
    tag: int = 0


KEYS = st.sampled_from([b"%d" % number for number in range(12)])


class Model(RuleBasedStateMachine):
    """The model is a list from the least to the most recently used."""

    @initialize(maxsize=st.integers(1, 5), max_bytes=st.integers(1, 40))
    def start(self, maxsize: int, max_bytes: int) -> None:
        """An empty store."""
        self.store: MemoryStore[Thing] = MemoryStore(maxsize, max_bytes)
        self.now = 0.0
        self.order: list[tuple[bytes, Thing]] = []
        self.by_entries = self.by_bytes = self.expired = 0
        self.tag = 0

    def good(self, thing: Thing) -> bool:
        """Whether an entry is within its time."""
        return self.now - thing.stored_at < thing.ttl

    def size(self) -> int:
        """Bytes in the model."""
        return sum(thing.size for _, thing in self.order)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        """A good entry comes back and is the most recently used; one that outlived its time is gone."""
        thing = dict(self.order).get(key)
        if thing is not None:
            self.order = [pair for pair in self.order if pair[0] != key]
            if self.good(thing):
                self.order.append((key, thing))
            else:
                self.expired += 1
                thing = None
        assert self.store.get(key, self.now) == thing

    @rule(key=KEYS, size=st.integers(0, 20), ttl=st.sampled_from([1.0, 2.0, 100.0]))
    def put(self, key: bytes, size: int, ttl: float) -> None:
        """What is too large changes nothing; else the oldest expired go, then the least recently used."""
        self.tag += 1
        thing = Thing(self.now, ttl, size, self.tag)
        took = self.store.put(key, thing, self.now)
        assert took is (size <= self.store.max_bytes)
        if not took:
            return
        self.order = [pair for pair in self.order if pair[0] != key]
        if len(self.order) >= self.store.maxsize or self.size() + size > self.store.max_bytes:
            oldest = self.order[:LOOK]
            self.expired += sum(not self.good(thing) for _, thing in oldest)
            self.order = [pair for pair in oldest if self.good(pair[1])] + self.order[LOOK:]
        while len(self.order) >= self.store.maxsize:
            self.order.pop(0)
            self.by_entries += 1
        while self.order and self.size() + size > self.store.max_bytes:
            self.order.pop(0)
            self.by_bytes += 1
        self.order.append((key, thing))

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        """Removing says whether there was something."""
        assert self.store.delete(key) is (key in dict(self.order))
        self.order = [pair for pair in self.order if pair[0] != key]

    @rule()
    def clear(self) -> None:
        """Clearing counts as neither eviction nor expiry."""
        assert self.store.clear() == len(self.order)
        self.order = []

    @rule()
    def fork(self) -> None:
        """A child goes on with the same entries in the same order, its totals from zero."""
        self.store = self.store.forked()
        self.by_entries = self.by_bytes = self.expired = 0

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def agrees(self) -> None:
        """Counts are the model's, and both bounds hold."""
        counts = self.store.counts()
        assert counts == StoreCounts(
            len(self.order), self.size(), self.by_entries, self.by_bytes, self.expired
        )
        assert counts.evictions == self.by_entries + self.by_bytes
        assert counts.entries <= self.store.maxsize
        assert counts.size <= self.store.max_bytes


Model.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestModel = Model.TestCase


def test_an_entry_ends_at_its_time() -> None:
    """Served just before, gone at the moment itself, and counted once."""
    store: MemoryStore[Thing] = MemoryStore(2, 100)
    store.put(b"k", Thing(10.0, 5.0, 1), 10.0)
    assert store.get(b"k", 14.999) is not None
    assert store.get(b"k", 15.0) is None
    assert store.get(b"k", 15.0) is None
    assert store.counts() == StoreCounts(0, 0, 0, 0, 1)


def test_reading_keeps_an_entry_longest() -> None:
    """The least recently *used* goes first, not the oldest."""
    store: MemoryStore[Thing] = MemoryStore(2, 100)
    for key in (b"a", b"b"):
        store.put(key, Thing(0.0, 9.0, 1), 0.0)
    store.get(b"a", 0.0)
    store.put(b"c", Thing(0.0, 9.0, 1), 0.0)
    assert [store.get(key, 0.0) is not None for key in (b"a", b"b", b"c")] == [True, False, True]


def test_an_expired_entry_goes_before_a_good_one() -> None:
    """Room is made from what is of no use any more, which counts as expired and not as evicted."""
    store: MemoryStore[Thing] = MemoryStore(2, 100)
    store.put(b"good", Thing(0.0, 100.0, 1), 0.0)
    store.put(b"old", Thing(0.0, 1.0, 1), 0.0)
    store.put(b"new", Thing(5.0, 100.0, 1), 5.0)
    assert store.get(b"good", 5.0) is not None
    assert store.counts() == StoreCounts(2, 2, 0, 0, 1)


class Watching(Thing):
    """An entry that notes whether its key is there whenever its size is asked for."""

    def __init__(self, store: MemoryStore[Thing], there: list[bool]) -> None:
        super().__init__(0.0, 100.0, 5)
        self._store = store
        self._there = there

    @property
    def size(self) -> int:  # type: ignore[override]
        """Look."""
        self._there.append(b"k" in self._store._entries)
        return 5

    @size.setter
    def size(self, _: int) -> None:
        return


def test_a_key_is_there_while_its_entry_is_replaced() -> None:
    """Whoever looks meanwhile does so without the lock, and would ask the provider again."""
    store: MemoryStore[Thing] = MemoryStore(2, 12)
    there: list[bool] = []
    store.put(b"k", Thing(0.0, 100.0, 5), 0.0)
    store.put(b"other", Thing(0.0, 100.0, 5), 0.0)
    assert store.put(b"k", Watching(store, there), 1.0)
    assert there
    assert all(there)


def test_replacing_an_entry_pushes_nothing_out() -> None:
    """A second answer to the same question takes the first one's place and its bytes."""
    store: MemoryStore[Thing] = MemoryStore(1, 10)
    assert store.put(b"k", Thing(0.0, 9.0, 10), 0.0)
    assert store.put(b"k", Thing(0.0, 9.0, 7), 0.0)
    assert store.counts() == StoreCounts(1, 7, 0, 0, 0)


def test_sixteen_threads_leave_the_books_right() -> None:
    """Under concurrent use the bounds hold, the sizes add up, and every entry that is read is the right one."""
    store: MemoryStore[Thing] = MemoryStore(20, 200)
    start = Barrier(16)

    def work(seed: int) -> int:
        chance = random.Random(seed)
        start.wait()
        for _ in range(400):
            number = chance.randrange(60)
            key = b"%d" % number
            if chance.random() < 0.5:
                store.put(key, Thing(0.0, chance.choice([1.0, 9.0]), number % 30, number), 0.0)
            elif chance.random() < 0.9:
                found = store.get(key, chance.choice([0.0, 2.0]))
                assert found is None or found.tag == number
            else:
                store.delete(key)
            counts = store.counts()
            assert counts.entries <= 20
            assert counts.size <= 200
        return seed

    with ThreadPoolExecutor(16) as threads:
        assert sorted(threads.map(work, range(16))) == list(range(16))
    kept = [found for number in range(60) if (found := store.get(b"%d" % number, 0.0)) is not None]
    assert store.counts().size == sum(thing.size for thing in kept)
    assert store.counts().entries == len(kept)


def test_a_fork_child_does_not_wait_for_the_parents_lock() -> None:
    """The parent's lock may be held by a thread that the child does not have: the copy never takes it, shares
    nothing that changes, and works."""
    store: MemoryStore[Thing] = MemoryStore(3, 100)
    store.put(b"k", Thing(0.0, 9.0, 5), 0.0)
    with store._lock:
        child = store.forked()
    assert child.counts() == StoreCounts(1, 5, 0, 0, 0)
    child.put(b"new", Thing(0.0, 9.0, 1), 0.0)
    child.delete(b"k")
    assert store.get(b"k", 0.0) is not None
    assert store.get(b"new", 0.0) is None
    assert (child.maxsize, child.max_bytes) == (3, 100)


def test_a_fork_child_has_no_leases_and_takes_no_old_token() -> None:
    """The parent's leaders do not exist in the child: keys are free there, and a token of before is nobody's."""
    store: MemoryStore[Thing] = MemoryStore(3, 100)
    old = store.lease(b"k", 0.0, 60.0)
    assert isinstance(old, Lease)
    child = store.forked()
    new = child.lease(b"k", 0.0, 60.0)
    assert isinstance(new, Lease)
    assert new.token > old.token
    assert child.put(b"k", Thing(0.0, 9.0, 1), 0.0, old.token) is False
    assert store.put(b"k", Thing(0.0, 9.0, 1), 0.0, old.token)


def test_keys_that_are_taken_over_again_and_again_hide_no_old_leases() -> None:
    """A lease that was taken over is as young as its last grant: what nobody ended behind it is forgotten."""
    store: MemoryStore[Thing] = MemoryStore(3, 100)
    for number in range(3 * KEPT_GRANTS):
        now = float(number)
        store.lease(b"busy %d" % (number % LOOK), now, 0.5 if number % LOOK else 2.0 * LOOK)
        store.lease(b"%d" % number, now, 0.5)
    assert len(store._leases) <= KEPT_GRANTS + LOOK


@pytest.mark.parametrize("size", [101, 1000])
def test_what_is_larger_than_the_store_is_not_taken(size: int) -> None:
    """One answer larger than the whole store pushes nothing out."""
    store: MemoryStore[Thing] = MemoryStore(3, 100)
    store.put(b"k", Thing(0.0, 9.0, 5), 0.0)
    assert store.put(b"big", Thing(0.0, 9.0, size), 0.0) is False
    assert store.counts() == StoreCounts(1, 5, 0, 0, 0)
