"""First thing that a Python process under `underlay run` executes: starts underlay, whatever else is there.

This folder stands first on PYTHONPATH, so that Python's start finds this file before any other
`sitecustomize`. It leaves sys.path at once (nothing of the app is shadowed; child processes still get it by
the environment) and runs the `sitecustomize` that Python would have run, first: who configures an
OpenTelemetry SDK there keeps it. Nothing here raises: a fault of ours is one line on stderr, and the app
runs without underlay.
"""

from __future__ import annotations

import gc
import os
import sys


def _leave_path() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]


def _run_next() -> None:
    """Run the next `sitecustomize` of the path under its own name; what it raises is Python's to report, as
    without us.
    """
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


def _start() -> None:
    if os.environ.get("UNDERLAY_DISABLED", "").strip().lower() in {"1", "true", "yes", "on"}:
        return
    collecting = gc.isenabled()
    # Modules are loaded and nothing is garbage: some ninety collections would be a tenth of the start.
    gc.disable()
    try:
        from underlay.boot import start

        start()
    except Exception as error:  # noqa: BLE001 - the app must run
        _say(error)
    finally:
        if collecting:
            gc.enable()


def _say(error: Exception) -> None:
    """One message on stderr: underlay's own errors in full, of anything else only its type (its text may
    quote data).
    """
    problems = getattr(error, "problems", None)
    if isinstance(error, ModuleNotFoundError) and error.name == "underlay":
        message = f"not installed for {sys.executable}"
    elif problems is not None:
        message = "wrong setting: " + "; ".join(str(problem) for problem in problems)
    elif type(error).__module__ == "underlay.errors":
        message = str(error)
    else:
        message = f"could not start: {type(error).__name__} (UNDERLAY_DEBUG=1 shows where)"
    try:
        sys.stderr.write(f"underlay: {message}; the app runs without underlay\n")
        if os.environ.get("UNDERLAY_DEBUG", "").strip() == "1":
            import traceback

            traceback.print_exception(error)
    except (AttributeError, OSError, ValueError):
        return  # there is no stderr to say it on


try:
    _leave_path()
    _run_next()
finally:
    _start()
