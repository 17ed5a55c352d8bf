"""Where settings come from: order, the off switch, presets, files, variables, faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from underlay.errors import SettingsError
from underlay.settings import (
    OTHER_PREFIXES,
    OTHER_VARIABLES,
    PILLARS,
    CacheSettings,
    Mode,
    ModelRoute,
    Settings,
    load,
    variables,
)

if TYPE_CHECKING:
    from pathlib import Path

RUNTIME_SETTINGS = {
    "llm_cache": {"enabled": True, "maxsize": 1000, "ttl": 3600},
    "llm_batch": {"enabled": True, "max_batch_size": 10, "batch_timeout_ms": 50.0},
    "circuit_breaker": {
        "enabled": True,
        "failure_threshold": 5,
        "recovery_timeout": 60.0,
        "success_threshold": 2,
    },
}


def load_toml(text: str, code: Any = None, **variables: str) -> Any:
    """Load with a settings file of the given text."""
    return load(code, environ={"UNDERLAY_CONFIG": "s.toml", **variables}, read_file=lambda _path: text)


def problems_of(code: Any = None, **variables: str) -> list[tuple[str, str]]:
    """Return (field, source) of every fault."""
    with pytest.raises(SettingsError) as caught:
        load(code, environ=variables)
    return [(problem.field, problem.source) for problem in caught.value.problems]


def test_nothing_set_gives_all_defaults() -> None:
    """Without any source the settings are `Settings()`, each from `default`, with no warning."""
    loaded = load(environ={})
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}
    assert loaded.warnings == ()


def test_classic_settings_load_verbatim() -> None:
    """The classic RUNTIME_SETTINGS load as they are and mean the defaults."""
    loaded = load(RUNTIME_SETTINGS, environ={})
    assert loaded.settings == Settings()
    assert loaded.sources["llm_cache.ttl"] == "code"
    assert loaded.sources["llm_cache.max_bytes"] == "default"


def test_process_environment_is_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `environ` the process's own variables are read."""
    monkeypatch.setenv("UNDERLAY_LLM_CACHE__MAXSIZE", "7")
    assert load().settings.llm_cache.maxsize == 7


@pytest.mark.parametrize(
    ("layers", "maxsize", "source"),
    [
        (0, 1000, "default"),
        (1, 5000, "preset high_throughput"),
        (2, 20, "file:s.toml"),
        (3, 30, "environment UNDERLAY_LLM_CACHE__MAXSIZE"),
        (4, 40, "code"),
    ],
)
def test_later_source_wins(layers: int, maxsize: int, source: str) -> None:
    """Defaults < preset < file < environment < code, and the winner is named."""
    variables = {
        **({"UNDERLAY_PRESET": "high_throughput"} if layers >= 1 else {}),
        **({"UNDERLAY_LLM_CACHE__MAXSIZE": "30"} if layers >= 3 else {}),
    }
    text = "[llm_cache]\nmaxsize = 20" if layers >= 2 else ""
    loaded = load_toml(text, {"llm_cache": {"maxsize": 40}} if layers >= 4 else None, **variables)
    assert loaded.settings.llm_cache.maxsize == maxsize
    assert loaded.sources["llm_cache.maxsize"] == source


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("high_throughput", {"llm_cache.maxsize": 5000, "llm_batch.max_batch_size": 20}),
        ("low_latency", {"llm_batch.batch_timeout_ms": 10.0}),
        (
            "unreliable_provider",
            {"circuit_breaker.failure_threshold": 3, "circuit_breaker.recovery_timeout": 120.0},
        ),
    ],
)
def test_presets_are_the_classic_tuning_guidelines(preset: str, expected: dict[str, float]) -> None:
    """Each preset changes exactly the values of the classic guidelines, whichever source names it."""
    loads = [
        load(environ={"UNDERLAY_PRESET": preset}),
        load({"preset": preset}, environ={}),
        load_toml(f'preset = "{preset}"'),
    ]
    for loaded in loads:
        changed = {path for path, source in loaded.sources.items() if source == f"preset {preset}"}
        assert changed == set(expected)
        assert loaded.preset == preset
        for path, value in expected.items():
            section, name = path.split(".")
            assert getattr(getattr(loaded.settings, section), name) == value


def test_preset_in_code_replaces_the_one_of_the_environment() -> None:
    """Only one preset is in force: the one that the latest source names."""
    loaded = load({"preset": "low_latency"}, environ={"UNDERLAY_PRESET": "high_throughput"})
    assert loaded.settings.llm_cache.maxsize == 1000
    assert loaded.sources["preset"] == "code"


