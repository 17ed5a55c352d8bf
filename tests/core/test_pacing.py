"""Turns of calls on their event loop: any order of calls, rounds, leavings and passing time against a plain model, and
each rule by its name."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from underlay.core.pacing import Turns


class Pacing(RuleBasedStateMachine):
    """The model is the line, first come first, when the loop was last watched, and whether it is to tell that it came
    round (`told`) and will (`heard`). Times are whole numbers, so that nothing rounds."""

    @initialize(turn=st.integers(1, 8), at_once=st.integers(1, 4))
    def start(self, turn: int, at_once: int) -> None:
        """A loop that has just begun."""
        self.turn, self.at_once = turn * 2, at_once
        self.turns: Turns[int] = Turns(float(self.turn), at_once, 1e9)
        self.now = 1000
        self.watched_at: int | None = None
        self.told = self.heard = False
        self.calls = 0
        self.line: list[int] = []
        self.since: dict[int, int] = {}
        self.entered, self.stood, self.go = 0, False, at_once
        self.sent: list[int] = []
        self.left: set[int] = set()

    @rule(cost=st.integers(0, 6))
    def call(self, cost: int) -> None:
        """A call comes, and its sending takes the loop this long: it is held exactly when others wait, or the loop has
        gone longer than a turn since it was watched and has not come round. Others go."""
        number, self.calls = self.calls, self.calls + 1
        late = self.told and self.watched_at is not None and self.now - self.watched_at > self.turn
        held = self.turns.holds(float(self.now))
        assert held is bool(self.line or late)
        if held:
            self.turns.enter(number, float(self.now))
            self.line.append(number)
            self.since[number] = self.now
            self.entered += 1
            return
        due = self.watched_at is None or self.now - self.watched_at >= self.turn / 2
        watch = self.turns.watch(float(self.now))
        assert watch is (due and not self.told)
        if watch:
            self.watched_at, self.told, self.heard = self.now, True, True
        self.sent.append(number)
        self.now += cost

    @rule(ticks=st.integers(0, 20))
    def time_passes(self, ticks: int) -> None:
        """The loop does something else. Nothing happens by itself."""
        self.now += ticks

    @precondition(lambda self: self.heard)
    @rule()
    def come_round(self) -> None:
        """The loop tells that it came round: the first in line go, as many as go at once and all who have waited for ten
        seconds, and it is to tell again while there were any. Where there was a line already and more came than went,
        twice as many go until there is none."""
        gone = self.turns.came_round(float(self.now))
        if self.stood and self.entered > self.go:
            self.go *= 2
        overdue = [number for number in self.line if self.now - self.since[number] > 10]
        most = max(self.go, len(overdue))
        assert gone == self.line[:most]
        self.line = self.line[most:]
        self.stood, self.entered = bool(self.line), 0
        self.go = self.go if self.line else self.at_once
        self.sent += gone
        self.told = self.heard = bool(gone)

    @precondition(lambda self: self.heard)
    @rule()
    def what_the_loop_tells_is_lost(self) -> None:
        """Who was to hear that the loop came round never does."""
        self.heard = False

    @precondition(lambda self: self.told and not self.heard)
    @rule()
    def release(self) -> None:
        """Nobody heard of the loop for too long: all go, and the next call is as the first."""
        assert self.turns.released() == self.line
        self.sent += self.line
        self.line = []
        self.told = self.stood = False
        self.entered, self.go = 0, self.at_once

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A call gives up, wherever it is; one that is in the line no more changes nothing."""
        number = data.draw(st.sampled_from(self.line) if self.line else st.integers(0, self.calls - 1))
        self.turns.leave(number)
        if number in self.line:
            self.line.remove(number)
            self.left.add(number)

    @invariant()
    def nobody_is_lost(self) -> None:
        """Everybody who came waits, went, or left: each once."""
        assert self.turns.waiting == len(self.line)
        known = [*self.line, *self.sent, *self.left]
        assert sorted(known) == list(range(self.calls))

    @invariant()
    def who_waits_will_hear(self) -> None:
        """Nobody waits while the loop is not to tell that it came round."""
        assert self.told or not self.line

    def teardown(self) -> None:
        """Whoever still waits goes within as many rounds as it takes, and the last round finds nobody."""
        if self.told and not self.heard:
            self.release()
        rounds = 0
        while self.told:
            self.come_round()
            rounds += 1
            assert rounds <= self.calls + 1
        assert self.line == []


TestPacing = Pacing.TestCase
TestPacing.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


def watched(turn: float = 0.25, at_once: int = 2) -> Turns[str]:
    """The turns of a loop that a first call has had watched, at 0."""
    turns: Turns[str] = Turns(turn, at_once, 60.0)
    assert turns.watch(0.0)
    return turns


def crowd(*waiters: str, at_once: int = 2) -> Turns[str]:
    """A loop where these wait."""
    turns = watched(at_once=at_once)
    for waiter in waiters:
        assert turns.holds(1.0)
        turns.enter(waiter, 1.0)
    return turns


def test_the_first_call_of_a_loop_goes_and_has_it_watched() -> None:
    """Whatever the clock says, also at its beginning and before, the first call goes at once."""
    for now in (-5.0, 0.0, 1e9):
        turns: Turns[str] = Turns(0.25, 2, 60.0)
        assert not turns.holds(now)
        assert turns.watch(now)
        assert turns.waiting == 0


