"""Merged requests that fail: what is the provider's is everybody's, what is one input's is its caller's alone, and
a reply that does not fit costs a request each and no answer."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from transport_lab import CHAT_ASK, CHAT_URL, JSON_TYPE, json_reply
from window_lab import Running, WindowLab, embedding
from window_provider import answer, refusal

from underlay.providers._merge import ListMerger
from underlay.telemetry.attributes import Stage
from underlay.telemetry.events import AttemptEnded, AttemptStarted, Batched, CallEnded, CircuitRefused
from underlay.testing import Received, Scripted

INPUTS: list[Any] = ["a", ["b", "c"], "d"]


def window(lab: WindowLab, **options: Any) -> list[Running]:
    """Three calls whose one request is at the provider."""
    lab.windows(linger="fixed", max_batch_size=3)
    return lab.ask_all(lab.client(), [embedding(inputs) for inputs in INPUTS], **options)


def circuit(lab: WindowLab) -> tuple[int, int, int]:
    """Successes, failures and attempts that said nothing."""
    counts = lab.runtime.circuit("text-embedding-3-small", provider="openai").view().counts
    return counts.successes, counts.failures, counts.nothings


def upstream(lab: WindowLab) -> int:
    """Requests in the books."""
    return sum(sum(stats.upstream.values()) for stats in lab.runtime.stats().values())


def assert_whole(calls: list[Running]) -> None:
    """Each was answered with its own vectors."""
    for call, inputs in zip(calls, INPUTS, strict=True):
        body = json.dumps(embedding(inputs)).encode()
        alone = b"".join(answer(Received("POST", "/v1/embeddings", (), body)).frames)  # type: ignore[arg-type]
        assert json.loads(call.result().content) == json.loads(alone)


@pytest.mark.parametrize(
    ("name", "failures"),
    [
        ("ReadTimeout", 1),
        ("ConnectTimeout", 1),
        ("WriteTimeout", 1),
        ("ConnectError", 1),
        ("ReadError", 1),
        ("RemoteProtocolError", 1),
        ("PoolTimeout", 0),
        ("LocalProtocolError", 0),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_transport_error_is_everybodys(crowd: WindowLab, name: str, failures: int, late: bool) -> None:
    """Each caller is raised an exception of its own, of its own request; nothing is sent again, and the circuit
    hears of it once, whether the head of the reply had come or not."""
    calls = window(crowd)
    error = getattr(crowd.module, name)("it broke")
    if late:
        crowd.sent[0].reply(Scripted(200, JSON_TYPE, [b'{"data":', error]))
    else:
        crowd.sent[0].fail(error, settle=True)
    errors: list[Any] = [call.error for call in calls]
    assert [(type(each), str(each)) for each in errors] == [(type(error), "it broke")] * 3
    assert len({id(each) for each in errors}) == 3
    assert len({id(each.request) for each in errors}) == 3
    assert [json.loads(each.request.content)["input"] for each in errors] == INPUTS
    assert (len(crowd.sent), upstream(crowd), circuit(crowd)) == (1, 1, (0, failures, 1 - failures))
    assert [len(call.of(Batched)) for call in crowd.recorder.calls] == [1, 1, 1]
    ended = [call.of(CallEnded)[0] for call in crowd.recorder.calls]
    assert [(each.ending, each.error_type, each.batch_mode) for each in ended] == [
        ("failed", name, "merged")
    ] * 3
    assert crowd.faults == {}


class OddError(Exception):
    """An exception of an app's own transport, that cannot be copied."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def test_an_exception_of_any_class_is_everybodys(crowd: WindowLab) -> None:
    """What an app's own transport raises is raised in every caller."""
    calls = window(crowd)
    crowd.sent[0].fail(OddError("o", "dd"), settle=True)
    assert [type(call.error) for call in calls] == [OddError] * 3
    assert len(crowd.sent) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529, 429])
