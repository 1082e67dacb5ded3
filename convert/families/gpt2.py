"""GPT-2: learnt positions, layer norms with biases, one matrix for q, k and v, matrices stored as [in, out]."""

from __future__ import annotations

import gguf

from ..failure import ConvertError
from ..lazy_tensor import LazyTensor
from .base import Family, Shapes
from .config import Config, integer, number, require


class Gpt2(Family):
    """transformers' Conv1D keeps ``[in, out]``, libllama wants ``[out, in]``."""

    architecture = "gpt2"
    embedding = "transformer.wte.weight"
    tied = True
    transposed = True

    def canonical(self, name: str) -> str | None:
        if name.endswith((".attn.bias", ".attn.masked_bias")):  # the causal mask
            return None
        return f"transformer.{name}" if name.startswith(("wte.", "wpe.", "h.", "ln_f.")) else name

    def n_layers(self, config: Config) -> int:
        return integer(config, "n_layer")

    def width(self, config: Config) -> int:
        return integer(config, "n_embd")

    def _wide(self, config: Config) -> int:
        return integer(config, "n_inner", 4 * self.width(config))

    def shapes(self, config: Config) -> Shapes:
        width, wide = self.width(config), self._wide(config)
        layer: Shapes = {
            "ln_1.weight": (width,),
            "ln_1.bias": (width,),
            "attn.c_attn.weight": (width, 3 * width),
            "attn.c_attn.bias": (3 * width,),
            "attn.c_proj.weight": (width, width),
            "attn.c_proj.bias": (width,),
            "ln_2.weight": (width,),
            "ln_2.bias": (width,),
            "mlp.c_fc.weight": (width, wide),
            "mlp.c_fc.bias": (wide,),
            "mlp.c_proj.weight": (wide, width),
            "mlp.c_proj.bias": (width,),
        }
        shapes = {
            f"transformer.h.{n}.{name}": shape for n in range(self.n_layers(config)) for name, shape in layer.items()
        }
        return {
            **shapes,
            "transformer.wpe.weight": (integer(config, "n_positions", 1024), width),
            "transformer.ln_f.weight": (width,),
            "transformer.ln_f.bias": (width,),
        }

    def check(self, config: Config) -> None:
        require(config, "activation_function", ("gelu_new", "gelu_pytorch_tanh"), "gelu_new")
        require(config, "scale_attn_weights", (True,), True)
        require(config, "scale_attn_by_inverse_layer_idx", (False,), False)
        require(config, "add_cross_attention", (False,), False)
        if self.width(config) % integer(config, "n_head"):
            raise ConvertError(
                f"config.json has {config['n_head']} heads, which do not divide n_embd {self.width(config)}"
            )

    def add_hyperparameters(self, writer: gguf.GGUFWriter, config: Config, n_vocab: int) -> None:
        writer.add_vocab_size(n_vocab)
        writer.add_context_length(integer(config, "n_positions", 1024))
        writer.add_embedding_length(self.width(config))
        writer.add_block_count(self.n_layers(config))
        writer.add_feed_forward_length(self._wide(config))
        writer.add_head_count(integer(config, "n_head"))
        writer.add_layer_norm_eps(float(number(config, "layer_norm_epsilon", 1e-5)))

    def transform(self, tensor: LazyTensor, config: Config) -> LazyTensor:
        if tensor.name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            rows, columns = tensor.shape
            return tensor.map_whole(lambda data: data.T, (columns, rows))
        return tensor
