"""Windows of calls: any order of arrivals, leavings, ends and passing time against a plain model, and each
rule by its name."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from underlay.core.batching import ALONE, Alone, Enter, Lane, Member, Rule, Window
from underlay.telemetry.attributes import BatchTrigger

LARGE = 10**6


class Windows(RuleBasedStateMachine):
    """The model is every member in the order of arrival, the list of members of the open window and of each
    detached one, and how many dispatches are in flight. Times are whole numbers, so that nothing rounds."""

    @initialize(
        linger=st.sampled_from(["fixed", "adaptive", "learned"]),
        timeout=st.sampled_from([0.0, 8.0]),
        members=st.integers(1, 5),
        inputs=st.integers(1, 9),
        tokens=st.integers(1, 30),
    )
    def start(self, linger: str, timeout: float, members: int, inputs: int, tokens: int) -> None:
        """A lane that has just begun."""
        self.rule = Rule(linger, timeout, members, inputs, tokens)
        self.lane = Lane(self.rule)
        self.now = 0.0
        self.flying = 0
        self.window: Window | None = None
        self.open: list[Member] = []
        self.sent: list[tuple[Window, list[Member]]] = []
        self.alone: list[Member] = []
        self.gone: set[Member] = set()
        self.expected = 0.0
        self.apart = 0
        self.used = 0.0

    def detached(self, window: Window, trigger: BatchTrigger) -> None:
        """The open window has left with everybody who was in it."""
        assert window is self.window
        assert window.trigger is trigger
        assert window.members == self.open
        assert self.open
        self.sent.append((window, self.open))
        self.window, self.open = None, []
        self.flying += 1

    def linger(self) -> float:
        """How long a window that opens now would collect."""
        times = min(max(1, self.flying), 4) if self.rule.linger == "adaptive" else 1
        return self.rule.timeout * times

    def learn(self, latency: int | None) -> None:
        """The expectation is smoothed."""
        if latency is not None:
            self.expected += (latency - self.expected) * (0.125 if self.expected else 1)

    def full(self, extra: tuple[int, int, int]) -> bool:
        """Whether the open window and these members, inputs and tokens are more than the bounds."""
        inputs = sum(member.inputs for member in self.open) + extra[1]
        tokens = sum(member.tokens for member in self.open) + extra[2]
        bounds = self.rule
        return len(self.open) + extra[0] > bounds.members or inputs > bounds.inputs or tokens > bounds.tokens

    @rule(inputs=st.integers(1, 10), tokens=st.integers(0, 32), left=st.none() | st.integers(0, 40))
    def arrive(self, inputs: int, tokens: int, left: int | None) -> None:
        """A call comes, with `left` seconds until its deadline."""
        bounds = self.rule
        deadline = math.inf if left is None else self.now + left
        member = Member(inputs, tokens, deadline=deadline)
        self.used = self.now
        answer = self.lane.arrive(member, self.now)
        assert member.entered == self.now
        spare = deadline - self.expected - self.now
        large = inputs > bounds.inputs or tokens > bounds.tokens
        hurried = (
            spare < bounds.timeout
            if bounds.linger == "fixed"
            else deadline - self.now < self.linger() or spare <= 0
        )
        lone = bounds.linger != "fixed" and self.window is None and self.flying == 0
        if bounds.linger == "learned" and not (large or hurried):
            lone = answer == ALONE  # how it chooses is not part of this model, see test_linger_learned
            assert not (lone and self.window)
        if large or hurried or lone:
            assert answer == Alone()
            self.flying += 1
            self.alone.append(member)
            return
        assert isinstance(answer, Enter)
        if self.open and self.full((1, inputs, tokens)):
            assert answer.closed is not None
            self.detached(answer.closed, BatchTrigger.SIZE)
        else:
            assert answer.closed is None
        assert self.window in (None, answer.window)
        self.window = answer.window
        self.open.append(member)
        assert member.window is self.window
        assert not self.full((0, 0, 0))
        if (
            self.full((1, 0, 0))
            or sum(one.inputs for one in self.open) == bounds.inputs
            or sum(one.tokens for one in self.open) == bounds.tokens
        ):
            self.detached(answer.window, BatchTrigger.SIZE)

    @rule()
    def go_alone(self) -> None:
        """A call comes that takes no place if it need not: that is when any other would go at once too, under
        `adaptive`. Otherwise nothing has happened."""
        went = self.lane.go_alone()
        assert went is (self.rule.linger == "adaptive" and self.window is None and self.flying == 0)
        if went:
            self.flying += 1

    @rule(seconds=st.integers(0, 12))
    def time_passes(self, seconds: int) -> None:
        """Nothing happens by itself: somebody has to ask."""
        self.now += seconds

    @precondition(lambda self: self.window)
    @rule()
    def close_due(self) -> None:
        """Whoever waits asks whether its window is due."""
        assert self.window is not None
        window, due = self.window, self.window.due
        if self.lane.close_due(window, self.now):
            assert self.now >= due
            early = window.latest < window.limit
            self.detached(window, BatchTrigger.DEADLINE if early else BatchTrigger.TIME)
        else:
            # Under `learned` it may be due later instead, but nobody's last moment passes for it.
            assert self.now < due or (self.rule.linger == "learned" and self.now < window.due)
            assert self.now < window.latest
            assert window.trigger is None
        assert not self.lane.close_due(window, self.now if window.trigger else -1.0)

    @precondition(lambda self: self.open or self.sent or self.alone)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A member goes, from wherever it is; going twice is harmless."""
        everybody = self.open + self.alone + [member for _, members in self.sent for member in members]
        member = data.draw(st.sampled_from(everybody))
        self.lane.leave(member)
        assert not member.alive
        self.gone.add(member)
        if member in self.open:
            self.open.remove(member)
            if not self.open:
                self.window = None
        self.lane.leave(member)

    @precondition(lambda self: self.flying)
    @rule(latency=st.none() | st.integers(1, 30))
    def ended(self, latency: int | None) -> None:
        """A dispatch ends: the last one takes the open window along, unless the linger is fixed."""
        window = self.lane.ended(self.now, None if latency is None else float(latency))
        self.used = self.now
        self.flying -= 1
        self.learn(latency)
        if self.rule.linger == "fixed":
            assert window is None
        elif self.rule.linger == "adaptive" or window is None:
            assert (window is not None) is (self.flying == 0 and self.window is not None)
        if window is not None:
            self.detached(window, BatchTrigger.IDLE)

    @precondition(lambda self: self.flying and self.rule.linger == "fixed")
    @rule(members=st.integers(1, 5))
    def released(self, members: int) -> None:
        """A window is over as its calls go their ways; those end later."""
        assert self.lane.ended(self.now, None) is None
        self.used = self.now
        self.flying -= 1
        self.apart += members

    @precondition(lambda self: self.apart)
    @rule(latency=st.integers(1, 30))
    def ended_apart(self, latency: int) -> None:
        """A call of a released window is answered: its latency is learned, and nothing is counted a second time."""
        self.lane.took(float(latency))
        self.apart -= 1
        self.learn(latency)

    @precondition(lambda self: hasattr(self, "lane"))
    @invariant()
    def agrees(self) -> None:
        """Who waits, what is in flight and when the window is due are the model's; a detached window never
        changes its members, and counts only the living."""
        assert self.lane.waiting == len(self.open)
        assert self.lane.idle is (self.flying == 0 and not self.open)
        assert self.lane.used == self.used
        if self.window is not None:
            assert self.window.trigger is None
            assert self.window.members == self.open
            assert self.window.limit <= self.window.opened + self.rule.longest
            assert self.window.due == min([self.window.limit, *(member.latest for member in self.open)])
            assert self.flying or self.rule.linger != "adaptive"
        for window, members in [*self.sent, *([(self.window, self.open)] if self.window else [])]:
            assert window.members == members
            living = [member for member in members if member not in self.gone]
            assert window.living == living
            assert window.inputs == sum(member.inputs for member in living)
            assert window.tokens == sum(member.tokens for member in living)


