"""How much work a pass is: the operations and the bytes that no implementation can do without.

Counted from the head of a GGUF file: two operations for each weight of a matrix and each token that meets it, and the
attention's products; every matrix read once per pass, every cell of the cache once. Norms, activations and rotations
are left out (a few per cent), and so is what an implementation does twice. As in libllama, tokens that are not read out
skip the head and the feed-forward part of the last layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rim_edge import memory

_LAYER = re.compile(r"blk\.(\d+)\.(.+)\.weight$")


@dataclass(frozen=True)
class Pass:
    """One or several equal forward passes.

    Attributes:
        n_tokens: tokens of the pass.
        n_pairs: pairs of a token and one that it attends to, itself included.
        n_cells: cells of the cache that are read.
        n_outputs: tokens whose logits are asked for.
        times: how many such passes.
    """

    n_tokens: int
    n_pairs: float
    n_cells: float
    n_outputs: int
    times: int = 1


def text_pass(n_tokens: int, n_outputs: int = 1, n_past: int = 0) -> Pass:
    """``n_tokens`` of one text after ``n_past`` that are in the cache."""
    pairs = n_tokens * n_past + n_tokens * (n_tokens + 1) / 2
    return Pass(n_tokens, pairs, n_past + n_tokens, n_outputs)


def steps(n_steps: int, n_past: int, n_lanes: int = 1) -> Pass:
    """``n_steps`` tokens decoded one by one after ``n_past``, in ``n_lanes`` answers side by side."""
    mean = n_past + (n_steps + 1) / 2
    return Pass(n_lanes, n_lanes * mean, n_lanes * mean, n_lanes, n_steps)


@dataclass(frozen=True)
class _Matrix:
    """Weights that every token meets (or every one that is read out), and their bytes."""

    n_weights: float
    n_bytes: float
    n_stored: float
    type: str
    outputs_only: bool


class Work:
    """The sizes of one model.

    Args:
        metadata, tensors: of ``_native.GgufFile``.
        cache_type: key of ``rim_edge.memory.CACHE_BYTES``.
    """

    def __init__(self, metadata: Mapping[str, Any], tensors: Sequence[memory.Tensor], cache_type: str = "f16") -> None:
        shape = memory.model_shape(metadata, tensors)
        share = _expert_share(metadata, shape.architecture)
        self._matrices = _matrices(tensors, shape.n_layer, share)
        self._n_layer = shape.n_layer
        self._width = _attention_width(tensors, shape)
        self._cell_bytes = shape.cache_values * memory.CACHE_BYTES[cache_type]

    def operations(self, work: Pass) -> float:
        """Multiplications and additions of all its passes."""
        products = sum(
            2 * matrix.n_weights * (work.n_outputs if matrix.outputs_only else work.n_tokens)
            for matrix in self._matrices
        )
        return (products + 4 * self._n_layer * self._width * work.n_pairs) * work.times

    def bytes(self, work: Pass) -> float:
        """Bytes of weights and cache that all its passes read."""
        weights = sum(
            min(matrix.n_bytes * max(1, work.n_tokens), matrix.n_stored)
            for matrix in self._matrices
            if work.n_outputs or not matrix.outputs_only
        )
        return (weights + self._cell_bytes * work.n_cells) * work.times

    @property
    def weight_bytes(self) -> int:
        """Bytes of all matrices that a pass reads."""
        return int(sum(matrix.n_stored for matrix in self._matrices))

    def main_types(self, least_share: float = 0.1) -> list[str]:
        """The types that hold at least ``least_share`` of a token's operations, the largest first."""
        totals: dict[str, float] = {}
        for matrix in self._matrices:
            totals[matrix.type] = totals.get(matrix.type, 0) + matrix.n_weights
        everything = sum(totals.values())
        return [name for name in sorted(totals, key=lambda n: -totals[n]) if totals[name] >= least_share * everything]


def _matrices(tensors: Sequence[memory.Tensor], n_layer: int, expert_share: float) -> list[_Matrix]:
    names = {tensor.name for tensor in tensors}
    found = []
    for tensor in tensors:
        layer = _LAYER.match(tensor.name)
        head = tensor.name == "output.weight" or (
            tensor.name == "token_embd.weight" and "output.weight" not in names
        )  # tied: the table of embeddings is the head too
        if len(tensor.shape) < 2 or not (layer or head):
            continue
        n = 1.0
        for size in tensor.shape:
            n *= size
        part = layer[2] if layer else ""
        used = expert_share if part.endswith("_exps") else 1.0
        last = layer is not None and int(layer[1]) == n_layer - 1 and part.startswith("ffn")
        found.append(_Matrix(n * used, tensor.size_bytes * used, tensor.size_bytes, tensor.type, head or last))
    return found


def _expert_share(metadata: Mapping[str, Any], architecture: str) -> float:
    """Share of the experts that one token uses."""
    total, used = (metadata.get(f"{architecture}.{name}") for name in ("expert_count", "expert_used_count"))
    return used / total if isinstance(total, int) and isinstance(used, int) and 0 < used <= total else 1.0


def _attention_width(tensors: Sequence[memory.Tensor], shape: memory.Shape) -> int:
    """Heads times the size of one, as the queries' matrix has it."""
    for tensor in tensors:
        if tensor.name.endswith("attn_q.weight") and len(tensor.shape) > 1:
            return tensor.shape[1]
    return shape.n_embd if shape.cache_values else 0
