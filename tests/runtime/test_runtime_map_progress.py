"""How far a map is: told to a callable, or drawn on a terminal and nowhere else."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from map_lab import WAYS, Bench, asynchronous, texts

from underlay.mapping import progress
from underlay.testing import FakeClock


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """It does."""
        return True


class Gone(Terminal):
    """A terminal that cannot be written to."""

    def write(self, text: str) -> int:
        """Fail."""
        raise BrokenPipeError


@pytest.fixture(params=WAYS)
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One way to map."""
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return Bench(request.param, monkeypatch)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The bar's clock."""
    made = FakeClock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=made.now))
    return made


def terminal(monkeypatch: pytest.MonkeyPatch, made: Any = None) -> Any:
    """A terminal in the place of stderr, as wide as a usual one."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    made = Terminal() if made is None else made
    monkeypatch.setattr(sys, "stderr", made)
    return made


def test_a_callable_is_told_of_each_item(bench: Bench) -> None:
    """Once for each that finishes, failed or not, in the caller's own thread; the total where the prompts
    have a length."""

    async def scenario() -> None:
        bench.provider.failing = {"1"}
        told: list[tuple[int, int | None]] = []
        inside = []

        def note(done: int, total: int | None) -> None:
            told.append((done, total))
            inside.append(threading.current_thread())

        await bench.rest(bench.map(texts(4), progress=note))
        assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
        told.clear()
        await bench.rest(bench.map(iter(texts(2)), progress=note))
        if bench.way != "sync":
            await bench.rest(bench.map(asynchronous(texts(2)), progress=note))
        assert told == [(1, None), (2, None)] * (1 if bench.way == "sync" else 2)
        assert set(inside) == {threading.current_thread()}

    bench.run(scenario)


def test_a_bar_is_drawn_on_a_terminal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """It shows the model and how many of how many, the last state stays, and no thread draws it."""
    screen = terminal(monkeypatch)
    before = threading.active_count()

    async def scenario() -> None:
        bench.provider.on_call = lambda prompt: clock.advance(1)
        items = bench.map(texts(9), concurrency=1, progress=True)
        await bench.next(items)
        await bench.next(items)
        assert threading.active_count() <= before + 1  # the one call at a time
        await bench.rest(items)

    bench.run(scenario)
    drawn = screen.getvalue()
    assert "gpt-4o" in drawn
    assert "1/9" in drawn
    assert drawn.rindex("9/9") > drawn.rindex("1/9")
    assert drawn.endswith("\x1b[?25h")  # the cursor is back


def test_a_bar_stays_where_the_loop_was_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """Its last state is drawn and the terminal is as it was."""
    screen = terminal(monkeypatch)

    async def scenario() -> None:
        bench.provider.on_call = lambda prompt: clock.advance(1)
        items = bench.map(texts(9), concurrency=1, progress=True)
        await bench.next(items)
        del items

    bench.run(scenario)
    assert screen.getvalue().endswith("\x1b[?25h")


def test_what_is_over_at_once_needs_no_bar(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    """Nothing is drawn in the first 0.3 s, and then ten times a second at most."""
    screen = terminal(monkeypatch)
    bar = progress.Bar("gpt-4o")
    clock.advance(0.29)
    bar(1, 9)
    bar.stop()
    assert screen.getvalue() == ""
    clock.advance(0.02)
    bar(2, 9)
    first = screen.getvalue()
    assert "2/9" in first
    clock.advance(0.09)
    bar(3, 9)
    assert screen.getvalue() == first
    clock.advance(0.02)
    bar(4, 9)
    assert "4/9" in screen.getvalue()
    bar.stop()


def test_without_a_terminal_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a pipe, or no stderr at all gets no bar; a callable is told all the same."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert progress.reporter(True, "m") is None
    monkeypatch.setattr(sys, "stderr", None)
    assert progress.reporter(True, "m") is None
    assert progress.reporter(False, "m") is None
    assert progress.reporter(print, "m") is print


def test_a_terminal_that_is_gone_costs_the_bar_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """The items come all the same."""
    terminal(monkeypatch, Gone())

    async def scenario() -> None:
        bench.provider.on_call = lambda prompt: clock.advance(1)
        assert len(await bench.rest(bench.map(texts(5), progress=True))) == 5

    bench.run(scenario)


def test_what_goes_to_a_file_is_not_drawn_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    """A loop that prints into a file or pipe does so while the bar is there."""
    screen, out = terminal(monkeypatch), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    bar = progress.Bar("gpt-4o")
    clock.advance(1)
    bar(1, 9)
    print("an answer")
    bar.stop()
    assert out.getvalue() == "an answer\n"
    assert "an answer" not in screen.getvalue()


def test_rich_is_loaded_for_a_bar_alone() -> None:
    """A map without a bar imports no drawing library."""
    code = "import sys; from underlay import Runtime; Runtime().map([], model='m', progress=True); print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
