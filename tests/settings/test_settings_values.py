"""What a setting accepts: property tests over the whole table, text spellings, construction."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underlay.errors import SettingsError
from underlay.settings import (
    PILLARS,
    SECTIONS,
    CacheSettings,
    FrozenMap,
    Kind,
    Mode,
    ModelRoute,
    Secret,
    Settings,
    Spec,
    as_mapping,
    field_specs,
    load,
    variables,
)
from underlay.settings.spec import specs_of
from underlay.settings.views import spell

SPECS = {path: spec for path, spec in field_specs().items() if spec.kind is not Kind.SECRET}
NAMES = {path: variable for variable, path in variables().items()}
TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
HOSTS = st.from_regex(r"[a-z0-9]{1,10}(\.[a-z0-9]{1,10}){0,3}", fullmatch=True)


def valid(spec: Spec) -> st.SearchStrategy[Any]:
    """Values that code may give for a setting."""
    match spec.kind:
        case Kind.FLAG:
            return st.booleans()
        case Kind.CHOICE:
            return st.sampled_from(spec.choices)
        case Kind.COUNT | Kind.BYTES:
            return st.integers(int(spec.low), int(spec.high))
        case Kind.DURATION:
            floats = st.floats(spec.low, spec.high, exclude_min=spec.low_open)
            return floats | st.integers(int(spec.low) + spec.low_open, int(spec.high))
        case Kind.HOST:
            return HOSTS
        case Kind.URL:
            return HOSTS.map(lambda host: f"https://{host}/v1")
        case Kind.VARIABLE:
            return st.from_regex(r"[A-Z_][A-Z0-9_]{0,10}", fullmatch=True)
        case Kind.STORE:
            return st.just("memory") | st.from_regex(
                r"sqlite:///{1,2}[a-z]{1,8}(/[a-z]{1,8})?\.db", fullmatch=True
            )
        case Kind.MAP:
            assert spec.key is not None
            assert spec.item is not None
            item = valid(spec.item) if isinstance(spec.item, Spec) else record(spec.item)
            return st.dictionaries(valid(spec.key), item, max_size=3)
        case _:
            return TEXTS


def record(cls: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Tables with any of the fields of a section."""
    return st.fixed_dictionaries({}, optional={name: valid(spec) for name, spec in specs_of(cls).items()})


def wrong(spec: Spec) -> st.SearchStrategy[Any]:
    """Values that no source may give for a setting."""
    strange: list[Any] = [[], (), {1}, object(), b"x", 1j, "\x00", "", math.nan, math.inf, -math.inf]
    if not spec.optional:
        strange.append(None)
    if spec.kind is not Kind.MAP:
        strange.append({})
    if spec.kind is not Kind.FLAG:
        strange += [True, False]
    if spec.kind in (Kind.COUNT, Kind.BYTES, Kind.DURATION):
        strange += [int(spec.high) + 1, spec.low - 1, -1, 10**5000, "nan", "1e999", "5 parsecs", "１"]
    if spec.low_open:
        strange.append(0)
    if spec.kind in (Kind.COUNT, Kind.BYTES):
        strange += [1.5, 2.0]
    if spec.kind in (Kind.FLAG, Kind.CHOICE):
        strange += [2, "maybe"]
    if spec.kind is Kind.STORE:
        strange += [2, "sqlite://", "cache.db"]
    return st.sampled_from(strange)


MAPPINGS = st.fixed_dictionaries(
    {},
    optional={path: record(cls) for path, cls in SECTIONS.items()}
    | {path: valid(spec) for path, spec in SPECS.items() if "." not in path},
)


def nested(path: str, value: object) -> dict[str, Any]:
    """A settings mapping with one value in it."""
    section, _, name = path.rpartition(".")
    return {section: {name: value}} if section else {name: value}


@given(MAPPINGS)
def test_any_valid_mapping_round_trips(mapping: dict[str, Any]) -> None:
    """What is given is what is in force, and the settings written out load to equal settings."""
    settings = load(mapping, environ={}).settings
    assert load(as_mapping(settings), environ={}).settings == settings
    assert load(settings, environ={}).settings == settings
    assert settings.validated() == settings
    for path in SECTIONS:
        for name, value in mapping.get(path, {}).items():
            if name not in ("enabled", "mode"):
                assert getattr(getattr(settings, path), name) == value


