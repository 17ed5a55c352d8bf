"""Settings shown: rows, JSON Schema, the documentation page, names and import cost."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import underlay.settings
from underlay.settings import PRESETS, Kind, Settings, describe, field_specs, json_schema, load, variables

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "settings.md"


def test_describe_lists_every_setting_once() -> None:
    """`describe` has one row for the preset and one for each setting, with its source and unit."""
    loaded = load({"llm_cache": {"max_bytes": 2**20}}, environ={"UNDERLAY_PRESET": "low_latency"})
    rows = {row.field: row for row in describe(loaded)}
    assert list(rows) == ["preset", *field_specs()]
    assert rows["llm_cache.max_bytes"][:5] == ("llm_cache.max_bytes", "1MiB", "256MiB", "code", "bytes")
    assert rows["llm_batch.batch_timeout_ms"][1:5] == ("10", "50", "preset low_latency", "ms")
    assert rows["preset"][1:4] == ("low_latency", "not set", "environment UNDERLAY_PRESET")
    assert all(row.meaning.endswith(".") for row in rows.values())


def test_describe_never_shows_the_secret() -> None:
    """Of the secret only `set` or `not set` is shown."""
    with_secret = describe(load(environ={"UNDERLAY_SECRET": "hush"}))
    assert [row.value for row in with_secret if row.field == "secret"] == ["set"]
    assert "hush" not in str(with_secret)
    assert [row.value for row in describe(load(environ={})) if row.field == "secret"] == ["not set"]


def test_schema_names_every_setting_but_the_secret() -> None:
    """The JSON Schema closes every table and knows exactly the settings that a file may hold."""
    schema = json_schema()
    names = {
        f"{name}.{key}" if "properties" in part else name
        for name, part in schema["properties"].items()
        for key in part.get("properties", [name])
    }
    assert names == {"preset", *field_specs()} - {"secret"}
    assert schema["additionalProperties"] is False
    assert schema["properties"]["llm_cache"]["additionalProperties"] is False
    ttl = schema["properties"]["llm_cache"]["properties"]["ttl"]
    assert ttl["default"] == 3600
    assert ttl["anyOf"][0]["exclusiveMinimum"] == 0
    assert schema["properties"]["preset"]["enum"] == list(PRESETS)


@pytest.mark.parametrize(
    ("path", "texts"), [("ttl", ["1h", "500ms", "3"]), ("max_bytes", ["64MiB", "1 GB", "7"])]
)
def test_schema_takes_the_text_forms(path: str, texts: list[str]) -> None:
    """What the loader takes as text, the schema's pattern takes too."""
    pattern = json_schema()["properties"]["llm_cache"]["properties"][path]["anyOf"][1]["pattern"]
    for text in texts:
        assert re.search(pattern, text)
        load(environ={f"UNDERLAY_LLM_CACHE__{path.upper()}": text})


def test_every_default_lies_in_its_range_and_has_a_meaning() -> None:
    """The table itself is sound: each setting has a variable, a meaning and words for what is allowed."""
    assert Settings().validated() == Settings()
    assert sorted(variables().values()) == sorted(["preset", *field_specs()])
    for spec in field_specs().values():
        assert spec.meaning
        assert spec.allowed()
        assert (spec.shown_unit != "") == (spec.kind in (Kind.COUNT, Kind.BYTES, Kind.DURATION))


def test_page_is_up_to_date() -> None:
    """docs/settings.md is what the generator writes."""
    script = ROOT / "scripts" / "generate_settings_docs.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_examples_of_the_page_load() -> None:
    """The two examples of the page are settings that load."""
    page = PAGE.read_text(encoding="utf-8")
    python, toml = (re.search(rf"```{kind}\n(.*?)```", page, re.S) for kind in ("python", "toml"))
    assert python is not None
    assert toml is not None
    scope: dict[str, dict[str, object]] = {}
    exec(python[1], scope)  # the page is ours
    assert load(scope["RUNTIME_SETTINGS"], environ={}).settings == Settings()
    assert tomllib.loads(toml[1])
    loaded = load(environ={"UNDERLAY_CONFIG": "page"}, read_file=lambda _path: toml[1])
    assert loaded.settings.hosts == {"llm.example.com": "openai"}


def test_public_names_exist() -> None:
    """`__all__` is sorted, complete and importable."""
    for name in underlay.settings.__all__:
        assert hasattr(underlay.settings, name)
    assert len(set(underlay.settings.__all__)) == len(underlay.settings.__all__)


def test_import_loads_no_parser() -> None:
    """Importing the package and loading defaults reads no TOML, JSON or difflib module."""
    code = (
        "import sys, underlay.settings as s; s.load(environ={});"
        "print([n for n in ('tomllib', 'json', 'difflib') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "runtime")},
    )
    assert done.stdout.strip() == "[]"
