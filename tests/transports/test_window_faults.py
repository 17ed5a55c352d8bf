"""Faults of ours with windows on: raise at every point in turn. Every caller has its own answer, no more is sent
than has to be, and the fault is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from window_lab import WindowLab, embedding
from window_provider import EMBEDDINGS_URL, answer

from underlay.core.batching import Lane
from underlay.pipeline import merge, queue
from underlay.pipeline.attempt import Attempt
from underlay.pipeline.circuits import Circuits
from underlay.pipeline.engine import Engine
from underlay.pipeline.reader import Body, Reader
from underlay.pipeline.watch import Watch, Watched, WatchedDispatch
from underlay.pipeline.windows import Seat, Windows
from underlay.providers._merge import ListMerger
from underlay.stores.memory import MemoryStore
from underlay.testing import Received

INPUTS: list[Any] = ["a", ["b", "c"], "d"]
BREAKS: dict[str, tuple[Any, str]] = {
    "queue._member": (queue, "_member"),
    "queue._key": (queue, "_key"),
    "queue._rule": (queue, "_rule"),
    "queue.dispatch": (queue, "dispatch"),
    "queue.resolved": (queue, "resolved"),
    "merge.resolved": (merge, "resolved"),
    "merge.admit": (merge, "admit"),
    "merge.told": (merge, "told"),
    "merge.batched": (merge, "batched"),
    "merge.altered": (merge, "altered"),
    "merge.decoded": (merge, "decoded"),
    "merge._read": (merge, "_read"),
    "merge.share": (merge, "share"),
    "merge.plain_headers": (merge, "plain_headers"),
    "Seat": (Seat, "__init__"),
    "Seat.vacate": (Seat, "vacate"),
    **{f"Windows.{name}": (Windows, name) for name in ("enter", "look", "compose", "resolve", "leave")},
    **{f"Lane.{name}": (Lane, name) for name in ("arrive", "close_due", "ended", "leave")},
    **{f"merger.{name}": (ListMerger, name) for name in ("bounds", "merge", "split")},
    **{f"Attempt.{name}": (Attempt, name) for name in ("__init__", "answered", "feed", "finish", "failed")},
    "Body": (Body, "__init__"),
    "Body.conclude": (Body, "conclude"),
    "Reader": (Reader, "__init__"),
    "circuits.admit": (Circuits, "admit"),
    "circuits.settle": (Circuits, "settle"),
    "cost": (Engine, "cost"),
    "store.put": (MemoryStore, "put"),
    "watch.dispatch": (Watch, "dispatch"),
    "watched.event": (Watched, "event"),
    "watched.origin": (Watched, "origin"),
    "dispatch.event": (WatchedDispatch, "event"),
    "dispatch.origin": (WatchedDispatch, "origin"),
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
    calls = lab.ask_all(lab.client(), [embedding(inputs) for inputs in INPUTS])
    lab.provider.release()
    lab.advance(0.05)
    lab.advance(60)
    return [call.result().json() for call in calls]


@pytest.mark.parametrize("where", list(BREAKS))
def test_a_fault_costs_no_answer(crowd: WindowLab, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of ours raises."""
    owner, name = BREAKS[where]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        given = run(crowd)
    print(where, len(crowd.sent), crowd.faults)
    assert given == [own(inputs) for inputs in INPUTS]
