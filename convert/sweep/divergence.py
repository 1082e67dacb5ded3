"""Distances between what two models would say next, and their statistics over the tokens of many answers.

Tokens of one question are no independent samples: standard errors treat the questions as the sample (cluster-robust),
so that 200 questions of 50 tokens do not look like 10,000 observations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def log_softmax(logits: npt.ArrayLike, without: Sequence[int] = ()) -> Float64:
    """Log-probabilities in float64 of a row of logits, ``[n_vocab]``; the tokens ``without`` get none (-inf)."""
    row = np.asarray(logits, dtype=np.float64)
    if without:
        row = row.copy()
        row[list(without)] = -np.inf
    row = row - row.max()
    return np.asarray(row - math.log(float(np.exp(row).sum())))


def divergence(reference: npt.ArrayLike, other: npt.ArrayLike, without: Sequence[int] = ()) -> float:
    """Kullback-Leibler divergence ``sum_i p_i (log p_i - log q_i)`` in nats of two rows of logits, at least 0.

    ``p`` is the reference's softmax, ``q`` the other's, both over the whole vocabulary but the tokens ``without``.
    """
    p, q = log_softmax(reference, without), log_softmax(other, without)
    there = np.isfinite(p)
    return max(0.0, float(np.sum(np.exp(p[there]) * (p[there] - q[there]))))


def summarize(groups: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Mean, median and 99th percentile of values that come in groups (the tokens of a question), with standard errors.

    The error of the mean is that of a ratio of totals over groups; the error of a quantile is half the distance
    between the quantiles one standard error of their share below and above (Woodruff, 1952). None for a single group.
    """
    groups = [group for group in groups if len(group)]
    values = np.sort(np.concatenate([np.asarray(group, dtype=np.float64) for group in groups]) if groups else [])
    result: dict[str, Any] = {"n_tokens": len(values), "n_questions": len(groups)}
    if not len(values):
        return result
    counts = np.array([len(group) for group in groups], dtype=np.float64)
    mean, error = _ratio(np.array([math.fsum(group) for group in groups]), counts)
    result |= {"mean": mean, "mean_se": error}
    for name, share in (("median", 0.5), ("p99", 0.99)):
        value = float(np.quantile(values, share))
        below = np.array([np.count_nonzero(np.asarray(group) <= value) for group in groups], dtype=np.float64)
        spread = _ratio(below, counts)[1]
        result[name] = value
        result[f"{name}_se"] = None
        if spread is not None:
            low, high = np.quantile(values, [max(0.0, share - spread), min(1.0, share + spread)])
            result[f"{name}_se"] = float(high - low) / 2
    return result


def share(groups: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """Share of values that are true, with its standard error over groups."""
    groups = [group for group in groups if len(group)]
    counts = np.array([len(group) for group in groups], dtype=np.float64)
    if not len(counts):
        return {"n": 0}
    value, error = _ratio(np.array([sum(group) for group in groups], dtype=np.float64), counts)
    return {"n": int(counts.sum()), "share": value, "se": error}


def _ratio(sums: Float64, counts: Float64) -> tuple[float, float | None]:
    """``sum(sums) / sum(counts)`` and its standard error over the groups."""
    total, n = float(counts.sum()), len(counts)
    value = math.fsum(sums) / total
    if n < 2:
        return value, None
    rest = sums - value * counts
    return value, math.sqrt(n / (n - 1) * float(np.sum(rest * rest))) / total
