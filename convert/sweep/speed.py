"""Speed of the files of a sweep, in turn: A B C A B C ..., each sample in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rim_edge.benchmark.measure import FileChild, interleave, summarize

from .plan import Settings

#: what is measured, with its unit in the name
QUANTITIES = (
    "load_ms",
    "ttft_direct_ms",
    "ttft_rim_ms",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "peak_rss_bytes",
)
MOST_QUESTIONS = 8
Sample = dict[str, float | None]


def take_round(
    files: Mapping[str, Path], questions: Sequence[str], number: int, settings: Settings, done: Callable[[int], None]
) -> dict[str, Sample]:
    """One sample of every file, with question ``number``: name to the keys of :data:`QUANTITIES`.

    The process of a file lives for its sample alone, so that the memory of all of them is never needed at once.
    """
    told = [0]

    def turn(path: Path) -> Callable[[int], Sample]:
        def take(_: int) -> Sample:
            options: dict[str, Any] = {"cache_type": settings.cache_type, "flash_attention": settings.flash_attention}
            with FileChild(path, questions, n_threads=settings.n_threads, **options) as child:
                sample = child.sample(number)
            told[0] += 1
            done(told[0])
            return sample

        return take

    samples = interleave({name: turn(path) for name, path in files.items()}, rounds=1, warm=0)
    return {name: taken[0] for name, taken in samples.items()}


def summaries(rounds: Sequence[Mapping[str, Sample]], name: str) -> dict[str, Any] | None:
    """Median, quartiles and extremes of each quantity of one file; None without a round."""
    if not rounds:
        return None
    found: dict[str, Any] = {"rounds": len(rounds)}
    for quantity in QUANTITIES:
        values = [value for one in rounds if (value := one[name].get(quantity)) is not None]
        found[quantity] = asdict(summarize(values)) if values else None
    return found
