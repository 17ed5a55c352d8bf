"""What upstream does is shared: every ending of an answer reaches leader and followers alike, whenever they joined,
and is counted once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from flight_lab import Bench, bench_for
from flight_provider import JSON_FRAMES, Answer, Fail, Gate, Step, json_answer, stream_answer
from transport_lab import CHAT_FRAMES, WAYS

pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

BROKEN_EVENT = b'data: {"error": {"message": "overloaded", "type": "server_error", "code": "overloaded"}}\n\n'
ERROR_BODY = b'{"error": {"message": "no", "type": "x", "code": "refused"}}'

# name: (frames that every caller gets, what ends the body if not its end, the callers' error, stored, failures)
STREAMS: dict[str, tuple[Sequence[bytes], Step | None, str, bool, int]] = {
    "clean": (CHAT_FRAMES, None, "ok", True, 0),
    "cut": (CHAT_FRAMES[:2], Fail("ReadError"), "ReadError", False, 1),
    "timed out": (CHAT_FRAMES[:2], Fail("ReadTimeout"), "ReadTimeout", False, 1),
    "cut at once": ([], Fail("RemoteProtocolError"), "RemoteProtocolError", False, 1),
    "silently cut": (CHAT_FRAMES[:2], None, "ok", False, 1),
    "empty": ([], None, "ok", False, 1),
    "error event": ([CHAT_FRAMES[0], BROKEN_EVENT], None, "ok", False, 1),
    "not httpx's own error": (CHAT_FRAMES[:1], ValueError("odd"), "ValueError", False, 0),
}


@pytest.fixture(params=WAYS)
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One way in, with callers beside each other."""
    return bench_for(request.param, monkeypatch)


def gated(frames: Sequence[bytes], end: Step | None) -> tuple[Answer, Gate, list[Gate]]:
    """A stream with a gate before its head and before each step of its body."""
    gates = [Gate() for _ in range(len(frames) + 1)]
    steps: list[Step] = []
    for gate, frame in zip(gates, frames, strict=False):
        steps += [gate, frame]
    steps += [gates[-1]] if end is None else [gates[-1], end]
    head = Gate()
    return stream_answer(*steps, before=[head]), head, gates


JOINS = ["before the head", "during the first pull", "during the next pull"]


@pytest.mark.parametrize(
    ("ending", "join"),
    [(ending, join) for ending in STREAMS for join in JOINS if STREAMS[ending][0] or join != JOINS[2]],
)
def test_every_ending_of_a_stream_is_shared(bench: Bench, ending: str, join: str) -> None:
    """Leader and follower get the same frames and the same end; one request, one verdict, and only a clean answer
    is kept."""
    frames, end, error, kept, failures = STREAMS[ending]
    answer, head, gates = gated(frames, end)

    async def scenario() -> None:
        client = bench.serve([answer])
        leader = await bench.start(bench.calling(client))
        await bench.until(lambda: head.reached == 1)
        if join == "before the head":
            await bench.start(bench.calling(client))
            await bench.until(lambda: bench.followers == 1)
        head.open()
        await bench.until(lambda: gates[0].reached == 1)
        if join == "during the next pull":
            gates[0].open()
            await bench.until(lambda: gates[1].reached == 1)
        if join != "before the head":
            await bench.start(bench.calling(client))
        await bench.until(lambda: bench.readers == 2)
        for gate in gates:
            gate.open()
        await bench.ended()
        _, follower = bench.callers
        assert (leader.frames, follower.frames) == (list(frames), list(frames))
        assert (leader.outcome, follower.outcome) == (error, error)
        assert leader.error is None or leader.error is not follower.error

    bench.run(scenario)
    bench.check(upstream=1)
    assert bench.stored() == ([tuple(frames)] if kept else [])
    check_books(bench, kept=kept, failures=failures)


def check_books(bench: Bench, *, kept: bool, failures: int) -> None:
    """One verdict; the follower's call says whose answer it read, and ends as the leader's."""
    (attempt,) = bench.attempts()
    assert attempt.stored is kept
    assert bench.runtime.circuit("gpt-4o", "openai").view().counts.failures == failures
    first, second = bench.ends()
    assert (first[0], second[0]) == ("miss", "coalesced")
    assert first[1:] == second[1:]
    assert bench.coalesced() == [(b"1", 0.0)]


