"""Attention for training on processors with AMX tiles; elsewhere ``train/model.py`` uses PyTorch's own operations.

``attention.cpp`` is compiled at its first use (a C++ compiler and ninja are needed); where that fails, a warning says
so and training goes on without it, about half as fast. ``RIM_TRAIN_TILES=0`` switches it off.
"""

from __future__ import annotations

import os
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HEAD_DIM = 32
"""The only head size that the tiles serve."""

_FLAGS = ["-O3", "-std=c++20", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]


@cache
def available() -> bool:
    """Whether this processor has the tiles and the operators could be compiled; compiles them at the first call."""
    if os.environ.get("RIM_TRAIN_TILES") == "0" or sys.platform != "linux":
        return False
    if not getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)():
        return False
    from torch.utils.cpp_extension import load

    source = str(Path(__file__).with_name("attention.cpp"))
    try:
        load("rim_train_attention", [source], extra_cflags=_FLAGS, is_python_module=False)
    except (OSError, RuntimeError) as error:
        warnings.warn(f"training goes on without tiles: {error}", stacklevel=2)
        return False
    torch.library.register_fake("rim_train::attend")(_attend_shapes)
    torch.library.register_fake("rim_train::attend_backward")(_backward_shapes)
    torch.library.register_autograd("rim_train::attend", _attend_gradient, setup_context=_keep)
    return True


def pack_mask(visible: Tensor) -> Tensor:
    """``visible`` [B, T, T] bool (query i sees key j) as the bits that ``attend`` takes, int16."""
    out: Tensor = torch.ops.rim_train.pack_mask(visible)
    return out


def attend(q: Tensor, k: Tensor, v: Tensor, bits: Tensor, turns: Tensor) -> Tensor:
    """Attention of ``q`` [B, T, H, 32] on ``k`` and ``v`` [B, T, G, 32], all BF16: [B, T, H * 32] BF16.

    ``turns`` [B, T, 32] float32 holds 16 cosines and 16 sines of each position: rotary embedding of q and k. H is a
    multiple of G; head h belongs to key/value head h * G // H. A query that sees nothing gives zeros.
    """
    out: Tensor = torch.ops.rim_train.attend(q, k, v, bits, turns)[0]
    return out


def _attend_shapes(q: Tensor, k: Tensor, v: Tensor, bits: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    batch, length, heads, size = q.shape
    logs = q.new_empty((batch, heads, bits.shape[2]), dtype=torch.float32)
    return q.new_empty((batch, length, heads * size)), logs


def _backward_shapes(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bits: Tensor, turns: Tensor, out: Tensor, logs: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty(q.shape, dtype=q.dtype, device=q.device),
        torch.empty(k.shape, dtype=k.dtype, device=k.device),
        torch.empty(v.shape, dtype=v.dtype, device=v.device),
    )


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _attend_gradient(ctx: Any, grad: Tensor, grad_logs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
    q, k, v, bits, turns, out, logs = ctx.saved_tensors
    return (*torch.ops.rim_train.attend_backward(grad, q, k, v, bits, turns, out, logs), None, None)
