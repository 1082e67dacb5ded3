"""Memory of the process that runs the tests."""

from __future__ import annotations

import resource
from pathlib import Path


def resident_bytes() -> int:
    """0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else 0
