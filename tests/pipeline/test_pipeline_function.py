"""The adapter over plain callables: what it does to a result, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest

from underlay import Runtime
from underlay.testing import FakeClock, Recorder


class Watched:
    """A result that notices when it is pickled or brought back."""

    seen: list[str]

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def __reduce__(self) -> Any:
        self.seen.append("pickled")
        return (list, ())


@pytest.mark.parametrize("key", [None, lambda: None])
def test_a_result_that_is_not_kept_is_not_touched(key: Any) -> None:
    """Without a key the very object is returned and nothing is done to it: pickling may cost, and may have
    effects."""
    runtime = Runtime({}, clock=FakeClock(), listeners=[recorder := Recorder()])
    seen: list[str] = []
    result = Watched(seen)
    protected = runtime.protect(model="gpt-4o", key=key)(lambda: result)
    assert protected() is result
    assert protected() is result
    assert seen == []
    assert [call.events[-2].store_reason for call in recorder.calls] == ["no_key", "no_key"]  # type: ignore[union-attr]


def test_a_callers_change_to_its_result_stays_its_own() -> None:
    """A kept result comes back as a fresh object each time, as it was when it was returned."""
    runtime = Runtime({}, clock=FakeClock())
    protected = runtime.protect(model="gpt-4o", key=lambda: "k")(lambda: ["answer"])
    for _ in range(3):
        got = protected()
        assert got == ["answer"]
        got.append("changed")