Windows.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestWindows = Windows.TestCase


def lane(
    linger: str, timeout: float = 0.05, members: int = LARGE, inputs: int = 256, tokens: int = LARGE
) -> Lane:
    """A lane with these bounds."""
    return Lane(Rule(linger, timeout, members, inputs, tokens))


def arrive(lane: Lane, now: float, inputs: int = 1, tokens: int = 1, deadline: float = math.inf) -> Member:
    """A member that has arrived; one that goes alone has no window."""
    member = Member(inputs, tokens, deadline=deadline)
    lane.arrive(member, now)
    return member


def window_of(member: Member) -> Window:
    """The window a member is in."""
    assert member.window is not None
    return member.window


def test_fixed_makes_five_dispatches_of_ten_from_fifty_calls() -> None:
    """The classic promise: 50 concurrent calls at a size of 10 leave as exactly 5 full windows."""
    fixed = lane("fixed", members=10)
    answers = [fixed.arrive(Member(1, 1), 0.001 * number) for number in range(50)]
    windows = {
        id(answer.window): answer.window
        for answer in answers
        if isinstance(answer, Enter) and answer.window.trigger is BatchTrigger.SIZE
    }
    assert [len(window.members) for window in windows.values()] == [10] * 5
    assert fixed.waiting == 0


