"""Qwen2 / Qwen2.5 (biases on q, k, v) and Qwen3 (norms on q and k, heads of any width)."""

from __future__ import annotations

from ..failure import ConvertError
from .base import Shapes
from .config import Config
from .decoder import Decoder


class Qwen2(Decoder):
    architecture = "qwen2"

    def layer_shapes(self, config: Config) -> Shapes:
        return super().layer_shapes(config) | self.attention_biases(config)

    def check(self, config: Config) -> None:
        super().check(config)
        _check_window(config)
        n_head, _, head = self.n_heads(config)
        if n_head * head != self.width(config):
            raise ConvertError(
                f"config.json has {n_head} heads of width {head}; libllama needs them to fill hidden_size "
                f"{self.width(config)}"
            )


class Qwen3(Decoder):
    architecture = "qwen3"
    head_dim = 128

    def layer_shapes(self, config: Config) -> Shapes:
        head = self.n_heads(config)[2]
        return super().layer_shapes(config) | {"self_attn.q_norm.weight": (head,), "self_attn.k_norm.weight": (head,)}

    def check(self, config: Config) -> None:
        super().check(config)
        _check_window(config)
        if config.get("attention_bias"):
            raise ConvertError("config.json has attention_bias; libllama has no bias on the output projection of qwen3")


def _check_window(config: Config) -> None:
    """libllama runs these architectures with full attention."""
    if config.get("use_sliding_window") or "sliding_attention" in (config.get("layer_types") or []):
        raise ConvertError(
            "config.json uses a sliding window (use_sliding_window), which libllama does not compute for Qwen"
        )
