"""Build the wheel, install it in an empty environment, and prove that it stands on its own there.

    python scripts/test_wheel.py

Checks: every module of the wheel imports (with the extras that need it), the bare wheel imports without any
extra, the commands start, `opentelemetry-instrument` works from the bare wheel, and the bundled files are
inside.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PINS = ROOT / "requirements" / "constraints.txt"
BUNDLED = (
    "underlay/data/prices.json",
    "underlay/py.typed",
    "underlay/auto/sitecustomize.py",
    "underlay/_bundle/docker-compose.observability.yml",
    "underlay/_bundle/observability/versions.env",
    "underlay/_bundle/dashboards/rendered/underlay-overview.json",
)
IMPORT_ALL = """
import importlib, pkgutil, sys, warnings
warnings.simplefilter("ignore")
bare = sys.argv[1] == "bare"
needs = {"underlay.transports.httpx2_sync", "underlay.transports.httpx2_async", "underlay_dashboards"}
count = 0
for package in ("underlay", "underlay_instrumentation", "underlay_dashboards"):
    root = None if bare and package in needs else importlib.import_module(package)
    if root is None:
        continue
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        if module.name.endswith("__main__") or (bare and (module.name in needs or
        module.name.startswith("underlay_dashboards"))):
            continue
        importlib.import_module(module.name)
        count += 1
print(count, "modules imported")
"""
APP = """
import os
for variable in ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"):
    os.environ.setdefault(variable, "none")
import underlay.global_runtime as here
assert here.current() is not None, "opentelemetry-instrument did not start underlay"
print("instrumented")
"""


def run(*command: str | Path, **options: object) -> None:
    """Run a command or end with its output."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(str(part) for part in command)}\n{done.stdout}{done.stderr}")
    if done.stdout.strip():
        print("  " + done.stdout.strip().splitlines()[-1])


def install(venv: Path, wheel: str) -> Path:
    """An environment with nothing but the wheel and what it asks for."""
    uv = shutil.which("uv")
    if uv:
        run(uv, "venv", "--quiet", "--python", sys.executable, venv)
        run(uv, "pip", "install", "--quiet", "--python", venv / "bin" / "python", "--constraint", PINS, wheel)
    else:
        run(sys.executable, "-m", "venv", venv)
        run(venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--constraint", PINS, wheel)
    return venv / "bin"


def main() -> int:
    """Do it all; the first failure ends it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT)
        wheel = next(folder.glob("*.whl"))
        names = set(zipfile.ZipFile(wheel).namelist())
        missing = [name for name in BUNDLED if name not in names]
        if missing or any(name.endswith(".pth") for name in names):
            raise SystemExit(f"wheel: missing {missing}, or it has a .pth file")
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {len(names)} files")
        for kind, wanted in (("bare", str(wheel)), ("full", f"{wheel}[demo,dashboards]")):
            print(f"{kind} environment")
            binaries = install(folder / kind, wanted)
            script = folder / "import_all.py"
            script.write_text(IMPORT_ALL)
            run(binaries / "python", "-I", script, kind, cwd=folder)
            run(binaries / "underlay", "--version", cwd=folder)
            run(binaries / "underlay", "doctor", "--json", cwd=folder)
        python = folder / "bare" / "bin" / "python"
        app = folder / "app.py"
        app.write_text(APP)
        exporters = ["--traces_exporter", "none", "--metrics_exporter", "none", "--logs_exporter", "none"]
        run(folder / "bare" / "bin" / "opentelemetry-instrument", *exporters, python, app, cwd=folder)
        run(
            folder / "bare" / "bin" / "underlay",
            "run",
            "--",
            folder / "bare" / "bin" / "python",
            app,
            cwd=folder,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
