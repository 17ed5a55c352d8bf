"""A flight: many readers of one body, against a plain model, and each rule by its name."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from underlay.core.flight import GIVE_WAY, WAIT, Flight, Frame, LagError, Over, Pull
from underlay.telemetry.attributes import Ending

FOLLOWERS = ["a", "b", "c"]


class Readers(RuleBasedStateMachine):
    """The model is the list of all frames ever pulled, every reader's place in it, and who pulls."""

    @initialize(cap=st.integers(0, 6) | st.just(60))
    def start(self, cap: int) -> None:
        """A flight that has just begun."""
        self.flight = Flight(cap)
        self.cap = cap
        self.body: list[bytes] = []
        self.places: dict[int, int] = {}
        self.lost: set[int] = set()
        self.pulling = 0
        self.alone = 0  # who pulls by itself
        self.over: Over | None = None
        self.small = True  # the body never held more than the cap
        self.left = False  # given up by its last reader
        self.coming: set[str] = set()

    @rule(follower=st.sampled_from(FOLLOWERS) | st.none())
    def join(self, follower: str | None) -> None:
        """A reader comes: only while it could have every frame, and the body has neither failed nor been given
        up. One that follows shares a failure, and is expected to have something soon."""
        open_ = self.small and (not self.left if self.over is None else self.over.ending is Ending.COMPLETE)
        assert self.flight.joinable is open_
        if open_ or (follower and self.small and self.over is not None and not self.over.given_up):
            number = self.flight.join(follower)
            self.coming |= {follower} if follower else set()
            assert number not in self.places
            self.places[number] = 0
        else:
            with pytest.raises(ValueError, match="cannot be joined"):
                self.flight.join(follower)

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """A reader asks what to do next."""
        reader = data.draw(st.sampled_from(sorted(self.places)))
        self.check(reader, self.flight.step(reader))

    def check(self, reader: int, step: object) -> None:
        """The answer is the model's."""
        place = self.places[reader]
        if isinstance(step, Over) and isinstance(step.error, LagError):
            # Cut off only when what lies before it is more than the cap, whatever the others do.
            assert not self.small
            assert sum(map(len, self.body[place:])) > self.cap
            assert step.ending is Ending.FAILED
            del self.places[reader]
            self.lost.add(reader)
        elif place == 0 and self.alone not in (0, reader):
            assert step is WAIT
        elif place == 0 and self.over is not None and self.over.given_up:
            assert step == self.over
        elif (
            reader > 1
            and place >= 4
            and self.courteous
            and place >= len(self.body) - len(self.flight._frames)
        ):
            assert step is GIVE_WAY
        elif place < len(self.body):
            assert step == Frame(self.body[place])
            self.places[reader] = place + 1
        elif self.over is not None:
            assert step == self.over
        elif self.pulling:
            assert step is WAIT
        else:
            shared = len(self.places) > 1 or bool(self.coming)
            assert step == Pull(shared=shared)
            self.pulling = reader
            self.alone = 0 if shared else reader

    @precondition(lambda self: self.pulling > 0)
    @rule(frame=st.binary(max_size=4), at_once=st.booleans())
    def pulled(self, frame: bytes, at_once: bool) -> None:
        """The pull brought a frame, also after everybody left; who pulled alone may be given it with that."""
        reader = self.alone if at_once else 0
        given = reader in self.places
        assert self.flight.pulled(frame, reader) is given
        if given:
            assert self.places[reader] == len(self.body)
            self.places[reader] += 1
        self.pulling = 0
        self.alone = 0
        self.body.append(frame)
        self.small = self.small and sum(map(len, self.body)) <= self.cap

    @rule(followers=st.sets(st.sampled_from(FOLLOWERS)))
    def expect(self, followers: set[str]) -> None:
        """Readers that wait for the head are on their way."""
        self.flight.expect(followers)
        self.coming |= followers

    @rule(follower=st.sampled_from(FOLLOWERS))
    def arrived(self, follower: str) -> None:
        """One of them has something, or does not come; said twice is no harm."""
        self.flight.arrived(follower)
        self.coming -= {follower}

    @rule()
    def hurry(self) -> None:
        """Whoever gives way has done so for long enough."""
        self.flight.hurry()
        self.coming = set()

    @property
    def courteous(self) -> bool:
        """Others are on their way, and no more than half of what may be held is."""
        return bool(self.coming) and 2 * self.flight.held <= self.cap

    @rule(ending=st.sampled_from(list(Ending)), failed=st.booleans())
    def end(self, ending: Ending, failed: bool) -> None:
        """The body ends; the first end stays."""
        error = OSError() if failed and ending is not Ending.COMPLETE else None
        first = self.over is None
        assert self.flight.end(ending, error) is first
        if first:
            self.over = Over(ending, error)
        self.pulling = 0
        self.alone = 0

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A reader goes: the last one of a running body closes upstream, unless a pull is under way."""
        reader = data.draw(st.sampled_from(sorted(self.places)))
        del self.places[reader]
        last = not self.places and self.over is None and not self.pulling
        assert self.flight.leave(reader) is last
        self.left = self.left or last
        self.lost.add(reader)

    @rule()
    def desert(self) -> None:
        """Who pulls, or stops a pull, gives up a body that nobody reads: for good."""
        self.left = self.left or (not self.places and self.over is None)
        assert self.flight.desert() is (self.left and self.over is None)

    @rule(reader=st.integers(1, 3))
    def claim(self, reader: int) -> None:
        """The right to end a body is the right to pull: one has it, however often it is asked, and nobody once
        it has ended."""
        free = self.pulling in (0, -reader) and self.over is None
        assert self.flight.claim(reader) is free
        self.pulling = -reader if free else self.pulling

    @rule(reader=st.integers(1, 3))
    def give_back(self, reader: int) -> None:
        """Who was told to pull and did not come to it lets another be told."""
        self.flight.give_back(reader)
        if self.pulling == reader:
            self.pulling = self.alone = 0

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def ask_after_leaving(self, data: st.DataObject) -> None:
        """Who has gone or was cut off gets nothing more and never pulls; going twice is harmless."""
        reader = data.draw(st.sampled_from(sorted(self.lost)))
        assert self.flight.step(reader) == (self.over or Over(Ending.CLOSED))
        if self.flight.leave(reader):
            self.left = True

    @precondition(lambda self: hasattr(self, "flight"))
    @invariant()
    def agrees(self) -> None:
        """Counts, wholeness and what is held are the model's; what is held is bounded."""
        flight = self.flight
        assert flight.readers == len(self.places)
        assert flight.over == self.over
        assert flight.courteous is self.courteous
        assert flight.deserted is (not self.places and self.over is None)
        assert flight.frames() == (tuple(self.body) if self.small else None)
        held = sum(map(len, flight._frames))
        assert flight._held == held
        newest = len(flight._frames[-1]) if flight._frames else 0
        assert held - newest <= self.cap


