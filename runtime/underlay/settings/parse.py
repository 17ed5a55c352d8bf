"""Checks one value against its `Spec`: the native values of code, and the text of environment and file.

`check` never raises for a wrong value: it appends a `Problem` and returns `INVALID`, so that one pass finds
all faults. Values that may hold a credential are never put into a problem.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from underlay.errors import Problem
from underlay.settings.spec import FrozenMap, Kind, Secret, Spec, specs_of

HIDDEN: Final = "(not shown)"
"""Stands for a value that could be a credential."""

INVALID: Final = object()
"""What `check` returns for a value that it refused."""

_SHOWN_MAX: Final = 60
_FLAGS: Final = {
    "1": True, "true": True, "yes": True, "on": True,
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip
# Patterns are compiled by their first use: most programs set nothing.
_NUMBER: Final = r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)"
_WHOLE: Final = r"[+-]?[0-9]+"
# A label may carry an underscore: names of containers in a compose network do.
_LABEL: Final = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_HOST: Final = rf"{_LABEL}(?:\.{_LABEL})*|(?=.*:.*:)[0-9A-Fa-f:.]+"
_URL: Final = r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[^\s?#@]*)?"
_VARIABLE: Final = r"[A-Za-z_][A-Za-z0-9_]*"
# Whole ratios (times, divided by) and not factors: 1.1s in milliseconds is 1100, not 1100.0000000000002.
_SECONDS: Final[Mapping[str, tuple[int, int]]] = {
    "us": (1, 1_000_000), "ms": (1, 1000), "s": (1, 1), "m": (60, 1), "min": (60, 1), "h": (3600, 1),
    "d": (86_400, 1),
}  # fmt: skip
_SIZES: Final[Mapping[str, int]] = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Where:
    """The place of a value: dotted field name, source in words, whether text spellings are allowed."""

    field: str
    source: str
    text: bool = False

    def below(self, name: str) -> Where:
        """The place of a table's entry."""
        return replace(self, field=f"{self.field}.{name}" if self.field else name)

    def at(self, key: str) -> Where:
        """The place of a free-form key, which may itself contain dots."""
        return replace(self, field=f'{self.field}["{key}"]')


class _RefusedError(Exception):
    """A value is not what the spec wants; carries the hint. Never leaves this module."""


def check(spec: Spec, value: object, where: Where, problems: list[Problem]) -> Any:
    """Return the checked form of `value`, or append what is wrong with it and return `INVALID`."""
    if value is None and spec.optional:
        return None
    if spec.kind is Kind.MAP:
        return _check_map(spec, value, where, problems)
    try:
        return _CHECKS[spec.kind](spec, value, where.text)
    except _RefusedError as refused:
        secret = spec.kind in (Kind.SECRET, Kind.URL, Kind.VARIABLE)
        given = HIDDEN if secret and isinstance(value, str) else shown(value)
        problems.append(Problem(where.field, given, spec.allowed(), where.source, str(refused)))
        return INVALID


def check_record(cls: type[Any], value: object, where: Where, problems: list[Problem]) -> dict[str, Any]:
    """Check a table whose keys are the fields of `cls`; returns the accepted ones by field name."""
    specs = specs_of(cls)
    if not isinstance(value, Mapping):
        problems.append(
            Problem(where.field, shown(value), f"a table with the keys {', '.join(specs)}", where.source)
        )
        return {}
    accepted: dict[str, Any] = {}
    for name, given in cast("Mapping[object, object]", value).items():
        if not isinstance(name, str) or name not in specs:
            problems.append(unknown_key(where.below(shown_key(name)), name, specs))
            continue
        checked = check(specs[name], given, where.below(name), problems)
        if checked is not INVALID:
            accepted[name] = checked
    return accepted


def unknown_key(where: Where, name: object, known: Mapping[str, object]) -> Problem:
    """The problem of a key that no setting has, with the nearest one; its value could be a credential."""
    near = nearest(name, known) if isinstance(name, str) else ""
    hint = f"did you mean {near}?" if near else ""
    return Problem(where.field, HIDDEN, f"one of the names {', '.join(known)}", where.source, hint)


