"""What every store promises: one table of tests over all of them, and leases against a plain model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store_rigs import KINDS, Rig, entry

from underlay.core.cache import Entry
from underlay.errors import StoreError
from underlay.stores.memory import MemoryStore
from underlay.stores.store import KEPT_GRANTS, Held, Lease, Store, StoreCounts
from underlay.testing import FakeClock

Open = Callable[..., Store[Entry]]


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    """Each kind of store in turn."""
    return Rig(request.param, tmp_path)


@pytest.fixture
def clock(rig: Rig) -> FakeClock:
    """The clock of the store under test."""
    return rig.clock


@pytest.fixture
def open_store(rig: Rig) -> Iterator[Open]:
    """Opens stores that are closed after the test."""
    stores: list[Store[Entry]] = []

    def opened(*args: Any) -> Store[Entry]:
        stores.append(rig.open(*args))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Open) -> Store[Entry]:
    """A store with room for ten entries and a thousand bytes."""
    return open_store()


def token_of(answer: Lease | Held) -> int:
    """The token of a lease that was granted."""
    assert isinstance(answer, Lease)
    return answer.token


def test_what_is_put_comes_back_whole(store: Store[Entry], clock: FakeClock) -> None:
    """An entry is the same in every field when it is read, and another key has nothing."""
    put = entry(clock, 7)
    assert store.put(b"k", put, clock.now())
    clock.advance(4.0)
    assert store.get(b"k", clock.now()) == put
    assert store.get(b"other", clock.now()) is None


def test_an_entry_of_before_keeps_its_age(store: Store[Entry], clock: FakeClock) -> None:
    """An answer that was finished some time before it is put is as old as it is."""
    put = entry(clock, ttl=5.0)
    clock.advance(3.0)
    store.put(b"k", put, clock.now())
    clock.advance(1.5)
    found = store.get(b"k", clock.now())
    assert found is not None
    assert clock.now() - found.stored_at == 4.5
    clock.advance(0.5)
    assert store.get(b"k", clock.now()) is None


def test_an_entry_ends_at_its_time(store: Store[Entry], clock: FakeClock) -> None:
    """Served just before, gone at the moment itself, removed and counted once."""
    store.put(b"k", entry(clock, ttl=5.0), clock.now())
    clock.advance(4.5)
    assert store.get(b"k", clock.now()) is not None
    clock.advance(0.5)
    assert store.get(b"k", clock.now()) is None
    assert store.get(b"k", clock.now()) is None
    assert store.counts() == StoreCounts(0, 0, 0, 0, 1)


def test_the_least_recently_used_goes_first(open_store: Open, clock: FakeClock) -> None:
    """Reading counts as use, and so does putting again."""
    store = open_store(3, 1000)
    for key in (b"a", b"b", b"c"):
        store.put(key, entry(clock), clock.now())
    store.get(b"a", clock.now())
    store.put(b"b", entry(clock, 2), clock.now())
    store.put(b"d", entry(clock), clock.now())
    store.put(b"e", entry(clock), clock.now())
    kept = [key for key in (b"a", b"b", b"c", b"d", b"e") if store.get(key, clock.now()) is not None]
    assert kept == [b"b", b"d", b"e"]
    assert store.counts() == StoreCounts(3, 3, 2, 0, 0)


def test_bytes_are_bounded(open_store: Open, clock: FakeClock) -> None:
    """As many of the oldest go as it takes; replacing frees the bytes of what was replaced."""
    store = open_store(10, 100)
    for key in (b"a", b"b", b"c"):
        store.put(key, entry(clock, size=30), clock.now())
    store.put(b"c", entry(clock, size=40), clock.now())
    assert store.counts() == StoreCounts(3, 100, 0, 0, 0)
    store.put(b"d", entry(clock, size=50), clock.now())
    assert store.counts() == StoreCounts(2, 90, 0, 2, 0)


def test_the_outlived_goes_before_the_good(open_store: Open, clock: FakeClock) -> None:
    """Room is made from what is of no use any more, which counts as expired and not as evicted."""
    store = open_store(2, 1000)
    store.put(b"good", entry(clock, ttl=100.0), clock.now())
    store.put(b"old", entry(clock, ttl=1.0), clock.now())
    clock.advance(5.0)
    store.put(b"new", entry(clock), clock.now())
    assert store.get(b"good", clock.now()) is not None
    assert store.counts() == StoreCounts(2, 2, 0, 0, 1)


def test_what_is_larger_than_the_store_is_not_taken(store: Store[Entry], clock: FakeClock) -> None:
    """It pushes nothing out, but its lease is over."""
    store.put(b"k", entry(clock, size=5), clock.now())
    token = token_of(store.lease(b"big", clock.now(), 60.0))
    assert store.put(b"big", entry(clock, size=1001), clock.now(), token) is False
    assert store.counts() == StoreCounts(1, 5, 0, 0, 0)
    assert isinstance(store.lease(b"big", clock.now(), 60.0), Lease)


def test_deleting_and_clearing(store: Store[Entry], clock: FakeClock) -> None:
    """Each says what was there; neither counts as eviction or expiry."""
    for key in (b"a", b"b", b"c"):
        store.put(key, entry(clock, size=2), clock.now())
    assert [store.delete(b"a"), store.delete(b"a")] == [True, False]
    assert store.counts() == StoreCounts(2, 4, 0, 0, 0)
    assert [store.clear(), store.clear()] == [2, 0]
    assert store.counts() == StoreCounts(0, 0, 0, 0, 0)
    assert store.get(b"b", clock.now()) is None


def test_one_has_the_key_and_the_others_know_until_when(store: Store[Entry], clock: FakeClock) -> None:
    """The second to ask is told when the first one's time is over; another key is free."""
    first = store.lease(b"k", clock.now(), 60.0)
    assert first == Lease(token_of(first), clock.now() + 60.0)
    until = clock.now() + 60.0
    clock.advance(20.0)
    assert store.lease(b"k", clock.now(), 60.0) == Held(until)
    assert isinstance(store.lease(b"other", clock.now(), 60.0), Lease)


