"""What a start costs: whole processes, interleaved."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import quantiles

UNDERLAY = str(Path(sys.executable).with_name("underlay"))
PROCESSES: dict[str, list[str]] = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import underlay'": [sys.executable, "-c", "import underlay"],
    "python -c 'import openai'": [sys.executable, "-c", "import openai"],
    "underlay --version": [UNDERLAY, "--version"],
    "underlay --help": [UNDERLAY, "--help"],
    "underlay run -- python -c pass": [UNDERLAY, "run", "--", sys.executable, "-c", "pass"],
}


def measure_start(rounds: int) -> dict[str, tuple[float, float, float]]:
    """Milliseconds of wall time per process: 25 %, 50 % and 75 %."""
    took: dict[str, list[float]] = {name: [] for name in PROCESSES}
    if shutil.which(UNDERLAY) is None:
        del took["underlay --version"], took["underlay --help"], took["underlay run -- python -c pass"]
    for _ in range(rounds):
        for name in took:
            began = time.perf_counter()
            subprocess.run(PROCESSES[name], stdout=subprocess.DEVNULL, check=True)
            took[name].append((time.perf_counter() - began) * 1000)
    return {name: (lambda q: (q[0], q[1], q[2]))(quantiles(times, n=4)) for name, times in took.items()}
