"""Our SwiGLU, through ggml, against float64; skipped where the processor lacks its instructions."""

from __future__ import annotations

from pathlib import Path

import instruction_sets
import numpy as np
import numpy.typing as npt
import pytest

from rim_edge import _native
from rim_edge.errors import OptionError

pytestmark = pytest.mark.skipif(not _native.kernels().swiglu, reason="no kernels of ours on this processor")
Floats = npt.NDArray[np.float32]
SIZES = [1, 15, 16, 17, 63, 576, 1536, 4099]


def drawn(rows: int, n: int, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, n), dtype=np.float32) * 8, rng.standard_normal((rows, n), dtype=np.float32)


def reference(gate: Floats, up: Floats) -> npt.NDArray[np.float64]:
    wide = gate.astype(np.float64)
    return np.asarray(wide / (1 + np.exp(-wide)) * up)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("rows", [1, 2, 8, 9, 34])
@pytest.mark.parametrize("n_threads", [1, 3, 5])
def test_it_is_its_definition(n: int, rows: int, n_threads: int) -> None:
    """Few rows are shared out by columns, more by rows."""
    gate, up = drawn(rows, n)
    found = _native.kernel_swiglu(gate, up, n_threads)
    assert found.shape == (rows, n)
    np.testing.assert_allclose(found, reference(gate, up), rtol=1e-6, atol=1e-37)


def test_large_and_tiny_gates() -> None:
    gate = np.array([[0, -0.0, 1e-40, -1e-40, 80, -80, 200, -200, 3e38, -3e38]], np.float32)
    up = np.full_like(gate, 2)
    with np.errstate(over="ignore"):
        expected = reference(gate, up)
    found = _native.kernel_swiglu(gate, up)
    np.testing.assert_allclose(found[:, :8], expected[:, :8], rtol=1e-6, atol=1e-37)
    assert found[0, 8] == np.inf and found[0, 9] == 0  # 6e38 is no float32


@pytest.mark.parametrize("at", [0, 20, 47])
def test_what_is_not_a_number_shows_in_its_place_alone(at: int) -> None:
    for which in (0, 1):
        both = drawn(2, 48)
        both[which][1, at] = np.nan
        found = np.isnan(_native.kernel_swiglu(*both))
        assert found[1, at] and found.sum() == 1


def example() -> dict[str, Floats]:
    return {str(n): np.asarray(_native.kernel_swiglu(*drawn(5, n, n))) for n in SIZES}


@pytest.mark.parametrize("level", instruction_sets.LEVELS)
def test_every_instruction_set_gives_the_same_bits(level: str, tmp_path: Path) -> None:
    there = instruction_sets.results(level, "example()", "test_native_swiglu", tmp_path)
    for name, mine in example().items():
        assert np.array_equal(there[name], mine), name


def test_other_shapes_are_refused() -> None:
    gate, up = drawn(2, 32)
    with pytest.raises(OptionError, match="different shapes"):
        _native.kernel_swiglu(gate, up[:, :31])