Readers.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestReaders = Readers.TestCase


def filled(cap: int, *frames: bytes) -> Flight:
    """A running flight that holds these frames."""
    flight = Flight(cap)
    for frame in frames:
        flight.pulled(frame)
    return flight


def test_a_finished_flight_is_read_without_a_pull() -> None:
    """A hit or a refusal has its whole body and its end before anybody reads."""
    flight = Flight.finished((b"a", b"b"))
    one, two = flight.join(), flight.join()
    assert [flight.step(one) for _ in range(4)] == [
        Frame(b"a"),
        Frame(b"b"),
        Over(Ending.COMPLETE),
        Over(Ending.COMPLETE),
    ]
    assert flight.step(two) == Frame(b"a")
    assert flight.leave(two) is False
    assert flight.frames() == (b"a", b"b")


def test_a_finished_flight_without_a_body_is_over_at_once() -> None:
    """An empty body ends with the first step."""
    flight = Flight.finished(())
    assert flight.step(flight.join()) == Over(Ending.COMPLETE)


def test_two_readers_take_turns_at_one_pull() -> None:
    """Whoever lacks a frame first is told to pull, for all; the other waits, and both get the same frame."""
    flight = Flight(100)
    one, two = flight.join(), flight.join()
    assert flight.step(two) == Pull(shared=True)
    assert flight.step(one) is WAIT
    assert flight.step(two) is WAIT
    flight.pulled(b"a")
    assert flight.step(one) == flight.step(two) == Frame(b"a")
    assert flight.step(one) == Pull(shared=True)


def test_a_lonely_pull_is_not_shared() -> None:
    """A reader alone pulls in its own call; once another has left, so does who remains."""
    flight = Flight(100)
    one = flight.join()
    assert flight.step(one) == Pull(shared=False)
    two = flight.join()
    flight.pulled(b"a")
    flight.leave(two)
    flight.step(one)
    assert flight.step(one) == Pull(shared=False)


def test_a_joiner_starts_at_the_first_frame() -> None:
    """However late it comes, a joiner gets every frame."""
    flight = filled(100, b"a", b"b")
    late = flight.join()
    assert [flight.step(late), flight.step(late)] == [Frame(b"a"), Frame(b"b")]


def test_who_joins_during_a_lone_pull_waits_for_its_end() -> None:
    """A pull that dies with its reader takes the body with it: until it has ended a joiner is given nothing, so
    that it can ask anew; afterwards it has every frame."""
    flight = Flight(100)
    one = flight.join()
    for _ in range(2):
        assert flight.step(one) == Pull(shared=False)
        flight.pulled(b"a")
        assert flight.step(one) == Frame(b"a")
    flight.step(one)
    late = flight.join()
    assert flight.step(late) is WAIT
    flight.pulled(b"b")
    assert [flight.step(late) for _ in range(3)] == [Frame(b"a"), Frame(b"a"), Frame(b"b")]


