"""Train the linear probe: does the state at the end of block k tell whether readout k is right?

    python -m train.probe runs/rim-tiny -o runs/rim-tiny/probe.safetensors

One logistic regression per block on the state after the final norm at the block's end token:
    score_k = sigma(w_k . h_k + b_k)
The problems come fresh from the training split with a seed that training never uses, so the test split stays unseen.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from train.curriculum import BLOCK_COUNT, alone, lay_out, refinement
from train.data import generate
from train.export import load_checkpoint, weights_of
from train.files import atomic_write
from train.model import Llama, ModelConfig
from train.problems import Problem
from train.tokenizer import Vocabulary


@torch.no_grad()
def states(model: Llama, vocabulary: Vocabulary, problems: list[Problem], chunk: int = 16) -> tuple[Tensor, Tensor]:
    """States ``[N, K, hidden_size]`` float32 at the end of each block, and ``[N, K]`` bool: was that readout right."""
    samples = sorted(
        (alone(p, refinement(p, vocabulary), vocabulary) for p in problems), key=lambda sample: sample.length
    )
    hidden, correct = [], []
    for start in range(0, len(samples), chunk):
        batch = lay_out(samples[start : start + chunk], vocabulary)
        h = model.hidden(batch.tokens, batch.positions, batch.mask, batch.rows)
        hit = model.logits(h).argmax(-1) == batch.targets
        wrong = torch.zeros(len(batch.ends), dtype=torch.int64).index_add_(0, batch.readout, (~hit).long())
        first = torch.searchsorted(batch.readout, torch.arange(len(batch.ends)))
        hidden.append(h[first].view(-1, BLOCK_COUNT + 1, h.shape[-1])[:, 1:])
        correct.append((wrong == 0).view(-1, BLOCK_COUNT + 1)[:, 1:])
    return torch.cat(hidden), torch.cat(correct)


def fit(hidden: Tensor, correct: Tensor, penalty: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Weights ``[K, hidden_size]`` and biases ``[K]`` of the regressions, by L-BFGS on standardised states."""
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
        description="Train the linear probe that scores every readout.",
        epilog="example: python -m train.probe runs/rim-tiny -o runs/rim-tiny/probe.safetensors",
    )
    parser.add_argument("checkpoint", type=Path, help="a run's folder, or its checkpoint.pt")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="safetensors file to write")
    parser.add_argument("-n", "--count", type=int, default=4000, help="problems of 2 to 5 steps (default 4000)")
    parser.add_argument("--seed", type=int, default=77, help="(default 77)")
    parser.add_argument("--weights", choices=("average", "last"), default="average", help="(default average)")
    parser.add_argument("--threads", type=int, default=1, help="(default 1)")
    options = parser.parse_args(arguments)
    try:
        torch.set_num_threads(options.threads)
        saved = load_checkpoint(options.checkpoint)
        model = Llama(ModelConfig(**saved["config"]))
        model.load_state_dict(weights_of(saved, options.weights))
        vocabulary = Vocabulary(saved["tokenizer"])
        hidden, correct = states(model, vocabulary, list(generate("train", (2, 3, 4, 5), options.count, options.seed)))
        weight, bias = fit(hidden, correct)
        fresh, truth = states(model, vocabulary, list(generate("test", (2, 3, 4, 5), options.count // 4, options.seed)))
        scores = torch.einsum("nkd,kd->nk", fresh, weight) + bias
        chosen = truth.gather(1, scores.argmax(1, keepdim=True)).float().mean().item()
        shares = {"last": truth[:, -1], "any": truth.any(1)}
        print(f"test split, {len(truth)} problems of 2-5 steps: probe's choice {chosen:.3f}", end="")
        print("".join(f", {name} {value.float().mean().item():.3f}" for name, value in shares.items()))
        print("AUROC per block:", " ".join(f"{auroc(scores[:, k], truth[:, k]):.3f}" for k in range(BLOCK_COUNT)))
        with atomic_write(options.output) as stream:
            stream.write(safetensors.torch.save({"weight": weight.contiguous(), "bias": bias.contiguous()}))
    except (OSError, ValueError) as error:
        print(f"train.probe: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
