"""What all tests share: property tests without a time limit, because a busy machine is no fault of the code, and
one path of imports."""

from __future__ import annotations

import os
import sys

from hypothesis import settings

settings.register_profile(
    "patient", settings.get_profile("ci" if os.environ.get("CI") else "default"), deadline=None
)
settings.load_profile("patient")

_PATH = list(sys.path)


def pytest_runtest_setup() -> None:
    """When `sys.path` has changed, coverage (7.17) looks for our packages again and then drops the modules
    that came meanwhile: those that other threads of the test are importing at that moment."""
    assert sys.path == _PATH, "a test, or how tests are imported, has changed sys.path"
