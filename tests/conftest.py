"""What all tests share: property tests without a time limit, because a busy machine is no fault of the code."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile(
    "patient", settings.get_profile("ci" if os.environ.get("CI") else "default"), deadline=None
)
settings.load_profile("patient")
