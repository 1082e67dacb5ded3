"""Gemma 3, its language model: norms around both halves of a layer, q/k norms, sliding windows with a rotary base."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import gguf

from ..failure import ConvertError
from ..lazy_tensor import LazyTensor
from .base import Shapes
from .config import Config, integer, number, rope_parameters
from .decoder import Decoder

_PERIOD = 6  # every sixth layer sees everything
_SCALED_BY_WIDTH = 62  # libllama takes a model of this many layers for Gemma 3 27B, which scales by hidden size / heads
_DEFAULTS = {  # transformers' Gemma3TextConfig; the published files leave some out
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}


class Gemma3(Decoder):
    """RMS norms multiply by 1 + weight in transformers and by weight in libllama, so one is added."""

    architecture = "gemma3"
    tied = True
    head_dim = 256
    rope_theta = 1_000_000.0
    rope_types: ClassVar[tuple[str, ...]] = ("default", "linear")
    activations: ClassVar[tuple[str, ...]] = ("gelu_pytorch_tanh",)
    activation_key = "hidden_activation"

    def text_config(self, config: Config) -> Config:
        text = config.get("text_config", config)
        if not isinstance(text, dict):
            raise ConvertError("config.json: text_config is no JSON object")
        outer = {key: config[key] for key in ("tie_word_embeddings", "eos_token_id") if key in config}
        return {**_DEFAULTS, **outer, **text}

    def canonical(self, name: str) -> str | None:
        if name.startswith(
            ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
        ):
            return None
        for outer in ("model.language_model.", "language_model.model."):
            if name.startswith(outer):
                return super().canonical("model." + name.removeprefix(outer))
        return super().canonical(name.removeprefix("language_model."))

    def layer_shapes(self, config: Config) -> Shapes:
        width, head = self.width(config), self.n_heads(config)[2]
        return super().layer_shapes(config) | {
            "pre_feedforward_layernorm.weight": (width,),
            "post_feedforward_layernorm.weight": (width,),
            "self_attn.q_norm.weight": (head,),
            "self_attn.k_norm.weight": (head,),
        }

    def rope(self, config: Config) -> dict[str, Any]:
        """Rotary parameters of the layers that see everything."""
        return rope_parameters({**config, "rope_parameters": _nested(config, "full_attention")}, self.rope_theta)

    def _local_theta(self, config: Config) -> float:
        local = _nested(config, "sliding_attention") or {}
        if local.get("rope_type", "default") != "default":
            raise ConvertError("config.json scales the rotary positions of the sliding layers, which libllama does not")
        return float(number(local, "rope_theta", number(config, "rope_local_base_freq", 10000.0)))

    def windowed(self, config: Config) -> list[bool]:
        """Which layers see a sliding window only."""
        kinds = config.get("layer_types")
        period = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or _PERIOD
        if not kinds:
            return [bool((layer + 1) % int(period)) for layer in range(self.n_layers(config))]
        if len(kinds) != self.n_layers(config) or not set(kinds) <= {"sliding_attention", "full_attention"}:
            raise ConvertError(
                f"config.json: layer_types must name sliding_attention or full_attention for {self.n_layers(config)} "
                "layers"
            )
        return [kind == "sliding_attention" for kind in kinds]

    def check(self, config: Config) -> None:
        super().check(config)
        self.windowed(config)
        for key in ("attention_bias", "attn_logit_softcapping", "use_bidirectional_attention"):
            if config.get(key):
                raise ConvertError(
                    f"config.json has {key} = {config[key]!r}, which libllama does not compute for gemma3"
                )

    def add_hyperparameters(self, writer: gguf.GGUFWriter, config: Config, n_vocab: int) -> None:
        super().add_hyperparameters(writer, config, n_vocab)
        windowed = self.windowed(config)
        if any(windowed):
            writer.add_sliding_window(integer(config, "sliding_window"))
            writer.add_rope_freq_base_swa(self._local_theta(config))
            if windowed != [bool((layer + 1) % _PERIOD) for layer in range(len(windowed))]:
                writer.add_sliding_window_pattern(windowed)
        if config.get("final_logit_softcapping"):
            writer.add_final_logit_softcapping(float(number(config, "final_logit_softcapping")))

    def transform(self, tensor: LazyTensor, config: Config) -> LazyTensor:
        if not tensor.name.endswith("norm.weight"):
            return tensor
        factor = self._query_factor(config) if tensor.name.endswith("q_norm.weight") else 1.0
        return tensor.map_rows(lambda data: (data + 1.0) * factor)

    def _query_factor(self, config: Config) -> float:
        """What the queries' norm brings in so that libllama's scale becomes ``query_pre_attn_scalar ** -0.5``."""
        n_head, _, head = self.n_heads(config)
        scale = self.width(config) // n_head if self.n_layers(config) == _SCALED_BY_WIDTH else head
        return math.sqrt(scale / float(number(config, "query_pre_attn_scalar")))


def _nested(config: Config, kind: str) -> dict[str, Any] | None:
    """Rotary parameters of one kind of layer, where ``config.json`` states them by kind; else of the whole."""
    stated = config.get("rope_parameters")
    if not isinstance(stated, dict):
        return None
    if kind in stated or "full_attention" in stated or "sliding_attention" in stated:
        inner = stated.get(kind)
        return inner if isinstance(inner, dict) else None
    return stated if kind == "full_attention" else None