def test_who_is_expected_need_not_wait_for_a_lone_pull() -> None:
    """While readers that have waited for the head are on their way, a reader ahead of them pulls for all: each is
    given the frames that are there. Once they have come and gone, it pulls alone again."""
    flight = Flight(100)
    ahead = flight.join()
    flight.expect("ab")
    assert flight.step(ahead) == Pull(shared=True)
    flight.pulled(b"a")
    assert flight.step(ahead) == Frame(b"a")
    assert flight.step(ahead) == Pull(shared=True)
    late = {name: flight.join(name) for name in "ab"}
    assert [flight.step(each) for each in late.values()] == [Frame(b"a")] * 2
    for name, each in late.items():
        flight.arrived(name)
        flight.leave(each)
    flight.pulled(b"b")
    assert flight.step(ahead) == Frame(b"b")
    assert flight.step(ahead) == Pull(shared=False)


def steps(flight: Flight, reader: int, count: int) -> list[object]:
    """What this reader is told, so many times."""
    return [flight.step(reader) for _ in range(count)]


BODY = [b"%d" % number for number in range(6)]


@pytest.mark.parametrize("last", ["arrives", "does not come", "is waited for no more"])
def test_who_has_had_the_beginning_gives_way_to_who_had_nothing(last: str) -> None:
    """A follower is given four frames as it comes, and then nothing until everybody else that waited for the head
    has had a frame, or is known not to come. Who brought the body never gives way."""
    flight = filled(100, *BODY)
    leader = flight.join()
    flight.expect("abc")
    readers = {name: flight.join(name) for name in "ab"}
    for name in readers:
        assert flight.step(readers[name]) == Frame(BODY[0])
        flight.arrived(name)
    assert steps(flight, readers["a"], 5) == [*map(Frame, BODY[1:4]), GIVE_WAY, GIVE_WAY]
    assert steps(flight, leader, 7) == [*map(Frame, BODY), Pull(shared=True)]
    if last == "arrives":
        late = flight.join("c")
        assert flight.step(readers["a"]) is GIVE_WAY
        assert flight.step(late) == Frame(BODY[0])
    if last == "is waited for no more":
        flight.hurry()
    else:
        flight.arrived("c")
    assert not flight.courteous
    assert steps(flight, readers["a"], 3) == [*map(Frame, BODY[4:]), WAIT]


def test_who_comes_after_the_head_is_let_by_as_well() -> None:
    """Nobody expected it: it says itself that it follows."""
    flight = filled(100, *BODY)
    flight.join()
    first = flight.join("a")
    flight.step(first)
    flight.arrived("a")
    steps(flight, first, 3)
    late = flight.join("b")
    assert flight.step(first) is GIVE_WAY
    flight.leave(late)
    flight.arrived("b")
    assert flight.step(first) == Frame(BODY[4])


@pytest.mark.parametrize("over", [False, True])
def test_who_gives_way_is_not_cut_off_for_it(over: bool) -> None:
    """A reader that lags by more than the cap is cut off: a follower goes on when half of it is held."""
    flight = filled(12, *BODY)
    leader, first = flight.join(), flight.join("a")
    flight.expect("b")
    flight.arrived("a")
    steps(flight, first, 4)
    assert flight.step(first) is GIVE_WAY
    if over:
        flight.end(Ending.COMPLETE)
        assert flight.step(first) is GIVE_WAY  # what is left is there already, and as long as before
    else:
        steps(flight, leader, 7)
        flight.pulled(b"6")
        assert not flight.courteous
        assert steps(flight, first, 3) == [*map(Frame, [*BODY[4:], b"6"])]


@pytest.mark.parametrize("ending", [Ending.CANCELLED, Ending.CLOSED, Ending.DROPPED])
def test_who_had_no_byte_of_a_body_that_was_given_up_gets_none(ending: Ending) -> None:
    """The end that a reader made is no answer: whoever had nothing yet is told so at once, others after the
    frames that are there."""
    flight = filled(100, b"a", b"b")
    one, two = flight.join(), flight.join()
    flight.step(one)
    flight.end(ending, None)
    assert flight.step(two) == Over(ending)
    assert [flight.step(one), flight.step(one)] == [Frame(b"b"), Over(ending)]


def test_a_failed_body_is_failed_for_everybody_and_for_ever() -> None:
    """Frames that came before the error are delivered, then the same error to each reader, and nobody pulls
    again: an iterator that raised would say 'finished'."""
    flight = filled(100, b"a")
    one, two = flight.join(), flight.join()
    error = OSError("cut")
    assert flight.end(Ending.FAILED, error)
    assert not flight.joinable
    for reader in (one, two):
        assert flight.step(reader) == Frame(b"a")
        for _ in range(2):
            over = flight.step(reader)
            assert isinstance(over, Over)
            assert over.error is error
    assert not flight.end(Ending.COMPLETE)


