"""Train the linear probe: does the state at the end of block k tell whether readout k is right?

    python -m train.probe rim-tiny.gguf -o runs/rim-tiny/hf/rim_probe.safetensors

One logistic regression per block on the state after the final norm at the block's end token:
    score_k = sigma(w_k . h_k + b_k)
States and answers are those that the model file gives in the runtime. The problems are of the split ``probe``: their
operations and numbers are neither in training nor in the test split.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

import rim_edge
from rim_edge import Model, RimError
from train.data import add_problem_options, generate
from train.files import atomic_write
from train.problems import Problem

AT_ONCE = 500  # problems asked in one call: their states are kept


def states(model: Model, problems: list[Problem]) -> tuple[Tensor, Tensor]:
    """States ``[N, K, n_embd]`` float32 at the end of each block, and ``[N, K]`` bool: was that readout right."""
    hidden: list[Tensor] = []
    correct: list[Tensor] = []
    for start in range(0, len(problems), AT_ONCE):
        part = problems[start : start + AT_ONCE]
        answers = model.ask_many([p.question for p in part], readouts=True, hidden=True, max_tokens=4)
        found = [[readout.hidden for readout in answer.readouts] for answer in answers]
        hidden.append(torch.from_numpy(np.array(found, np.float32)))
        correct.append(
            torch.tensor(
                [
                    [readout.value == str(p.values[-1]) for readout in answer.readouts]
                    for p, answer in zip(part, answers, strict=True)
                ]
            )
        )
        print(f"\r{start + len(part)} of {len(problems)} problems", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return torch.cat(hidden), torch.cat(correct)


def fit(hidden: Tensor, correct: Tensor, penalty: float = 1e-2) -> tuple[Tensor, Tensor]:
    """Weights ``[K, n_embd]`` and biases ``[K]`` of the regressions, by L-BFGS on standardised states."""
    mean, std = hidden.mean(0, keepdim=True), hidden.std(0, keepdim=True) + 1e-6
    x = (hidden - mean) / std
    target = correct.float()
    weight = torch.zeros(hidden.shape[1:], requires_grad=True)
    bias = torch.zeros(hidden.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        scores = torch.einsum("nkd,kd->nk", x, weight) + bias
        loss = F.binary_cross_entropy_with_logits(scores, target) + penalty * weight.square().sum(1).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
    w = weight.detach() / std[0]
    return w, bias.detach() - (w * mean[0]).sum(1)


def auroc(scores: Tensor, correct: Tensor) -> float:
    """Probability that a right readout scores above a wrong one; NaN where only one kind exists."""
    right, wrong = scores[correct], scores[~correct]
    if not len(right) or not len(wrong):
        return float("nan")
    ranks = torch.cat((right, wrong)).argsort().argsort().double() + 1
    return float((ranks[: len(right)].sum() - len(right) * (len(right) + 1) / 2) / (len(right) * len(wrong)))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.probe",
        description="Train the linear probe that scores every readout of a GGUF, through rim_edge.",
        epilog="example: python -m train.probe rim-tiny.gguf -o runs/rim-tiny/hf/rim_probe.safetensors",
    )
    parser.add_argument("model", type=Path, help="the GGUF file, with or without a probe of its own")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="safetensors file to write")
    add_problem_options(parser, 8000, "problems in all", 77)
    options = parser.parse_args(arguments)
    try:
        with rim_edge.load(options.model) as model:
            if model.spec is None:
                raise ValueError(f"{options.model} has no memory blocks, so nothing to score")
            weight, bias = fit(*states(model, list(generate("probe", options.steps, options.count, options.seed))))
            fresh, truth = states(model, list(generate("test", options.steps, 1000, options.seed)))
        scores = torch.einsum("nkd,kd->nk", fresh, weight) + bias
        chosen = truth.gather(1, scores.argmax(1, keepdim=True)).float().mean().item()
        shares = {"last": truth[:, -1], "any": truth.any(1)}
        print(f"test split, {len(truth)} problems: probe's choice {chosen:.3f}", end="")
        print("".join(f", {name} {value.float().mean().item():.3f}" for name, value in shares.items()))
        print("AUROC per block:", *(f"{auroc(scores[:, k], truth[:, k]):.3f}" for k in range(truth.shape[1])))
        with atomic_write(options.output) as stream:
            stream.write(safetensors.torch.save({"weight": weight.contiguous(), "bias": bias.contiguous()}))
    except (OSError, RimError, ValueError) as error:
        print(f"train.probe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