@pytest.mark.parametrize("pillar", PILLARS)
@pytest.mark.parametrize("field_and_text", ["ENABLED=0", "ENABLED=no", "MODE=off", "MODE=OFF"])
def test_environment_off_beats_code(pillar: str, field_and_text: str) -> None:
    """A pillar that a variable switches off stays off, and the variable is named as the reason."""
    name, text = field_and_text.split("=")
    variable = f"UNDERLAY_{pillar.upper()}__{name}"
    section = type(getattr(Settings(), pillar))(enabled=True, mode=Mode.ENFORCE)
    codes: list[Any] = [{pillar: {"enabled": True, "mode": "enforce"}}, Settings(**{pillar: section})]
    for code in codes:
        loaded = load(code, environ={variable: text})
        assert getattr(loaded.settings, pillar).mode is Mode.OFF
        assert loaded.sources[f"{pillar}.mode"] == f"environment {variable}"
        others = [getattr(loaded.settings, name).mode for name in PILLARS if name != pillar]
        assert others == [Mode.ENFORCE] * (len(PILLARS) - 1)


def test_environment_on_does_not_beat_code() -> None:
    """The exception is for off only: code may switch off what the environment switches on."""
    loaded = load({"llm_cache": {"enabled": False}}, environ={"UNDERLAY_LLM_CACHE__ENABLED": "1"})
    assert loaded.settings.llm_cache.mode is Mode.OFF
    assert loaded.sources["llm_cache.mode"] == "code"


def test_environment_observe_holds_under_classic_code() -> None:
    """`enabled: True` of the classic settings does not undo an `observe` of the environment."""
    loaded = load(RUNTIME_SETTINGS, environ={"UNDERLAY_LLM_CACHE__MODE": "observe"})
    assert loaded.settings.llm_cache.mode is Mode.OBSERVE


def test_disabled_switches_every_pillar_off() -> None:
    """UNDERLAY_DISABLED=1 turns every pillar off against file and code."""
    loaded = load(RUNTIME_SETTINGS, environ={"UNDERLAY_DISABLED": "1"})
    assert loaded.settings.disabled
    assert [getattr(loaded.settings, pillar).mode for pillar in PILLARS] == [Mode.OFF] * len(PILLARS)
    assert loaded.sources["coalesce.mode"] == "environment UNDERLAY_DISABLED"


def test_disabled_works_when_file_and_variables_are_wrong() -> None:
    """The kill switch turns faults of file and environment into warnings, but not those of code."""
    loaded = load_toml("ttl =", UNDERLAY_DISABLED="1", UNDERLAY_LLM_CACHE__TTL="soon")
    assert loaded.settings.disabled
    assert len(loaded.warnings) == 2
    with pytest.raises(SettingsError):
        load({"llm_cache": {"ttl": -1}}, environ={"UNDERLAY_DISABLED": "1"})


def test_all_faults_of_all_sources_at_once() -> None:
    """One error names every fault with its field and source, overridden values included."""
    with pytest.raises(SettingsError) as caught:
        load_toml(
            "recognise = 'all'\n[llm_cache]\nmaxsize = 0\nttl = 'soon'\n[nope]\n",
            {"llm_cache": {"maxsize": True, "tll": 3}, "llm_batch": 5},
            UNDERLAY_COALESCE__MODE="onn",
            UNDERLAY_PRESET="low_latancy",
        )
    found = [(problem.field, problem.source) for problem in caught.value.problems]
    assert found == [
        ("coalesce.mode", "environment UNDERLAY_COALESCE__MODE"),
        ("preset", "environment UNDERLAY_PRESET"),
        ("recognise", "file:s.toml"),
        ("llm_cache.maxsize", "file:s.toml"),
        ("llm_cache.ttl", "file:s.toml"),
        ("nope", "file:s.toml"),
        ("llm_cache.maxsize", "code"),
        ("llm_cache.tll", "code"),
        ("llm_batch", "code"),
    ]
    assert str(caught.value).count("\n") == len(found) - 1
    assert "did you mean low_latency?" in str(caught.value)
    assert "did you mean ttl?" in str(caught.value)


@pytest.mark.parametrize("code", [[], 5, "llm_cache"])
def test_code_of_another_type_is_refused(code: Any) -> None:
    """Code is a mapping or a Settings, anything else is one clear fault."""
    assert problems_of(code) == [("settings", "code")]


def test_keys_that_are_no_text_are_refused() -> None:
    """A key that is not even text is named like any unknown key."""
    assert problems_of({5: {}, "llm_cache": {None: 1}}) == [("5", "code"), ("llm_cache.None", "code")]


def test_unknown_variable_is_a_warning_with_the_nearest_name() -> None:
    """A misspelled variable does not stop the program; its value is never shown."""
    loaded = load(environ={"UNDERLAY_LLM_CACHE__TLL": "hush", "UNDERLAY_XYZZY": "hush", "OTHER": "1"})
    assert len(loaded.warnings) == 2
    assert "did you mean UNDERLAY_LLM_CACHE__TTL?" in loaded.warnings[0]
    assert "UNDERLAY_XYZZY" in loaded.warnings[1]
    assert not any("hush" in warning for warning in loaded.warnings)


