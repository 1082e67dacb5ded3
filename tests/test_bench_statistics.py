"""Medians, quartiles, paired ratios, and who takes a turn when."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rim_edge.benchmark.statistics import interleave, paired_ratio, summarize


def test_quartiles_lie_between_samples() -> None:
    found = summarize([4.0, 1.0, 3.0, 2.0])
    assert (found.low_quartile, found.median, found.high_quartile) == (1.75, 2.5, 3.25)
    assert (found.least, found.greatest, found.n) == (1.0, 4.0, 4)
    alone = summarize([7.0])
    assert alone.least == alone.low_quartile == alone.median == alone.high_quartile == alone.greatest == 7.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_quartiles_are_in_order(samples: list[float]) -> None:
    found = summarize(samples)
    assert found.least <= found.low_quartile <= found.median <= found.high_quartile <= found.greatest


def test_a_ratio_is_taken_pair_by_pair() -> None:
    """A machine that gets three times as slow in the middle changes no ratio."""
    found = paired_ratio([2.0, 6.0, 2.0], [1.0, 3.0, 1.0])
    assert found.least == found.median == found.greatest == 2.0
    assert math.isnan(paired_ratio([1.0], [0.0]).median)
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1.0, 2.0], [1.0])


def test_everyone_takes_turns_and_warm_rounds_do_not_count() -> None:
    seen: list[tuple[str, int]] = []
    told: list[tuple[str, int]] = []

    def turn(name: str) -> object:
        return lambda number: seen.append((name, number)) or f"{name}{number}"

    found = interleave(
        {"a": turn("a"), "b": turn("b")},  # type: ignore[dict-item]
        2,
        warm=1,
        progress=lambda name, number: told.append((name, number)),
    )
    assert seen == told == [("a", -1), ("b", -1), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert found == {"a": ["a0", "a1"], "b": ["b0", "b1"]}
