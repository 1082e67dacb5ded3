"""Running a test's own function with another instruction set's kernels, in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

LEVELS = ("i8mm", "neon") if platform.machine() in ("aarch64", "arm64") else ("amx", "avx512", "avx-vnni", "avx2")
_RUN = [sys.executable, "-c"]


def reason(level: str) -> str:
    """Why ``RIM_EDGE_KERNELS=level`` uses no kernels of ours; empty if it does."""
    code = "from rim_edge import _native; print(_native.kernels().reason)"
    environment = os.environ | {"RIM_EDGE_KERNELS": level}
    return subprocess.run([*_RUN, code], env=environment, capture_output=True, text=True, check=True).stdout.strip()


def run(level: str, code: str, *arguments: str | Path) -> None:
    """Run ``code`` beside the tests with the kernels of ``level``; skips the test where this processor lacks them."""
    said = reason(level)
    if said:
        assert "lacks these instructions" in said
        pytest.skip(said)
    environment = os.environ | {"RIM_EDGE_KERNELS": level}
    subprocess.run([*_RUN, code, *arguments], env=environment, cwd=Path(__file__).parent, check=True)