def test_a_put_ends_the_lease(store: Store[Entry], clock: FakeClock) -> None:
    """With its entry there is nothing left to fetch: the next one to ask gets the key."""
    token = token_of(store.lease(b"k", clock.now(), 60.0))
    assert store.put(b"k", entry(clock), clock.now(), token)
    assert token_of(store.lease(b"k", clock.now(), 60.0)) > token


def test_renewing_makes_a_lease_longer_than_the_generation(store: Store[Entry], clock: FakeClock) -> None:
    """A leader that renews keeps the key however long its answer takes."""
    token = token_of(store.lease(b"k", clock.now(), 60.0))
    for _ in range(5):
        clock.advance(50.0)
        assert store.lease(b"k", clock.now(), 60.0, token) == Lease(token, clock.now() + 60.0)
        assert store.lease(b"k", clock.now(), 60.0) == Held(clock.now() + 60.0)
    assert store.put(b"k", entry(clock), clock.now(), token)


def test_a_lease_that_ran_out_and_nobody_took_is_still_good(store: Store[Entry], clock: FakeClock) -> None:
    """A late leader hurts nobody while nobody else has asked: it may renew, and it may put."""
    tokens = [token_of(store.lease(key, clock.now(), 1.0)) for key in (b"a", b"b")]
    clock.advance(1.0)
    assert store.lease(b"a", clock.now(), 60.0, tokens[0]) == Lease(tokens[0], clock.now() + 60.0)
    assert store.put(b"b", entry(clock), clock.now(), tokens[1])


def test_a_lease_ends_at_its_time(store: Store[Entry], clock: FakeClock) -> None:
    """At the moment itself another caller takes the key over, and the first one is told when it renews."""
    first = token_of(store.lease(b"k", clock.now(), 60.0))
    clock.advance(59.5)
    assert isinstance(store.lease(b"k", clock.now(), 60.0), Held)
    clock.advance(0.5)
    second = token_of(store.lease(b"k", clock.now(), 60.0))
    assert second > first
    assert store.lease(b"k", clock.now(), 60.0, first) == Held(clock.now() + 60.0)


@pytest.mark.parametrize("ended", ["running", "freed", "put", "taken over again"])
def test_a_stale_leader_is_fenced_off(store: Store[Entry], clock: FakeClock, ended: str) -> None:
    """Who lost the key can never put, whatever the later holder did since; and it disturbs nobody."""
    stale = token_of(store.lease(b"k", clock.now(), 1.0))
    clock.advance(2.0)
    later = token_of(store.lease(b"k", clock.now(), 1.0))
    if ended == "freed":
        store.free(b"k", later)
    elif ended == "put":
        store.put(b"k", entry(clock, 2), clock.now(), later)
    elif ended == "taken over again":
        clock.advance(2.0)
        later = token_of(store.lease(b"k", clock.now(), 1.0))
    assert store.put(b"k", entry(clock, 1), clock.now(), stale) is False
    assert isinstance(store.lease(b"k", clock.now(), 1.0, stale), Held)
    found = store.get(b"k", clock.now())
    assert (found and found.usage and found.usage.output_tokens) == (2 if ended == "put" else None)
    still_led = ended in ("running", "taken over again")
    assert store.put(b"k", entry(clock, 3), clock.now(), later) is still_led


