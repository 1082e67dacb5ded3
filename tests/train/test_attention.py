"""The tile kernels of training attention against float64, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from train import attention
from train.model import rotary, rotate

pytestmark = pytest.mark.skipif(not attention.available(), reason="this processor has no AMX tiles")


def reference(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, turns: Tensor) -> Tensor:
    """The same in plain operations; a query that sees nothing gives zeros."""
    q, k = rotate(q, turns), rotate(k, turns)
    share = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(share, dim=2), v.repeat_interleave(share, dim=2)
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[3] ** -0.5
    weights = scores.masked_fill(~visible[:, None], float("-inf")).softmax(-1).nan_to_num(0.0)
    return torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2)


@pytest.mark.parametrize(("batch", "length"), [(1, 2), (2, 16), (1, 31), (2, 33), (3, 97), (1, 200)])
def test_attention_and_its_gradients(batch: int, length: int) -> None:
    generator = torch.Generator().manual_seed(length)

    def draw(heads: int) -> Tensor:
        return torch.randn(batch, length, heads, 32, generator=generator).bfloat16()

    parts = [draw(8), draw(2), draw(2)]
    gradient = torch.randn(batch, length, 256, generator=generator).bfloat16()
    visible = (torch.rand(batch, length, length, generator=generator) < 0.4).tril() | torch.eye(length).bool()
    visible[:, 48:, :32] = False  # a pair of key tiles that nothing sees
    turns = rotary(torch.randint(0, 500, (batch, length), generator=generator), 32, 10000.0)
    exact = [part.double().requires_grad_() for part in parts]
    expected = reference(*exact, visible, turns)
    expected.backward(gradient.double())
    tiled = [part.clone().requires_grad_() for part in parts]
    mixed = attention.attend(*tiled, attention.pack_mask(visible), turns)
    mixed.backward(gradient)
    assert distance(mixed, expected) < 0.01
    for mine, right in zip(tiled, exact, strict=True):
        assert mine.grad is not None and right.grad is not None
        assert distance(mine.grad, right.grad) < 0.01


def distance(mine: Tensor, right: Tensor) -> float:
    """Relative distance in the Euclidean norm."""
    return float((mine.detach().double() - right.detach()).norm() / right.detach().norm())


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    heads = torch.ones(1, 3, 8, 32).bfloat16()
    visible = torch.tensor([[[True, False, False], [False, False, False], [True, False, True]]])
    mixed = attention.attend(
        heads, heads[:, :, :2], heads[:, :, :2], attention.pack_mask(visible), rotary(torch.zeros(1, 3).long(), 32, 1e4)
    )
    assert mixed[0, 1].abs().max() == 0 and mixed[0, 2].abs().min() > 0.9


def test_heads_of_another_size_are_refused() -> None:
    heads = torch.ones(1, 3, 8, 16).bfloat16()
    bits = attention.pack_mask(torch.ones(1, 3, 3).bool())
    with pytest.raises(RuntimeError, match="32 dimensions"):
        attention.attend(heads, heads, heads, bits, rotary(torch.zeros(1, 3).long(), 16, 1e4))
