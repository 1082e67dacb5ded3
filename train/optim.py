"""The optimizer: Muon for the matrices, AdamW for embeddings and norms.

Muon (Jordan et al. 2024) steps along the orthogonalised momentum of each matrix, in BF16 where the machine multiplies
it. On a CPU, matrices of one shape are orthogonalised one after another and shared out between the worker processes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.model import MULTIPLIES_BF16

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Nearly orthogonal matrices with the singular vectors of ``matrices`` [n, rows, columns], by Newton-Schulz.

    One after another on a CPU: that is a quarter faster there than batched products.
    """
    if matrices.is_cuda:
        return _newton_schulz(matrices, torch.baddbmm, iterations).to(matrices.dtype)
    result = torch.empty_like(matrices)
    for matrix, out in zip(matrices, result, strict=True):
        out.copy_(_newton_schulz(matrix, torch.addmm, iterations))
    return result


def _newton_schulz(x: Tensor, fused: Any, iterations: int) -> Tensor:
    """``orthogonalise`` of a matrix, or of many with a batched ``fused`` multiply-add."""
    a, b, c = NEWTON_SCHULZ
    tall = x.shape[-2] > x.shape[-1]
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if x.is_cuda or MULTIPLIES_BF16:
        x = x.bfloat16()
    if tall:
        x = x.mT
    for _ in range(iterations):
        gram = x @ x.mT
        x = fused(x, fused(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Optimizer:
    """Muon and AdamW behind one ``step(scale)``; ``scale`` in 0..1 multiplies both learning rates.

    ``set_scale`` and ``apply`` are its two halves: ``apply`` alone reads no value from the host, so that it can be part
    of a CUDA graph.
    """

    def __init__(
        self, model: nn.Module, muon_lr: float, adam_lr: float, momentum: float = 0.95, weight_decay: float = 0.02
    ) -> None:
        self.muon_lr, self.adam_lr, self.momentum, self.weight_decay = muon_lr, adam_lr, momentum, weight_decay
        stacks: dict[torch.Size, list[nn.Parameter]] = {}
        rest: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and not name.startswith("embed"):
                stacks.setdefault(parameter.shape, []).append(parameter)
            else:
                rest.append(parameter)
        device = next(model.parameters()).device
        self.stacks = list(stacks.values())
        self.velocity = [torch.zeros(len(stack), *stack[0].shape, device=device) for stack in self.stacks]
        self.scale = torch.zeros((), device=device)
        self.adam_rate = torch.zeros((), device=device)
        self.adam = torch.optim.AdamW(
            rest, lr=self.adam_rate, betas=(0.9, 0.98), weight_decay=0.0, capturable=device.type == "cuda"
        )

    def step(self, scale: float) -> None:
        """Update the model from its gradients; every worker must call it with the same gradients."""
        self.set_scale(scale)
        self.apply()

    def set_scale(self, scale: float) -> None:
        """What ``apply`` multiplies the learning rates with."""
        self.scale.fill_(scale)
        self.adam_rate.fill_(self.adam_lr * scale)

    @torch.no_grad()
    def apply(self) -> None:
        """Update the model from its gradients at the scale that was set last."""
        self.adam.step()
        rank, n_workers = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        updates = []
        for stack, velocity in zip(self.stacks, self.velocity, strict=True):
            gradient = torch.stack([p.grad for p in stack if p.grad is not None])
            velocity.lerp_(gradient, 1 - self.momentum)
            nesterov = gradient.lerp(velocity, self.momentum)
            if n_workers == 1:
                updates.append(orthogonalise(nesterov))
                continue
            update = torch.zeros_like(nesterov)
            update[rank::n_workers] = orthogonalise(nesterov[rank::n_workers])
            updates.append(update)
        if n_workers > 1:
            flat = torch.cat([update.flatten() for update in updates])
            dist.all_reduce(flat)
            updates = [
                part.view_as(u)
                for part, u in zip(torch.split(flat, [u.numel() for u in updates]), updates, strict=True)
            ]
        lr = self.muon_lr * self.scale
        for stack, update in zip(self.stacks, updates, strict=True):
            rows, columns = stack[0].shape
            weights: list[Tensor] = [*stack]
            torch._foreach_mul_(weights, 1 - lr * self.weight_decay)
            torch._foreach_sub_(weights, list(update * (lr * max(1.0, rows / columns) ** 0.5)))

    def state_dict(self) -> dict[str, Any]:
        return {"velocity": self.velocity, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mine, saved in zip(self.velocity, state["velocity"], strict=True):
            mine.copy_(saved)
        self.adam.load_state_dict(state["adam"])
        for group in self.adam.param_groups:
            group.update(lr=self.adam_rate, capturable=self.adam_rate.is_cuda)
