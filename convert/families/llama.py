"""Llama (and SmolLM, TinyLlama, ... under ``model_type: llama``)."""

from __future__ import annotations

import gguf

from ..hf_folder import ConvertError, FloatArray
from .base import Config, integer, number


class Llama:
    """Rotary pairs are neighbours in GGUF and halves in transformers, so rows of q and k are reordered."""

    architecture = "llama"

    def n_layers(self, config: Config) -> int:
        return integer(config, "num_hidden_layers")

    def vocab_size(self, config: Config) -> int:
        return integer(config, "vocab_size")

    def width(self, config: Config) -> int:
        return integer(config, "hidden_size")

    def add_hyperparameters(self, writer: gguf.GGUFWriter, config: Config) -> None:
        n_head = integer(config, "num_attention_heads")
        head_dim = integer(config, "head_dim", self.width(config) // n_head)
        if config.get("rope_scaling"):
            raise ConvertError("config.json has rope_scaling, which is not converted yet for llama")
        rope = config.get("rope_parameters") or config
        writer.add_vocab_size(self.vocab_size(config))
        writer.add_context_length(integer(config, "max_position_embeddings"))
        writer.add_embedding_length(self.width(config))
        writer.add_block_count(self.n_layers(config))
        writer.add_feed_forward_length(integer(config, "intermediate_size"))
        writer.add_head_count(n_head)
        writer.add_head_count_kv(integer(config, "num_key_value_heads", n_head))
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        writer.add_rope_dimension_count(head_dim)
        writer.add_rope_freq_base(float(number(rope, "rope_theta", 10000.0)))
        writer.add_layer_norm_rms_eps(float(number(config, "rms_norm_eps")))

    def is_derived(self, name: str, config: Config) -> bool:
        tied = bool(config.get("tie_word_embeddings", False))
        return name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight")

    def transform(self, name: str, data: FloatArray, config: Config) -> FloatArray:
        n_head = integer(config, "num_attention_heads")
        if name.endswith(("q_proj.weight", "q_proj.bias")):
            return to_neighbours(data, n_head)
        if name.endswith(("k_proj.weight", "k_proj.bias")):
            return to_neighbours(data, integer(config, "num_key_value_heads", n_head))
        return data


def to_neighbours(data: FloatArray, n_head: int) -> FloatArray:
    """Rows from halves (i, i + d/2) to neighbours (2i, 2i + 1), within each head of d rows."""
    return data.reshape(n_head, 2, -1, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def to_halves(data: FloatArray, n_head: int) -> FloatArray:
    """The inverse of ``to_neighbours``."""
    return data.reshape(n_head, -1, 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