def test_a_lost_lease_is_not_renewed(store: Store[Entry], clock: FakeClock) -> None:
    """Where nobody has the key the answer is a time that is over: the caller has to ask anew."""
    token = token_of(store.lease(b"k", clock.now(), 60.0))
    store.free(b"k", token)
    assert store.lease(b"k", clock.now(), 60.0, token) == Held(clock.now())
    assert store.put(b"k", entry(clock), clock.now(), token) is False


def test_freeing_is_idempotent_and_the_holders_alone(store: Store[Entry], clock: FakeClock) -> None:
    """A wrong token, another key and a second time do nothing."""
    token = token_of(store.lease(b"k", clock.now(), 60.0))
    store.free(b"k", token + 1)
    store.free(b"other", token)
    store.free(b"k", 0)
    assert isinstance(store.lease(b"k", clock.now(), 60.0), Held)
    store.free(b"k", token)
    store.free(b"k", token)
    assert isinstance(store.lease(b"k", clock.now(), 60.0), Lease)


def test_a_token_is_for_one_key(store: Store[Entry], clock: FakeClock) -> None:
    """A token neither puts nor renews under another key."""
    token = token_of(store.lease(b"k", clock.now(), 60.0))
    store.lease(b"other", clock.now(), 60.0)
    assert store.put(b"other", entry(clock), clock.now(), token) is False
    assert isinstance(store.lease(b"other", clock.now(), 60.0, token), Held)


def test_leases_outlast_deleting_and_clearing(store: Store[Entry], clock: FakeClock) -> None:
    """Their holders are still at work."""
    token = token_of(store.lease(b"k", clock.now(), 60.0))
    store.delete(b"k")
    store.clear()
    assert isinstance(store.lease(b"k", clock.now(), 60.0), Held)
    assert store.put(b"k", entry(clock), clock.now(), token)


def test_without_a_token_nothing_is_asked_of_leases(store: Store[Entry], clock: FakeClock) -> None:
    """Who does not take part in leases stores as ever, and the holder keeps the key."""
    token = token_of(store.lease(b"k", clock.now(), 60.0))
    assert store.put(b"k", entry(clock, 1), clock.now())
    assert isinstance(store.lease(b"k", clock.now(), 60.0), Held)
    assert store.put(b"k", entry(clock, 2), clock.now(), token)


def test_tokens_only_grow(store: Store[Entry], clock: FakeClock) -> None:
    """Also over keys, and after the last lease was freed."""
    tokens: list[int] = []
    for number in range(20):
        key = b"%d" % (number % 3)
        tokens.append(token_of(store.lease(key, clock.now(), 60.0)))
        store.free(key, tokens[-1])
    assert tokens == sorted(set(tokens))
    assert tokens[0] > 0


def test_leases_that_nobody_ended_are_forgotten(rig: Rig, store: Store[Entry], clock: FakeClock) -> None:
    """Their records are bounded; one that is renewed is not among them, and a forgotten one is fenced off."""
    kept = token_of(store.lease(b"kept", clock.now(), 60.0))
    lost = token_of(store.lease(b"lost", clock.now(), 0.5))
    for number in range(2 * KEPT_GRANTS):
        clock.advance(1.0)
        store.lease(b"%d" % number, clock.now(), 0.5)
        store.lease(b"kept", clock.now(), 60.0, kept)
    known = (
        len(store._leases) if isinstance(store, MemoryStore) else rig.sql("SELECT count(*) FROM leases")[0][0]
    )
    assert known <= KEPT_GRANTS + 1
    assert store.put(b"lost", entry(clock), clock.now(), lost) is False
    assert store.put(b"kept", entry(clock), clock.now(), kept)


def test_a_lease_that_ran_out_is_known_for_a_while(store: Store[Entry], clock: FakeClock) -> None:
    """It is forgotten with the last of so many later grants, and not before."""
    tokens = [token_of(store.lease(key, clock.now(), 0.5)) for key in (b"first", b"second")]
    clock.advance(1.0)
    for number in range(KEPT_GRANTS - 1):
        store.lease(b"%d" % number, clock.now(), 60.0)
    accepted = [
        store.put(key, entry(clock), clock.now(), token)
        for key, token in zip((b"first", b"second"), tokens, strict=True)
    ]
    assert accepted == [False, True]


def test_of_many_threads_one_leads(store: Store[Entry], clock: FakeClock) -> None:
    """Sixteen threads ask for one key at once, round after round: one gets it each time, and its entry is
    what the others find."""
    start = Barrier(16)

    def work(number: int) -> list[int]:
        led: list[int] = []
        for turn in range(10):
            key = b"%d" % turn
            start.wait()
            answer = store.lease(key, clock.now(), 60.0)
            start.wait()
            if isinstance(answer, Lease):
                led.append(turn)
                assert store.put(key, entry(clock, number), clock.now(), answer.token)
            start.wait()
            assert store.get(key, clock.now()) is not None
        return led

    with ThreadPoolExecutor(16) as threads:
        led = [turn for turns in threads.map(work, range(16)) for turn in turns]
    assert sorted(led) == list(range(10))


