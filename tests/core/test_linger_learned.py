"""`linger: learned`: what it learns, what it never does, and that no fixed setting does better over all loads."""

from __future__ import annotations

from functools import cache

import pytest
from benchmarks.learned_linger import (
    ADAPTIVE,
    FIXED,
    LEARNED,
    Outcome,
    Provider,
    beats,
    measure,
    name,
    overall,
    synthetic,
)

from underlay.core.batching import ALONE, Enter, Lane, Member, Rule, Window
from underlay.core.linger import Learned
from underlay.telemetry.attributes import BatchTrigger

LOADS = {title.split(",")[0].split(" of ")[0]: title for title in synthetic(0.01)}
PROVEN = ["low", "medium", "high", "bursty", "bunches"]


@cache
def row(load: str) -> dict[str, Outcome]:
    """Every setting on this load."""
    arrivals = synthetic(0.4)[LOADS[load]]
    return measure({load: arrivals}, [LEARNED, ADAPTIVE, *FIXED], Provider())[load]


@pytest.mark.parametrize("load", PROVEN)
def test_learned_beats_every_fixed_setting(load: str) -> None:
    """On each load the mean latency is lower than with any fixed setting, or requests are fewer at the same."""
    found = row(load)
    learned = found[name(LEARNED)]
    assert [name(rule) for rule in FIXED if not beats(learned, found[name(rule)])] == []


@pytest.mark.parametrize("rule", [*FIXED, ADAPTIVE], ids=name)
def test_no_setting_beats_learned_over_all_loads(rule: Rule) -> None:
    """Whatever suits one load is far from the best on another: over all of them no setting comes near."""
    table = {load: row(load) for load in PROVEN}
    assert overall(table, name(rule), lambda one: one.mean) > 1.03


def answers(learned: Learned, flying: int, seconds: float, times: int = 1, inputs: int = 1) -> None:
    """So many rounds of `flying` requests that are sent one after another and take `seconds` each."""
    for turn in range(times):
        now = 100.0 * turn
        for place in range(flying):
            learned.sent(now + place * 1e-3, inputs)
        for place in range(flying):
            learned.ended(now + place * 1e-3 + seconds, seconds)


def loaded(learned: Learned, slots: int, rounds: int, base: float = 0.3) -> None:
    """A provider with so many slots, kept full to the limit that is believed."""
    for turn in range(rounds):
        now = 10.0 * turn
        ends = []
        for place in range(learned.limit):
            learned.sent(now + place * 1e-3, 1)
            ends.append((now + place * 1e-3, base * max(1.0, (place + 1) / slots)))
        for sent, latency in ends:
            learned.ended(sent + latency, latency)


@pytest.mark.parametrize("slots", [2, 4, 8, 16, 40])
def test_the_limit_is_what_the_provider_answers_at_once(slots: int) -> None:
    """More requests than that stand and take longer; fewer say that more would go."""
    learned = Learned(0.1)
    loaded(learned, slots, 200)
    assert slots * 0.85 <= learned.limit <= slots * 1.2 + 1


def test_the_limit_follows_the_provider() -> None:
    """It comes down when the provider answers fewer at once, and goes up again."""
    learned = Learned(0.1)
    loaded(learned, 12, 100)
    assert learned.limit in range(11, 15)
    loaded(learned, 4, 100)
    assert learned.limit in range(3, 6)
    loaded(learned, 12, 800)
    assert learned.limit in range(10, 15)


def test_longer_answers_to_more_inputs_are_not_taken_for_a_queue() -> None:
    """Each input costs time by itself: large requests that take longer leave the limit alone."""
    learned = Learned(0.1)
    for turn in range(60):
        size = (1, 20, 60, 120)[turn % 4]
        answers(learned, 8, 0.3 + 0.005 * (size - 1), inputs=size)
    assert learned.limit >= 8


def test_one_answer_that_hung_changes_little() -> None:
    """A minute for one request is no reason to hold windows longer, nor to send fewer at once."""
    learned = Learned(10.0)
    answers(learned, 2, 0.3, times=40)
    before = (learned.longest, learned.limit)
    answers(learned, 1, 60.0)
    assert learned.longest == pytest.approx(before[0], rel=0.1)
    assert learned.limit == before[1]


def test_an_end_without_a_latency_teaches_nothing() -> None:
    """A cancelled or failed request only makes room."""
    learned = Learned(0.1)
    answers(learned, 2, 0.3, times=10)
    before = learned.longest
    for _ in range(50):
        learned.sent(0.0, 1)
        learned.ended(9.0, None)
        learned.sent(0.0, 1)
        learned.ended(0.0, 0.0)
    assert learned.longest == before
    learned.ended(0.0, 0.3)
    assert learned.room


