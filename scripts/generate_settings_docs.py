"""Writes docs/settings.md from the settings' own table; `--check` fails when the page is out of date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "runtime"))  # the page describes this tree, not an installed copy

from underlay.settings import (  # noqa: E402
    OTHER_PREFIXES,
    OTHER_VARIABLES,
    PRESETS,
    SECTIONS,
    Kind,
    ModelRoute,
    Settings,
    Spec,
    field_specs,
    variables,
)
from underlay.settings.spec import specs_of  # noqa: E402
from underlay.settings.views import spell  # noqa: E402

PAGE = ROOT / "docs" / "settings.md"

INTRO = """<!-- Written by scripts/generate_settings_docs.py from underlay/settings/schema.py. -->
# Settings

Nothing has to be set. What is set comes from these places, and for each field the later one wins:

1. the defaults below;
2. a preset: `UNDERLAY_PRESET`, or `preset` in the file or in code;
3. the TOML file named by `UNDERLAY_CONFIG` (no file is looked for in the working directory);
4. environment variables;
5. code: `underlay.instrument(settings)` or `Runtime(settings)`, with a mapping or a `Settings` object (an
   object speaks for every field).

**The environment may always switch off.** A pillar that a variable sets to `enabled` false or `mode` off
stays off whatever the code says, and `UNDERLAY_DISABLED=1` switches every pillar off. It works also when the
file or another variable is wrong: those faults are then warnings. A pillar runs only if its `enabled` is true
and its `mode` is not off, whichever source said so.

```python
RUNTIME_SETTINGS = {
    "llm_cache": {"enabled": True, "maxsize": 1000, "ttl": 3600},
    "llm_batch": {"enabled": True, "max_batch_size": 10, "batch_timeout_ms": 50.0},
    "circuit_breaker": {
        "enabled": True, "failure_threshold": 5, "recovery_timeout": 60.0, "success_threshold": 2,
    },
}
```

```toml
# the file named by UNDERLAY_CONFIG
preset = "low_latency"

[llm_cache]
ttl = "1h"
max_bytes = "64MiB"

[hosts]
"llm.example.com" = "openai"

[models."llama*"]
provider = "openai"
base_url = "https://llm.example.com/v1"
api_key_env = "GATEWAY_KEY"
```

In files and variables a duration may carry a unit (`us`, `ms`, `s`, `m`, `h`, `d`) and so may a size (`B`,
`kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB`, `TiB`); a flag may be `1`, `0`, `true`, `false`, `yes`, `no`,
`on` or `off`; tables are JSON text in a variable. In code durations and sizes are numbers. An empty variable
counts as not set.

A wrong value or an unknown name is an error that lists every fault with its field, value, what is allowed and
where it came from. An unknown `UNDERLAY_` variable is a warning.
"""


def page() -> str:
    """Return the whole page."""
    specs = field_specs()
    names = {path: variable for variable, path in variables().items()}
    parts = [INTRO]
    for path, cls in SECTIONS.items():
        rows = {f"{path}.{name}": spec for name, spec in specs_of(cls).items()}
        parts.append(f"## `{path}`\n\n{cls.__doc__ or ''}\n\n{table(rows, cls(), names)}")
    single = {path: spec for path, spec in specs.items() if "." not in path}
    parts.append(f"## Top level\n\n{table(single, Settings(), names)}")
    routes = {f"models.NAME.{name}": spec for name, spec in specs_of(ModelRoute).items()}
    parts.append(f"### A route in `models`\n\n{table(routes, ModelRoute(), {})}")
    parts.append(presets())
    parts.append(others())
    return "\n".join(parts)


def table(rows: dict[str, Spec], holder: object, names: dict[str, str]) -> str:
    """Return one Markdown table for the fields of `holder`."""
    lines = ["| field | default | unit | allowed | variable | meaning |", "|---|---|---|---|---|---|"]
    for path, spec in rows.items():
        default = spell(spec, getattr(holder, path.rpartition(".")[2]))
        variable = f"`{names[path]}`" if path in names else ""
        shown = "not set" if default == "not set" else f"`{default}`"
        unit = "" if spec.kind is Kind.MAP else spec.shown_unit
        cells = [f"`{path}`", shown, unit, escape(spec.allowed()), variable, escape(spec.meaning)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def presets() -> str:
    """Return the table of presets."""
    lines = ["## Presets\n", "| preset | sets |", "|---|---|"]
    for name, sections in PRESETS.items():
        values = [f"`{s}.{k}` = {v:g}" for s, fields in sections.items() for k, v in fields.items()]
        lines.append(f"| `{name}` | {', '.join(values)} |")
    return "\n".join(lines) + "\n"


def others() -> str:
    """Return the table of variables that hold no setting."""
    lines = ["## Other variables\n", "| variable | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {escape(meaning)} |" for name, meaning in OTHER_VARIABLES.items()]
    stack = ", ".join(f"`{prefix}...`" for prefix in OTHER_PREFIXES)
    lines.append(f"| {stack} | Versions, ports and folders of the observability stack. |")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Keep a bar from ending a table cell, and a star from starting emphasis."""
    return text.replace("|", "\\|").replace("*", "\\*")


def main() -> int:
    """Write the page, or compare it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when the page differs")
    wanted = page()
    if parser.parse_args().check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != wanted:
            print(
                "docs/settings.md is out of date: run python scripts/generate_settings_docs.py",
                file=sys.stderr,
            )
            return 1
        return 0
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
