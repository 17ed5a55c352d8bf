"""The circuit breaker: a state machine against a plain model, and each trap by its name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from underlay.core.circuit_breaker import Circuit, Counts, Permit, Policy, Refusal, Transition
from underlay.telemetry.attributes import CircuitState, Verdict

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
SUCCESS, FAILURE, NOTHING = Verdict.SUCCESS, Verdict.FAILURE, Verdict.NOTHING


class Breaker(RuleBasedStateMachine):
    """The model knows who holds which permit and what has happened since; the circuit must agree with it."""

    permits = Bundle("permits")

    @initialize(threshold=st.integers(1, 3), successes=st.integers(1, 3))
    def start(self, threshold: int, successes: int) -> None:
        """A closed circuit at time 0."""
        self.policy = Policy(threshold, 10.0, successes, 25.0)
        self.circuit = Circuit(self.policy, 0.0)
        self.now = 0.0
        self.since = 0.0
        self.state = CLOSED
        self.epoch = 0  # changes with every transition and with every stuck probe: permits of before are void
        self.failures = self.wins = 0
        self.probe: tuple[int, float] | None = None  # whose slot it is, and since when
        self.serial = 0
        self.totals = Counts()

    def moved(self, changed: Transition | None, entered: CircuitState, reason: str) -> None:
        """A transition was due: it says from where, why and after how long, and the model follows."""
        assert changed is not None
        assert (changed.left, changed.entered, changed.reason) == (self.state, entered, reason)
        assert changed.lasted == self.now - self.since
        assert changed.failures == self.failures
        self.state, self.since, self.wins, self.probe = entered, self.now, 0, None
        self.epoch += 1
        self.totals.transitions += 1
        if entered is CLOSED:
            self.failures = 0

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0, 9.0, 10.0, 24.0, 25.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(target=permits)
    def admit(self) -> Any:
        """Ask for a permit; the answer to a look must have been the same."""
        looked = self.circuit.look(self.now)
        answer, changed = self.circuit.admit(self.now)
        due = self.state is OPEN and self.now - self.since >= 10.0
        stuck = self.probe is not None and self.now - self.probe[1] >= 25.0
        if self.state is CLOSED:
            assert (looked, changed) == (None, None)
            assert isinstance(answer, Permit)
            return (answer, self.epoch, 0)
        if (self.state is OPEN and not due) or (
            self.state is HALF_OPEN and self.probe is not None and not stuck
        ):
            assert isinstance(answer, Refusal)
            assert (answer, changed) == (looked, None)
            assert answer.state is self.state
            wait = (
                10.0 - (self.now - self.since)
                if self.state is OPEN
                else min(10.0, 25.0 - (self.now - self.probe[1]))
            )  # type: ignore[index]
            assert answer.retry_after == pytest.approx(wait)
            assert answer.retry_after > 0
            return (None, self.epoch, 0)
        assert looked is None
        assert isinstance(answer, Permit)
        if self.state is OPEN:
            self.moved(changed, HALF_OPEN, "recovery_due")
        else:
            assert changed is None
            self.epoch += stuck
        self.serial += 1
        self.probe = (self.serial, self.now)
        return (answer, self.epoch, self.serial)

    @rule(held=consumes(permits), verdict=st.sampled_from(list(Verdict)))
    def settle(self, held: Any, verdict: Verdict) -> None:
        """An attempt reports; one of an earlier epoch settles nothing."""
        permit, epoch, serial = held
        if permit is None:
            return
        changed = self.circuit.settle(permit, verdict, self.now, b"o")
        name = {SUCCESS: "successes", FAILURE: "failures", NOTHING: "nothings"}[verdict]
        setattr(self.totals, name, getattr(self.totals, name) + 1)
        if epoch != self.epoch:
            assert changed is None
        elif serial:
            self.settle_probe(changed, verdict)
        elif verdict is FAILURE:
            self.failures += 1
            if self.failures >= self.policy.failure_threshold:
                self.moved(changed, OPEN, "failures")
            else:
                assert changed is None
        else:
            self.failures *= verdict is NOTHING
            assert changed is None

    def settle_probe(self, changed: Transition | None, verdict: Verdict) -> None:
        """The probe that holds the slot reports: the slot is free whatever it says."""
        self.probe = None
        if verdict is FAILURE:
            self.failures += 1
            self.moved(changed, OPEN, "probe_failed")
        elif verdict is SUCCESS:
            self.wins += 1
            if self.wins >= self.policy.success_threshold:
                self.moved(changed, CLOSED, "recovered")
            else:
                assert changed is None
        else:
            assert changed is None

    @rule()
    def refuse(self) -> None:
        """A refused call is counted and nothing else."""
        self.circuit.refused()
        self.totals.refusals += 1

    @rule()
    def reset(self) -> None:
        """Somebody closes it by hand."""
        changed = self.circuit.reset(self.now)
        if self.state is CLOSED:
            assert changed is None
            self.failures = 0
        else:
            self.moved(changed, CLOSED, "reset")

    @precondition(lambda self: hasattr(self, "circuit"))
    @invariant()
    def agrees(self) -> None:
        """State as read, totals and idleness are the model's."""
        due = self.state is OPEN and self.now - self.since >= 10.0
        assert self.circuit.state(self.now) is (HALF_OPEN if due else self.state)
        assert self.circuit.counts == self.totals
        assert self.circuit.idle is (self.state is CLOSED and self.failures == 0)
        assert self.circuit.since == self.since


