"""The demo: what its program does at once, and how its table tells it."""

from __future__ import annotations

import importlib.util
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from underlay.cli.span_model import Span
from underlay.cli.summary import summarise
from underlay.telemetry import attributes as a

EXAMPLES = Path(__file__).parents[2] / "examples"


def _example(name: str) -> Any:
    """A script of `examples/` as a module: that folder is no package."""
    spec = importlib.util.spec_from_file_location(f"underlay_example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _call(number: int, **attributes: object) -> Span:
    known = {a.OPERATION.key: "chat", a.CACHE_RESULT.key: "miss", a.VERDICT.key: "success"}
    named = {getattr(a, name).key: value for name, value in attributes.items()}
    return Span(f"{number:032x}", f"{number:016x}", "chat m", 0, 10**6, attributes=known | named)


def test_the_programs_crowd_asks_one_thing_and_its_document_many() -> None:
    """The crowd's calls are equal but for the client that makes them, the document's chunks all differ, and
    each comes at one moment."""
    app = _example("chat_app")
    crowd, document = app.crowd(24), app.document(60)
    assert len({(call.at, call.kind, call.prompt, call.most, call.stream) for call in crowd}) == 1
    assert {call.use_async for call in crowd} == {True, False}
    assert len({call.prompt for call in document}) == 60
    assert {(call.at, call.kind) for call in document} == {(app.DOCUMENT_AT, "embed")}


def test_the_table_says_what_went_together_within_100_columns() -> None:
    """Coalesced and merged calls, and the requests that these became, are rows of the table."""
    demo = _example("demo")
    merged = {"BATCH_MODE": "merged", "BATCH_SIZE": 2}
    dispatch = Span(
        "d" * 32, "d" * 16, "batch dispatch m", 0, 10**6,
        attributes={a.BATCH_MODE.key: "merged", a.BATCH_TRIGGER.key: "idle", a.BATCH_SIZE.key: 2},
    )  # fmt: skip
    shared = _call(4, CACHE_RESULT="coalesced", VERDICT="")
    spans = [_call(1), _call(2, **merged), _call(3, **merged), shared, dispatch]
    run = demo.Run(summarise(spans), spans, 2)
    out = StringIO()
    Console(file=out, width=100).print(demo.table(run, run))
    lines = out.getvalue().splitlines()
    told = {
        line.strip("│").split("│")[0].strip(): line.strip("│").split("│")[1].strip() for line in lines[4:-1]
    }
    names = (
        "upstream calls",
        "with an identical call in flight",
        "merged with other calls",
        "in so many requests",
    )
    assert [told[name] for name in names] == ["2", "1", "2", "1"]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("simulated", "broken", "agrees"),
    [(3, 0, True), (2, 0, False), (4, 1, False), (3, 1, True), (2, 1, True)],
)
def test_the_demo_compares_with_the_simulator(simulated: int, broken: int, agrees: bool) -> None:
    """Both must have counted the same requests, but for those that a broken connection may have swallowed."""
    demo = _example("demo")
    spans = [_call(n, HTTP_STATUS=200) for n in range(3 - broken)]
    spans += [_call(9, VERDICT="failure", ERROR_TYPE="ReadError") for _ in range(broken)]
    assert demo._agrees(demo.Run(summarise(spans), spans, simulated)) is agrees