@pytest.mark.parametrize("empty", [False, True])
def test_a_refusal_of_the_provider_is_everybodys(crowd: WindowLab, status: int, empty: bool) -> None:
    """5xx and 429 reach every caller with their headers and their body; the circuit hears of it once."""
    calls = window(crowd)
    reply = refusal(status, **{"retry-after": "7", "x-request-id": "req_9"})
    crowd.sent[0].reply(Scripted(status, reply.headers, [] if empty else reply.frames))
    told = [(call.result().status_code, dict(call.result().headers), call.result().content) for call in calls]
    assert told[0] == told[1] == told[2]
    body = b"" if empty else reply.frames[0]
    expected = {**JSON_TYPE, "retry-after": "7", "x-request-id": "req_9", "content-length": str(len(body))}  # type: ignore[arg-type]
    assert told[0] == (status, expected, body)
    failures = 0 if status == 429 else 1
    assert (len(crowd.sent), upstream(crowd), circuit(crowd)) == (1, 1, (0, failures, 1 - failures))
    assert crowd.runtime.cache.size == 0
    assert crowd.faults == {}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
@pytest.mark.parametrize("position", range(3))
def test_only_the_guilty_fails(crowd: WindowLab, position: int, status: int) -> None:
    """A 4xx of the merged request sends its members apart: one is refused, the others are answered."""
    crowd.provider.answer = lambda received: (
        refusal(status) if b'"bad"' in received.body else answer(received)
    )
    crowd.windows(linger="fixed", max_batch_size=3)
    inputs = list(INPUTS)
    inputs[position] = "bad"
    calls = crowd.ask_all(crowd.client(), [embedding(each) for each in inputs])
    crowd.provider.release()
    assert [call.result().status_code for call in calls] == [
        status if number == position else 200 for number in range(3)
    ]
    assert sorted(str(held.body["input"]) for held in crowd.sent[1:]) == sorted(str(each) for each in inputs)
    assert len(crowd.sent) == upstream(crowd) == 4
    assert circuit(crowd) == (2, 0, 2)
    assert crowd.faults == {}
    assert [event.apart for dispatch in crowd.recorder.dispatches for event in dispatch.events] == [True]
    modes = [call.of(CallEnded)[0].batch_mode for call in crowd.recorder.calls]
    assert modes == ["alone"] * 3
    # The sender's own request is its second attempt, the merged one its first; the others made one each.
    numbers = [[event.number for event in call.of(AttemptEnded)] for call in crowd.recorder.calls]
    assert sorted(numbers) == [[1], [1], [1, 2]]
    assert [[event.number for event in call.of(AttemptStarted)] for call in crowd.recorder.calls] == numbers


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_redirect_is_each_members_own(crowd: WindowLab, status: int) -> None:
    """A reply that is neither an answer nor an error is left to each caller's own client."""
    calls = window(crowd)
    for held in crowd.sent:
        held.reply(Scripted(status, {"location": "https://elsewhere.example/"}, []))
    crowd.provider.answer = lambda received: Scripted(status, {"location": "https://elsewhere.example/"}, [])
    crowd.provider.release()
    assert [call.result().status_code for call in calls] == [status] * 3
    assert len(crowd.sent) == 4


def reply_of(change: Callable[[dict[str, Any]], object]) -> Callable[[Received], Scripted]:
    """The right reply with something changed, for merged requests only."""

    def changed(received: Received) -> Scripted:
        right = answer(received)
        reply = json.loads(b"".join(right.frames))  # type: ignore[arg-type]
        if len(reply["data"]) < 4:
            return right
        change(reply)
        return json_reply(reply)

    return changed


def merged_only(wrong: Scripted) -> Callable[[Received], Scripted]:
    """This for merged requests, the right reply for others."""
    return lambda received: wrong if len(json.loads(received.body)["input"]) == 4 else answer(received)


