"""However a call ends, and whatever interrupts it, its thread's turn ends with it: none is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from lane_lab import FREE, Lane, held
from replies import CHAT, dumped
from transport_lab import CHAT_ASK, CHAT_FRAMES, CHAT_URL, JSON_TYPE, KEY, json_reply, stream_reply

from underlay.pipeline.baton import hand_on

# The end of a reply


def test_an_answer_is_kept_and_its_body_closed_without_a_turn(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has its reply has no turn: others send while its books are closed, and while its connection goes back."""
    seen: list[bool] = []
    store = lane.runtime.engine.state.store
    put = store.put

    class Content:
        """A connection's body."""

        def __iter__(self) -> Iterator[bytes]:
            yield dumped(CHAT)

        def close(self) -> None:
            """Look at what is taken."""
            seen.append(lane.taken)

    def probing(*given: Any) -> bool:
        seen.append(lane.taken)
        return put(*given)

    monkeypatch.setattr(store, "put", probing)
    client = lane.client(lane.pooled(lambda request: list(request.stream) and lane.answer(Content())))
    assert lane.ask(client).json() == CHAT
    assert seen == [FREE] * 2
    lane.clean()


# Every ending


def answered(lane: Lane) -> None:
    """An answer."""
    assert lane.ask(lane.client()).json() == CHAT


def erred(lane: Lane) -> None:
    """An error status."""
    lane.setup([json_reply({"error": {"message": "down"}}, 500)])
    assert lane.ask(lane.client()).status_code == 500


def failed(lane: Lane) -> None:
    """No connection."""

    def handle(request: Any) -> Any:
        raise lane.module.ConnectError("scripted", request=request)

    with pytest.raises(lane.module.ConnectError):
        lane.ask(lane.client(lane.transport(handle)))


def interrupted(lane: Lane) -> None:
    """An interrupt in the app's own transport."""

    def handle(request: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lane.ask(lane.client(lane.transport(handle)))


def interrupted_in_its_turn(lane: Lane) -> None:
    """An interrupt in the family's own transport, before the body was taken."""

    def handle(request: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lane.ask(lane.client(lane.pooled(handle)))


def known(lane: Lane) -> None:
    """A hit."""
    client = lane.client()
    assert [lane.ask(client).json() for _ in range(2)] == [CHAT] * 2
    assert lane.upstream == 1


def refused(lane: Lane) -> None:
    """An open circuit."""
    lane.setup([json_reply({"error": {"message": "down"}}, 500)], circuit_breaker={"failure_threshold": 1})
    client = lane.client()
    assert [lane.ask(client).status_code for _ in range(2)] == [500, 503]
    assert lane.upstream == 1


def cut(lane: Lane) -> None:
    """A body that is cut off."""
    lane.setup([stream_reply([CHAT_FRAMES[0], lane.module.ReadError("scripted")])])
    with pytest.raises(lane.module.ReadError):
        lane.ask(lane.client())


def interrupted_in_its_body(lane: Lane) -> None:
    """An interrupt as the body is read."""
    lane.setup([stream_reply([CHAT_FRAMES[0], KeyboardInterrupt()])])
    with pytest.raises(KeyboardInterrupt):
        lane.ask(lane.client())


def left(lane: Lane) -> None:
    """A body that is closed before its end."""
    lane.setup([stream_reply()])
    client = lane.client()
    with client.stream("POST", CHAT_URL, json=CHAT_ASK, headers=KEY) as response:
        assert next(response.iter_raw()) == CHAT_FRAMES[0]


def passed(lane: Lane) -> None:
    """A request that is none of ours after all."""
    response = lane.client().post(CHAT_URL, content=b"no JSON", headers={**KEY, **JSON_TYPE})
    assert response.json() == CHAT
    assert lane.recorder.calls == []


@pytest.mark.parametrize(
    "ending",
    [answered, erred, failed, interrupted, interrupted_in_its_turn, known, refused, cut, interrupted_in_its_body, left, passed],
    ids=lambda ending: str(ending.__name__),
)  # fmt: skip
def test_no_turn_is_left_behind(lane: Lane, ending: Callable[[Lane], None]) -> None:
    """However a call ends, the baton is free afterwards, and nobody waits for it."""
    ending(lane)
    lane.clean()
    assert lane.script.opened == lane.script.closed


def test_who_is_interrupted_as_it_waits_to_send_has_not_sent(lane: Lane) -> None:
    """A signal's handler raises in a call that somebody else's turn holds up: the interrupt is the caller's, its books
    are closed, and its place in the line is gone."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    turn = held(lane.baton)
    lane.baton.then = interrupt
    with pytest.raises(KeyboardInterrupt):
        lane.ask(lane.client())
    hand_on(turn)
    assert lane.upstream == 0
    lane.clean()


@pytest.mark.parametrize("own", [True, False], ids=["the app's own transport", "the family's own transport"])
def test_a_call_from_inside_of_a_turn_has_the_same(lane: Lane, own: bool) -> None:
    """A listener that asks a model itself, as each call begins, waits for nobody, and least of all for itself: its call
    ends the turn as it is sent, so that nobody else waits for it meanwhile."""
    seen: list[bool] = []
    pooled = lane.pooled(lambda request: list(request.stream) and lane.answer())
    client = lane.probing(seen) if own else lane.client(pooled)
    lane.look()
    inner: list[Any] = []
    asking: list[str] = []

    class Asking:
        """Asks as a call begins that is not its own."""

        def start(self, _: Any) -> None:
            """Ask."""
            if not asking:
                asking.append("now")
                inner.append(lane.ask(client, f"inner {len(inner)}").json())
                seen.append(lane.taken)
                asking.clear()

        def event(self, _: Any) -> None:
            """Nothing."""

    lane.runtime.listen(Asking())
    baton = lane.baton
    lock = baton._lock
    assert [lane.ask(client, f"outer {number}").json() for number in range(3)] == [CHAT] * 3
    assert inner == [CHAT] * 3
    assert set(seen) == {FREE}
    assert not baton.asked.is_set()
    assert baton._lock is lock  # nobody took it to be lost
    lane.clean()