def test_a_turn_is_over_only_after_its_whole_time() -> None:
    """A call goes until the loop has gone longer than a turn, exactly a turn included."""
    turns = watched()
    assert not turns.holds(0.25)
    assert turns.holds(0.2500001)


def test_a_loop_is_watched_once() -> None:
    """While somebody watches, nobody else does, however late it is."""
    turns = watched()
    assert [turns.watch(now) for now in (0.0, 0.125, 0.25, 9.0)] == [False] * 4


def test_a_loop_that_came_round_lately_is_not_watched() -> None:
    """One call after the other costs no look until half a turn has gone since the last one."""
    turns = watched()
    assert turns.came_round(1.0) == []
    assert [turns.watch(now) for now in (0.0, 0.0625, 0.124)] == [False] * 3
    assert turns.watch(0.125)


def test_who_is_not_watched_is_not_held() -> None:
    """A loop that came round holds nobody, however long ago it was watched."""
    turns = watched()
    turns.came_round(1.0)
    assert not turns.holds(9.0)


def test_a_turn_is_at_most_one_and_a_half() -> None:
    """A burst that begins just after the loop was seen is held after its turn and half of one more at the latest."""
    turns = watched()
    turns.came_round(1.0)
    now = 0.0
    while not turns.holds(now):
        turns.watch(now)
        now += 1 / 64
    assert now == 0.125 + 0.25 + 1 / 64


def test_first_come_first_served() -> None:
    """Those that wait leave in their order, so many each time the loop comes round."""
    turns = crowd("a", "b", "c", "d", "e")
    assert [turns.came_round(1.0) for _ in range(4)] == [["a", "b"], ["c", "d"], ["e"], []]
    assert not turns.holds(1.0)


def test_who_comes_while_others_wait_is_the_last() -> None:
    """Also right after the loop came round nobody goes before those that waited."""
    turns = crowd("a", "b", "c")
    assert turns.came_round(1.0) == ["a", "b"]
    assert turns.holds(1.0)
    turns.enter("d", 1.0)
    assert turns.came_round(1.0) == ["c", "d"]


def test_who_comes_after_the_last_has_left_waits_for_the_next_round() -> None:
    """The last ones are being sent: a newcomer of the same turn goes when the loop has come round once more."""
    turns = crowd("a")
    assert turns.came_round(1.0) == ["a"]
    assert turns.waiting == 0
    assert turns.holds(1.0)
    turns.enter("b", 1.0)
    assert turns.came_round(1.0) == ["b"]
    assert turns.came_round(1.0) == []
    assert not turns.holds(1.0)


@pytest.mark.parametrize("leaving", ["a", "b", "c"])
def test_who_leaves_makes_room(leaving: str) -> None:
    """Whoever gives up, the first, the last or one between, takes nobody's turn."""
    turns = crowd("a", "b", "c")
    turns.leave(leaving)
    assert turns.waiting == 2
    assert turns.came_round(1.0) == [waiter for waiter in ("a", "b", "c") if waiter != leaving]


def test_leaving_twice_or_after_the_turn_came_is_harmless() -> None:
    """A call that was woken leaves as well, and one that is unknown."""
    turns = crowd("a", "b", "c")
    assert turns.came_round(1.0) == ["a", "b"]
    for waiter in ("a", "a", "z"):
        turns.leave(waiter)
    assert turns.came_round(1.0) == ["c"]


def test_all_leave_and_the_loop_is_free() -> None:
    """Once everybody gave up, the next round finds nobody, and after it nobody is held."""
    turns = crowd("a", "b")
    turns.leave("a")
    turns.leave("b")
    assert turns.came_round(1.0) == []
    assert not turns.holds(9.0)
    assert turns.watch(9.0)


def test_everybody_is_released_once() -> None:
    """Where nobody hears of the loop all go, in their order, and the loop is as new."""
    turns = crowd("a", "b", "c")
    assert turns.released() == ["a", "b", "c"]
    assert turns.released() == []
    assert turns.waiting == 0
    assert not turns.holds(9.0)
    assert turns.watch(9.0)


def test_a_loop_that_never_tells_is_watched_anew() -> None:
    """Whoever was to tell that the loop came round was lost: after the bound nobody is held for it, and the next call has
    it watched again."""
    turns = watched()
    assert turns.holds(60.0)
    assert not turns.holds(60.1)
    assert turns.watch(60.1)
    assert turns.holds(60.4)


def test_where_more_come_than_go_twice_as_many_go() -> None:
    """A line that does not get shorter is let go faster and faster, until there is none: a loop that other work keeps
    busy has no calls pile up. The burst that the line began with does not count."""
    turns = crowd(*"abcdefghij")
    assert turns.came_round(1.0) == ["a", "b"]
    for waiter in "klm":
        turns.enter(waiter, 1.0)
    assert turns.came_round(1.0) == ["c", "d", "e", "f"]
    assert turns.came_round(1.0) == ["g", "h", "i", "j"]
    assert turns.came_round(1.0) == ["k", "l", "m"]
    for waiter in "nop":
        turns.enter(waiter, 1.0)
    assert turns.came_round(1.0) == ["n", "o"]


def test_nobody_is_held_for_longer_than_ten_seconds() -> None:
    """Whoever has waited that long goes the next time the loop comes round, however many they are."""
    turns = crowd(*"abcd")
    turns.enter("e", 1.5)
    assert turns.came_round(11.25) == ["a", "b", "c", "d"]
    assert turns.came_round(11.25) == ["e"]
