"""What the tests of answers share: options under which libllama computes alike in every split, and a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rim_edge import _native

EXACT: dict[str, Any] = {"cache_type": "f32", "flash_attention": "off", "n_threads": 1}
WORDS = "Tom has 2 apples and how many"
QUESTIONS = [f"Tom has {n} apples and {n * 7} the many" * (1 + n % 3) for n in range(11)]


def greedy(path: Path, tokens: list[int], n: int) -> list[int]:
    """The first ``n`` greedy tokens after ``tokens``, by plain single-sequence passes; memory tokens left out."""
    native = _native.Model(str(path))
    options = _native.SessionOptions(n_ctx=1024, cache_type="f32", flash_attention="off", n_threads=1)
    controls = set(native.control_ids)
    answer: list[int] = []
    while len(answer) < n:
        logits = _native.batch_logits(native, tokens + answer, options, [len(tokens) + len(answer) - 1])[0].copy()
        for token in controls:
            if not native.is_eog(token):
                logits[token] = -np.inf
        best = int(np.argmax(logits))
        if native.is_eog(best):
            break
        answer.append(best)
    return answer
