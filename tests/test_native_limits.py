"""The machine's limits as the native part measures them: counts and refusals, never how fast."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rim_edge import _native
from rim_edge.errors import OptionError


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_read_bandwidth_gives_a_figure_per_sample(n_threads: int) -> None:
    rates = _native.read_bandwidth(300_001, n_threads=n_threads, n_samples=3, min_seconds=0.0)
    assert len(rates) == 3 and all(rate > 0 for rate in rates)


@pytest.mark.parametrize("name", ["f32", "F16", "bf16", "q4_0", "Q4_K", "iq4_nl", "iq2_xxs"])
def test_product_rate_gives_a_figure_per_sample(name: str) -> None:
    rates = _native.product_rate(name, rows=16, inner=256, columns=4, n_threads=1, n_samples=2, min_seconds=0.0)
    assert len(rates) == 2 and all(rate > 0 for rate in rates)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: _native.read_bandwidth(100, n_threads=1), "n_bytes is 100"),
        (lambda: _native.read_bandwidth(1 << 20, n_threads=0), "n_threads is 0"),
        (lambda: _native.read_bandwidth(1 << 20, n_threads=1, n_samples=0), "n_samples is 0"),
        (lambda: _native.read_bandwidth(1 << 20, n_threads=1, min_seconds=-1.0), "min_seconds"),
        (lambda: _native.product_rate("q9", rows=1, inner=1, columns=1, n_threads=1), "no tensor type q9"),
        (lambda: _native.product_rate("q4_k", rows=1, inner=576, columns=1, n_threads=1), "multiple of 256"),
        (lambda: _native.product_rate("f32", rows=0, inner=1, columns=1, n_threads=1), "a product of f32"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        call()
