"""Faults of ours with windows on: raise at every point in turn. Every caller has its own answer, no more is sent
than has to be, and the fault is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transport_lab import CHAT_ASK, CHAT_URL
from window_lab import WindowLab, embedding
from window_provider import EMBEDDINGS_URL, answer

from underlay.core.batching import Lane
from underlay.pipeline import merge, queue
from underlay.pipeline.attempt import Attempt
from underlay.pipeline.circuits import Circuits
from underlay.pipeline.engine import Engine
from underlay.pipeline.reader import Body
from underlay.pipeline.windows import Place, Windows
from underlay.providers._merge import ListMerger
from underlay.stores.memory import MemoryStore
from underlay.testing import Received

INPUTS: list[Any] = ["a", ["b", "c"], "d"]
BEFORE, BOOKS, AFTER = 3, 1, 4  # requests: each by itself; the merged one alone; that one and each by itself
BREAKS: dict[str, tuple[Any, str, int]] = {
    # where: whose, its name, and how many requests leave
    "queue._place": (queue, "_place", BEFORE),
    "queue._rule": (queue, "_rule", BEFORE),
    "queue.dispatch": (queue, "dispatch", BEFORE),
    "queue.resolved": (queue, "resolved", BOOKS + 2),  # those who do not send go by themselves
    "merge.resolved": (merge, "resolved", BOOKS + 1),  # and here the one who sent
    "merge.admit": (merge, "admit", BEFORE),
    "merge.told": (merge, "told", BEFORE),
    "merge.altered": (merge, "altered", BEFORE),
    "merge.decoded": (merge, "decoded", AFTER),
    "merge._read": (merge, "_read", AFTER),
    "merge.plain_headers": (merge, "plain_headers", AFTER),
    "merge._booked": (merge, "_booked", BOOKS),
    "merge.Flight": (merge, "Flight", BOOKS),
    "Place": (Place, "__init__", BEFORE),
    **{f"Windows.{name}": (Windows, name, BEFORE) for name in ("go_alone", "enter", "look", "compose")},
    "Windows.resolve": (Windows, "resolve", AFTER),  # the others go when they have waited long enough
    "Lane.arrive": (Lane, "arrive", BEFORE),
    "Lane.close_due": (Lane, "close_due", BEFORE),
    **{f"merger.{name}": (ListMerger, name, BEFORE) for name in ("bounds", "merge")},
    "merger.split": (ListMerger, "split", AFTER),
    "Attempt": (Attempt, "__init__", BEFORE),
    **{f"Attempt.{name}": (Attempt, name, BOOKS) for name in ("answered", "feed", "finish")},
    "Body.conclude": (Body, "conclude", BOOKS),
    "Body.stored": (Body, "_keep", BOOKS),
    "circuits.admit": (Circuits, "admit", BEFORE),
    "circuits.settle": (Circuits, "settle", BOOKS),
    "cost": (Engine, "cost", BOOKS),
    "store.put": (MemoryStore, "put", BOOKS),
}


def broken(*_: Any, **__: Any) -> Any:
    """A fault of ours."""
    raise RuntimeError("a fault of ours")


def own(inputs: object) -> Any:
    """The reply to a call with these inputs alone."""
    received = Received("POST", EMBEDDINGS_URL, (), json.dumps(embedding(inputs)).encode())
    return json.loads(b"".join(answer(received).frames))  # type: ignore[arg-type]


def run(lab: WindowLab) -> list[Any]:
    """A window of three, and what its callers were given."""
    lab.setup(llm_batch={"linger": "fixed", "max_batch_size": 3})
    headers = {"underlay-deadline": "60"}
    calls = lab.ask_all(lab.client(), [embedding(inputs) for inputs in INPUTS], headers=headers)
    lab.provider.release()
    lab.advance(0.05)
    lab.advance(60)
    return [call.result().json() for call in calls]


@pytest.mark.parametrize("where", list(BREAKS))
def test_a_fault_costs_no_answer(crowd: WindowLab, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault before the request leaves sends each call by itself, as it was made; one after the reply was
    split costs the books alone."""
    owner, name, requests = BREAKS[where]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        given = run(crowd)
    assert given == [own(inputs) for inputs in INPUTS]
    assert len(crowd.sent) == requests
    assert sum(crowd.faults.values()) >= 1
    if requests == BOOKS:
        assert (
            len(crowd.attempts()) == 3
        )  # told as ended, and the permit is given back, whatever is known of it
    alone = [held.received for held in crowd.sent if len(held.inputs) != 4]
    assert len({received.body for received in alone}) == len(alone)  # nobody is sent twice by itself
    assert "underlay-deadline" not in {name for held in crowd.sent for name in held.headers}
    crowd.provider.seen.clear()
    bare = crowd.bare(crowd.provider.transport(crowd.family, crowd.kind))
    crowd.ask_all(bare, [embedding(inputs) for inputs in INPUTS])
    assert {each.body: each.headers for each in alone}.items() <= {
        held.received.body: held.received.headers for held in crowd.sent
    }.items()
    if where == "Windows.resolve":
        crowd.setup()  # its lane waits for an end that never came


@pytest.mark.parametrize(
    "where", ["Lane.ended", "Lane.leave", "Windows.leave", "Windows.landed", "Windows.release"]
)
@pytest.mark.parametrize("merged", [True, False])
def test_a_fault_at_the_end_costs_no_answer(
    crowd: WindowLab, where: str, merged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a member was cancelled, and where calls are released: the rest are answered, and nobody waits
    for ever."""
    owner, name = {"Lane": Lane, "Windows": Windows}[where.split(".")[0]], where.split(".")[1]
    crowd.windows(linger="fixed", max_batch_size=3)
    client = crowd.client(timeout=1)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        calls = crowd.ask_all(
            client, [embedding("a") if merged else CHAT_ASK] * 2, url=EMBEDDINGS_URL if merged else CHAT_URL
        )
        crowd.cancel(calls[0])
        calls.append(
            crowd.ask(
                client, embedding("a") if merged else CHAT_ASK, url=EMBEDDINGS_URL if merged else CHAT_URL
            )
        )
        crowd.provider.release()
        for _ in range(3):
            crowd.advance(5)
    assert [call.result().status_code for call in calls[1:]] == [200, 200]
    crowd.setup()
