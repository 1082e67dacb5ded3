"""A Llama-shaped transformer with Llama's exact arithmetic, in plain PyTorch.

Grouped-query attention, rotary positions in FP32 (rotate-half layout, as in transformers), SwiGLU, RMSNorm with an
explicit epsilon, and one matrix for input and output embeddings. ``mask`` is arbitrary, because readouts must not see
each other (see ``train/curriculum.py``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train import attention

MULTIPLIES_BF16: bool = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
"""Whether training on this processor is faster with matrix products in BF16."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the model; field names as in transformers' ``LlamaConfig``."""

    vocab_size: int
    hidden_size: int = 192
    intermediate_size: int = 256
    num_hidden_layers: int = 8
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    max_position_embeddings: int = 512

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def as_dict(self) -> dict[str, int | float]:
        return asdict(self)


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rotary(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """Cosines, then sines, of integer ``positions`` [B, T]: ``[B, T, head_dim]`` float32."""
    frequency = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim)
    angle = positions[:, :, None].float() * frequency
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Rotary embedding of ``x`` [B, T, heads, head_dim] by the ``turns`` of ``rotary``."""
    cos, sin = turns[:, :, None].chunk(2, dim=-1)
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.n_kv, self.head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        kv_size = self.n_kv * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, turns: Tensor, mask: Tensor) -> Tensor:
        batch, length, size = x.shape
        q = self.q_proj(x).view(batch, length, self.n_heads, self.head_dim)
        k = self.k_proj(x).view(batch, length, self.n_kv, self.head_dim)
        v = self.v_proj(x).view(batch, length, self.n_kv, self.head_dim)
        if mask.dtype == torch.int16:
            mixed = attention.attend(q, k, v, mask, turns)
        else:
            repeat = self.n_heads // self.n_kv
            q, k, v = (heads.transpose(1, 2) for heads in (rotate(q, turns), rotate(k, turns), v))
            k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)
            if x.is_cuda:
                mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            else:
                # Written out: with a mask, in BF16 on a CPU, PyTorch's own attention takes three times as long.
                scores = torch.matmul(q * self.head_dim**-0.5, k.transpose(-1, -2)).float() + mask
                mixed = torch.matmul(scores.softmax(-1).to(v.dtype), v)
            mixed = mixed.transpose(1, 2).reshape(batch, length, size)
        out: Tensor = self.o_proj(mixed)
        return out


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, turns: Tensor, mask: Tensor, rows: Tensor | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turns, mask)
        if rows is not None:
            x = x.flatten(0, 1).index_select(0, rows)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Llama(nn.Module):
    """Parameter names are those of transformers' ``LlamaForCausalLM`` below ``model.``; embeddings are tied."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed_tokens.weight.device

    def initialise(self, seed: int) -> None:
        """Draw the weights; the same seed gives the same model."""
        generator = torch.Generator().manual_seed(seed)
        shrink = (2 * self.config.num_hidden_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            std = 0.04 if name.startswith("embed") else 0.5 * parameter.shape[1] ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std *= shrink
            nn.init.normal_(parameter, std=std, generator=generator)

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor,
        mask: Tensor,
        rows: Tensor | None = None,
        taps: dict[int, Tensor] | None = None,
        tapped: list[Tensor] | None = None,
    ) -> Tensor:
        """The state after the final norm, ``[B, T, hidden_size]`` float32, or ``[R, hidden_size]`` of R ``rows``.

        ``tokens`` and ``positions`` are ``[B, T]`` int64, ``mask`` is ``[B, 1, T, T]`` float32 added to the attention
        scores (0 or -inf). ``rows`` (int64, into the flattened B·T) saves the last layer's work on all other positions.
        ``taps`` maps a number of layers n (from 1, the last excluded) to rows; their states after n layers, normed, are
        appended to ``tapped`` in the order of the layers.
        """
        turns = rotary(positions, self.config.head_dim, self.config.rope_theta)
        if tokens.is_cuda and torch.is_autocast_enabled("cuda"):
            mask = mask.bfloat16()
        elif torch.is_autocast_enabled("cpu") and self.config.head_dim == attention.HEAD_DIM and attention.available():
            mask = attention.pack_mask(mask[:, 0] == 0)
        x = self.embed_tokens(tokens)
        for depth, layer in enumerate(self.layers[:-1], start=1):
            x = layer(x, turns, mask)
            if taps is not None and tapped is not None and depth in taps:
                tapped.append(self.norm(x.flatten(0, 1).index_select(0, taps[depth])))
        x = self.layers[-1](x, turns, mask, rows)
        out: Tensor = self.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores ``[..., vocab_size]`` of states ``[..., hidden_size]``."""
        return F.linear(hidden, self.embed_tokens.weight)
