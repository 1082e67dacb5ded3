"""Numbers out of samples: medians, quartiles, ratios of pairs, and taking turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Summary:
    """A set of samples: median, quartiles (linear between samples), least and greatest, and how many."""

    median: float
    low_quartile: float
    high_quartile: float
    least: float
    greatest: float
    n: int


def summarize(samples: Sequence[float]) -> Summary:
    """Summary of at least one sample."""
    ordered = sorted(samples)
    return Summary(
        median=_quantile(ordered, 0.5),
        low_quartile=_quantile(ordered, 0.25),
        high_quartile=_quantile(ordered, 0.75),
        least=ordered[0],
        greatest=ordered[-1],
        n=len(ordered),
    )


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> Summary:
    """Summary of the ratios ``above[i] / below[i]``: of samples taken side by side, so that drift cancels."""
    return summarize([a / b if b else math.nan for a, b in zip(above, below, strict=True)])


def interleave(
    turns: Mapping[str, Callable[[int], T]],
    rounds: int,
    *,
    warm: int = 1,
    progress: Callable[[str, int], None] | None = None,
) -> dict[str, list[T]]:
    """Call everyone in turn, round after round (A B A B ...): what disturbs the machine falls on all alike.

    Args:
        turns: name to a function that takes the number of the round and returns its sample.
        rounds: counted rounds.
        warm: rounds before them whose samples are dropped (numbers ``-warm`` to -1).
        progress: called with the name and the number of the round before each sample.

    Returns:
        ``rounds`` samples for each name, in order.
    """
    samples: dict[str, list[T]] = {name: [] for name in turns}
    for number in range(-warm, rounds):
        for name, take in turns.items():
            if progress is not None:
                progress(name, number)
            sample = take(number)
            if number >= 0:
                samples[name].append(sample)
    return samples


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
