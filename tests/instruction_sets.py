"""Running a test's own function with another instruction set's kernels, in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

LEVELS = ("i8mm", "neon") if platform.machine() in ("aarch64", "arm64") else ("amx", "avx512", "avx-vnni", "avx2")
_RUN = [sys.executable, "-c"]


def reason(level: str) -> str:
    """Why ``RIM_EDGE_KERNELS=level`` uses no kernels of ours; empty if it does."""
    code = "from rim_edge import _native; print(_native.kernels().reason)"
    environment = os.environ | {"RIM_EDGE_KERNELS": level}
    return subprocess.run([*_RUN, code], env=environment, capture_output=True, text=True, check=True).stdout.strip()


def results(level: str, call: str, module: str, folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The named arrays that ``call`` of a module beside the tests returns with the kernels of ``level``.

    Skips the test where this processor lacks them.
    """
    said = reason(level)
    if said:
        assert "lacks these instructions" in said
        pytest.skip(said)
    environment = os.environ | {"RIM_EDGE_KERNELS": level}
    there = folder / "results.npz"
    code = f"import sys, numpy, {module}; numpy.savez(sys.argv[1], **{module}.{call})"
    subprocess.run([*_RUN, code, there], env=environment, cwd=Path(__file__).parent, check=True)
    with np.load(there) as found:
        return dict(found)