def test_the_arrival_that_fills_a_window_detaches_it_in_the_same_step() -> None:
    """The filler learns from its own arrival that the window has left: nobody can slip in behind it."""
    fixed = lane("fixed", members=2)
    first, second = fixed.arrive(Member(1, 1), 0.0), fixed.arrive(Member(1, 1), 0.0)
    assert isinstance(first, Enter)
    assert isinstance(second, Enter)
    assert second.window is first.window
    assert second.window.trigger is BatchTrigger.SIZE
    third = fixed.arrive(Member(1, 1), 0.0)
    assert isinstance(third, Enter)
    assert third.window is not first.window
    assert len(first.window.members) == 2


def test_fixed_ignores_what_is_in_flight() -> None:
    """Under `fixed` a window stays open for its whole time although nothing is in flight, and the end of a
    dispatch closes none."""
    fixed = lane("fixed")
    early = window_of(arrive(fixed, 0.0))
    assert fixed.close_due(early, 0.05)
    open_window = window_of(arrive(fixed, 0.06))
    assert fixed.ended(0.07, 0.02) is None
    assert open_window.trigger is None


def test_after_a_quiet_spell_fixed_holds_the_first_call_for_those_that_follow() -> None:
    """The time of a window starts with its first member and not with the window before: the first call after
    a quiet spell leaves with whoever comes within the linger."""
    fixed = lane("fixed")
    before = window_of(arrive(fixed, 0.0))
    assert fixed.close_due(before, 0.05)
    fixed.ended(0.1, 0.05)
    first, second = arrive(fixed, 30.0), arrive(fixed, 30.04)
    assert not fixed.close_due(window_of(first), 30.049)
    assert fixed.close_due(window_of(first), 30.0 + 0.05)
    assert window_of(first).members == [first, second]
    assert window_of(first).trigger is BatchTrigger.TIME


def test_a_burst_that_keeps_everybody_busy_past_the_linger_still_fills_the_window() -> None:
    """Arrivals never close a window for its time: before a waiter has had its turn, later ones still
    enter."""
    fixed = lane("fixed", members=3)
    members = [arrive(fixed, moment) for moment in (0.0, 0.04, 0.4)]
    assert window_of(members[0]).members == members
    assert window_of(members[0]).trigger is BatchTrigger.SIZE


@pytest.mark.parametrize("linger", ["adaptive", "learned"])
def test_a_lone_call_never_waits(linger: str) -> None:
    """With nothing open and nothing in flight a call goes at once, and again after it has ended."""
    relaxed = lane(linger)
    for second in range(5):
        assert relaxed.arrive(Member(1, 1), second) == ALONE
        assert relaxed.ended(second + 0.3, 0.3) is None
    assert relaxed.idle


def test_whoever_comes_while_a_call_is_in_flight_shares_a_window() -> None:
    """500 concurrent calls become three dispatches: the first alone, then a full window, then the rest when
    the linger is over."""
    adaptive = lane("adaptive")
    answers = [adaptive.arrive(Member(1, 1), 0.0) for _ in range(500)]
    assert answers[0] == ALONE
    windows = {id(one.window): one.window for one in answers[1:] if isinstance(one, Enter)}
    assert [len(window.members) for window in windows.values()] == [256, 243]
    full, rest = windows.values()
    assert full.trigger is BatchTrigger.SIZE
    assert not adaptive.close_due(rest, 0.05)  # two are in flight: it waits for both a linger
    assert adaptive.close_due(rest, 0.1)
    assert rest.trigger is BatchTrigger.TIME