# A JSON answer: (status, frames, what cuts it, the callers' error, what they get, stored, failures)
ANSWERS: dict[str, tuple[int, Sequence[bytes], Step | None, str, bool, int]] = {
    "clean": (200, JSON_FRAMES, None, "ok", True, 0),
    "cut": (200, JSON_FRAMES[:1], Fail("ReadError"), "ReadError", False, 1),
    "silently cut": (200, JSON_FRAMES[:1], None, "ok", False, 1),
    "whole but badly framed": (
        200,
        JSON_FRAMES,
        Fail("RemoteProtocolError"),
        "RemoteProtocolError",
        False,
        1,
    ),
    "401": (401, [ERROR_BODY], None, "ok", False, 0),
    "429": (429, [ERROR_BODY], None, "ok", False, 0),
    "500": (500, [ERROR_BODY], None, "ok", False, 1),
    "529 cut": (529, [ERROR_BODY], Fail("ReadError"), "ReadError", False, 1),
}


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("ending", list(ANSWERS))
def test_every_ending_of_a_json_answer_is_shared(bench: Bench, ending: str, early: bool) -> None:
    """Status, bytes and end of an answer of any status are the same for three callers; a failure counts once."""
    status, frames, end, error, kept, failures = ANSWERS[ending]
    head, tail = Gate(), Gate()
    steps = [*frames[:1], tail, *frames[1:], *([] if end is None else [end])]

    async def scenario() -> None:
        client = bench.serve([json_answer(*steps, before=[head], status=status)])
        await bench.start(bench.calling(client, stream=False))
        await bench.until(lambda: head.reached == 1)
        if early:
            for _ in range(2):
                await bench.start(bench.calling(client, stream=False))
            await bench.until(lambda: bench.followers == 2)
        head.open()
        await bench.until(lambda: tail.reached == 1)
        if not early:
            for _ in range(2):
                await bench.start(bench.calling(client, stream=False))
        await bench.until(lambda: bench.readers == 3)
        tail.open()
        await bench.ended()

    bench.run(scenario)
    assert [caller.frames for caller in bench.callers] == [list(frames)] * 3
    assert [caller.outcome for caller in bench.callers] == [error] * 3
    assert [caller.status for caller in bench.callers] == [status] * 3
    bench.check(upstream=1)
    assert bench.stored() == ([tuple(frames)] if kept else [])
    assert bench.runtime.circuit("gpt-4o", "openai").view().counts.failures == failures
    first, *others = bench.ends()
    assert first[0] == "miss"
    assert others == [("coalesced", *first[1:])] * 2
    assert [origin for origin, _ in bench.coalesced()] == [b"1", b"1"]


@pytest.mark.parametrize(
    "name", ["ConnectError", "ReadError", "RemoteProtocolError", "ReadTimeout", "OSError"]
)
def test_a_request_that_failed_fails_for_all(bench: Bench, name: str) -> None:
    """A transport error before the head is given to every caller in its own object; nothing is sent again, and the
    failure counts once."""
    head = Gate()
    step: Step = OSError("scripted") if name == "OSError" else Fail(name)

    async def scenario() -> None:
        client = bench.serve([json_answer(before=[head, step])])
        await bench.start(bench.calling(client))
        await bench.until(lambda: head.reached == 1)
        for _ in range(3):
            await bench.start(bench.calling(client))
        await bench.until(lambda: bench.followers == 3)
        head.open()
        await bench.ended()

    bench.run(scenario)
    errors = [caller.error for caller in bench.callers]
    assert [type(error).__name__ for error in errors] == [name] * 4
    assert [str(error) for error in errors] == ["scripted"] * 4
    assert len({id(error) for error in errors}) == 4
    if name != "OSError":
        assert {type(error).__module__ for error in errors} == {bench.family}
        assert all(error.request.url.path for error in errors)  # type: ignore[union-attr]
    bench.check(upstream=1)
    assert bench.ends() == [("miss", "failed", name)] + [("coalesced", "failed", name)] * 3
    assert bench.runtime.circuit("gpt-4o", "openai").view().counts.failures == 1


