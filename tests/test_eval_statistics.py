"""Statistics of an evaluation against values computed by hand or printed in the literature."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rim_edge.evaluation import statistics as stats


def test_wilson_interval() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    for k, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert stats.wilson_interval(k, n) == pytest.approx((low, high), abs=5e-5)
    assert stats.wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert stats.wilson_interval(0, 0) == (0.0, 1.0)
    assert stats.wilson_interval(7, 7)[1] == 1.0


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3)])
def test_no_share(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        stats.wilson_interval(k, n)


def test_mcnemar_known_values() -> None:
    # 2 * (1 + 20 + 190 + 1140 + 4845 + 15504) / 2**20
    assert stats.mcnemar_exact(5, 15) == 2 * 21700 / 2**20
    assert stats.mcnemar_exact(0, 5) == 2 / 32
    assert stats.mcnemar_exact(0, 0) == stats.mcnemar_exact(3, 3) == stats.mcnemar_exact(4, 3) == 1.0
    assert 0 < stats.mcnemar_exact(2000, 3000) < 1e-40


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_tail(b: int, c: int) -> None:
    tail = Fraction(2 * sum(comb(b + c, i) for i in range(min(b, c) + 1)), 2 ** (b + c))
    assert stats.mcnemar_exact(b, c) == stats.mcnemar_exact(c, b) == pytest.approx(float(min(tail, Fraction(1))))


def test_paired_interval() -> None:
    low, high = stats.paired_interval(5, 15, 100)
    # (5.5 - 15.5) / 102, half width 1.959964 * sqrt(21 - 100 / 102) / 102
    assert (low, high) == pytest.approx((-0.184015, -0.012064), abs=1e-6)
    assert stats.paired_interval(0, 0, 0) == (-1.0, 1.0)


def test_auroc() -> None:
    assert stats.auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == 0.75
    assert stats.auroc([1, 1, 1, 1], [True, False, True, False]) == 0.5
    assert stats.auroc([1, 2], [True, True]) is stats.auroc([], []) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_counts_pairs(pairs: list[tuple[int, bool]]) -> None:
    right, wrong = ([score for score, label in pairs if label is kind] for kind in (True, False))
    area = stats.auroc([score for score, _ in pairs], [label for _, label in pairs])
    if not right or not wrong:
        assert area is None
    else:
        wins = sum((a > b) + (a == b) / 2 for a in right for b in wrong)
        assert area == pytest.approx(wins / len(right) / len(wrong))


def test_auroc_error() -> None:
    # by hand: Q1 = 0.6, Q2 = 9/14, (0.1875 + 0.0375 + 0.0803571) / 4
    assert stats.auroc_error(0.75, 2, 2) == pytest.approx(0.2762957)
    assert stats.auroc_error(0.9, 0, 5) is None


def test_calibration() -> None:
    scores, labels = [0.05, 0.15, 0.95, 0.95, 1.0], [False, True, True, False, True]
    bins = stats.calibration(scores, labels, 10)
    assert [item.n for item in bins] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 3]
    assert stats.calibration_error(scores, labels, 10) == pytest.approx((0.05 + 0.85 + 3 * (2.9 / 3 - 2 / 3)) / 5)
    assert stats.calibration_error([], []) is None
    assert stats.brier([0.5, 1.0], [True, True]) == 0.125
    with pytest.raises(ValueError, match="no probability"):
        stats.calibration([1.5], [True])


def test_samples() -> None:
    assert stats.mean([1, 2, 6]) == 3 and stats.mean([]) is None
    assert stats.standard_error([1, 2, 3, 4]) == pytest.approx(0.6454972)
    assert stats.standard_error([1.0]) is None
    assert [stats.quantile([4, 1, 3, 2], q) for q in (0, 0.25, 0.5, 1)] == [1, 1.75, 2.5, 4]
    assert stats.spread([3.0, 1.0, 2.0]) == stats.Spread(3, 2.0, 1.5, 2.5)
    assert stats.spread([]) is None


def test_bootstrap_is_repeatable_and_holds_the_mean() -> None:
    sample = [0.0] * 30 + [1.0] * 70
    interval = stats.bootstrap_interval(sample, stats.mean, seed=1)
    assert interval == stats.bootstrap_interval(sample, stats.mean, seed=1)
    assert interval is not None and 0.55 < interval[0] < 0.7 < interval[1] < 0.85
    assert stats.bootstrap_interval([], stats.mean) is None
