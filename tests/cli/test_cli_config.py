"""`underlay config show`: what is in force, and where it comes from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

INVOKE = Any


def test_every_setting_is_shown_with_its_source(invoke: INVOKE, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide table has name, value, default and source of each."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("UNDERLAY_LLM_CACHE__TTL", "1m")
    lines = invoke("config", "show").stdout.splitlines()
    [ttl] = [line for line in lines if line.startswith("llm_cache.ttl ")]
    assert ttl.split(maxsplit=1)[1].split() == ["60", "s", "3600", "environment", "UNDERLAY_LLM_CACHE__TTL"]
    assert max(map(len, lines)) <= 120


def test_a_narrow_table_says_the_source_below(invoke: INVOKE, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 60 columns only what was changed shows its default and its source, on a line of its own."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("UNDERLAY_LLM_CACHE__TTL", "1m")
    result = invoke("config", "show", "--changed")
    assert result.stdout == (
        "llm_cache.ttl                       60 s\n  from environment UNDERLAY_LLM_CACHE__TTL; default 3600\n"
    )
    assert max(map(len, invoke("config", "show").stdout.splitlines())) <= 60


def test_nothing_changed_says_so(invoke: INVOKE) -> None:
    """Without a change there is one sentence."""
    result = invoke("config", "show", "--changed", "-q")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "Every setting has its default.\n")


def test_json_has_every_field_and_the_warnings(invoke: INVOKE, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts get field, value, default, source, unit and meaning; unknown variables are warnings; no
    secret is shown.
    """
    monkeypatch.setenv("UNDERLAY_SECRET", "hush-hush-hush")
    monkeypatch.setenv("UNDERLAY_LLM_CACHE__TLT", "5")
    result = invoke("config", "show", "--json")
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    assert set(document["settings"][0]) == {"field", "value", "default", "source", "unit", "meaning"}
    assert "UNDERLAY_LLM_CACHE__TTL" in document["warnings"][0]
    assert result.stderr.startswith("warning: UNDERLAY_LLM_CACHE__TLT")
    assert "hush" not in result.output