def test_the_more_is_in_flight_the_longer_a_window_collects_up_to_a_bound() -> None:
    """Under `adaptive` the linger counts once for each dispatch in flight, at most four times; under `fixed`
    it is what was asked for."""
    adaptive, now = lane("adaptive"), 0.0
    assert adaptive.arrive(Member(1, 1), now) == ALONE
    for times in (1, 2, 3, 4, 4, 4):
        entered = adaptive.arrive(Member(1, 1), now)
        assert isinstance(entered, Enter)
        assert entered.window.due == pytest.approx(now + times * 0.05)
        now = entered.window.due
        assert adaptive.close_due(entered.window, now)
    fixed = lane("fixed")
    for at in (0.0, 0.05, 0.1):
        entered = fixed.arrive(Member(1, 1), at)
        assert isinstance(entered, Enter)
        assert entered.window.due == pytest.approx(at + 0.05)
        assert fixed.close_due(entered.window, at + 0.05)


def test_the_end_of_the_last_dispatch_sends_the_open_window() -> None:
    """Under `adaptive` a window waits for nothing that is not in flight: not for its time, and not for one of
    two."""
    adaptive = lane("adaptive")
    arrive(adaptive, 0.0)
    arrive(adaptive, 0.0, inputs=1000)  # larger than any window: alone, beside the first
    waiting = window_of(arrive(adaptive, 0.0))
    assert adaptive.ended(0.01, 0.01) is None
    assert adaptive.ended(0.02, None) is waiting
    assert waiting.trigger is BatchTrigger.IDLE
    assert not adaptive.idle
    assert adaptive.ended(0.03, 0.01) is None
    assert adaptive.idle


def test_a_window_in_flight_holds_the_next_one() -> None:
    """Every closing counts as one dispatch, so the next window stays open until that ends."""
    adaptive = lane("adaptive", members=2)
    arrive(adaptive, 0.0)
    arrive(adaptive, 0.0)
    filled = window_of(arrive(adaptive, 0.0))
    assert filled.trigger is BatchTrigger.SIZE
    late = window_of(arrive(adaptive, 0.0))
    assert adaptive.ended(0.01, 0.01) is None
    assert adaptive.ended(0.02, 0.02) is late


@pytest.mark.parametrize("linger", ["fixed", "adaptive", "learned"])
def test_no_bound_is_exceeded(linger: str) -> None:
    """A member that does not fit sends the open window first: inputs and tokens never add up to more than
    the bounds."""
    for bounds in ({"inputs": 10}, {"tokens": 10}):
        tight = lane(linger, **bounds)
        arrive(tight, 0.0, inputs=1, tokens=1)
        arrive(tight, 0.0, inputs=6, tokens=6)
        answer = tight.arrive(Member(6, 6), 0.0)
        assert isinstance(answer, Enter)
        assert answer.closed is not None
        assert answer.closed.trigger is BatchTrigger.SIZE
        assert answer.closed.inputs <= 10
        assert (answer.window.inputs, answer.window.trigger) == (6, None)


def test_one_arrival_may_send_two_windows() -> None:
    """A member that does not fit, and is as large as a window by itself, sends both."""
    tight = lane("fixed", inputs=10)
    arrive(tight, 0.0, inputs=6)
    answer = tight.arrive(Member(10, 1), 0.0)
    assert isinstance(answer, Enter)
    assert answer.closed is not None
    assert answer.closed.trigger is answer.window.trigger is BatchTrigger.SIZE


@pytest.mark.parametrize("linger", ["fixed", "adaptive", "learned"])
@pytest.mark.parametrize("size", [{"inputs": 11}, {"tokens": 11}])
def test_a_call_larger_than_a_bound_goes_alone(linger: str, size: dict[str, int]) -> None:
    """It enters no window, and leaves the open one as it is."""
    tight = lane(linger, inputs=10, tokens=10)
    arrive(tight, 0.0)
    waiting = window_of(arrive(tight, 0.0))
    assert tight.arrive(Member(**{"inputs": 1, "tokens": 1, **size}), 0.0) == ALONE
    assert waiting.trigger is None


