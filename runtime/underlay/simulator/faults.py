"""Faults on demand: what can go wrong, how it is written, and the book of those that are waiting.

A fault is written `NAME` or `NAME;key=value;…`, the same in the header `x-sim-fault`, in the admin body and
in Python:

    429;retry_after=2      an error status (any from 400 to 599), in the provider's own error shape
    hang                   no reply until the client goes away; `hang;after=3` stalls after three events
    drop                   the connection is closed before any reply
    cut;after=3            the connection breaks within the body, after three events (JSON: half of the body)
    clean_eof;after=3      proper framing, but no terminal event (JSON: half of the body)
    error_event;after=3    an error event after a 200 (a JSON reply: a 200 whose body is the error)
    gzip, br, zstd         content encoding, if accept-encoding allows it; streams are flushed per event
    slow;seconds=0.5       the first token comes that much later

One request may have several, joined with commas: one that ends the reply, one encoding, any number of `slow`.
`after` defaults to half of the events of the stream.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from underlay.simulator.checks import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ENCODINGS", "FAULTS", "Fault", "FaultBook", "Plan", "parse_faults"]

ENCODINGS: Final = {"gzip": "zlib", "br": "brotli", "zstd": "zstandard"}
"""Content encodings that can be asked for, with the module each needs."""
ENDINGS: Final = ("status", "hang", "drop", "cut", "clean_eof", "error_event")
FAULTS: Final = (*ENDINGS, "encoding", "slow")
PROVIDERS: Final = ("openai", "anthropic")
PATHS: Final = ("chat", "responses", "embeddings", "completions", "messages", "models", "count_tokens")
_ARGUMENTS: Final = ("retry_after", "after", "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault and the calls it is for. Raises `SettingsError` when a field is not allowed.

    `retry_after` and `seconds` are in seconds, `after` counts events of a stream, `count` is the number of
    calls it hits (None: until cleared). `model`, `provider` and `path` narrow it; None is any.
    """

    kind: str
    status: int = 500
    retry_after: float | None = None
    after: int | None = None
    seconds: float = 1.0
    encoding: str = "gzip"
    model: str | None = None
    provider: str | None = None
    path: str | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        wait, module = self.retry_after, ENCODINGS.get(self.encoding, "")
        require(
            "Fault",
            (
                (self.kind in FAULTS, "kind", self.kind, " | ".join(FAULTS)),
                (_whole(self.status, 400) and self.status <= 599, "status", self.status, "400 to 599"),
                (wait is None or _seconds(wait), "retry_after", wait, "seconds, 0 or more"),
                (
                    self.after is None or _whole(self.after, 0),
                    "after",
                    self.after,
                    "a whole number, 0 or more",
                ),
                (_seconds(self.seconds), "seconds", self.seconds, "seconds, 0 or more"),
                (self.encoding in ENCODINGS, "encoding", self.encoding, " | ".join(ENCODINGS)),
                (
                    not module or find_spec(module) is not None,
                    "encoding",
                    self.encoding,
                    f"needs module {module}",
                ),
                (self.model is None or isinstance(self.model, str), "model", self.model, "a model's name"),
                (self.provider in (None, *PROVIDERS), "provider", self.provider, " | ".join(PROVIDERS)),
                (self.path in (None, *PATHS), "path", self.path, " | ".join(PATHS)),
                (
                    self.count is None or _whole(self.count, 1),
                    "count",
                    self.count,
                    "a whole number, 1 or more",
                ),
            ),
        )

    @classmethod
    def parse(cls, text: str, **scope: Any) -> Fault:
        """Read one fault as written above; `scope` are the fields model, provider, path, count."""
        name, *parts = (part.strip() for part in text.split(";"))
        allowed = "a status from 400 to 599 or one of: hang drop cut clean_eof error_event gzip br zstd slow"
        fields: dict[str, Any] = dict(scope)
        if name.isdecimal():
            fields |= {"kind": "status", "status": int(name)}
        elif name in ENCODINGS:
            fields |= {"kind": "encoding", "encoding": name}
        else:
            require(
                "fault", ((name in FAULTS and name not in ("status", "encoding"), "fault", text, allowed),)
            )
            fields["kind"] = name
        for part in parts:
            key, _, value = part.partition("=")
            fields[key] = _argument(key, value)
        return cls(**fields)

    @classmethod
    def from_mapping(cls, body: Mapping[str, Any]) -> Fault:
        """Read the admin form: `{"fault": "429;retry_after=2"}` with model, provider, path, count."""
        known = ("fault", "model", "provider", "path", "count")
        unknown = sorted(set(body) - set(known))
        require(
            "fault",
            (
                (not unknown, "fault", unknown, "the fields " + ", ".join(known)),
                (
                    isinstance(body.get("fault"), str),
                    "fault",
                    body.get("fault"),
                    "a text such as '429;retry_after=2'",
                ),
            ),
        )
        return cls.parse(body["fault"], **{key: body[key] for key in known[1:] if key in body})

    def hits(self, provider: str, path: str, model: str) -> bool:
        """Whether a call is one that this fault is for."""
        wanted = ((self.provider, provider), (self.path, path), (self.model, model))
        return all(mine is None or mine == theirs for mine, theirs in wanted)

    def written(self) -> str:
        """The fault in its written form, without its scope."""
        name = {"status": str(self.status), "encoding": self.encoding}.get(self.kind, self.kind)
        given = (("retry_after", self.retry_after), ("after", self.after))
        parts = [name, *(f"{key}={value:g}" for key, value in given if value is not None)]
        return ";".join([*parts, f"seconds={self.seconds:g}"] if self.kind == "slow" else parts)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to go wrong with one reply: how it ends, how it is encoded, how many seconds later it comes."""

    ending: Fault | None = None
    encoding: str | None = None
    slow: float = 0.0

    @property
    def kind(self) -> str | None:
        """The kind of the ending, None for a reply that ends well."""
        return self.ending.kind if self.ending else None


class FaultBook:
    """The faults that wait for calls. Safe between threads."""

    def __init__(self, initial: Iterable[Fault] = ()) -> None:
        self._initial = tuple(initial)
        self._lock = threading.Lock()
        self._serial = 0
        self._faults: dict[int, Fault] = {}
        self.reset()

    def add(self, fault: Fault) -> int:
        """Write a fault into the book; the number returned clears it."""
        with self._lock:
            self._serial += 1
            self._faults[self._serial] = fault
            return self._serial

    def clear(self, number: int | None = None) -> int:
        """Take out one fault, or all; says how many went."""
        with self._lock:
            gone = list(self._faults) if number is None else [number] if number in self._faults else []
            for key in gone:
                del self._faults[key]
            return len(gone)

    def reset(self) -> None:
        """Go back to the faults that the options named."""
        self.clear()
        for fault in self._initial:
            self.add(fault)

    def waiting(self) -> dict[int, Fault]:
        """The faults in the book by number, with the calls each still has to hit."""
        with self._lock:
            return dict(self._faults)

    def take(self, provider: str, path: str, model: str, own: Iterable[Fault] = ()) -> Plan:
        """The plan for one call: its own faults (of its header) first, then the book's, oldest first.

        A fault that is shadowed by an earlier one is not used up.
        """
        plan = Plan()
        for fault in own:
            plan = _merge(plan, fault) or plan
        with self._lock:
            for number, fault in list(self._faults.items()):
                if not fault.hits(provider, path, model):
                    continue
                merged = _merge(plan, fault)
                if merged is not None:
                    plan = merged
                    self._use(number, fault)
        return plan

    def _use(self, number: int, fault: Fault) -> None:
        if fault.count is None:
            return
        if fault.count == 1:
            del self._faults[number]
        else:
            self._faults[number] = replace(fault, count=fault.count - 1)


def parse_faults(header: str) -> tuple[Fault, ...]:
    """Read the header `x-sim-fault`: faults joined with commas. Raises `SettingsError` on a wrong one."""
    return tuple(Fault.parse(part) for part in header.split(",") if part.strip())


def _merge(plan: Plan, fault: Fault) -> Plan | None:
    if fault.kind == "slow":
        return replace(plan, slow=plan.slow + fault.seconds)
    if fault.kind == "encoding":
        return None if plan.encoding else replace(plan, encoding=fault.encoding)
    return None if plan.ending else replace(plan, ending=fault)


def _argument(key: str, value: str) -> float | int:
    require("fault", ((key in _ARGUMENTS, "argument", key, " | ".join(_ARGUMENTS)),))
    try:
        return int(value) if key == "after" else float(value)
    except ValueError:
        require("fault", ((False, key, value, "a number"),))
        raise


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _seconds(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    )