def test_closing_twice_is_closing(store: Store[Entry]) -> None:
    """Close may be called by whoever ends first; a store of files then says so, and memory has nothing to
    close."""
    store.close()
    store.close()
    if store.local:
        assert store.get(b"a", 0.0) is None
    else:
        with pytest.raises(StoreError, match="closed"):
            store.get(b"a", 0.0)


def test_the_kinds_say_how_they_are_to_be_asked(rig: Rig, store: Store[Entry]) -> None:
    """Memory answers at once and tells its callers; a file may block, and is looked at again."""
    assert store.local is (rig.kind == "memory")
    assert (store.poll is None) is store.local
    assert (store.maxsize, store.max_bytes) == (10, 1000)
    assert (store.secret() is None) is store.local


KEYS = st.sampled_from([b"a", b"b"])
TTLS = st.sampled_from([1.0, 2.0, 5.0])
ANY = st.integers(0, 30)


class Leases(RuleBasedStateMachine):
    """The model is one record a key (token and end), the last token, and the answer that is stored."""

    kind = "memory"

    @initialize()
    def start(self) -> None:
        """An empty store."""
        self.folder = Path(tempfile.mkdtemp())
        self.rig = Rig(self.kind, self.folder)
        self.clock = self.rig.clock
        self.store = self.rig.open()
        self.records: dict[bytes, tuple[int, float]] = {}
        self.granted: list[tuple[bytes, int]] = []
        self.stored: dict[bytes, int] = {}
        self.tag = 0

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    def one_of(self, number: int, key: bytes) -> tuple[bytes, int]:
        """A lease that was granted at some time, or one that never was."""
        return self.granted[number % len(self.granted)] if self.granted else (key, 99)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    @rule(key=KEYS, ttl=TTLS)
    def acquire(self, key: bytes, ttl: float) -> None:
        """Granted unless the record of the key is one that has not run out; tokens grow."""
        now = self.clock.now()
        answer = self.store.lease(key, now, ttl)
        if key in self.records and self.records[key][1] > now:
            assert answer == Held(self.records[key][1])
            return
        assert isinstance(answer, Lease)
        assert answer.until == now + ttl
        assert all(answer.token > token for _, token in self.granted)
        self.granted.append((key, answer.token))
        self.records[key] = (answer.token, now + ttl)

    @rule(number=ANY, key=KEYS, ttl=TTLS)
    def renew(self, number: int, key: bytes, ttl: float) -> None:
        """Only the lease on record is renewed."""
        now = self.clock.now()
        key, token = self.one_of(number, key)
        answer = self.store.lease(key, now, ttl, token)
        if self.records.get(key, (0, 0.0))[0] == token:
            self.records[key] = (token, now + ttl)
            assert answer == Lease(token, now + ttl)
        else:
            assert answer == Held(self.records[key][1] if key in self.records else now)

    @rule(number=ANY, key=KEYS)
    def put_leased(self, number: int, key: bytes) -> None:
        """Only who is on record stores, and that ends its lease."""
        self.tag += 1
        key, token = self.one_of(number, key)
        mine = self.records.get(key, (0, 0.0))[0] == token
        assert self.store.put(key, entry(self.clock, self.tag, ttl=1e6), self.clock.now(), token) is mine
        if mine:
            del self.records[key]
            self.stored[key] = self.tag

    @rule(key=KEYS)
    def put(self, key: bytes) -> None:
        """Without a token everybody stores."""
        self.tag += 1
        assert self.store.put(key, entry(self.clock, self.tag, ttl=1e6), self.clock.now())
        self.stored[key] = self.tag

    @rule(number=ANY, key=KEYS)
    def free(self, number: int, key: bytes) -> None:
        """Only the lease on record ends."""
        key, token = self.one_of(number, key)
        self.store.free(key, token)
        if self.records.get(key, (0, 0.0))[0] == token:
            del self.records[key]

    @rule()
    def clear(self) -> None:
        """Entries go, leases stay."""
        assert self.store.clear() == len(self.stored)
        self.stored = {}

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def agrees(self) -> None:
        """What is stored is what the last one who was allowed to has put."""
        for key in (b"a", b"b"):
            found = self.store.get(key, self.clock.now())
            tag = None if found is None or found.usage is None else found.usage.output_tokens
            assert tag == self.stored.get(key)


class SqliteLeases(Leases):
    """The same over a file."""

    kind = "sqlite"


Leases.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
SqliteLeases.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestLeases = Leases.TestCase
TestSqliteLeases = SqliteLeases.TestCase