Breaker.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestBreaker = Breaker.TestCase


def opened(policy: Policy | None = None, at: float = 0.0) -> Circuit:
    """A circuit that has just opened."""
    circuit = Circuit(policy or Policy(), at)
    for _ in range(circuit.policy.failure_threshold):
        circuit.settle(permitted(circuit, at), FAILURE, at, b"cause")
    return circuit


def permitted(circuit: Circuit, now: float) -> Permit:
    """A permit that must be given."""
    permit, _ = circuit.admit(now)
    assert isinstance(permit, Permit)
    return permit


def test_the_classic_life() -> None:
    """closed -(5 failures)-> open -(60 s)-> half_open -(2 successes)-> closed, by default."""
    circuit = opened()
    assert circuit.state(59.9) is OPEN
    assert circuit.state(60.0) is HALF_OPEN
    assert circuit.settle(permitted(circuit, 60.0), SUCCESS, 61.0) is None
    changed = circuit.settle(permitted(circuit, 62.0), SUCCESS, 63.0)
    assert changed == Transition(HALF_OPEN, CLOSED, "recovered", 3.0, 5, ())


def test_failures_must_be_consecutive() -> None:
    """A success between failures starts the count again; a verdict of nothing does not."""
    circuit = Circuit(Policy(failure_threshold=2), 0.0)
    for verdict in (FAILURE, SUCCESS, FAILURE, NOTHING):
        assert circuit.settle(permitted(circuit, 0.0), verdict, 0.0) is None
    assert circuit.state(0.0) is CLOSED
    assert circuit.settle(permitted(circuit, 0.0), FAILURE, 0.0) is not None


def test_no_herd_in_half_open() -> None:
    """Of 50 calls at the moment recovery is due, one passes; the next only after it has reported."""
    circuit = opened()
    answers = [circuit.admit(60.0)[0] for _ in range(50)]
    assert [isinstance(answer, Permit) for answer in answers] == [True] + [False] * 49
    assert answers[1] == Refusal(HALF_OPEN, 60.0)
    assert isinstance(answers[0], Permit)
    circuit.settle(answers[0], SUCCESS, 61.0)
    assert [isinstance(circuit.admit(61.0)[0], Permit) for _ in range(50)] == [True] + [False] * 49


def test_a_probe_that_says_nothing_gives_its_slot_back() -> None:
    """A cancelled probe does not leave the circuit half open for ever, and counts neither way."""
    circuit = opened()
    for _ in range(3):
        assert circuit.settle(permitted(circuit, 60.0), NOTHING, 60.0) is None
        assert circuit.state(60.0) is HALF_OPEN
    circuit.settle(permitted(circuit, 60.0), SUCCESS, 60.0)
    assert circuit.settle(permitted(circuit, 60.0), SUCCESS, 60.0) is not None


def test_a_probe_that_never_reports_loses_its_slot() -> None:
    """After the probe timeout another may try, and what the lost one says later settles nothing."""
    circuit = opened()
    lost = permitted(circuit, 60.0)
    assert circuit.look(659.9) == Refusal(HALF_OPEN, pytest.approx(0.1))
    assert circuit.look(660.0) is None
    heir = permitted(circuit, 660.0)
    for verdict in (FAILURE, SUCCESS, SUCCESS, NOTHING):
        assert circuit.settle(lost, verdict, 661.0) is None
    assert isinstance(circuit.admit(661.0)[0], Refusal)
    assert circuit.settle(heir, FAILURE, 662.0) is not None


def test_successes_before_a_stuck_probe_still_count() -> None:
    """A lost probe takes nothing away from the probes that had succeeded."""
    circuit = opened()
    circuit.settle(permitted(circuit, 60.0), SUCCESS, 60.0)
    permitted(circuit, 60.0)
    assert circuit.settle(permitted(circuit, 660.0), SUCCESS, 661.0) is not None


def test_successes_of_an_earlier_recovery_do_not_count() -> None:
    """A recovery that failed begins anew: the probe that had succeeded in it is forgotten, after a reset too."""
    circuit = opened()
    circuit.settle(permitted(circuit, 60.0), SUCCESS, 60.0)
    circuit.settle(permitted(circuit, 60.0), FAILURE, 60.0)
    assert circuit.settle(permitted(circuit, 120.0), SUCCESS, 120.0) is None
    assert circuit.state(120.0) is HALF_OPEN
    circuit.reset(120.0)
    for _ in range(circuit.policy.failure_threshold):
        circuit.settle(permitted(circuit, 120.0), FAILURE, 120.0)
    assert circuit.settle(permitted(circuit, 180.0), SUCCESS, 180.0) is None


