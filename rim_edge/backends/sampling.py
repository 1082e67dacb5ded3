"""Choosing the next token, in numpy: the options and the order of libllama's sampler chain.

Repeat penalty, then top-k, top-p and min-p on the unscaled probabilities, then the temperature, then the draw. The
random numbers are numpy's: a seed repeats an answer of this back end, not one of libllama.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rim_edge.arrays import FloatArray
from rim_edge.backends.base import Sampling
from rim_edge.errors import OptionError

REPEAT_LAST_N = 64  # tokens that the repeat penalty looks back on


def check_sampling(options: Sampling) -> None:
    """Raise OptionError for values that make no sense."""
    refused = [
        ("temperature", options.temperature, math.isfinite(options.temperature), "a finite number"),
        ("top_p", options.top_p, 0 <= options.top_p <= 1, "in 0..1"),
        ("min_p", options.min_p, 0 <= options.min_p <= 1, "in 0..1"),
        ("repeat_penalty", options.repeat_penalty, 0 < options.repeat_penalty < math.inf, "above 0 (1: off)"),
    ]
    for name, value, good, expected in refused:
        if not good:
            raise OptionError(f"{name} is {value}, but must be {expected}")


class RowStats:
    """Softmax of one row of raw logits ``[n_vocab] float32``.

    Attributes:
        entropy: of that softmax, nats.
    """

    def __init__(self, logits: FloatArray, entropy: bool = False) -> None:
        self._max = float(logits.max())
        shifted = np.maximum(logits - np.float32(self._max), np.float32(-87.0))  # e^-87 is the last normal float32
        weights = np.exp(shifted)
        total = float(weights.sum(dtype=np.float64))
        self._log_sum = math.log(total) if total > 0 else math.nan
        self.entropy = max(0.0, self._log_sum - float(weights @ shifted) / total) if entropy else 0.0  # -sum p log p

    def log_probability(self, logit: float) -> float:
        """Of a token with this raw logit, nats."""
        return logit - self._max - self._log_sum


class Banned:
    """Tokens that are never chosen: memory tokens, and control tokens that do not end an answer."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._ids: npt.NDArray[np.int64] = np.array(sorted(set(tokens)), dtype=np.int64)
        self._set = frozenset(tokens)

    def top(self, logits: FloatArray) -> int:
        """The most likely token that is not banned; the first one on a tie."""
        best = int(logits.argmax())
        return int(self.mask(logits).argmax()) if best in self._set or math.isnan(float(logits[best])) else best

    def mask(self, logits: FloatArray) -> FloatArray:
        """A copy of ``logits [n_vocab]`` with minus infinity at the banned tokens and for NaN."""
        masked = np.where(np.isnan(logits), -np.inf, logits).astype(np.float32)
        masked[self._ids] = -np.inf
        return masked


class Sampler:
    """Chooses the tokens of one answer.

    Args:
        options: checked options; a temperature of 0 or less takes the most likely token.
        seed: of this answer's random numbers.
        banned: tokens never chosen.
        history: tokens before the answer, for the repeat penalty.
    """

    def __init__(self, options: Sampling, seed: int, banned: Banned, history: Sequence[int]) -> None:
        self._options = options
        self._banned = banned
        self._recent = list(history[-REPEAT_LAST_N:]) if options.repeat_penalty != 1.0 else None
        self._random = np.random.Generator(np.random.PCG64(seed)) if options.temperature > 0 else None

    def sample(self, logits: FloatArray) -> int:
        """The next token after raw ``logits [n_vocab] float32``."""
        if self._random is None and self._recent is None:
            return self._banned.top(logits)
        masked = self._banned.mask(logits)
        if self._recent is not None:
            penalize(masked, self._recent, self._options.repeat_penalty)
        token = int(masked.argmax())
        if self._random is not None and math.isfinite(masked[token]):
            ids, probabilities = candidates(masked, self._options)
            place = int(np.searchsorted(np.cumsum(probabilities), self._random.random(), side="right"))
            token = int(ids[min(place, ids.size - 1)])
        if self._recent is not None:
            self._recent = [*self._recent, token][-REPEAT_LAST_N:]
        return token


def penalize(logits: FloatArray, recent: Sequence[int], penalty: float) -> None:
    """Make ``recent`` tokens less likely, in place: logits above 0 are divided by ``penalty``, others times it."""
    ids = np.array(sorted({token for token in recent if token < logits.size}), dtype=np.int64)
    found = logits[ids]
    logits[ids] = np.where(found > 0, found / penalty, found * penalty)


def candidates(logits: FloatArray, options: Sampling) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The tokens left after top-k, top-p and min-p, most likely first, and their probabilities at the temperature."""
    n_finite = int(np.isfinite(logits).sum())
    n = min(options.top_k, n_finite) if options.top_k > 0 else n_finite
    if n < logits.size:
        ids = np.argpartition(-logits, n - 1)[:n]
        ids = ids[np.lexsort((ids, -logits[ids]))]
    else:
        ids = np.argsort(-logits, kind="stable")
    values = logits[ids].astype(np.float64)
    if options.top_p < 1.0:
        reached = int(np.searchsorted(np.cumsum(_softmax(values)), options.top_p))
        ids, values = ids[: reached + 1], values[: reached + 1]
    if options.min_p > 0.0:
        kept = max(1, int((values >= values[0] + math.log(options.min_p)).sum()))
        ids, values = ids[:kept], values[:kept]
    return ids.astype(np.int64), _softmax((values - values[0]) / options.temperature)


def _softmax(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)