@pytest.mark.parametrize("linger", ["fixed", "adaptive", "learned"])
def test_a_call_whose_time_is_below_the_linger_goes_alone(linger: str) -> None:
    """A deadline nearer than the linger never waits in a window; one that is just as far may."""
    hurried = lane(linger)
    arrive(hurried, 10.0)
    assert hurried.arrive(Member(1, 1, deadline=10.049), 10.0) == ALONE
    hurried.ended(10.0, None)
    assert isinstance(hurried.arrive(Member(1, 1, deadline=10.0 + 0.05), 10.0), Enter)


def test_fixed_leaves_time_for_the_answer() -> None:
    """A call that would wait for the whole linger goes alone if the answer then came after its deadline."""
    fixed = lane("fixed")
    assert fixed.close_due(window_of(arrive(fixed, 0.0)), 1.0)
    fixed.ended(2.0, 1.0)
    assert fixed.arrive(Member(1, 1, deadline=11.04), 10.0) == ALONE
    assert isinstance(fixed.arrive(Member(1, 1, deadline=11.06), 10.0), Enter)


def slow(linger: str = "adaptive") -> Lane:
    """A lane whose answers take a second, with one in flight."""
    known = lane(linger)
    arrive(known, 0.0)
    known.ended(1.0, 1.0)
    arrive(known, 10.0)
    return known


def test_a_later_member_with_a_deadline_makes_the_window_leave_early() -> None:
    """The window is due at the latest moment at which its most hurried member can still be answered in time,
    and then says so."""
    adaptive = slow()
    first = arrive(adaptive, 10.0)
    assert window_of(first).due == pytest.approx(10.05)
    arrive(adaptive, 10.01, deadline=11.02)
    assert window_of(first).due == pytest.approx(10.02)
    assert not adaptive.close_due(window_of(first), 10.019)
    assert adaptive.close_due(window_of(first), 10.021)
    assert window_of(first).trigger is BatchTrigger.DEADLINE


def test_a_deadline_beyond_the_linger_changes_nothing() -> None:
    """What closes such a window is its time."""
    adaptive = slow()
    window = window_of(arrive(adaptive, 10.0, deadline=20.0))
    assert window.due == pytest.approx(10.05)
    assert adaptive.close_due(window, 10.051)
    assert window.trigger is BatchTrigger.TIME


def test_when_the_hurried_member_leaves_the_others_have_their_time_back() -> None:
    """A window that is no longer due does not leave, and its trigger is then time."""
    adaptive = slow()
    first = arrive(adaptive, 10.0)
    hurried = arrive(adaptive, 10.0, deadline=11.02)
    less = arrive(adaptive, 10.0, deadline=11.03)
    adaptive.leave(hurried)
    assert window_of(first).due == pytest.approx(10.03)
    adaptive.leave(less)
    assert not adaptive.close_due(window_of(first), 10.04)
    assert adaptive.close_due(window_of(first), 10.051)
    assert window_of(first).trigger is BatchTrigger.TIME


def test_a_call_that_is_already_too_late_to_wait_goes_alone() -> None:
    """If even sending now would miss its deadline, no waiting is added."""
    adaptive = slow()
    waiting = window_of(arrive(adaptive, 10.0))
    assert adaptive.arrive(Member(1, 1, deadline=10.9), 10.0) == ALONE
    assert waiting.due == pytest.approx(10.05)


def test_the_expected_latency_is_smoothed_and_failures_say_nothing() -> None:
    """One slow answer moves the expectation by an eighth; an end without a latency not at all."""
    adaptive = slow()
    adaptive.ended(18.0, 9.0)
    arrive(adaptive, 20.0)
    adaptive.ended(20.0, None)
    arrive(adaptive, 20.0)
    waiting = arrive(adaptive, 20.0, deadline=22.03)
    assert window_of(waiting).due == pytest.approx(20.03)


def test_a_member_that_leaves_while_the_window_collects_is_taken_out() -> None:
    """Its place, its inputs and its tokens are free again."""
    fixed = lane("fixed", members=3, inputs=10)
    first, second, third = (
        arrive(fixed, 0.0, inputs=4),
        arrive(fixed, 0.0, inputs=5),
        Member(6, 1),
    )
    fixed.leave(first)
    assert (window_of(second).inputs, fixed.waiting) == (5, 1)
    answer = fixed.arrive(Member(5, 1), 0.0)
    assert isinstance(answer, Enter)
    assert answer.window.trigger is BatchTrigger.SIZE
    assert isinstance(fixed.arrive(third, 0.0), Enter)