WRONG: dict[str, Callable[[Received], Scripted]] = {
    "one too few": reply_of(lambda reply: reply["data"].pop()),
    "one too many": reply_of(lambda reply: reply["data"].append({**reply["data"][0], "index": 4})),
    "two at one position": reply_of(lambda reply: reply["data"][1].update(index=0)),
    "a position that is none": reply_of(lambda reply: reply["data"][3].update(index=7)),
    "a position that is no number": reply_of(lambda reply: reply["data"][3].update(index="3")),
    "no positions": reply_of(lambda reply: [each.pop("index") for each in reply["data"]]),
    "no answers": reply_of(lambda reply: reply.pop("data")),
    "an error in a 200": merged_only(json_reply({"error": {"message": "no"}})),
    "no JSON": merged_only(Scripted(200, JSON_TYPE, [b"<html>"])),
    "cut JSON": merged_only(Scripted(200, JSON_TYPE, [b'{"data":[{"index":0,'])),
    "nothing": merged_only(Scripted(200, JSON_TYPE, [])),
    "no UTF-8": merged_only(Scripted(200, JSON_TYPE, [b'{"data":"\xff"}'])),
    "an unknown coding": merged_only(Scripted(200, {**JSON_TYPE, "content-encoding": "zz"}, [b"{}"])),
    "a broken coding": merged_only(Scripted(200, {**JSON_TYPE, "content-encoding": "gzip"}, [b"no gzip"])),
    "a cut coding": merged_only(
        Scripted(200, {**JSON_TYPE, "content-encoding": "gzip"}, [gzip.compress(b'{"data":[]}' * 99)[:30]])
    ),
    "two codings": merged_only(
        Scripted(200, {**JSON_TYPE, "content-encoding": "gzip, gzip"}, [gzip.compress(gzip.compress(b"{}"))])
    ),
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_a_reply_that_does_not_fit_sends_everybody_apart(crowd: WindowLab, wrong: str) -> None:
    """Every caller has its own answer after all, one fault is counted, and only an error that the provider tells
    of itself speaks against its circuit."""
    crowd.provider.answer = WRONG[wrong]
    calls = window(crowd)
    crowd.provider.release()
    assert_whole(calls)
    assert (len(crowd.sent), upstream(crowd)) == (4, 4)
    assert crowd.faults == {Stage.QUEUE: 1}
    assert circuit(crowd)[1] == (1 if wrong == "an error in a 200" else 0)
    (ended,) = [event for dispatch in crowd.recorder.dispatches for event in dispatch.events]
    assert (ended.apart, ended.error_type, ended.status) == (True, "not_split", 200)


@pytest.mark.parametrize("method", ["merge", "split"])
def test_a_merger_that_raises_sends_everybody_apart(
    crowd: WindowLab, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours costs a request each, in the books, and no answer."""

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(ListMerger, method, broken)
    calls = window(crowd)
    crowd.provider.release()
    assert_whole(calls)
    sent = 3 if method == "merge" else 4
    assert (len(crowd.sent), upstream(crowd)) == (sent, sent)
    assert crowd.faults == {Stage.QUEUE: 1}
    assert all(len(dispatch.events) == 1 for dispatch in crowd.recorder.dispatches)
    assert [call.of(CallEnded)[0].batch_mode for call in crowd.recorder.calls] == ["alone"] * 3


class Raising:
    """A listener that raises wherever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class HalfRaising:
    """A listener that gives handles which raise."""

    def start(self, _: object) -> Raising:
        """A call began."""
        return Raising()

    def dispatch(self, _: object) -> Raising:
        """A window left."""
        return Raising()

    def event(self, _: object) -> None:
        """Something happened to the process."""
        raise RuntimeError("event")


@pytest.mark.parametrize("listener", [Raising(), HalfRaising()], ids=["itself", "its handles"])
@pytest.mark.parametrize("merged", [True, False])
def test_a_listener_that_raises_changes_nothing(crowd: WindowLab, listener: Any, merged: bool) -> None:
    """Everybody is answered, in as many requests as without it, merged or released."""
    crowd.windows(linger="fixed", max_batch_size=3)
    crowd.runtime.listen(listener)
    if merged:
        calls = crowd.ask_all(crowd.client(), [embedding(inputs) for inputs in INPUTS])
    else:
        calls = crowd.ask_all(crowd.client(), [CHAT_ASK] * 3, url=CHAT_URL)
    crowd.provider.release()
    assert [call.result().status_code for call in calls] == [200] * 3
    assert len(crowd.sent) == (1 if merged else 3)
    assert crowd.faults.keys() == {Stage.LISTENER}


def test_an_open_circuit_refuses_the_whole_window(crowd: WindowLab) -> None:
    """A window that collected while the circuit opened sends nothing, and each member is refused."""
    crowd.setup(
        llm_batch={"linger": "adaptive"}, circuit_breaker={"failure_threshold": 1}, coalesce={"mode": "off"}
    )
    client = crowd.client()
    crowd.ask(client, embedding("in flight"))
    calls = crowd.ask_all(client, [embedding(inputs) for inputs in INPUTS])
    crowd.sent[0].reply(refusal(503))
    assert [call.result().status_code for call in calls] == [503] * 3
    assert {call.result().headers["underlay-refused"] for call in calls} == {"circuit_open"}
    assert len(crowd.sent) == 1
    refusals = [len(call.of(CircuitRefused)) for call in crowd.recorder.calls]
    assert refusals == [0, 1, 1, 1]
    assert crowd.runtime.circuit("text-embedding-3-small", provider="openai").view().counts.refusals == 3
    assert crowd.recorder.dispatches == []


def test_a_window_is_one_probe_of_a_half_open_circuit(crowd: WindowLab) -> None:
    """Its one request is the probe, and its success is one; what comes meanwhile waits in a window of its own."""
    crowd.setup(
        llm_batch={"linger": "fixed", "max_batch_size": 3},
        circuit_breaker={"failure_threshold": 1, "recovery_timeout": 60, "success_threshold": 2},
        coalesce={"mode": "off"},
        llm_cache={"mode": "off"},
    )
    client = crowd.client()
    crowd.ask(client, embedding("down"))
    crowd.advance(0.05)
    crowd.sent[0].reply(refusal(503))
    crowd.advance(60)
    view = crowd.runtime.circuit("text-embedding-3-small", provider="openai")
    for number in range(2):
        assert view.state == "half_open"
        calls = crowd.ask_all(client, [embedding(inputs) for inputs in INPUTS])
        assert len(crowd.sent) == 2 + number
        crowd.sent[-1].reply()
        assert_whole(calls)
    assert view.state == "closed"
    assert circuit(crowd) == (2, 1, 0)


def test_a_failed_window_is_one_failure(crowd: WindowLab) -> None:
    """Two windows of three that fail are two failures, not six."""
    crowd.setup(
        llm_batch={"linger": "fixed", "max_batch_size": 3},
        circuit_breaker={"failure_threshold": 3},
        coalesce={"mode": "off"},
    )
    client = crowd.client()
    for _ in range(2):
        crowd.ask_all(client, [embedding(inputs) for inputs in INPUTS])
        crowd.sent[-1].reply(refusal(503))
    assert circuit(crowd) == (0, 2, 0)
    assert crowd.runtime.circuit("text-embedding-3-small", provider="openai").state == "closed"


def test_a_breaker_that_observes_refuses_nobody(crowd: WindowLab) -> None:
    """An open circuit that only watches lets the window leave, and says once what it would have done."""
    crowd.setup(
        llm_batch={"linger": "fixed", "max_batch_size": 3},
        circuit_breaker={"failure_threshold": 1, "mode": "observe"},
        coalesce={"mode": "off"},
        llm_cache={"mode": "off"},
    )
    client = crowd.client()
    crowd.ask(client, embedding("down"))
    crowd.advance(0.05)
    crowd.sent[0].reply(refusal(503))
    calls = crowd.ask_all(client, [embedding(inputs) for inputs in INPUTS])
    crowd.sent[-1].reply()
    assert_whole(calls)
    assert sum(len(call.of(CircuitRefused)) for call in crowd.recorder.calls) == 1