@pytest.mark.parametrize("ending", [ending for ending in Ending if ending is not Ending.COMPLETE])
def test_only_a_complete_body_is_joined_after_its_end(ending: Ending) -> None:
    """A cut, cancelled, closed or dropped body takes no new reader, though all its frames are held."""
    flight = filled(100, b"a")
    flight.end(ending)
    assert not flight.joinable
    whole = filled(100, b"a")
    whole.end(Ending.COMPLETE)
    assert whole.joinable


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.TRUNCATED])
def test_who_waited_for_the_head_shares_a_failure(ending: Ending) -> None:
    """A body may fail before those who waited for its head have come to it: they get its frames and its end, as if
    they had been quicker. What a reader gave up they do not get."""
    flight = filled(100, b"a")
    error = OSError("cut")
    flight.end(ending, error)
    late = flight.join("late")
    assert flight.step(late) == Frame(b"a")
    assert flight.step(late) == Over(ending, error)
    left = filled(100, b"a")
    left.end(Ending.CANCELLED)
    with pytest.raises(ValueError, match="cannot be joined"):
        left.join("late")


def test_the_last_to_leave_closes_and_a_puller_looks_again() -> None:
    """While a pull is under way leaving closes nothing: the puller finds the body deserted when it returns."""
    flight = Flight(100)
    one, two = flight.join(), flight.join()
    flight.step(one)
    assert (flight.leave(one), flight.leave(two)) == (False, False)
    flight.pulled(b"a")
    assert flight.deserted
    assert flight.leave(two) is True
    flight.end(Ending.CLOSED)
    assert not flight.deserted


def test_nobody_joins_a_body_that_its_last_reader_gave_up() -> None:
    """Between the moment when the last reader leaves and the end of the body nobody comes who would be cut off;
    whoever comes while a pull is still under way keeps the body going."""
    flight = filled(100, b"a")
    one = flight.join()
    assert flight.joinable
    assert flight.leave(one) is True
    assert not flight.joinable
    kept = filled(100, b"a")
    one = kept.join()
    kept.step(one)
    kept.step(one)
    assert kept.leave(one) is False
    two = kept.join()
    kept.pulled(b"b")
    assert kept.desert() is False
    assert [kept.step(two), kept.step(two)] == [Frame(b"a"), Frame(b"b")]


def test_an_interrupt_is_no_answer() -> None:
    """An exception that is no Exception came to a reader and not from upstream: whoever had no byte asks anew,
    whatever the ending says."""
    assert Over(Ending.FAILED, SystemExit()).given_up
    assert not Over(Ending.FAILED, OSError()).given_up


def test_a_body_of_exactly_the_cap_is_whole() -> None:
    """The cap itself still fits; one byte more does not, and nobody may join."""
    flight = filled(3, b"ab", b"c")
    assert (flight.whole, flight.frames()) == (True, (b"ab", b"c"))
    flight.pulled(b"d")
    assert (flight.whole, flight.frames(), flight.joinable) == (False, None, False)


def test_over_the_cap_a_lonely_reader_loses_nothing() -> None:
    """A body larger than the cap passes whole through its reader, frame by frame, and is not held."""
    flight = Flight(3)
    reader = flight.join()
    for number in range(50):
        assert flight.step(reader) == Pull(shared=False)
        flight.pulled(b"%05d" % number)
        assert flight.step(reader) == Frame(b"%05d" % number)
        assert flight._held <= 5


def test_a_laggard_is_cut_off_and_the_others_go_on() -> None:
    """A reader more than the cap behind gets a read error; what is held for it does not grow."""
    flight = Flight(4)
    fast, slow = flight.join(), flight.join()
    for number in range(20):
        flight.step(fast)
        flight.pulled(b"%02d" % number)
        assert flight.step(fast) == Frame(b"%02d" % number)
        assert flight._held <= 6
    over = flight.step(slow)
    assert isinstance(over, Over)
    assert isinstance(over.error, LagError)
    assert flight.step(slow) == Over(Ending.CLOSED)
    assert flight.step(fast) == Pull(shared=False)


def test_a_reader_within_the_cap_is_not_cut_off() -> None:
    """Lagging by no more than the cap costs nothing, even after the body has outgrown it."""
    flight = Flight(4)
    fast, slow = flight.join(), flight.join()
    got: list[object] = []
    for number in range(20):
        flight.step(fast)
        flight.pulled(b"%02d" % number)
        flight.step(fast)
        if number >= 2:
            got.append(flight.step(slow))
    assert got == [Frame(b"%02d" % number) for number in range(18)]