def test_a_member_that_leaves_after_the_detach_keeps_its_place() -> None:
    """Removing it would give everyone behind it the wrong part of the reply: it is only marked."""
    fixed = lane("fixed", members=3)
    members = [arrive(fixed, 0.0) for _ in range(3)]
    fixed.leave(members[0])
    window = window_of(members[1])
    assert window.members == members
    assert window.living == members[1:]
    assert (window.inputs, window.tokens) == (2, 2)


def test_an_empty_window_goes_away() -> None:
    """It is never sent, and the next call opens its own, with its whole time."""
    adaptive = lane("adaptive")
    arrive(adaptive, 0.0)
    member = arrive(adaptive, 0.0)
    window = window_of(member)
    adaptive.leave(member)
    assert not adaptive.close_due(window, 1.0)
    assert window.trigger is None
    again = window_of(arrive(adaptive, 0.04))
    assert again is not window
    assert again.due == pytest.approx(0.09)
    adaptive.leave(again.members[0])
    assert adaptive.ended(0.1, 0.1) is None
    assert adaptive.idle


def test_a_window_is_closed_once() -> None:
    """Of all who find it due one closes it, and a window that has left is not closed again."""
    fixed = lane("fixed")
    window = window_of(arrive(fixed, 0.0))
    arrive(fixed, 0.0)
    assert fixed.close_due(window, 0.06)
    assert not fixed.close_due(window, 0.06)
    assert window.trigger is BatchTrigger.TIME


class _Counted(Member):
    """Counts how often anybody asks for its last moment."""

    asked = 0

    @property
    def latest(self) -> float:
        """The moment itself."""
        _Counted.asked += 1
        return self._latest

    @latest.setter
    def latest(self, value: float) -> None:
        self._latest = value


@pytest.mark.parametrize("hurried", [False, True])
def test_a_crowd_leaves_in_linear_time(hurried: bool) -> None:
    """Ten thousand members that are cancelled at once ask for ten thousand times what one asks for, whatever
    their deadlines and their order: none of them looks at all the others."""
    fixed = lane("fixed", inputs=LARGE)
    crowd = [_Counted(1, 1, deadline=100.0 + number if hurried else math.inf) for number in range(10_000)]
    for member in crowd:
        fixed.arrive(member, 0.0)
    window = window_of(crowd[0])
    assert window.due == 0.05
    _Counted.asked = 0
    for member in crowd[:-1]:
        fixed.leave(member)
    assert _Counted.asked <= 2 * len(crowd)
    assert (window.members, window.inputs, fixed.waiting) == (crowd[-1:], 1, 1)
    assert window.latest == crowd[-1].deadline


def test_a_call_that_takes_no_place_is_in_flight() -> None:
    """Whoever comes during it shares a window, and its end, as the last one in flight, sends that at once."""
    adaptive = lane("adaptive")
    assert adaptive.go_alone()
    assert not adaptive.go_alone()
    waiting = window_of(arrive(adaptive, 0.1))
    arrive(adaptive, 0.12)
    assert not adaptive.go_alone()
    assert adaptive.ended(0.14, 0.14) is waiting
    assert (waiting.trigger, len(waiting.members)) == (BatchTrigger.IDLE, 2)
    assert not adaptive.go_alone()
    assert adaptive.ended(0.2, 0.06) is None
    assert adaptive.go_alone()


@pytest.mark.parametrize("linger", ["fixed", "learned"])
def test_only_adaptive_lets_a_call_go_unseen(linger: str) -> None:
    """`fixed` holds every call, and `learned` has to see it."""
    other = lane(linger)
    assert not other.go_alone()
    assert other.idle


def test_more_ends_than_dispatches_do_no_harm() -> None:
    """An end that is told twice neither blocks the lane nor lets anybody wait for ever."""
    adaptive = lane("adaptive")
    arrive(adaptive, 0.0)
    adaptive.ended(0.1, 0.1)
    adaptive.ended(0.1, 0.1)
    assert adaptive.idle
    assert adaptive.arrive(Member(1, 1), 0.2) == ALONE
    assert isinstance(adaptive.arrive(Member(1, 1), 0.2), Enter)
