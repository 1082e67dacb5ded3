"""How much memory a model will need, from the head of its GGUF file alone, before anything is loaded.

Weights are exact. The attention cache follows from the file's numbers (libllama: ``llama_kv_cache``). The compute
buffers are an estimate: libllama plans them for a whole graph; the terms here are the largest of a llama-like graph.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

#: bytes per value of the cache types (blocks of 32 values with a scale, where quantized)
CACHE_BYTES = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32,
    "q4_0": 18 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip
_CELL_PAD = 256  # libllama pads the context to this many cells
_CONTEXTS = (512, 4096, 32768)


class Tensor(Protocol):
    """What is asked of ``_native.GgufTensor``."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def type(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that memory depends on, per layer where they may differ.

    Attributes:
        architecture: ``general.architecture``.
        n_layer, n_embd, n_vocab, n_ctx_train: layers, width, tokens, trained positions (0: not said).
        n_ff: widest feed-forward layer that runs for one token, all used experts together.
        n_head: most attention heads of a layer.
        cache_values: values that one cell holds over all layers, keys and values together.
        state_values: values of the recurrent state, which does not grow with the context.
        sliding_window: tokens that sliding layers see, 0 where there are none.
    """

    architecture: str
    n_layer: int
    n_embd: int
    n_vocab: int
    n_ctx_train: int
    n_ff: int
    n_head: int
    cache_values: int
    state_values: int
    sliding_window: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a model will need.

    Attributes:
        weights: of the tensors in the file (exact).
        cache: context in tokens to bytes of the attention cache and recurrent state.
        compute: context in tokens to bytes of libllama's work buffers (a rough estimate).
        cache_type: number format of the cache.
    """

    weights: int
    cache: Mapping[int, int]
    compute: Mapping[int, int]
    cache_type: str

    def total(self, n_ctx: int) -> int:
        """Weights, cache and compute together at one of the contexts."""
        return self.weights + self.cache[n_ctx] + self.compute[n_ctx]


