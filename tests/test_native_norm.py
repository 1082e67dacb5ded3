"""Our norms, through ggml, against float64; skipped where the processor lacks their instructions."""

from __future__ import annotations

from pathlib import Path

import instruction_sets
import numpy as np
import numpy.typing as npt
import pytest

from rim_edge import _native
from rim_edge.errors import OptionError

pytestmark = pytest.mark.skipif(not _native.kernels().norms, reason="no norms of ours on this processor")
Floats = npt.NDArray[np.float32]
SIZES = [1, 15, 16, 17, 64, 255, 256, 257, 576, 2048, 4099]


def drawn(rows: int, n: int, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, n), dtype=np.float32) * 3, rng.standard_normal(n, dtype=np.float32)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("rows", [1, 3, 34])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_norm_is_its_definition(n: int, rows: int, n_threads: int) -> None:
    values, weights = drawn(rows, n)
    found = _native.kernel_norm(values, weights, 1e-5, n_threads)
    exact = values.astype(np.float64)
    exact = exact / np.sqrt((exact**2).mean(axis=1, keepdims=True) + 1e-5) * weights
    assert found.shape == (rows, n)
    np.testing.assert_allclose(found, exact, rtol=5e-7, atol=0)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    values, weights = drawn(9, 576)
    together = _native.kernel_norm(values, weights, 1e-6, 2)
    for row in range(9):
        assert np.array_equal(_native.kernel_norm(values[row : row + 1], weights, 1e-6)[0], together[row])


@pytest.mark.parametrize("at", [0, 300, 575])
def test_what_is_not_a_number_shows_in_its_row_alone(at: int) -> None:
    values, weights = drawn(3, 576)
    values[1, at] = np.nan
    found = _native.kernel_norm(values, weights)
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2]]).all()


def test_tiny_and_zero_rows() -> None:
    _, weights = drawn(1, 100)
    values = np.zeros((2, 100), np.float32)
    values[1] = 1e-40  # subnormal: its square is zero
    found = _native.kernel_norm(values, weights, 1e-6)
    assert (found[0] == 0).all()
    np.testing.assert_allclose(found[1], 1e-40 * 1e3 * weights.astype(np.float64), rtol=1e-2, atol=1e-43)


def example() -> dict[str, Floats]:
    return {str(n): np.asarray(_native.kernel_norm(*drawn(5, n, n))) for n in SIZES}


@pytest.mark.parametrize("level", instruction_sets.LEVELS)
def test_every_instruction_set_gives_the_same_bits(level: str, tmp_path: Path) -> None:
    there = instruction_sets.results(level, "example()", "test_native_norm", tmp_path)
    for name, mine in example().items():
        assert np.array_equal(there[name], mine), name


def test_another_number_of_weights_is_refused() -> None:
    values, weights = drawn(2, 32)
    with pytest.raises(OptionError, match="another number of values"):
        _native.kernel_norm(values, weights[:31])