def test_no_window_waits_longer_than_the_timeout_or_half_an_answer() -> None:
    """Both bounds hold whatever was learned, and the first alone while nothing is known."""
    learned = Learned(0.1)
    assert learned.longest == 0.1
    answers(learned, 2, 0.3, times=10)
    assert learned.longest == 0.1
    quick = Learned(0.1)
    answers(quick, 2, 0.04, times=10)
    assert quick.longest == pytest.approx(0.02)


def lane() -> Lane:
    """A lane that learns, with answers of 300 ms."""
    learns = Lane(LEARNED)
    for second in range(20):
        assert learns.arrive(Member(1, 1), second) == ALONE
        learns.ended(second + 0.3, 0.3)
    return learns


def entered(learns: Lane, now: float) -> Window:
    """The window that a call enters."""
    answer = learns.arrive(Member(1, 1), now)
    assert isinstance(answer, Enter)
    return answer.window


def test_a_lone_call_goes_at_once_until_such_calls_have_company() -> None:
    """Calls that come in threes are waited for after a few of them, for no more than a share of an answer; when
    they come alone again, they go at once again."""
    learns = lane()
    sizes = []
    for second in range(100, 130):
        answers = [learns.arrive(Member(1, 1), second + late) for late in (0.0, 0.001, 0.002)]
        window = next(answer.window for answer in answers if isinstance(answer, Enter))
        assert window.due - window.opened <= 0.3 / 32 + 1e-9
        assert learns.close_due(window, window.due)
        sizes.append(len(window.members))
        for answer in answers:
            if answer == ALONE:
                learns.ended(second + 0.3, 0.3)
        learns.ended(second + 0.3, 0.3)
    assert sizes[0] == 2
    assert sizes[-1] == 3
    for second in range(200, 230):
        answer = learns.arrive(Member(1, 1), second)
        if isinstance(answer, Enter):
            assert learns.close_due(answer.window, answer.window.due)
        learns.ended(second + 0.4, 0.3)
    assert learns.arrive(Member(1, 1), 300) == ALONE


def test_with_room_a_call_waits_for_a_share_of_an_answer_that_nobody_misses() -> None:
    """Something is in flight and little is expected: the window leaves after a sixty-fourth of an answer."""
    learns = lane()
    learns.arrive(Member(1, 1), 100.0)
    window = entered(learns, 100.1)
    assert window.due - 100.1 == pytest.approx(0.3 / 64)
    assert learns.close_due(window, window.due)
    assert window.trigger is BatchTrigger.TIME


def test_a_bunch_is_no_longer_waited_for_once_its_inputs_cost_more_than_a_request() -> None:
    """Each input makes the answer slower for all: a window that holds many leaves at once."""
    learned = Learned(0.1)
    for turn in range(60):
        size = (1, 20, 40)[turn % 3]
        answers(learned, 1, 0.3 + 0.002 * (size - 1), inputs=size)
    for place in range(4):
        learned.arrived(1000.0 + place * 1e-3, lone=False)
    now = 1000.003
    assert learned.leaves(1000.0, 4, 4, now) > now
    assert learned.leaves(1000.0, 4, 40, now) <= now


def full(learns: Lane, now: float) -> None:
    """As many requests as the provider answers at once: each call is larger than any window."""
    for _ in range(8):
        assert learns.arrive(Member(1000, 1), now) == ALONE


def test_without_room_a_window_waits_for_an_answer() -> None:
    """A request that would only stand upstream is not sent: the window is due later instead, and leaves with
    the next answer."""
    learns = lane()
    full(learns, 100.0)
    window = entered(learns, 100.1)
    early = window.due
    assert not learns.close_due(window, early)
    assert window.due == pytest.approx(100.2)
    assert learns.ended(100.15, 0.15) is window
    assert window.trigger is BatchTrigger.IDLE


def test_without_room_a_window_still_leaves_at_the_timeout() -> None:
    """Waiting for an answer has the same bound as any waiting."""
    learns = lane()
    full(learns, 100.0)
    window = entered(learns, 100.1)
    assert not learns.close_due(window, window.due)
    assert learns.close_due(window, window.due)
    assert window.trigger is BatchTrigger.TIME


def test_a_deadline_does_not_wait_for_room() -> None:
    """A member that must be sent now is sent now."""
    learns = lane()
    full(learns, 100.0)
    window = entered(learns, 100.1)
    learns.arrive(Member(1, 1, deadline=100.15 + 0.3), 100.1)
    assert not learns.close_due(window, 100.149)
    assert learns.close_due(window, 100.151)
    assert window.trigger is BatchTrigger.DEADLINE
