"""How ggml's threads wait for each other (native/kernels/barrier.h)."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from shapes import make_model

from rim_edge import _native

known = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
TOKENS = [int(token) for token in np.random.default_rng(0).integers(0, 256, 60)]
PASS = """
import sys
{first}
from rim_edge import _native
model = _native.Model(sys.argv[1])
_native.batch_logits(model, [1, 2, 3], _native.SessionOptions(n_ctx=256, n_threads=3), [2])
print(_native.kernels().barrier)
"""


def logits(path: Path, n_threads: int, times: int = 1) -> list[npt.NDArray[np.float32]]:
    model = _native.Model(str(path))
    options = _native.SessionOptions(n_ctx=256, n_threads=n_threads)
    return [_native.batch_logits(model, TOKENS, options, list(range(60))) for _ in range(times)]


def says(path: Path, first: str = "", **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PASS.format(first=first), str(path)],
        env={key: value for key, value in os.environ.items() if key != "RIM_EDGE_KERNELS"} | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    return make_model(folder / "barrier.gguf", outtype="q8_0")


@pytest.mark.skipif(not known, reason="ggml's calls can only be redirected on Linux")
def test_it_is_ours_where_rim_edge_brought_libllama(path: Path) -> None:
    assert says(path) == "True"
    assert says(path, RIM_EDGE_KERNELS="0") == "False"


def test_it_stays_where_libllama_was_there_before(path: Path) -> None:
    assert says(path, "import llama_cpp") == "False"


@pytest.mark.parametrize("n_threads", [2, 3, 4 * (os.cpu_count() or 1) + 1])
def test_any_number_of_threads_gives_the_same_bits(path: Path, n_threads: int) -> None:
    alone = logits(path, 1)[0]
    for together in logits(path, n_threads, times=5):
        assert np.array_equal(together, alone)


def test_pools_side_by_side_do_not_meet(path: Path) -> None:
    alone = logits(path, 1)[0]
    with ThreadPoolExecutor(4) as executor:
        runs = [executor.submit(logits, path, n_threads, 10) for n_threads in (2, 3, 2, 4)]
        for run in runs:
            for together in run.result(timeout=300):
                assert np.array_equal(together, alone)
