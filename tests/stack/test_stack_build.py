"""What the native servers are built from is in the checkout, and fits their configuration."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import pytest
import yaml
from stack_fakes import ROOT

from underlay.stack import read_pins

MANIFEST = ROOT / "observability" / "collector" / "builder.yaml"
KINDS = {
    "receivers": "receiver",
    "processors": "processor",
    "exporters": "exporter",
    "extensions": "extension",
}


def recipes() -> tuple[Any, ...]:
    """The recipes of the build script."""
    spec = spec_from_file_location("build_stack", ROOT / "scripts" / "build_stack.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    made: tuple[Any, ...] = module.recipes(read_pins(), MANIFEST.read_text(encoding="utf-8"))
    return made


def test_every_recipe_is_complete() -> None:
    """The script finds its manifest where it looks for it, with every version put in."""
    by_name = {recipe.name: recipe for recipe in recipes()}
    assert set(by_name) == {"collector", "jaeger", "prometheus", "compose"}
    manifest = yaml.safe_load(by_name["collector"].manifest)
    assert "$" not in str(manifest)
    assert manifest["dist"]["name"] == "otelcol"
    assert manifest["dist"]["version"] == read_pins().collector


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_collector_is_made_of_what_its_configuration_names(kind: str) -> None:
    """Each component of config.yaml is in the manifest, and nothing else is."""
    config = yaml.safe_load(
        (ROOT / "observability" / "collector" / "config.yaml").read_text(encoding="utf-8")
    )
    wanted = {name.partition("/")[0].replace("_", "") for name in config[kind]}
    built = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))[kind]
    modules = [each["gomod"].split()[0].rpartition("/")[2].removesuffix(KINDS[kind]) for each in built]
    assert sorted(modules) == sorted(wanted)


def test_nothing_that_is_needed_is_ignored_by_git() -> None:
    """What a checkout needs is not left out of it by a pattern that was meant for what is built."""
    found = subprocess.run(["git", "ls-files", "--others", "--ignored", "--exclude-standard", "--", "observability", "scripts", "runtime", "instrumentation", "dashboards", "docs", "e2e", "examples"], cwd=ROOT, capture_output=True, text=True, check=False)  # fmt: skip
    if found.returncode:
        pytest.skip("no checkout of git")
    left_out = [
        path for path in found.stdout.splitlines() if "__pycache__" not in path and not path.endswith(".pyc")
    ]
    assert left_out == []