def nearest(name: str, known: Mapping[str, object]) -> str:
    """Return the known name that is closest to `name`, or the empty text when none is close."""
    from difflib import get_close_matches  # only a mistake pays for it

    return next(iter(get_close_matches(name, known, n=1, cutoff=0.6)), "")


def shown(value: object) -> str:
    """Write a value for a message: short, on one line, no foreign `repr`, no likely credential."""
    if isinstance(value, str) and _likely_secret(value):
        text = HIDDEN
    elif isinstance(value, str):
        text = repr(str(value))
    elif isinstance(value, int) and not isinstance(value, bool):
        # Python refuses to write out integers of thousands of digits.
        text = (
            repr(int(value)) if value.bit_length() <= 256 else f"a whole number of {value.bit_length()} bits"
        )
    elif value is None or isinstance(value, (bool, float)):
        text = repr(value)
    else:
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 1]}…"


def shown_key(name: object) -> str:
    """Write a key for a field path: itself when it is a plain short name."""
    if isinstance(name, str) and name.isprintable() and len(name) <= _SHOWN_MAX and not _likely_secret(name):
        return name
    return shown(name)


def _likely_secret(text: str) -> bool:
    """Whether a text in the wrong place looks like an API key or like a URL with a password."""
    return text.lstrip().lower().startswith(("sk-", "bearer ")) or ("://" in text and "@" in text)


def _check_map(spec: Spec, value: object, where: Where, problems: list[Problem]) -> Any:
    if isinstance(value, str) and where.text:
        value = _json(value)
    if not isinstance(value, Mapping):
        # Text that is no table may hold anything, a key pasted by mistake included.
        given = HIDDEN if isinstance(value, str) or value is INVALID else shown(value)
        hint = "as JSON text in a variable" if where.text else ""
        problems.append(Problem(where.field, given, spec.allowed(), where.source, hint))
        return INVALID
    before = len(problems)
    checked: dict[str, Any] = {}
    for raw_key, item in cast("Mapping[object, object]", value).items():
        place = where.at(shown_key(raw_key))
        key = raw_key if spec.key is None else check(spec.key, raw_key, place, problems)
        if key is not INVALID and key in checked:
            problems.append(Problem(place.field, "named twice", "each name once", where.source))
        checked[str(key)] = _check_item(spec.item, item, place, problems)
    return FrozenMap(checked) if len(problems) == before else INVALID


def _check_item(item: Spec | type[Any] | None, value: object, where: Where, problems: list[Problem]) -> Any:
    if isinstance(item, Spec):
        return check(item, value, where, problems)
    if item is None or isinstance(value, item):
        return value
    before = len(problems)
    accepted = check_record(item, value, where, problems)
    return item(**accepted) if len(problems) == before else INVALID


def _json(text: str) -> object:
    import json  # only maps in environment variables need it

    def unique(pairs: list[tuple[str, object]]) -> object:
        return dict(pairs) if len({name for name, _ in pairs}) == len(pairs) else INVALID

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return INVALID


def _flag(_spec: Spec, value: object, text: bool) -> bool:
    if isinstance(value, bool):
        return value
    if text and isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    raise _RefusedError


def _count(spec: Spec, value: object, text: bool) -> int:
    if text and isinstance(value, str) and re.fullmatch(_WHOLE, value.strip()):
        value = _digits(value.strip())
    if isinstance(value, bool) or not isinstance(value, int):
        raise _RefusedError
    return int(_in_range(spec, value))


def _bytes(spec: Spec, value: object, text: bool) -> int:
    if text and isinstance(value, str):
        number, unit = _split(value)
        factor = _SIZES.get(unit.lower() or "b")
        if factor is None:
            raise _RefusedError("units are B, kB, MB, GB, TB, KiB, MiB, GiB, TiB")
        value = _digits(number) * factor if re.fullmatch(_WHOLE, number) else _whole(float(number) * factor)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _RefusedError(
            "" if text or not isinstance(value, str) else "in code a size is a number of bytes"
        )
    return int(_in_range(spec, value))


def _duration(spec: Spec, value: object, text: bool) -> float:
    if text and isinstance(value, str):
        number, unit = _split(value)
        if unit not in ("", *_SECONDS):
            raise _RefusedError("units are us, ms, s, m, h, d")
        # A bare number is in the setting's own unit, and stays exactly what it is.
        times, divided = _SECONDS[unit] if unit not in ("", spec.unit) else (1, 1)
        scale = 1000 if spec.unit == "ms" and unit not in ("", "ms") else 1
        value = float(number) * times * scale / divided
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _RefusedError("" if text or not isinstance(value, str) else "in code a duration is a number")
    return float(_in_range(spec, value))


