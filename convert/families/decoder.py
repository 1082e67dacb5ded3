"""What Llama, Qwen and Gemma have in common: pre-norm decoder, rotary positions, gated feed-forward, RMS norms."""

from __future__ import annotations

from typing import Any, ClassVar

import gguf

from ..failure import ConvertError
from .base import Family, Shapes
from .config import Config, integer, number, require, rope_parameters


class Decoder(Family):
    """The common keys, names and shapes.

    Attributes:
        head_dim: width of a head where ``config.json`` does not say; None: hidden size / heads.
        rope_theta: base of the rotary frequencies where ``config.json`` does not say.
        rope_types: kinds of rotary scaling that libllama computes for this architecture.
        activations: names of the activation that libllama computes.
    """

    head_dim: ClassVar[int | None] = None
    rope_theta: ClassVar[float] = 10000.0
    rope_types: ClassVar[tuple[str, ...]] = ("default", "linear", "yarn")
    activations: ClassVar[tuple[str, ...]] = ("silu", "swish")
    activation_key: ClassVar[str] = "hidden_act"

    def canonical(self, name: str) -> str | None:
        if name.endswith("rotary_emb.inv_freq"):
            return None
        if name.startswith(("layers.", "embed_tokens.", "norm.")):  # saved without the head
            return f"model.{name}"
        return name

    def n_layers(self, config: Config) -> int:
        return integer(config, "num_hidden_layers")

    def width(self, config: Config) -> int:
        return integer(config, "hidden_size")

    def n_heads(self, config: Config) -> tuple[int, int, int]:
        """Query heads, key/value heads, width of a head."""
        n_head = integer(config, "num_attention_heads")
        n_kv = integer(config, "num_key_value_heads", n_head)
        width = integer(config, "head_dim", self.head_dim or self.width(config) // n_head)
        if n_head % n_kv or width % 2:
            raise ConvertError(
                f"config.json has {n_head} heads over {n_kv} key/value heads of width {width}, which do not fit"
            )
        return n_head, n_kv, width

    def rope(self, config: Config) -> dict[str, Any]:
        return rope_parameters(config, self.rope_theta)

    def layer_shapes(self, config: Config) -> Shapes:
        """Tensors of one layer, below ``model.layers.N.``."""
        (n_head, n_kv, head), width = self.n_heads(config), self.width(config)
        wide = integer(config, "intermediate_size")
        return {
            "input_layernorm.weight": (width,),
            "self_attn.q_proj.weight": (n_head * head, width),
            "self_attn.k_proj.weight": (n_kv * head, width),
            "self_attn.v_proj.weight": (n_kv * head, width),
            "self_attn.o_proj.weight": (width, n_head * head),
            "post_attention_layernorm.weight": (width,),
            "mlp.gate_proj.weight": (wide, width),
            "mlp.up_proj.weight": (wide, width),
            "mlp.down_proj.weight": (width, wide),
        }

    def attention_biases(self, config: Config) -> Shapes:
        """Biases of the query, key and value projections."""
        n_head, n_kv, head = self.n_heads(config)
        return {
            "self_attn.q_proj.bias": (n_head * head,),
            "self_attn.k_proj.bias": (n_kv * head,),
            "self_attn.v_proj.bias": (n_kv * head,),
        }

    def shapes(self, config: Config) -> Shapes:
        layer = self.layer_shapes(config)
        shapes = {
            f"model.layers.{n}.{name}": shape for n in range(self.n_layers(config)) for name, shape in layer.items()
        }
        return {**shapes, "model.norm.weight": (self.width(config),)}

    def check(self, config: Config) -> None:
        require(config, self.activation_key, self.activations, self.activations[0])
        kind = self.rope(config)["rope_type"]
        if kind not in self.rope_types:
            raise ConvertError(
                f"config.json has rotary scaling {kind!r}; known for {self.architecture} are "
                f"{', '.join(self.rope_types)}"
            )

    def add_hyperparameters(self, writer: gguf.GGUFWriter, config: Config, n_vocab: int) -> None:
        n_head, n_kv, head = self.n_heads(config)
        rope = self.rope(config)
        writer.add_vocab_size(n_vocab)
        writer.add_context_length(integer(config, "max_position_embeddings"))
        writer.add_embedding_length(self.width(config))
        writer.add_block_count(self.n_layers(config))
        writer.add_feed_forward_length(integer(config, "intermediate_size"))
        writer.add_head_count(n_head)
        writer.add_head_count_kv(n_kv)
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_rope_dimension_count(head)
        writer.add_rope_freq_base(float(number(rope, "rope_theta")))
        writer.add_layer_norm_rms_eps(float(number(config, "rms_norm_eps", 1e-6)))
        _add_rope_scaling(writer, rope, config)


def _add_rope_scaling(writer: gguf.GGUFWriter, rope: dict[str, Any], config: Config) -> None:
    """Keys of linear and YaRN scaling; Llama-3's is a tensor of factors instead."""
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(number(rope, "factor")))
    elif rope["rope_type"] == "yarn":
        changed = [key for key in ("attention_factor", "mscale", "mscale_all_dim") if rope.get(key) is not None]
        if changed or rope.get("truncate") is False:
            raise ConvertError(
                f"config.json has YaRN scaling with {', '.join(changed) or 'truncate = false'}, which is not converted"
            )
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(number(rope, "factor")))
        original = integer(config, "max_position_embeddings")
        writer.add_rope_scaling_orig_ctx_len(integer(rope, "original_max_position_embeddings", original))
        writer.add_rope_scaling_yarn_beta_fast(float(number(rope, "beta_fast", 32)))
        writer.add_rope_scaling_yarn_beta_slow(float(number(rope, "beta_slow", 1)))