def estimate(
    metadata: Mapping[str, Any],
    tensors: Sequence[Tensor],
    *,
    n_slots: int = 0,
    n_readouts: int = 1,
    cache_type: str = "f16",
    contexts: Sequence[int] = (),
    n_ubatch: int = 512,
) -> MemoryEstimate:
    """Estimate the memory of a model from the head of its file.

    Args:
        metadata, tensors: of ``_native.GgufFile``.
        n_slots: positions of memory blocks and answer prefixes, which come on top of the context.
        n_readouts: rows of logits that are read at once.
        cache_type: key of ``CACHE_BYTES``.
        contexts: tokens of visible text; default 512, 4096, 32768 and what the model was trained for.
        n_ubatch: tokens that libllama computes at once.
    """
    shape = model_shape(metadata, tensors)
    wanted = set(contexts) or {*_CONTEXTS, shape.n_ctx_train} - {0}
    sizes = sorted(wanted)
    cells = {n_ctx: -(-(n_ctx + n_slots) // _CELL_PAD) * _CELL_PAD for n_ctx in sizes}
    per_value = CACHE_BYTES[cache_type]
    return MemoryEstimate(
        weights=sum(tensor.size_bytes for tensor in tensors),
        cache={n: int(cells[n] * shape.cache_values * per_value) + 4 * shape.state_values for n in sizes},
        compute={n: _compute(shape, cells[n], n_ubatch, n_readouts) for n in sizes},
        cache_type=cache_type,
    )


def _compute(shape: Shape, n_cells: int, n_ubatch: int, n_readouts: int) -> int:
    tokens = min(n_ubatch, n_cells)
    activations = tokens * 3 * (shape.n_embd + shape.n_ff) * 4
    mask = tokens * n_cells * 2 if shape.cache_values else 0  # f16, with flash attention
    logits = 2 * n_readouts * shape.n_vocab * 4  # in the graph and in the output buffer
    return activations + mask + logits


def physical_bytes() -> int | None:
    """Memory of this machine, None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


# ---- reading the head -----------------------------------------------------------------------------------------------


def model_shape(metadata: Mapping[str, Any], tensors: Sequence[Tensor]) -> Shape:
    """The model's sizes out of its metadata; a size that the file does not give counts as 0."""
    architecture = str(metadata.get("general.architecture", ""))
    n_embd = _one(metadata, architecture, "embedding_length")
    n_layer = _one(metadata, architecture, "block_count")
    heads = _per_layer(metadata, architecture, "attention.head_count", n_layer)
    n_head = max(heads, default=0)
    kv_heads = _per_layer(metadata, architecture, "attention.head_count_kv", n_layer) or heads
    head = n_embd // n_head if n_head else 0
    key = _one(metadata, architecture, "attention.key_length") or head
    value = _one(metadata, architecture, "attention.value_length") or head
    if _one(metadata, architecture, "attention.key_length_mla"):
        value = 0  # multi-head latent attention: the values are part of the compressed keys
    cached = n_layer - _one(metadata, architecture, "attention.shared_kv_layers")
    n_state, n_recurrent = _state(metadata, architecture, n_embd), 0
    if n_state:
        n_recurrent = sum(count == 0 for count in kv_heads) or (n_layer if not n_head else 0)
    return Shape(
        architecture=architecture,
        n_layer=n_layer,
        n_embd=n_embd,
        n_vocab=_n_vocab(metadata, architecture, tensors),
        n_ctx_train=_one(metadata, architecture, "context_length"),
        n_ff=_feed_forward(metadata, architecture, n_layer),
        n_head=n_head,
        cache_values=sum(count * (key + value) for count in kv_heads[: max(0, cached)]),
        state_values=n_state * n_recurrent,
        sliding_window=_one(metadata, architecture, "attention.sliding_window"),
    )


def _feed_forward(metadata: Mapping[str, Any], architecture: str, n_layer: int) -> int:
    dense = max(_per_layer(metadata, architecture, "feed_forward_length", n_layer), default=0)
    expert = _one(metadata, architecture, "expert_feed_forward_length")
    return max(dense, expert * max(1, _one(metadata, architecture, "expert_used_count")))


def _state(metadata: Mapping[str, Any], architecture: str, n_embd: int) -> int:
    """Values of one recurrent layer's state (libllama: ``n_embd_r() + n_embd_s()``); 0 for attention."""
    inner, state = (_one(metadata, architecture, f"ssm.{name}") for name in ("inner_size", "state_size"))
    if inner and state:
        groups, kernel = (_one(metadata, architecture, f"ssm.{name}") for name in ("group_count", "conv_kernel"))
        return max(0, kernel - 1) * (inner + 2 * groups * state) + state * inner
    wkv = _one(metadata, architecture, "wkv.head_size")
    if wkv:
        return n_embd * (wkv + (_one(metadata, architecture, "token_shift_count") or 2))
    kernel = _one(metadata, architecture, "shortconv.l_cache")
    return n_embd * (kernel - 1) if kernel > 1 else 0


def _n_vocab(metadata: Mapping[str, Any], architecture: str, tensors: Sequence[Tensor]) -> int:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if tokens is not None and hasattr(tokens, "__len__"):
        return len(tokens)
    for tensor in tensors:
        if tensor.name == "token_embd.weight" and len(tensor.shape) > 1:
            return tensor.shape[1]
    return _one(metadata, architecture, "vocab_size")


def _per_layer(metadata: Mapping[str, Any], architecture: str, name: str, n_layer: int) -> list[int]:
    """A size for each layer, whether the file gives one for all or a list; empty where it gives none."""
    size = _one(metadata, architecture, name)
    if size:
        return [size] * min(n_layer, 100_000)
    value = metadata.get(f"{architecture}.{name}")
    if value is None or isinstance(value, int | float | str):
        return []
    import numpy as np  # arrays are rare, and it takes longer to import than all else here

    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iu":
        return [max(0, int(entry)) for entry in value[:n_layer]]
    return []


def _one(metadata: Mapping[str, Any], architecture: str, name: str) -> int:
    value = metadata.get(f"{architecture}.{name}", 0)
    return max(0, value) if isinstance(value, int) and not isinstance(value, bool) else 0
