"""An interrupt may come between any two lines. Whoever it strikes, the others are answered."""

from __future__ import annotations

import json
import linecache
import random
import sys
from types import FrameType
from typing import Any

import pytest
from window_lab import Running, WindowLab, embedding
from window_provider import EMBEDDINGS_URL, answer

from underlay.testing import Received

INPUTS: list[Any] = ["a", ["b", "c"], "d"]
FILES = tuple(
    f"underlay/{name}.py"
    for name in ("core/batching", "pipeline/windows", "pipeline/queue", "pipeline/merge", "pipeline/perform")
)
POINTS = 60  # of each linger and member


class Interrupter:
    """Raises a KeyboardInterrupt as the line with this number is about to run, counted over our files in this
    thread. Not at a `with`: what is raised as one is left would leave its lock behind, as a trace alone can."""

    def __init__(self, number: int) -> None:
        self.left = number

    def enter(self, frame: FrameType, event: str, _: object) -> Any:
        """Trace our own files."""
        return self.line if frame.f_code.co_filename.endswith(FILES) else None

    def line(self, frame: FrameType, event: str, _: object) -> Any:
        """Count a line."""
        if event == "line":
            code = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            self.left -= not code.startswith("with ")
            if self.left == 0 and not code.startswith("with "):
                raise KeyboardInterrupt
        return self.line


def own(inputs: object) -> Any:
    """The reply to a call with these inputs alone."""
    received = Received("POST", EMBEDDINGS_URL, (), json.dumps(embedding(inputs)).encode())
    return json.loads(b"".join(answer(received).frames))  # type: ignore[arg-type]


def window(lab: WindowLab, linger: str, victim: int, interrupter: Interrupter) -> list[Running]:
    """A window of three, one of which is interrupted."""
    lab.windows(linger=linger, max_batch_size=3)
    client = lab.client(timeout=5)
    if linger == "adaptive":
        lab.ask(client, embedding("in flight"))

    async def ask(number: int) -> Any:
        before = sys.gettrace()
        if number == victim:
            sys.settrace(interrupter.enter)
        try:
            return await lab.post(client, EMBEDDINGS_URL, embedding(INPUTS[number]))
        finally:
            if number == victim:
                sys.settrace(before)

    calls = [lab.start(lambda number=number: ask(number)) for number in range(3)]  # type: ignore[misc]
    lab.provider.release()
    for seconds in (0.05, 21.0, 21.0):
        lab.advance(seconds)
    return calls


@pytest.mark.parametrize("victim", range(3))
@pytest.mark.parametrize("linger", ["fixed", "adaptive"])
def test_an_interrupt_at_any_line_hurts_nobody_else(
    linger: str, victim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three members one is interrupted, be it the sender or not: the two others have their own answers."""
    chance, struck = random.Random(f"{linger} {victim}"), 0
    for number in chance.sample(range(1, 260), POINTS):
        interrupter = Interrupter(number)
        with monkeypatch.context() as patch:
            lab = WindowLab("sync-httpx", patch)
            with lab.running():
                calls = window(lab, linger, victim, interrupter)
                others = {at: call.result().json() for at, call in enumerate(calls) if at != victim}
                assert others == {at: own(INPUTS[at]) for at in range(3) if at != victim}
                assert isinstance(calls[victim].error, KeyboardInterrupt | type(None))
                struck += calls[victim].error is not None
                lab.setup()  # an interrupt between two lines may leave a count behind
                lab.provider.closed = lab.provider.opened
    assert struck > POINTS / 2
