"""Rows for new tokens, and memory tokens for a model that has none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from rim_edge.spec import RimSpec

from .checkpoint import MEMORY_TEXTS, Checkpoint
from .failure import ConvertError
from .lazy_tensor import LazyTensor, mean_row, with_rows

UNTRAINED = (
    "THE MEMORY TOKENS ARE UNTRAINED: {blocks} blocks of {size} were added with the mean embedding, so the blocks "
    "carry no reasoning "
    "until the model is trained with them"
)


def grown(tensor: LazyTensor, fresh: Iterable[int], n_rows: int, tokens: frozenset[int]) -> LazyTensor:
    """An embedding or head of ``n_rows`` rows.

    Rows that it did not have, and those in ``fresh``, hold the mean over the rows of ``tokens``.
    """
    old = tensor.shape[0]
    rows = {*fresh, *range(old, n_rows)}
    if not rows:
        return tensor if n_rows == old else with_rows(tensor, {}, n_rows)
    used = np.zeros(old, bool)
    used[[index for index in tokens if index < old and index not in rows]] = True
    mean = mean_row(tensor, lambda start, stop: used[start:stop])
    return with_rows(tensor, dict.fromkeys(rows, mean), n_rows)


def grow(checkpoint: Checkpoint, fresh: Iterable[int], n_rows: int) -> Checkpoint:
    """The checkpoint with :func:`grown` embedding and, where it is not tied, head."""
    tokens = frozenset(checkpoint.tokenizer.vocabulary.values()) | frozenset(checkpoint.tokenizer.added)
    tensors = dict(checkpoint.tensors)
    fresh = list(fresh)
    for name in (checkpoint.family.embedding, checkpoint.family.head):
        if name in tensors:
            tensors[name] = grown(tensors[name], fresh, n_rows, tokens)
    return replace(checkpoint, tensors=tensors)


def add_memory_tokens(checkpoint: Checkpoint, block_count: int, block_size: int) -> Checkpoint:
    """Give a plain model memory blocks: tokens that the tokenizer lacks are added behind all others.

    Padding rows of the embedding are used before it grows. Raises ConvertError for a model that has memory blocks
    already.
    """
    if checkpoint.spec is not None:
        raise ConvertError(f"{checkpoint.folder} has memory blocks already (rim_config.json): leave --blocks out")
    tokenizer = checkpoint.tokenizer
    ids = {key: tokenizer.id_of(text) for key, text in MEMORY_TEXTS.items()}
    fresh: dict[int, str] = {}
    for key, text in MEMORY_TEXTS.items():
        if ids[key] is None:
            ids[key] = tokenizer.n_tokens + len(fresh)
            fresh[tokenizer.n_tokens + len(fresh)] = text
    known = {key: index for key, index in ids.items() if index is not None}
    spec = RimSpec(
        known["begin_id"],
        known["memory_id"],
        known["end_id"],
        block_count=block_count,
        block_size=block_size,
        trained_direct=True,  # an ordinary model answers without blocks
        source={"base": checkpoint.name, "training": "none: memory tokens were added untrained"},
    )
    n_rows = max(checkpoint.n_vocab, max(known.values()) + 1)
    checkpoint = grow(checkpoint, fresh, n_rows)
    if fresh:
        notice = UNTRAINED.format(blocks=block_count, size=block_size)
    else:
        notice = "the tokenizer has the memory tokens already; whether they were trained with such blocks is not known"
    return replace(
        checkpoint,
        tokenizer=tokenizer.with_control_tokens(fresh),
        spec=spec,
        notices=(*checkpoint.notices, notice),
    )
