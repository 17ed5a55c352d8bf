"""The settings themselves: frozen dataclasses whose fields carry default, unit, range and meaning.

Consumers read `settings.llm_cache.mode` and so on; nothing else decides whether a pillar runs. Every way of
making one of these objects validates it (`dataclasses.replace` too) and raises `SettingsError` with all its
faults. Where values come from is the business of `sources.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

from underlay.errors import Problem, SettingsError
from underlay.settings.parse import Where, check, shown
from underlay.settings.spec import (
    FrozenMap,
    Kind,
    Secret,
    Spec,
    choice,
    count,
    duration,
    flag,
    size,
    specs_of,
    table,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Dialect: TypeAlias = Literal["openai", "anthropic"]
Sampling: TypeAlias = Literal["any", "deterministic"]
Recognise: TypeAlias = Literal["any", "known"]
Conventions: TypeAlias = Literal["released", "upcoming"]
Linger: TypeAlias = Literal["adaptive", "fixed", "learned"]
LocalFile: TypeAlias = Literal["auto", "always", "never"]

_DIALECTS: Final = ("openai", "anthropic")


class Mode(StrEnum):
    """How a pillar acts: `enforce`; `observe` (decide and report, touch nothing); `off`."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    OFF = "off"


class Section:
    """A table of settings that checks itself on construction; `path` is its name in files and messages."""

    __slots__ = ()
    path: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Replace every value by its checked form, or raise `SettingsError` naming all faults."""
        _validate(self, f"{self.path}.")


@dataclass(frozen=True, slots=True)
class Pillar(Section):
    """A section that can be enforced, observed or off; always `enabled == (mode is not Mode.OFF)`."""

    enabled: bool = field(
        default=True, metadata=flag("Whether the pillar runs at all; false is the same as mode off.")
    )
    mode: Mode = field(
        default=Mode.ENFORCE,
        metadata=choice(
            "enforce acts; observe decides and reports what it would have done and touches nothing; "
            "off does neither.",
            tuple(Mode),
            Mode,
        ),
    )

    def __post_init__(self) -> None:
        """Check the values, then bring `enabled` and `mode` into line: off by either is off by both."""
        _validate(self, f"{self.path}.")
        if not self.enabled or self.mode is Mode.OFF:
            object.__setattr__(self, "enabled", False)
            object.__setattr__(self, "mode", Mode.OFF)


@dataclass(frozen=True, slots=True)
class CacheSettings(Pillar):
    """The cache of answers (`llm_cache`)."""

    path: ClassVar[str] = "llm_cache"

    maxsize: int = field(
        default=1000, metadata=count("Answers kept; the least recently used goes first.", "entries")
    )
    ttl: float = field(
        default=3600.0, metadata=duration("How long an answer may be served after it was stored.")
    )
    max_bytes: int = field(default=256 * 2**20, metadata=size("Memory for all stored answers together."))
    max_entry_bytes: int = field(
        default=8 * 2**20, metadata=size("A larger answer is passed on but not stored.")
    )
    sampling: Sampling = field(
        default="any",
        metadata=choice(
            "any stores every recognised call; deterministic only calls with temperature 0 or a seed.",
            ("any", "deterministic"),
        ),
    )
    namespace: str | None = field(
        default=None,
        metadata=text(
            "Names the scope of the answers, for credentials that rotate; unset, the credential is it.",
            optional=True,
        ),
    )
    store: str = field(
        default="memory",
        metadata=text(
            "Where answers are kept: memory is this process's own, a SQLite file is shared by the processes "
            "of one host that name it. Its folder must exist; a relative path starts at the working "
            "directory.",
            Kind.STORE,
        ),
    )


@dataclass(frozen=True, slots=True)
class BatchSettings(Pillar):
    """Windows of calls that are sent together (`llm_batch`)."""

    path: ClassVar[str] = "llm_batch"

    max_batch_size: int = field(
        default=10, metadata=count("Members of a window; a full window leaves at once.", "calls", high=10_000)
    )
    batch_timeout_ms: float = field(
        default=50.0,
        metadata=duration(
            "How long a window stays open for more members; with adaptive twice as long while several "
            "requests like it are in flight.",
            unit="ms",
            high=3_600_000,
        ),
    )
    linger: Linger = field(
        default="adaptive",
        metadata=choice(
            "adaptive opens a window only while a call like it is in flight, and only for calls that can be "
            "merged: a lone call never waits; fixed holds every call for the window; learned follows arrival "
            "rate and latency within the bounds.",
            ("adaptive", "fixed", "learned"),
        ),
    )
    merge_max_inputs: int = field(
        default=256,
        metadata=count(
            "Inputs of a merged request, unless linger is fixed; the provider's own limits hold too.",
            "inputs",
            high=100_000,
        ),
    )


@dataclass(frozen=True, slots=True)
class CoalesceSettings(Pillar):
    """Identical calls in flight share one upstream request (`coalesce`)."""

    path: ClassVar[str] = "coalesce"

    wait_timeout: float = field(
        default=60.0,
        metadata=duration(
            "Longest wait for an identical call of another event loop or process before this one is sent "
            "after all; also how long such a call is believed to be alive without a sign of it."
        ),
    )


@dataclass(frozen=True, slots=True)
class PacingSettings(Pillar):
    """Many calls at once leave sooner: a loop's by turns, a thread's in one piece (`pacing`)."""

    path: ClassVar[str] = "pacing"

    turn_ms: float = field(
        default=250.0,
        metadata=duration(
            "How long an event loop may go on sending without coming round before further calls wait until "
            "it has.",
            unit="ms",
            high=3_600_000,
        ),
    )
    at_once: int = field(
        default=8,
        metadata=count(
            "Calls that wait and are sent each time the loop comes round; more where the line grows.",
            "calls",
            high=10_000,
        ),
    )
    threads: int = field(
        default=128,
        metadata=count(
            "Threads that are on the way to a connection at the same time (Linux, a family's own transport); "
            "the others wait until one of them writes.",
            "threads",
            high=10_000,
        ),
    )


@dataclass(frozen=True, slots=True)
class CircuitBreakerSettings(Pillar):
    """Calls to what is down are refused at once (`circuit_breaker`)."""

    path: ClassVar[str] = "circuit_breaker"

    failure_threshold: int = field(
        default=5, metadata=count("Failures in a row that open the circuit.", "failures")
    )
    recovery_timeout: float = field(
        default=60.0, metadata=duration("How long the circuit stays open before a probe is let through.")
    )
    success_threshold: int = field(
        default=2, metadata=count("Successful probes in a row that close the circuit.", "probes")
    )
    probe_timeout: float = field(
        default=600.0, metadata=duration("A probe that has not reported by then gives its slot back.")
    )


@dataclass(frozen=True, slots=True)
class StatisticsSettings(Section):
    """Statistics kept in the process (`statistics`)."""

    path: ClassVar[str] = "statistics"

    window: int = field(
        default=2048, metadata=count("Latencies kept per model; percentiles are exact over them.", "samples")
    )
    max_models: int = field(
        default=200,
        metadata=count(
            "Models told apart; further names are counted together as other.", "models", high=100_000
        ),
    )


@dataclass(frozen=True, slots=True)
class TelemetrySettings(Section):
    """Names and files of the telemetry (`telemetry`)."""

    path: ClassVar[str] = "telemetry"

    conventions: Conventions = field(
        default="released",
        metadata=choice(
            "Generation of the OpenTelemetry GenAI names that are emitted.", ("released", "upcoming")
        ),
    )
    directory: str = field(
        default=".underlay",
        metadata=text("Folder of the local telemetry file, relative to the working directory."),
    )
    file: LocalFile = field(
        default="auto",
        metadata=choice(
            "auto writes the local file when telemetry has no other place to go; always writes it as well; "
            "never does not.",
            ("auto", "always", "never"),
        ),
    )
    file_max_bytes: int = field(
        default=32 * 2**20, metadata=size("Size at which the local telemetry file is rotated.")
    )
    file_keep: int = field(
        default=4,
        metadata=count("Rotated telemetry files kept beside the current one.", "files", low=0, high=1000),
    )
    metric_interval: float = field(
        default=5.0, metadata=duration("Time between two collections of the metrics.", high=86_400)
    )
    exit_timeout: float = field(
        default=0.5,
        metadata=duration(
            "Longest delay of the program's exit for sending what is left.", zero=True, high=60
        ),
    )


@dataclass(frozen=True, slots=True)
class ModelRoute(Section):
    """Where `runtime.call` sends a model (a value of `models`); goes before the built-in rules.

    `base_url` None means the provider's own address, `api_key_env` None the provider's usual variable.
    """

    path: ClassVar[str] = "models[...]"

    provider: Dialect = field(default="openai", metadata=choice("Dialect of the server.", _DIALECTS))
    base_url: str | None = field(
        default=None,
        metadata=text("Address of the API; unset, the provider's own.", Kind.URL, optional=True),
    )
    api_key_env: str | None = field(
        default=None,
        metadata=text(
            "Environment variable with the key; unset, the provider's usual one.",
            Kind.VARIABLE,
            optional=True,
        ),
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one runtime; `Settings()` is all defaults.

    Raises `SettingsError` on construction, naming every wrong value at once. With `disabled` every pillar's
    mode is off. To switch a pillar on again, set both its `enabled` and its `mode`.
    """

    llm_cache: CacheSettings = field(default_factory=CacheSettings)
    llm_batch: BatchSettings = field(default_factory=BatchSettings)
    coalesce: CoalesceSettings = field(default_factory=CoalesceSettings)
    pacing: PacingSettings = field(default_factory=PacingSettings)
    circuit_breaker: CircuitBreakerSettings = field(default_factory=CircuitBreakerSettings)
    statistics: StatisticsSettings = field(default_factory=StatisticsSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    recognise: Recognise = field(
        default="any",
        metadata=choice(
            "known limits underlay to the providers' hosts and those named in `hosts`, OPENAI_BASE_URL and "
            "the like; any also takes calls to other hosts that have the path and the body of a known API.",
            ("any", "known"),
        ),
    )
    hosts: Mapping[str, Dialect] = field(
        default_factory=FrozenMap[Dialect],
        metadata=table(
            "Further hosts whose calls are recognised, with the dialect that they speak.",
            Spec(Kind.HOST, "Host name."),
            Spec(Kind.CHOICE, "Dialect of the host.", choices=_DIALECTS),
        ),
    )
    models: Mapping[str, ModelRoute] = field(
        default_factory=FrozenMap[ModelRoute],
        metadata=table(
            "Routes of `runtime.call` for model names (* and ? as in file names), tried before the built-in "
            "rules.",
            Spec(Kind.TEXT, "Model name pattern."),
            ModelRoute,
        ),
    )
    disabled: bool = field(
        default=False,
        metadata=flag("True switches every pillar off; UNDERLAY_DISABLED=1 does so from outside."),
    )
    secret: Secret | None = field(
        default=None,
        metadata=text(
            "Key of the credential scopes; hosts that share a store need the same one.",
            Kind.SECRET,
            optional=True,
        ),
    )

    def __post_init__(self) -> None:
        """Check every value and every section's type, then apply `disabled`."""
        _validate(self, "")
        if self.disabled:
            for name in PILLARS:
                object.__setattr__(self, name, replace(getattr(self, name), enabled=False))

    def validated(self) -> Settings:
        """Return an equal object after checking every value again; raises `SettingsError`."""
        sections: dict[str, Any] = {name: replace(getattr(self, name)) for name in SECTIONS}
        return replace(self, **sections)


SECTIONS: Final[Mapping[str, type[Any]]] = {
    cls.path: cls
    for cls in (
        CacheSettings,
        BatchSettings,
        CoalesceSettings,
        PacingSettings,
        CircuitBreakerSettings,
        StatisticsSettings,
        TelemetrySettings,
    )
}
"""Section name -> its dataclass, in the order of the documentation."""

PILLARS: Final = tuple(name for name, cls in SECTIONS.items() if issubclass(cls, Pillar))
"""Names of the sections that have a mode."""


def _validate(target: Any, prefix: str) -> None:
    """Store the checked form of each field on `target`, or raise with every fault in it."""
    problems: list[Problem] = []
    specs = specs_of(type(target))
    for item in fields(target):
        value: object = getattr(target, item.name)
        where = Where(prefix + item.name, "code")
        if item.name in specs:
            object.__setattr__(target, item.name, check(specs[item.name], value, where, problems))
        elif not isinstance(value, SECTIONS[item.name]):
            wanted, hint = f"a {SECTIONS[item.name].__name__}", "a mapping is taken by underlay.settings.load"
            problems.append(Problem(where.field, shown(value), wanted, where.source, hint))
    if problems:
        raise SettingsError(problems)
