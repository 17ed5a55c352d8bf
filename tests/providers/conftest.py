"""Helpers shared by the dialects' tests."""

from __future__ import annotations

import sys
from pathlib import Path

# The replies are plain data beside the tests; tests/ has no packages.
sys.path.insert(0, str(Path(__file__).parent))