@pytest.mark.parametrize("name", ["PoolTimeout", "UnsupportedProtocol", "LocalProtocolError", "ProxyError"])
def test_what_says_nothing_of_the_provider_is_not_shared(bench: Bench, name: str) -> None:
    """A crowded pool or a bad URL is the leader's own: its followers lead anew, one at a time, and get their
    answer."""
    head, again = Gate(), Gate()

    async def scenario() -> None:
        client = bench.serve([json_answer(before=[head, Fail(name)]), json_answer(before=[again])])
        leader = await bench.start(bench.calling(client, stream=False))
        await bench.until(lambda: head.reached == 1)
        for _ in range(3):
            await bench.start(bench.calling(client, stream=False))
        await bench.until(lambda: bench.followers == 3)
        head.open()
        await bench.until(lambda: again.reached == 1 and bench.followers == 2)
        again.open()
        await bench.ended()
        assert leader.outcome == name

    bench.run(scenario)
    assert [caller.body for caller in bench.callers[1:]] == [b"".join(JSON_FRAMES)] * 3
    bench.check(upstream=2)
    assert sorted(bench.ends()[1:]) == [("coalesced", "complete", "")] * 2 + [("miss", "complete", "")]
    assert bench.runtime.circuit("gpt-4o", "openai").view().counts.failures == 0


@pytest.mark.parametrize("name", ["connect", "write", "pool"])
def test_the_leaders_shorter_timeout_is_its_own(bench: Bench, name: str) -> None:
    """A leader that gave up connecting sooner than its follower would have: the follower sends for itself. One whose
    own timeout is no longer shares the failure."""
    head = Gate()
    long = {"connect": 5.0, "read": 9.0, "write": 5.0, "pool": 5.0}
    short, kind = {**long, name: 1.0}, f"{name.title()}Timeout"

    async def scenario() -> None:
        client = bench.serve([json_answer(before=[head, Fail(kind)]), json_answer()])
        leader = await bench.start(bench.calling(client, stream=False, timeout=bench.module.Timeout(**short)))
        await bench.until(lambda: head.reached == 1)
        patient = await bench.start(bench.calling(client, stream=False, timeout=bench.module.Timeout(**long)))
        equal = await bench.start(bench.calling(client, stream=False, timeout=bench.module.Timeout(**short)))
        await bench.until(lambda: bench.followers == 2)
        head.open()
        await bench.ended()
        assert (leader.outcome, patient.outcome) == (kind, "ok")
        assert equal.outcome == ("ok" if name == "pool" else kind)

    bench.run(scenario)
    bench.check(upstream=2)


@pytest.mark.parametrize("ending", ["cut", "silently cut", "cut at once", "clean"])
def test_who_waits_for_the_head_shares_an_end_that_comes_at_once(bench: Bench, ending: str) -> None:
    """The whole body comes, or breaks, before any follower has woken: it is theirs all the same, and nobody sends
    again."""
    frames, end, error, kept, failures = STREAMS[ending]
    head = Gate()

    async def scenario() -> None:
        client = bench.serve([stream_answer(*frames, *([] if end is None else [end]), before=[head])])
        await bench.start(bench.calling(client))
        await bench.until(lambda: head.reached == 1)
        for _ in range(10):
            await bench.start(bench.calling(client))
        await bench.until(lambda: bench.followers == 10)
        head.open()
        await bench.ended()

    bench.run(scenario)
    assert [caller.frames for caller in bench.callers] == [list(frames)] * 11
    assert [caller.outcome for caller in bench.callers] == [error] * 11
    bench.check(upstream=1)
    assert bench.stored() == ([tuple(frames)] if kept else [])
    first, *others = bench.ends()
    assert others == [("coalesced", *first[1:])] * 10
    assert bench.runtime.circuit("gpt-4o", "openai").view().counts.failures == failures
