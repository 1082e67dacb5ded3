"""Accuracy of every readout on held-out problems, by step count.

    python -m train.evaluate runs/rim-tiny runs/direct -n 1000 --seed 4242

compares checkpoints, controls too, on the same problems of the test split.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from train.checkpoint import load_checkpoint, weights_of
from train.curriculum import (
    Branch,
    Readout,
    alone,
    asked_of,
    direct,
    grounding,
    lay_out,
    readouts_correct,
    refinement,
)
from train.data import add_problem_options, generate
from train.model import Llama, ModelConfig
from train.problems import Problem
from train.tokenizer import Vocabulary


def held_out(steps: tuple[int, ...], per_count: int, seed: int) -> dict[int, list[Problem]]:
    """``per_count`` problems of the test split for each step count."""
    return {n: list(generate("test", (n,), per_count, seed)) for n in steps}


def accuracy(
    model: Llama, vocabulary: Vocabulary, problems: dict[int, list[Problem]], kind: str, chunk: int = 32
) -> dict[str, dict[str, float]]:
    """For each step count, shares in 0..1 of right answers.

    ``kind`` says what the model is being taught. ``grounding``: ``last`` (readout T, the answer) and ``steps`` (the
    mean over readouts, each with its own step). ``refinement``: ``last``, ``any`` and ``first`` block, ``direct`` (no
    block). ``direct`` and ``told``: ``last``. ``chain``: ``last``, the last value of the chain that the model writes by
    itself.
    """
    table: dict[str, dict[str, float]] = {}
    for n_steps, group in problems.items():
        if kind == "chain":
            table[str(n_steps)] = {"last": chain_accuracy(model, vocabulary, group, chunk)}
            continue
        make = {"grounding": _grounding, "refinement": refinement, "direct": direct, "told": direct}[kind]
        correct = torch.cat([_correct(model, vocabulary, part, make) for part in _chunks(group, chunk)]).float()
        if kind == "grounding":
            table[str(n_steps)] = {"last": correct[:, -1].mean().item(), "steps": correct.mean().item()}
        elif make is direct:
            table[str(n_steps)] = {"last": correct[:, -1].mean().item()}
        else:
            blocks = correct[:, 1:]
            table[str(n_steps)] = {
                "last": blocks[:, -1].mean().item(),
                "any": blocks.amax(1).mean().item(),
                "first": blocks[:, 0].mean().item(),
                "direct": correct[:, 0].mean().item(),
            }
    return table


def _grounding(problem: Problem, vocabulary: Vocabulary) -> Branch:
    return grounding(problem, vocabulary, 0.0)


def _chunks(group: list[Problem], size: int) -> Iterator[list[Problem]]:
    """``group`` in parts of problems of about one length."""
    ordered = sorted(group, key=lambda problem: len(problem.question))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _correct(
    model: Llama, vocabulary: Vocabulary, group: list[Problem], make: Callable[[Problem, Vocabulary], Branch]
) -> Tensor:
    """[problems, readouts] bool: which readouts are right."""
    samples = [alone(problem, make(problem, vocabulary), vocabulary) for problem in group]
    return readouts_correct(model, lay_out(samples, vocabulary).to(model.device)).view(len(group), -1)


@torch.no_grad()
def chain_accuracy(model: Llama, vocabulary: Vocabulary, group: list[Problem], chunk: int = 32) -> float:
    """Share of problems whose greedily decoded chain of values ends with the answer."""
    right = 0
    for part in _chunks(group, chunk):
        written: list[list[int]] = [[] for _ in part]
        for _ in range(max(len(problem.values) for problem in part) + 2):
            branches = [
                Branch(asked_of(problem, vocabulary) + text, 0, [Readout(0, [0], 1.0)])
                for problem, text in zip(part, written, strict=True)
            ]
            samples = [alone(p, b, vocabulary) for p, b in zip(part, branches, strict=True)]
            batch = lay_out(samples, vocabulary).to(model.device)
            logits = model.logits(model.hidden(batch.tokens, batch.positions, batch.mask, batch.rows))
            for text, token in zip(written, logits.argmax(-1).tolist(), strict=True):
                if text[-1:] != [vocabulary.end_of_text_id]:
                    text.append(token)
        for problem, text in zip(part, written, strict=True):
            right += text[-2:] == vocabulary.value(problem.values[-1])
    return right / len(group)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.evaluate",
        description="Compare checkpoints of train.run on the test split: percent right, greedy, BF16 weights in FP32.",
        epilog="example: python -m train.evaluate runs/rim-tiny runs/direct -n 1000",
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="RUN", help="folders of runs, or checkpoints")
    add_problem_options(parser, 1000, "problems per step count", 4242)
    parser.add_argument("--weights", choices=("average", "last"), default="average", help="(default average)")
    options = parser.parse_args(arguments)
    try:
        problems = held_out(options.steps, options.count, options.seed)
        print("| run | readout | " + " | ".join(f"{n} steps" for n in options.steps) + " | mean |")
        print("| --- " * (len(options.steps) + 3) + "|")
        for path in options.checkpoints:
            saved = load_checkpoint(path)
            model = Llama(ModelConfig(**saved["config"]))
            model.load_state_dict(weights_of(saved, options.weights))
            kind = saved["options"]["control"] or ("grounding" if saved["stage"] == 1 else "refinement")
            table = accuracy(model, Vocabulary(saved["tokenizer"]), problems, kind)
            for readout in next(iter(table.values())):
                shares = [100 * row[readout] for row in table.values()]
                cells = " | ".join(f"{share:.1f}" for share in [*shares, sum(shares) / len(shares)])
                print(f"| {path} | {readout} | {cells} |", flush=True)
    except (OSError, ValueError) as error:
        print(f"train.evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
