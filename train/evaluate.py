"""Accuracy of every readout on held-out problems, by step count."""

from __future__ import annotations

import torch
from torch import Tensor

from train.curriculum import alone, grounding, lay_out, readouts_correct, refinement
from train.data import generate
from train.model import Llama
from train.problems import Problem
from train.tokenizer import Vocabulary


def held_out(steps: tuple[int, ...], per_count: int, seed: int) -> dict[int, list[Problem]]:
    """``per_count`` problems of the test split for each step count."""
    return {n: list(generate("test", (n,), per_count, seed)) for n in steps}


def accuracy(
    model: Llama, vocabulary: Vocabulary, problems: dict[int, list[Problem]], stage: int, chunk: int = 32
) -> dict[str, dict[str, float]]:
    """For each step count: shares ``last``, ``any`` and ``first`` (block), and in stage 2 also ``direct``, in 0..1.

    In stage 1 the last readout is readout T (the answer); ``any`` then counts any step's readout, so it only says how
    much of the grounding is learnt (``steps``: the mean over readouts).
    """
    table: dict[str, dict[str, float]] = {}
    for n_steps, group in problems.items():
        branches = [grounding(p, vocabulary, 0.0) if stage == 1 else refinement(p, vocabulary) for p in group]
        samples = [alone(p, branch, vocabulary) for p, branch in zip(group, branches, strict=True)]
        order = sorted(range(len(samples)), key=lambda i: samples[i].length)
        rows: list[Tensor] = []
        for start in range(0, len(order), chunk):
            batch = lay_out([samples[i] for i in order[start : start + chunk]], vocabulary)
            rows.append(readouts_correct(model, batch).view(-1, len(branches[0].readouts)))
        correct = torch.cat(rows).float()
        if stage == 1:
            table[str(n_steps)] = {"last": correct[:, -1].mean().item(), "steps": correct.mean().item()}
        else:
            blocks = correct[:, 1:]
            table[str(n_steps)] = {
                "last": blocks[:, -1].mean().item(),
                "any": blocks.amax(1).mean().item(),
                "first": blocks[:, 0].mean().item(),
                "direct": correct[:, 0].mean().item(),
            }
    return table