@given(st.data())
def test_any_single_wrong_value_is_named_exactly(data: st.DataObject) -> None:
    """One wrong value among right ones is the only fault, by field and source, loaded or constructed."""
    path = data.draw(st.sampled_from(sorted(SPECS)))
    value = data.draw(wrong(SPECS[path]))
    mapping = data.draw(MAPPINGS)
    section, _, name = path.rpartition(".")
    if section:
        mapping = mapping | {section: mapping.get(section, {}) | {name: value}}
    else:
        mapping = mapping | {name: value}
    with pytest.raises(SettingsError) as caught:
        load(mapping, environ={})
    (problem,) = caught.value.problems
    assert (problem.field, problem.source) == (path, "code")
    assert problem.allowed == SPECS[path].allowed()
    with pytest.raises(SettingsError) as constructed:
        (SECTIONS[section] if section else Settings)(**{name: value})
    assert [item.field for item in constructed.value.problems] == [path]


@given(st.data())
def test_what_is_shown_can_be_put_into_a_variable(data: st.DataObject) -> None:
    """The text that describes a value is accepted by its variable and means the same value."""
    path = data.draw(st.sampled_from(sorted(SPECS)))
    value = data.draw(valid(SPECS[path]))
    if path == "disabled" and value:
        return
    settings = load(nested(path, value), environ={}).settings
    section, _, name = path.rpartition(".")
    text = spell(SPECS[path], getattr(getattr(settings, section) if section else settings, name))
    assert load(environ={NAMES[path]: text}).settings == settings


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60", 60),
        ("0.5", 0.5),
        (".5", 0.5),
        ("500ms", 0.5),
        ("1h", 3600),
        ("2 m", 120),
        ("1min", 60),
        ("1d", 86_400),
        ("250us", 0.00025),
        ("1e2", 100),
        (" 3s ", 3),
    ],
)
def test_durations_as_text(text: str, seconds: float) -> None:
    """Durations in text may carry a unit; a bare number is seconds."""
    assert load(environ={"UNDERLAY_LLM_CACHE__TTL": text}).settings.llm_cache.ttl == seconds


@pytest.mark.parametrize(
    ("text", "ms"), [("50", 50), ("50ms", 50), ("1.1s", 1100), ("0.1", 0.1), ("1500us", 1.5)]
)
def test_milliseconds_as_text(text: str, ms: float) -> None:
    """A bare number is in the setting's own unit, also where that is milliseconds."""
    loaded = load(environ={"UNDERLAY_LLM_BATCH__BATCH_TIMEOUT_MS": text})
    assert loaded.settings.llm_batch.batch_timeout_ms == ms


@pytest.mark.parametrize(
    ("given", "faults"),
    [
        ({"turn_ms": 0}, ["pacing.turn_ms"]),
        ({"turn_ms": 3_600_001}, ["pacing.turn_ms"]),
        ({"at_once": 0}, ["pacing.at_once"]),
        ({"turn_ms": -1, "at_once": 2.5}, ["pacing.turn_ms", "pacing.at_once"]),
    ],
)
def test_turns_that_nobody_could_wait_for(given: dict[str, Any], faults: list[str]) -> None:
    """A turn takes some time and lets at least one call go, else those that wait would never go: each fault is
    named."""
    with pytest.raises(SettingsError) as caught:
        load({"pacing": given}, environ={})
    assert [problem.field for problem in caught.value.problems] == faults


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("64MiB", 64 * 2**20), ("1.5 KiB", 1536), ("1GB", 10**9), ("2kb", 2000), ("7B", 7)],
)
def test_sizes_as_text(text: str, size: int) -> None:
    """Sizes in text may carry a decimal or a binary unit; a bare number is bytes."""
    assert load(environ={"UNDERLAY_LLM_CACHE__MAX_BYTES": text}).settings.llm_cache.max_bytes == size