def test_a_late_success_does_not_close_an_open_circuit() -> None:
    """A call that was admitted before the circuit opened settles nothing after it."""
    circuit = Circuit(Policy(failure_threshold=1), 0.0)
    slow = permitted(circuit, 0.0)
    circuit.settle(permitted(circuit, 0.0), FAILURE, 1.0)
    for now in (2.0, 60.0, 61.0):
        assert circuit.settle(slow, SUCCESS, now) is None
    assert circuit.state(59.0) is OPEN


def test_a_late_failure_does_not_reopen_a_recovered_circuit() -> None:
    """Nor does the failure of a call from before the outage count against the provider that is back."""
    circuit = Circuit(Policy(failure_threshold=1, success_threshold=1), 0.0)
    slow = permitted(circuit, 0.0)
    circuit.settle(permitted(circuit, 0.0), FAILURE, 1.0)
    circuit.settle(permitted(circuit, 61.0), SUCCESS, 62.0)
    assert circuit.settle(slow, FAILURE, 63.0) is None
    assert circuit.state(63.0) is CLOSED


def test_a_probe_settles_once() -> None:
    """Reporting a probe twice neither frees another's slot nor counts as two successes."""
    circuit = opened()
    probe = permitted(circuit, 60.0)
    circuit.settle(probe, SUCCESS, 60.0)
    other = permitted(circuit, 60.0)
    assert circuit.settle(probe, SUCCESS, 60.0) is None
    assert isinstance(circuit.admit(60.0)[0], Refusal)
    assert circuit.settle(other, SUCCESS, 60.0) is not None


def test_a_failed_probe_waits_the_whole_time_again() -> None:
    """half_open -(1 failure)-> open, and the recovery time starts anew."""
    circuit = opened()
    changed = circuit.settle(permitted(circuit, 60.0), FAILURE, 70.0, b"probe")
    assert changed == Transition(HALF_OPEN, OPEN, "probe_failed", 10.0, 6, (b"probe",))
    assert circuit.look(129.9) == Refusal(OPEN, pytest.approx(0.1))
    assert circuit.look(130.0) is None


def test_a_transition_names_its_causes() -> None:
    """The origins of the failing calls ride on the transition, the latest eight, without empty ones."""
    circuit = Circuit(Policy(failure_threshold=12), 0.0)
    for number in range(11):
        circuit.settle(permitted(circuit, 0.0), FAILURE, 0.0, b"%d" % number if number % 2 else b"")
    changed = circuit.settle(permitted(circuit, 0.0), FAILURE, 0.0, b"last")
    assert changed is not None
    assert changed.causes == (b"1", b"3", b"5", b"7", b"9", b"last")
    many = Circuit(Policy(failure_threshold=20), 0.0)
    for number in range(19):
        many.settle(permitted(many, 0.0), FAILURE, 0.0, b"%d" % number)
    changed = many.settle(permitted(many, 0.0), FAILURE, 0.0, b"19")
    assert changed is not None
    assert changed.causes == tuple(b"%d" % number for number in range(12, 20))


def test_causes_of_an_earlier_trouble_are_forgotten() -> None:
    """After a success, or a reset, old failures are no cause of anything."""
    for forget in ("success", "reset"):
        circuit = Circuit(Policy(failure_threshold=2), 0.0)
        circuit.settle(permitted(circuit, 0.0), FAILURE, 0.0, b"old")
        if forget == "reset":
            assert circuit.reset(0.0) is None
        else:
            circuit.settle(permitted(circuit, 0.0), SUCCESS, 0.0, b"good")
        circuit.settle(permitted(circuit, 0.0), FAILURE, 0.0, b"one")
        changed = circuit.settle(permitted(circuit, 0.0), FAILURE, 0.0, b"two")
        assert changed is not None
        assert changed.causes == (b"one", b"two")


def test_reset_voids_what_is_under_way() -> None:
    """After a reset by hand an attempt of the outage settles nothing, a probe least of all."""
    circuit = opened(Policy(failure_threshold=1))
    probe = permitted(circuit, 60.0)
    assert circuit.reset(61.0) == Transition(HALF_OPEN, CLOSED, "reset", 1.0, 1, ())
    assert circuit.settle(probe, FAILURE, 62.0) is None
    assert circuit.look(62.0) is None


def test_a_look_changes_nothing() -> None:
    """Looking takes no permit and enters no state, however often and whenever."""
    circuit = opened()
    for now in (0.0, 59.0, 60.0, 60.0, 100.0):
        circuit.look(now)
        circuit.state(now)
    assert (circuit.since, circuit.counts) == (0.0, Counts(failures=5, transitions=1))
    assert isinstance(circuit.admit(60.0)[0], Permit)