def _choice(spec: Spec, value: object, text: bool) -> str:
    word = value.strip().lower() if text and isinstance(value, str) else value
    if isinstance(word, str) and word in spec.choices:
        return spec.make(word)
    near = nearest(word, dict.fromkeys(spec.choices)) if isinstance(word, str) else ""
    raise _RefusedError(f"did you mean {near}?" if near else "")


def _text(_spec: Spec, value: object, text: bool) -> str:
    word = value.strip() if text and isinstance(value, str) else value
    if isinstance(word, str) and 1 <= len(word) <= 200 and word.isprintable():
        return word
    raise _RefusedError


def _host(_spec: Spec, value: object, _text: bool) -> str:
    if isinstance(value, str) and len(value) <= 253 and re.fullmatch(_HOST, value):
        return value.lower()
    raise _RefusedError("for example llm.example.com")


def _url(_spec: Spec, value: object, text: bool) -> str:
    word = value.strip() if text and isinstance(value, str) else value
    if isinstance(word, str) and len(word) <= 2000 and re.fullmatch(_URL, word):
        return word
    raise _RefusedError("for example https://llm.example.com/v1")


def _variable(_spec: Spec, value: object, text: bool) -> str:
    word = value.strip() if text and isinstance(value, str) else value
    if isinstance(word, str) and len(word) <= 200 and re.fullmatch(_VARIABLE, word):
        return word
    raise _RefusedError("for example MY_GATEWAY_KEY")


def _store(_spec: Spec, value: object, text: bool) -> str:
    word = value.strip() if text and isinstance(value, str) else value
    if not isinstance(word, str) or len(word) > 2000 or not word.isprintable():
        raise _RefusedError
    if word == "memory":
        return word
    scheme, slashes, path = word.partition("://")
    if (scheme, slashes) != ("sqlite", "://"):
        near = nearest(word, {"memory": None})
        raise _RefusedError(f"did you mean {near}?" if near else "")
    if not path.startswith("/"):
        raise _RefusedError("three slashes stand before a relative path, four before an absolute one")
    if path == "/:memory:":
        raise _RefusedError("did you mean memory?")
    if "?" in path or "#" in path:
        raise _RefusedError("options behind ? or # are not taken")
    if path.endswith(("/", "\\")):
        raise _RefusedError("the path of a file, not of a folder")
    return word


def _secret(_spec: Spec, value: object, text: bool) -> Secret:
    if isinstance(value, Secret):
        return value
    # A line break from the file that a variable was filled from would make another key of it.
    if text and isinstance(value, str) and value.strip():
        return Secret(value.strip())
    raise _RefusedError


_CHECKS: Final[Mapping[Kind, Callable[[Spec, object, bool], Any]]] = {
    Kind.FLAG: _flag,
    Kind.COUNT: _count,
    Kind.BYTES: _bytes,
    Kind.DURATION: _duration,
    Kind.CHOICE: _choice,
    Kind.TEXT: _text,
    Kind.HOST: _host,
    Kind.URL: _url,
    Kind.VARIABLE: _variable,
    Kind.STORE: _store,
    Kind.SECRET: _secret,
}


def _split(text: str) -> tuple[str, str]:
    """Split "64 MiB" into number and unit."""
    match = re.fullmatch(_NUMBER, text.strip())
    if match is None:
        raise _RefusedError
    return match[1], match[2]


def _digits(text: str) -> int:
    """Read a whole number; Python's own limit on its digits is a refusal, not a fault."""
    try:
        return int(text)
    except ValueError:
        raise _RefusedError from None


def _whole(value: float) -> int:
    if not math.isfinite(value) or value != int(value):
        raise _RefusedError("that is not a whole number of bytes")
    return int(value)


def _in_range(spec: Spec, value: float) -> float:
    """Return `value` if it lies in the spec's range; NaN lies in none."""
    above = value > spec.low if spec.low_open else value >= spec.low
    if above and value <= spec.high:
        return value
    raise _RefusedError