@pytest.mark.parametrize("text", ["0.3B", "64M", "1_000", "many", "1e400", "9" * 5000, "-1", "0"])
def test_wrong_sizes_as_text(text: str) -> None:
    """Broken bytes, unclear units, digit groups and numbers out of range are refused."""
    with pytest.raises(SettingsError):
        load(environ={"UNDERLAY_LLM_CACHE__MAX_BYTES": text})


@pytest.mark.parametrize("text", ["5 parsecs", "1M", "one", "-1s", "0", "nan", "inf", "1e999", "\uff11s"])
def test_wrong_durations_as_text(text: str) -> None:
    """Unknown units, words, infinities, digits of other scripts and spans out of range are refused."""
    with pytest.raises(SettingsError) as caught:
        load(environ={"UNDERLAY_LLM_CACHE__TTL": text})
    assert [problem.field for problem in caught.value.problems] == ["llm_cache.ttl"]


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("YES", True), ("on", True), ("0", False), ("Off", False)]
)
def test_flags_as_text(text: str, value: bool) -> None:
    """Flags in text have the usual spellings in any case."""
    assert load(environ={"UNDERLAY_COALESCE__ENABLED": text}).settings.coalesce.enabled is value


def test_text_spellings_are_for_text_sources() -> None:
    """In code a duration and a size are numbers, and the fault says so."""
    with pytest.raises(SettingsError) as caught:
        CacheSettings(ttl="1h", max_bytes="1MiB")  # type: ignore[arg-type]
    assert ["in code" in problem.hint for problem in caught.value.problems] == [True, True]


@pytest.mark.parametrize("host", ["api.example.com", "localhost", "10.0.0.1", "::1", "my_service"])
def test_host_names(host: str) -> None:
    """Names, addresses and names of containers are hosts."""
    assert host in Settings(hosts={host: "openai"}).hosts


@pytest.mark.parametrize(
    "host", ["https://a", "a:80", "a/b", "", "a..b", "-a", "a b", "ä.example", "x" * 300]
)
def test_wrong_host_names(host: str) -> None:
    """Scheme, port, path and malformed names are refused under the key that they came with."""
    with pytest.raises(SettingsError) as caught:
        Settings(hosts={host: "openai"})
    (problem,) = caught.value.problems
    assert problem.field.startswith("hosts[")


def test_same_host_twice_is_refused() -> None:
    """Two spellings of one host would leave the winner to chance."""
    with pytest.raises(SettingsError, match="named twice"):
        Settings(hosts={"A.example": "openai", "a.example": "anthropic"})


@pytest.mark.parametrize(
    "url", ["ftp://h", "h/v1", "https://", "https://h/v1?key=1", "https://h#x", "https://h:99999x"]
)
def test_wrong_base_urls(url: str) -> None:
    """Only a plain http or https address is a base URL."""
    with pytest.raises(SettingsError) as caught:
        load({"models": {"m": {"base_url": url}}}, environ={})
    assert [problem.field for problem in caught.value.problems] == ['models["m"].base_url']


@pytest.mark.parametrize(
    "store",
    [
        "memory",
        "sqlite:///cache.db",
        "sqlite:///../c d.db",
        "sqlite:////var/cache/a.db",
        "sqlite:///C:\\c.db",
    ],
)
def test_stores(store: str) -> None:
    """Memory, and SQLite files by a relative or an absolute path, in code and (with spaces around) as text."""
    assert CacheSettings(store=store).store == store
    assert load(environ={"UNDERLAY_LLM_CACHE__STORE": f" {store} "}).settings.llm_cache.store == store


@pytest.mark.parametrize(
    ("store", "hint"),
    [
        ("memry", "did you mean memory?"),
        ("cache.db", ""),
        ("redis://h:6379/0", ""),
        ("sqlite", ""),
        ("sqlite://", "three slashes"),
        ("sqlite://cache.db", "three slashes"),
        ("sqlite:///", "of a file"),
        ("sqlite:////var/cache/", "of a file"),
        ("sqlite:///:memory:", "did you mean memory?"),
        ("sqlite:///c.db?mode=ro", "options"),
        ("sqlite:///c\n.db", ""),
        ("sqlite:///" + "x" * 2000, ""),
    ],
)
def test_wrong_stores(store: str, hint: str) -> None:
    """Another scheme, too few slashes, a folder and options are refused with field, value and what is allowed."""
    with pytest.raises(SettingsError) as caught:
        load({"llm_cache": {"store": store}}, environ={})
    (problem,) = caught.value.problems
    assert (problem.field, problem.source) == ("llm_cache.store", "code")
    assert problem.value.startswith(repr(store)[:40])
    assert problem.allowed == "memory, sqlite:///relative/path.db or sqlite:////absolute/path.db"
    assert hint in problem.hint
    assert bool(problem.hint) is bool(hint)


