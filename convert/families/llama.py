"""Llama (Llama-3.2, SmolLM2, TinyLlama, ... under ``model_type: llama``)."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from ..lazy_tensor import FloatArray, LazyTensor, in_memory
from .base import Shapes
from .config import Config, integer, number
from .decoder import Decoder


class Llama(Decoder):
    """Rotary pairs are neighbours in GGUF and halves in transformers, so rows of q and k are reordered."""

    architecture = "llama"
    rope_types: ClassVar[tuple[str, ...]] = ("default", "linear", "llama3", "yarn")

    def layer_shapes(self, config: Config) -> Shapes:
        shapes = super().layer_shapes(config)
        width, wide = self.width(config), integer(config, "intermediate_size")
        if config.get("attention_bias"):
            shapes |= {**self.attention_biases(config), "self_attn.o_proj.bias": (width,)}
        if config.get("mlp_bias"):
            shapes |= {"mlp.gate_proj.bias": (wide,), "mlp.up_proj.bias": (wide,), "mlp.down_proj.bias": (width,)}
        return shapes

    def transform(self, tensor: LazyTensor, config: Config) -> LazyTensor:
        n_head, n_kv, _ = self.n_heads(config)
        if tensor.name.endswith(("q_proj.weight", "q_proj.bias")):
            return tensor.map_whole(lambda data: to_neighbours(data, n_head))
        if tensor.name.endswith(("k_proj.weight", "k_proj.bias")):
            return tensor.map_whole(lambda data: to_neighbours(data, n_kv))
        return tensor

    def extra_tensors(self, config: Config) -> list[LazyTensor]:
        if self.rope(config)["rope_type"] != "llama3":
            return []
        return [in_memory("rope_freqs.weight", self._frequency_factors(config))]

    def _frequency_factors(self, config: Config) -> FloatArray:
        """Divisors of the rotary frequencies, ``[head_dim / 2] float32``.

        Llama 3.1's rule: long waves are slowed by ``factor``, short ones stay, those between are blended
        (transformers ``_compute_llama3_parameters``).
        """
        rope = self.rope(config)
        head = self.n_heads(config)[2]
        factor, low, high = (float(number(rope, key)) for key in ("factor", "low_freq_factor", "high_freq_factor"))
        context = integer(rope, "original_max_position_embeddings")
        frequencies = float(number(rope, "rope_theta")) ** -(np.arange(0, head, 2, dtype=np.float64) / head)
        turns = context * frequencies / (2 * math.pi)  # how often each wave turns within the original context
        blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
        return (1.0 / ((1.0 - blend) / factor + blend)).astype(np.float32)


def to_neighbours(data: FloatArray, n_head: int) -> FloatArray:
    """Rows from halves (i, i + d/2) to neighbours (2i, 2i + 1), within each head of d rows."""
    neighbours: FloatArray = data.reshape(n_head, 2, -1, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
    return neighbours


def to_halves(data: FloatArray, n_head: int) -> FloatArray:
    """The inverse of ``to_neighbours``."""
    halves: FloatArray = data.reshape(n_head, -1, 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
    return halves
