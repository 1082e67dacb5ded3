"""Choosing tokens in numpy: greedy, the filters in libllama's order, penalties, seeds, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rim_edge.backends.base import FloatArray, Sampling
from rim_edge.backends.sampling import Banned, RowStats, Sampler, candidates, check_sampling, penalize
from rim_edge.errors import OptionError

OPEN = Sampling(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)
NOTHING = Banned([])


def logits(*probabilities: float) -> FloatArray:
    return np.log(np.array(probabilities, np.float32))


def kept(row: FloatArray, **options: float) -> list[int]:
    return [int(token) for token in candidates(row, replace(OPEN, **options))[0]]


def test_greedy_takes_the_most_likely_token_that_is_allowed() -> None:
    row = logits(0.1, 0.5, 0.4)
    assert Sampler(Sampling(), 0, NOTHING, []).sample(row) == 1
    assert Sampler(Sampling(), 0, Banned([1]), []).sample(row) == 2
    assert Sampler(Sampling(), 0, NOTHING, []).sample(np.array([3, 7, 7], np.float32)) == 1
    assert Sampler(Sampling(), 0, NOTHING, []).sample(np.array([math.nan, 7, 8], np.float32)) == 2


def test_filters_keep_what_they_say() -> None:
    row = logits(0.05, 0.4, 0.25, 0.2, 0.1)
    assert kept(row) == [1, 2, 3, 4, 0]
    assert kept(row, top_k=2) == [1, 2]
    assert kept(row, top_p=0.6) == [1, 2]
    assert kept(row, top_p=0.7) == [1, 2, 3]
    assert kept(row, top_p=0.0) == [1]
    assert kept(row, min_p=0.49) == [1, 2, 3]
    assert kept(row, min_p=1.0) == [1]
    # top-p counts within what top-k has left, and min-p does not depend on the temperature
    assert kept(row, top_k=2, top_p=0.6) == [1]
    assert kept(row, min_p=0.49, temperature=100.0) == [1, 2, 3]


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=50), st.floats(0.01, 50), st.integers(0, 60))
def test_probabilities_are_a_distribution_in_falling_order(values: list[float], temperature: float, top_k: int) -> None:
    row = np.array(values, np.float32)
    ids, probabilities = candidates(row, replace(OPEN, temperature=temperature, top_k=top_k))
    assert len(ids) == (min(top_k, len(values)) if top_k else len(values))
    assert probabilities.sum() == pytest.approx(1.0) and (np.diff(probabilities) <= 1e-12).all()
    assert (np.diff(row[ids]) <= 0).all()


def test_temperature_shapes_the_draw() -> None:
    row = logits(0.6, 0.3, 0.1)
    sampler = Sampler(OPEN, 3, NOTHING, [])
    counts = np.bincount([sampler.sample(row) for _ in range(4000)], minlength=3) / 4000
    assert np.abs(counts - [0.6, 0.3, 0.1]).max() < 0.03
    assert candidates(row, replace(OPEN, temperature=0.5))[1] == pytest.approx([0.36 / 0.46, 0.09 / 0.46, 0.01 / 0.46])
    assert candidates(row, replace(OPEN, temperature=1e-300))[1][0] == 1.0


def test_banned_tokens_are_never_drawn() -> None:
    row = logits(0.9, 0.05, 0.05)
    sampler = Sampler(replace(OPEN, temperature=10.0), 3, Banned([0]), [])
    assert {sampler.sample(row) for _ in range(100)} == {1, 2}


def test_a_seed_repeats_the_draws() -> None:
    row = np.zeros(50, np.float32)
    samplers = [Sampler(OPEN, seed, NOTHING, []) for seed in (5, 5, 6)]
    draws = [[sampler.sample(row) for _ in range(20)] for sampler in samplers]
    assert draws[0] == draws[1] != draws[2]


def test_the_repeat_penalty_looks_back_64_tokens_and_at_its_own() -> None:
    row = np.array([2.0, 1.9, -1.0, -1.1], np.float32)
    changed = row.copy()
    penalize(changed, [0, 0, 2], 2.0)
    assert changed.tolist() == pytest.approx([1.0, 1.9, -2.0, -1.1])
    greedy = replace(Sampling(), repeat_penalty=2.0)
    assert Sampler(greedy, 0, NOTHING, [0, *[3] * 63]).sample(row) == 1
    assert Sampler(greedy, 0, NOTHING, [0, *[3] * 64]).sample(row) == 0
    sampler = Sampler(greedy, 0, NOTHING, [])
    assert [sampler.sample(row) for _ in range(2)] == [0, 1]


def test_statistics_of_a_row() -> None:
    stats = RowStats(logits(0.5, 0.25, 0.25), entropy=True)
    assert stats.entropy == pytest.approx(1.5 * math.log(2), abs=1e-6)
    assert stats.log_probability(float(np.log(np.float32(0.25)))) == pytest.approx(math.log(0.25), abs=1e-6)
    masked = RowStats(np.array([0.0, -np.inf, 0.0], np.float32), entropy=True)
    assert masked.entropy == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": math.nan},
        {"top_p": 1.5},
        {"top_p": -0.1},
        {"min_p": 2.0},
        {"repeat_penalty": 0.0},
        {"repeat_penalty": math.inf},
    ],
)
def test_values_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        check_sampling(replace(Sampling(), **options))
