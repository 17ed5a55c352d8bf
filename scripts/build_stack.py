"""Build the native servers of the observability stack from the published Go modules, into the cache folder.

`make stack-binaries` runs it as `PYTHONPATH=runtime python scripts/build_stack.py`. Needs Python's standard
library and the Go toolchain, nothing else. Versions come from observability/versions.env; what is built
already with the same recipe is left alone. Exit codes: 0 all there, 1 a build failed, 3 there is no Go
toolchain.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import string
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underlay.stack.binaries import stamp_path
from underlay.stack.bundle import config_dir
from underlay.stack.pins import Pins, read_pins
from underlay.stack.places import stack_bin

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NO_TOOLCHAIN = 3
REPORT_EVERY_S = 10.0
BUILDER = "go.opentelemetry.io/collector/cmd/builder"
PROMETHEUS = "github.com/prometheus/prometheus/cmd"


class BuildError(RuntimeError):
    """A Go command failed; the message ends with what it said last."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one program is made: packages (program name -> package) of one Go module at one version."""

    name: str
    version: str
    module_version: str
    packages: tuple[tuple[str, str], ...]
    ldflags: str = ""
    manifest: str = ""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The file names that the recipe leaves in the cache folder."""
        return ("otelcol",) if self.manifest else tuple(output for output, _ in self.packages)

    def stamp(self) -> str:
        """Return the version that was built and a digest of all else that shapes the result."""
        digest = hashlib.sha256(
            repr((self.module_version, self.packages, self.ldflags, self.manifest)).encode()
        )
        return f"{self.version} {digest.hexdigest()[:16]}\n"


def recipes(pins: Pins, manifest_template: str) -> tuple[Recipe, ...]:
    """Return all recipes, the quickest first so that a broken toolchain shows early."""
    manifest = string.Template(manifest_template).substitute(pins.environment())
    return (
        Recipe("collector", pins.collector, pins.collector, (("ocb", BUILDER),), manifest=manifest),
        Recipe(
            "jaeger",
            pins.jaeger,
            pins.jaeger_module,
            (("jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger"),),
            f"-X github.com/jaegertracing/jaeger/internal/version.latestVersion=v{pins.jaeger}",
        ),
        Recipe(
            "prometheus",
            pins.prometheus,
            pins.prometheus_module,
            (("prometheus", f"{PROMETHEUS}/prometheus"), ("promtool", f"{PROMETHEUS}/promtool")),
            f"-X github.com/prometheus/common/version.Version={pins.prometheus}",
        ),
        Recipe(
            "compose",
            pins.compose_module,
            pins.compose_module,
            (("docker-compose", "github.com/docker/compose/v2/cmd"),),
            f"-X github.com/docker/compose/v2/internal.Version=v{pins.compose_module}",
        ),
    )


def is_built(recipe: Recipe, target: Path) -> bool:
    """Say whether the cache folder holds what this very recipe makes."""
    stamp = stamp_path(target, recipe.name)
    return (
        stamp.is_file()
        and stamp.read_text(encoding="utf-8") == recipe.stamp()
        and all((target / output).is_file() for output in recipe.outputs)
    )


def build(recipe: Recipe, target: Path) -> None:
    """Build one recipe in a scratch module and move the programs into `target`, the stamp last."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{recipe.name}-", dir=target) as scratch:
        work = Path(scratch)
        _go(recipe.name, ["mod", "init", f"underlay.local/stack/{recipe.name}"], work)
        for _, package in recipe.packages:
            _say(f"{recipe.name}: resolving {package}@v{recipe.module_version}")
            _go(recipe.name, ["get", "-tool", f"{package}@v{recipe.module_version}"], work)
        for output, package in recipe.packages:
            _say(f"{recipe.name}: compiling {output}")
            flags = f"-s -w {recipe.ldflags}".strip()
            _go(recipe.name, ["build", "-v", "-trimpath", "-ldflags", flags, "-o", output, package], work)
        if recipe.manifest:
            _assemble_collector(recipe, work)
        stamp = stamp_path(target, recipe.name)
        stamp.unlink(missing_ok=True)
        for output in recipe.outputs:
            (work / output).replace(target / output)
        stamp.write_text(recipe.stamp(), encoding="utf-8")


def _assemble_collector(recipe: Recipe, work: Path) -> None:
    """Let the Collector's builder write and compile the distribution that the manifest describes."""
    (work / "manifest.yaml").write_text(recipe.manifest, encoding="utf-8")
    _say(f"{recipe.name}: assembling otelcol with the Collector's builder")
    _run(recipe.name, ["./ocb", "--config", "manifest.yaml"], work)
    (work / "out" / "otelcol").replace(work / "otelcol")


def _go(name: str, arguments: Sequence[str], work: Path) -> None:
    """Run one go command in the scratch module."""
    _run(name, ["go", *arguments], work)


def _run(name: str, command: Sequence[str], work: Path) -> None:
    """Run a command, counting its output lines as progress; raise `BuildError` with the last of them if it
    fails.
    """
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false", "GOWORK": "off"}
    process = subprocess.Popen(
        command,
        cwd=work,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with process:
        last = _follow(name, process.stdout or ())
    if process.returncode != 0:
        raise BuildError(f"{name}: `{' '.join(command)}` failed:\n" + "\n".join(last))


def _follow(name: str, lines: Iterable[str]) -> list[str]:
    """Report now and then how far the output has come; return its last lines."""
    last: list[str] = []
    said = time.monotonic()
    for count, line in enumerate(lines, start=1):
        last = [*last[-19:], line.rstrip()]
        if time.monotonic() - said >= REPORT_EVERY_S:
            said = time.monotonic()
            _say(f"{name}: {count} steps, now at {last[-1][:80]}")
    return last


def _say(text: str) -> None:
    """Print one progress line at once, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _arguments(names: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Build the stack's native servers into the cache folder.")
    parser.add_argument(
        "--only", action="append", choices=names, help="build just this one (may be repeated)"
    )
    parser.add_argument(
        "--with-compose", action="store_true", help="also build docker-compose, to check the compose file"
    )
    parser.add_argument("--force", action="store_true", help="build again what is there already")
    parser.add_argument("--check", action="store_true", help="build nothing; exit 1 unless all is there")
    return parser.parse_args()


def main() -> int:
    """Build what is missing; see the module's docstring for the exit codes."""
    manifest = config_dir() / "collector" / "builder.yaml"
    everything = recipes(read_pins(), manifest.read_text(encoding="utf-8"))
    options = _arguments([recipe.name for recipe in everything])
    wanted = options.only or [r.name for r in everything if r.name != "compose" or options.with_compose]
    target = stack_bin()
    chosen = [r for r in everything if r.name in wanted and (options.force or not is_built(r, target))]
    if options.check or not chosen:
        missing = ", ".join(f"{recipe.name} {recipe.version}" for recipe in chosen)
        _say(f"not built in {target}: {missing}" if missing else f"all built in {target}")
        return 1 if missing else 0
    if shutil.which("go") is None:
        print(
            "the Go toolchain is missing: install Go (https://go.dev/dl) and run this again", file=sys.stderr
        )
        return NO_TOOLCHAIN
    if hasattr(os, "nice"):
        os.nice(10)
    for number, recipe in enumerate(chosen, start=1):
        started = time.monotonic()
        _say(f"[{number}/{len(chosen)}] {recipe.name} {recipe.version} -> {target}")
        try:
            build(recipe, target)
        except BuildError as error:
            print(error, file=sys.stderr)
            return 1
        _say(f"[{number}/{len(chosen)}] {recipe.name} built in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
