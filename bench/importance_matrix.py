"""What an importance matrix does to a quantized model: none, one from text alone, one with memory blocks.

    python bench/importance_matrix.py [MODEL.gguf] [--types q4_k_m q3_k_m q2_k] [--calibrate 200] [-n 200] [--threads N]

MODEL is an F32, F16 or BF16 file with memory blocks. The matrices come from ``--calibrate`` training problems
(``train/data.py``), the comparison from ``-n`` test problems. For each file: mean divergence (KL, nats, with its
standard error over problems) of the next token from what MODEL says, at the first token of every readout and, after the
last block, along the given answer; how often the most probable token is the same; and the difference to another matrix,
problem by problem. The same tokens run through both models in one plain pass, so nothing is sampled. ``--accuracy``
also asks: greedy answers of the last readout that are right.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from splits import log_softmax

import rim_edge
from convert.quantization.calibrate import TokenSequence, collect_importance, make_sequences
from convert.quantization.importance import ImportanceMatrix
from convert.quantization.quantizer import quantize_file
from convert.quantization.recipe import Recipe
from rim_edge import _native
from rim_edge.backends.gguf import read_head
from rim_edge.model import BUNDLED
from rim_edge.selection import value_key
from train.data import generate, parse_steps

Rows = npt.NDArray[np.float32]


@dataclass
class Distance:
    """Divergence and agreement of next-token distributions, each a mean over the places in one problem."""

    kl: list[float] = field(default_factory=list)
    same: list[float] = field(default_factory=list)

    def add(self, reference: Rows, other: Rows) -> None:
        """``[n_rows, n_vocab]`` logits of both models at the same places of a problem."""
        p, q = (log_softmax(rows) for rows in (reference, other))
        self.kl.append(float((np.exp(p) * (p - q)).sum(-1).mean()))
        self.same.append(float((reference.argmax(-1) == other.argmax(-1)).mean()))

    def __str__(self) -> str:
        return f"{mean_and_error(self.kl)} {100 * statistics.mean(self.same):5.1f} %"

    def against(self, base: Distance) -> str:
        """Difference of the divergences, problem by problem."""
        return mean_and_error([mine - other for mine, other in zip(self.kl, base.kl, strict=True)], "+")


def mean_and_error(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard error of independent values."""
    return f"{statistics.mean(values):{sign}8.5f} ± {statistics.stdev(values) / len(values) ** 0.5:.5f}"


def logits(model: _native.Model, sequence: TokenSequence, width: int, n_threads: int) -> tuple[Rows, Rows]:
    """``[n_blocks, n_vocab]`` at the end of each block, and ``[n_answer, n_vocab]`` before each answer token."""
    last = max(i for i, slot in enumerate(sequence.slots) if slot)
    ends = list(range(sequence.slots.index(True) + width - 1, last + 1, width))
    answer = list(range(last, len(sequence.tokens) - 1))
    options = _native.SessionOptions(n_ctx=len(sequence.tokens), n_threads=n_threads)
    rows = _native.batch_logits(model, sequence.tokens, options, ends + answer)
    return rows[: len(ends)], rows[len(ends) :]


def accuracy(path: Path, questions: Sequence[str], expected: Sequence[str], n_threads: int) -> float:
    with rim_edge.load(path, n_threads=n_threads or None) as model:
        answers = model.ask_many(questions, temperature=0.0, max_tokens=16)
    right = [value_key(a.value or "") == value_key(truth) for a, truth in zip(answers, expected, strict=True)]
    return statistics.mean(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=BUNDLED)
    parser.add_argument("--types", nargs="+", default=["q4_k_m", "q3_k_m", "q2_k"])
    parser.add_argument("--calibrate", type=int, default=200)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--steps", type=parse_steps, default=parse_steps("2-5"))
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--slot-weights", nargs="*", type=float, default=[1.0, 4.0])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--accuracy", action="store_true")
    arguments = parser.parse_args()
    spec, _ = read_head(arguments.model)
    if spec is None:
        parser.error(f"{arguments.model} has no memory blocks")

    def problems(split: str, n: int) -> list[dict[str, str]]:
        made = generate(split, arguments.steps, n, arguments.seed)
        return [{"question": p.question, "answer": str(p.values[-1])} for p in made]

    train, test = problems("train", arguments.calibrate), problems("test", arguments.n)
    threads = arguments.threads
    matrices: dict[str, ImportanceMatrix | None] = {
        "none": None,
        "text alone": collect_importance(arguments.model, train, blocks=0, n_threads=threads),
    }
    for weight in arguments.slot_weights:
        matrix = collect_importance(arguments.model, train, slot_weight=weight, n_threads=threads)
        matrices[f"blocks, slot weight {weight:g}"] = matrix

    model = _native.Model(str(arguments.model))
    sequences = make_sequences(model, spec, test, spec.block_count, 1 << 30)
    reference = [logits(model, sequence, spec.block_width, threads) for sequence in sequences]
    model.close()
    expected = [problem["answer"] for problem in test]
    questions = [problem["question"] for problem in test]
    print(f"{arguments.model.name}: {len(train)} problems calibrate, {len(test)} compare, {spec.block_count} blocks")
    if arguments.accuracy:
        print(f"accuracy of the source: {100 * accuracy(arguments.model, questions, expected, threads):.1f} %")
    columns = f"{'first tokens: KL, same token':30}{'answer: KL, same token':31}first tokens, paired"
    print(f"{'type':8} {'matrix':24} {'bits':>5}   {columns}")
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.types:
            bases: dict[str, Distance] = {}
            for name, matrix in matrices.items():
                made = quantize_file(arguments.model, Path(folder) / "q.gguf", Recipe(kind), matrix, n_threads=threads)
                model = _native.Model(str(made.path))
                first, answer = Distance(), Distance()
                for sequence, (ends, along) in zip(sequences, reference, strict=True):
                    rows = logits(model, sequence, spec.block_width, threads)
                    first.add(ends, rows[0])
                    answer.add(along, rows[1])
                model.close()
                line = f"{kind:8} {name:24} {made.bits_per_weight:5.2f}  {first}   {answer}"
                base = "none" if name == "text alone" else "text alone"
                line += f"   {first.against(bases[base])} against {base}" if base in bases else " " * 3
                bases[name] = first
                if arguments.accuracy:
                    line += f"   right {100 * accuracy(made.path, questions, expected, threads):.1f} %"
                print(line, flush=True)
            types = ", ".join(f"{found.n_params / 1e6:.2f} M {t}" for t, found in made.tensor_types.items())
            print(f"{'':8} in the file: {types}; {len(made.fallbacks)} fallbacks", flush=True)


if __name__ == "__main__":
    main()