def test_a_store_with_a_password_is_not_shown() -> None:
    """The address of a server may hold a password: the fault does not repeat it."""
    with pytest.raises(SettingsError) as caught:
        CacheSettings(store="redis://user:hush@h")
    assert "hush" not in str(caught.value)


def test_a_route_must_be_a_table() -> None:
    """A route given as text is one fault, a route object is taken."""
    assert Settings(models={"m": ModelRoute("anthropic")}).models["m"].provider == "anthropic"
    with pytest.raises(SettingsError, match="a table with the keys provider, base_url, api_key_env"):
        load({"models": {"m": "openai"}}, environ={})


def test_a_huge_number_is_described() -> None:
    """A whole number too long to write out is described by its size."""
    with pytest.raises(SettingsError, match="a whole number of 16610 bits"):
        load({"llm_cache": {"maxsize": 10**5000}}, environ={})


@pytest.mark.parametrize("cls", [SECTIONS[name] for name in PILLARS])
def test_enabled_and_mode_agree(cls: type[Any]) -> None:
    """Off by either switch is off by both, so that consumers read only `mode`."""
    assert cls(enabled=False).mode is Mode.OFF
    assert cls(mode="off").enabled is False
    assert cls(mode="observe").mode is Mode.OBSERVE
    assert cls(enabled=False, mode="observe").mode is Mode.OFF


def test_replace_keeps_validation() -> None:
    """`dataclasses.replace` checks, on a section and on the whole."""
    with pytest.raises(SettingsError, match=r"llm_cache\.ttl"):
        dataclasses.replace(CacheSettings(), ttl=math.nan)
    with pytest.raises(SettingsError, match="a CacheSettings"):
        dataclasses.replace(Settings(), llm_cache={"ttl": 5})  # type: ignore[arg-type]
    assert dataclasses.replace(Settings(), disabled=True).llm_cache.mode is Mode.OFF


def test_validated_finds_what_was_forced_in() -> None:
    """`validated` checks again what somebody wrote past the constructor."""
    settings = Settings()
    object.__setattr__(settings.llm_cache, "ttl", -1)
    with pytest.raises(SettingsError, match=r"llm_cache\.ttl"):
        settings.validated()


def test_settings_are_values() -> None:
    """Settings can be hashed, copied, pickled and turned into plain data."""
    settings = Settings(hosts={"h": "openai"}, models={"m": ModelRoute()}, secret=Secret("hush"))
    assert hash(settings) == hash(copy.deepcopy(settings))
    assert hash(Secret("a")) == hash(Secret("a"))
    assert len(settings.hosts) == 1
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert dataclasses.asdict(settings)["llm_cache"]["ttl"] == 3600
    assert "hush" not in repr(settings) + str(settings.secret)
    assert "hush" not in str(as_mapping(settings))


def test_secret_that_is_plain_text_is_refused() -> None:
    """A secret in code is a Secret, so that no repr of a caller shows it; the fault does not repeat it."""
    with pytest.raises(SettingsError) as caught:
        Settings(secret="hush")  # type: ignore[arg-type]
    assert "hush" not in str(caught.value)


def test_tables_are_read_only() -> None:
    """Nobody changes `hosts` behind the validation."""
    given_hosts = {"h": "openai"}
    settings = Settings(hosts=given_hosts)  # type: ignore[arg-type]
    given_hosts["h"] = "nonsense"
    assert settings.hosts["h"] == "openai"
    assert isinstance(settings.hosts, FrozenMap)
    assert not hasattr(settings.hosts, "__setitem__")
    assert repr(settings.hosts) == "{'h': 'openai'}"
