"""Statistics of an evaluation, in plain Python: intervals, paired tests, ranking and calibration of scores.

Shares and probabilities are 0..1 everywhere; percent is the business of whoever prints them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def wilson_interval(k: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share, ``k`` of ``n``: (low, high), 95 % by default; (0, 1) for ``n == 0``.

    E. B. Wilson, JASA 22 (1927). Unlike ``p +- z * se`` it stays within 0..1 and is no point at 0 or 100 %.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no share")
    if n == 0:
        return 0.0, 1.0
    p, z2 = k / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (0.0 if k == 0 else max(0.0, centre - half)), (1.0 if k == n else min(1.0, centre + half))


def mcnemar_exact(b: int, c: int) -> float:
    """p-value of McNemar's exact test, two-sided: are ``b`` and ``c`` two counts of a fair coin?

    Args:
        b, c: pairs that only the first, and only the second, got right. Pairs on which both agree say nothing.

    Returns:
        ``min(1, 2 * P(X <= min(b, c)))`` for X ~ Binomial(b + c, 1/2), in exact whole numbers; 1 for no such pair.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts cannot be negative: {b}, {c}")
    n = b + c
    term, tail = 1, 1
    for i in range(min(b, c)):
        term = term * (n - i) // (i + 1)
        tail += term
    return 1.0 if 2 * tail >= 1 << n else 2 * tail / (1 << n)


def paired_interval(b: int, c: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Interval of the difference ``(b - c) / n`` of two shares measured on the same ``n`` questions, 95 % by default.

    Wald's interval after adding half a question to each of the four cells (Agresti and Min, Statistics in Medicine 24,
    2005); (-1, 1) for ``n == 0``.
    """
    if b < 0 or c < 0 or b + c > n:
        raise ValueError(f"{b} and {c} are no parts of {n}")
    if n == 0:
        return -1.0, 1.0
    more, first, second = n + 2, b + 0.5, c + 0.5
    difference = (first - second) / more
    half = z * math.sqrt(max(0.0, first + second - (first - second) ** 2 / more)) / more
    return max(-1.0, difference - half), min(1.0, difference + half)


# ---- scores of right and wrong answers -------------------------------------------------------------------------------


def auroc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Area under the ROC curve: chance that a right answer has a higher score than a wrong one, ties count one half.

    None where all labels are alike, or there are none.
    """
    pairs = sorted(zip(scores, labels, strict=True), key=lambda pair: pair[0])
    n_right = sum(1 for _, label in pairs if label)
    n_wrong = len(pairs) - n_right
    if not n_right or not n_wrong:
        return None
    rank_sum, start = 0.0, 0
    while start < len(pairs):
        end = start
        while end < len(pairs) and pairs[end][0] == pairs[start][0]:
            end += 1
        rank = (start + 1 + end) / 2  # mean rank of a tie
        rank_sum += rank * sum(1 for _, label in pairs[start:end] if label)
        start = end
    return (rank_sum - n_right * (n_right + 1) / 2) / (n_right * n_wrong)


def auroc_error(area: float, n_right: int, n_wrong: int) -> float | None:
    """Standard error of an AUROC (Hanley and McNeil, Radiology 143, 1982); None where a class is empty."""
    if not n_right or not n_wrong:
        return None
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area) + (n_right - 1) * (q1 - area * area) + (n_wrong - 1) * (q2 - area * area)
    return math.sqrt(max(0.0, variance) / (n_right * n_wrong))


@dataclass(frozen=True)
class Bin:
    """Answers whose scores lie in one stretch.

    Attributes:
        low, high: the stretch, ``low <= score < high`` (the last one includes ``high``).
        n: how many answers.
        score: their mean score; 0 where ``n`` is 0.
        right: share of them that is right; 0 where ``n`` is 0.
    """

    low: float
    high: float
    n: int
    score: float
    right: float


def calibration(scores: Sequence[float], labels: Sequence[bool], bins: int = 10) -> list[Bin]:
    """Scores 0..1 in ``bins`` stretches of equal width, with how often the answers in each were right."""
    if bins < 1:
        raise ValueError(f"{bins} bins")
    groups: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for score, label in zip(scores, labels, strict=True):
        if not 0 <= score <= 1:
            raise ValueError(f"a score of {score} is no probability")
        groups[min(int(score * bins), bins - 1)].append((score, label))
    return [
        Bin(
            i / bins,
            (i + 1) / bins,
            len(group),
            sum(score for score, _ in group) / len(group) if group else 0.0,
            sum(1 for _, label in group if label) / len(group) if group else 0.0,
        )
        for i, group in enumerate(groups)
    ]


def calibration_error(scores: Sequence[float], labels: Sequence[bool], bins: int = 10) -> float | None:
    """Expected calibration error: mean distance between score and share right over the bins, weighted by their size.

    Guo et al., *On Calibration of Modern Neural Networks* (2017). None where there are no scores.
    """
    if not scores:
        return None
    return sum(item.n * abs(item.score - item.right) for item in calibration(scores, labels, bins)) / len(scores)


def brier(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Mean squared distance between score and truth, 0 is best; None where there are no scores."""
    if not scores:
        return None
    return sum((score - bool(label)) ** 2 for score, label in zip(scores, labels, strict=True)) / len(scores)


# ---- samples of a quantity -------------------------------------------------------------------------------------------


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; None for no values."""
    return math.fsum(values) / len(values) if values else None


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean, ``s / sqrt(n)`` with ``n - 1`` in the variance; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    middle = math.fsum(values) / n
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (n - 1) / n)


def quantile(values: Sequence[float], q: float) -> float | None:
    """Quantile ``q`` (0..1) with linear interpolation between neighbours, as numpy's default; None for no values."""
    if not 0 <= q <= 1:
        raise ValueError(f"{q} is no share")
    if not values:
        return None
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of ``n`` values."""

    n: int
    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread | None:
    """Median and quartiles of ``values``; None for none."""
    middle, low, high = quantile(values, 0.5), quantile(values, 0.25), quantile(values, 0.75)
    if middle is None or low is None or high is None:
        return None
    return Spread(len(values), middle, low, high)


def bootstrap_interval(
    sample: Sequence[T],
    statistic: Callable[[Sequence[T]], float | None],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of ``statistic(sample)``, the same for the same ``seed``.

    Resamples on which the statistic is None are left out; None where all are, or the sample is empty.
    """
    if not sample:
        return None
    rng = random.Random(seed)
    found = [value for _ in range(n_resamples) if (value := statistic(rng.choices(sample, k=len(sample)))) is not None]
    low, high = quantile(found, (1 - level) / 2), quantile(found, (1 + level) / 2)
    return None if low is None or high is None else (low, high)
