"""The bench of the transports' tests, for calls that go through the runtime itself."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "transports"))
