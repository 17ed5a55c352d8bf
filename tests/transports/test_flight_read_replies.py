"""Flights of replies that the app's own transport has read: nobody is handed a body to close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pacing_lab import LOOPS, PacingLab

from underlay.transports import homes


@pytest.mark.parametrize("way", LOOPS)
def test_callers_that_are_cancelled_as_such_a_reply_is_read_leave_no_lead(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All who share it are cancelled while its body is pulled for all of them: the flight is over, and whoever asks
    the same again is answered."""
    lab = PacingLab(way)
    client = lab.paced()
    home = homes.AsyncioHome if lab.mode == "asyncio" else homes.TrioHome
    spawn: Callable[..., Any] = home.spawn

    def spawn_and_cancel(self: Any, work: Any) -> Any:
        stop = spawn(self, work)
        for call in lab.calls:
            call.stop()
        return stop

    async def scenario() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(home, "spawn", spawn_and_cancel)
            await lab.burst(client, ["same"] * 3)
        await lab.settle()
        assert [call.answer for call in lab.calls] == [None] * 3
        lab.runtime.stats()  # a caller is inside: it closes the books of those who left
        lab.clean()
        (again,) = await lab.burst(client, ["same"])
        assert again.answer == "to same"

    lab.run(scenario)
    lab.clean()