def test_other_variables_of_ours_are_known() -> None:
    """Variables that hold no setting, those of the stack included, cause no warning and are no setting."""
    environ = dict.fromkeys(OTHER_VARIABLES, "") | {"UNDERLAY_SECRET": "s", "UNDERLAY_PRESET": "low_latency"}
    environ |= {"UNDERLAY_GRAFANA_PORT": "3000", "UNDERLAY_STACK_HOME": "somewhere"}
    assert load(environ=environ).warnings == ()
    assert not [name for name in variables() if name.startswith(OTHER_PREFIXES)]


def test_empty_variable_counts_as_unset() -> None:
    """An empty or blank variable changes nothing, as with OpenTelemetry's own."""
    blank = {
        "UNDERLAY_LLM_CACHE__TTL": "",
        "UNDERLAY_DISABLED": " ",
        "UNDERLAY_CONFIG": "",
        "UNDERLAY_SECRET": " ",
    }
    assert load(environ=blank).settings == Settings()


def test_tables_as_json_in_variables() -> None:
    """`hosts` and `models` are JSON text in a variable."""
    loaded = load(
        environ={
            "UNDERLAY_HOSTS": '{"LLM.example.com": "openai"}',
            "UNDERLAY_MODELS": '{"llama*": {"base_url": "http://127.0.0.1:11434/v1", "api_key_env": "KEY"}}',
        }
    )
    assert dict(loaded.settings.hosts) == {"llm.example.com": "openai"}
    assert loaded.settings.models["llama*"] == ModelRoute("openai", "http://127.0.0.1:11434/v1", "KEY")


@pytest.mark.parametrize("text", ["[", "[]", "5", '{"a": "openai", "a": "openai"}', "[" * 100_000])
def test_json_that_is_no_table_is_refused(text: str) -> None:
    """Broken JSON, another JSON value and a doubled key are faults, and the text is not repeated."""
    assert problems_of(UNDERLAY_HOSTS=text) == [("hosts", "environment UNDERLAY_HOSTS")]


def test_file_from_disk(tmp_path: Path) -> None:
    """A real file is read as UTF-8, with text units, tables and a byte order mark."""
    path = tmp_path / "settings.toml"
    text = '[llm_cache]\nttl = "500ms"\nmax_bytes = "64MiB"\n[models."llama*"]\nprovider = "anthropic"\n'
    path.write_text(text, encoding="utf-8-sig")
    settings = load(environ={"UNDERLAY_CONFIG": str(path)}).settings
    assert settings.llm_cache.ttl == 0.5
    assert settings.llm_cache.max_bytes == 64 * 2**20
    assert settings.models["llama*"].provider == "anthropic"


@pytest.mark.parametrize(
    ("content", "hint"), [(None, "No such file"), (b"\xff", "utf-8"), (b"a = ?", "line 1")]
)
def test_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, hint: str) -> None:
    """A missing file, another encoding and broken TOML are each one fault with the reason."""
    path = tmp_path / "settings.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load(environ={"UNDERLAY_CONFIG": str(path)})
    (problem,) = caught.value.problems
    assert problem.field == "UNDERLAY_CONFIG"
    assert hint in problem.hint


def test_secret_comes_from_the_environment_only() -> None:
    """The secret is taken from its variable, refused elsewhere, and shown nowhere."""
    loaded = load(environ={"UNDERLAY_SECRET": "hush-hush\n"})
    assert loaded.settings.secret is not None
    assert loaded.settings.secret.reveal() == "hush-hush"
    assert "hush" not in repr(loaded)
    assert load(loaded.settings, environ={}).settings.secret == loaded.settings.secret
    with pytest.raises(SettingsError) as caught:
        load_toml('secret = "hush"', {"secret": "hush"})
    assert [problem.field for problem in caught.value.problems] == ["secret", "secret"]
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "code",
    [
        {"models": {"m": {"base_url": "https://user:hush@h/v1"}}},
        {"models": {"m": {"api_key_env": "sk-hush"}}},
        {"models": {"m": {"api_key": "hush"}}},
        {"models": {"m": {"provider": "sk-hush"}}},
        {"hosts": {"https://user:hush@h": "openai"}},
        {"api_key": "hush"},
    ],
)
def test_credentials_in_the_wrong_place_are_not_repeated(code: dict[str, object]) -> None:
    """A fault never shows a value that could be a credential."""
    with pytest.raises(SettingsError) as caught:
        load(code, environ={})
    assert "hush" not in str(caught.value)


def test_settings_object_in_code_speaks_for_every_field() -> None:
    """A Settings given in code is what is in force, whatever file, preset and variables say."""
    given = Settings(llm_cache=CacheSettings(ttl=5.0))
    loaded = load_toml("[llm_cache]\nmaxsize = 1", given, UNDERLAY_PRESET="low_latency")
    assert loaded.settings == given
    assert loaded.preset is None
    assert loaded.sources["llm_cache.maxsize"] == "code"
