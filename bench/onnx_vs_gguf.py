"""The two back ends on the same model: do they answer alike, and what does each cost?

    python bench/onnx_vs_gguf.py parity model-f32.gguf model-fp32-onnx --questions questions.txt
    python bench/onnx_vs_gguf.py timing model-q4_0.gguf model-int4-onnx model-q8_0.gguf model-int8-onnx --blocks 0 8

``parity`` runs both in F32 (cache F32, flash attention off) and compares greedy answers, and the raw logits of every
readout. ``timing`` takes turns between the models, so that what else the machine does falls on all of them, and prints
medians: wall time, and CPU time over all threads, which other programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

import rim_edge
from rim_edge import Model

EXACT = {"cache_type": "f32", "flash_attention": "off"}
QUESTION = (
    "A farmer has 17 sheep, 5 cows and 23 hens. He sells 4 sheep and 6 hens at the market, and buys 2 cows from a "
    "neighbour. A week later 3 lambs are born, and the fox takes 2 hens. How many animals with four legs does the "
    "farmer have now, and how many legs do all of his animals have together?"
)


def read_questions(path: Path | None) -> list[str]:
    """One question per line; a line that is a JSON object gives its field ``question``."""
    if path is None:
        return [QUESTION]
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [json.loads(line)["question"] if line.startswith("{") else line for line in lines]


def parity(gguf: Path, onnx: Path, questions: list[str], max_tokens: int, n_threads: int | None) -> bool:
    """Compare; True where every answer is the same and logits differ by 1e-3 at most."""
    alike, worst, n_readouts = 0, 0.0, 0
    with (
        rim_edge.load(gguf, n_threads=n_threads, **EXACT) as left,
        rim_edge.load(onnx, n_threads=n_threads, **EXACT) as right,
    ):
        for index, question in enumerate(questions):
            a, b = (model.ask(question, max_tokens=max_tokens, logits=True) for model in (left, right))
            alike += a.text == b.text
            if a.text != b.text:
                print(f"question {index}: {a.text!r} against {b.text!r}", file=sys.stderr)
            for one, other in zip(a.readouts, b.readouts, strict=True):
                assert one.logits is not None and other.logits is not None
                worst = max(worst, float(np.abs(one.logits - other.logits).max()))
                n_readouts += 1
    print(f"same greedy answers: {alike} of {len(questions)}")
    print(f"largest difference of a logit: {worst:.2e} over {n_readouts} readouts")
    return alike == len(questions) and worst <= 1e-3


def measure(model: Model, question: str, blocks: int, n_tokens: int) -> dict[str, float]:
    """One question: to its first token, and the tokens after it."""
    wall, cpu = time.perf_counter(), time.process_time()
    first = model.ask(question, blocks=blocks, max_tokens=1)
    cpu_first = time.process_time() - cpu
    cpu = time.process_time()
    whole = model.ask(question, blocks=blocks, max_tokens=n_tokens)
    cpu_whole = time.process_time() - cpu
    more = max(1, whole.tokens.answer - first.tokens.answer)
    return {
        "ttft_ms": first.timings.ttft_ms,
        "ttft_cpu_ms": cpu_first * 1e3,
        "token_ms": (whole.timings.total_ms - first.timings.total_ms) / more,
        "token_cpu_ms": (cpu_whole - cpu_first) * 1e3 / more,
        "wall_ms": (time.perf_counter() - wall) * 1e3,
    }


def timing(paths: list[Path], question: str, blocks: list[int], n_tokens: int, rounds: int, n_threads: int) -> None:
    models = {path.name: rim_edge.load(path, n_threads=n_threads) for path in paths}
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for turn in range(rounds + 1):
        for depth in blocks:
            for name, model in models.items():
                taken = measure(model, question, depth, n_tokens)
                if turn:  # the first one warms up
                    found.setdefault((name, depth), []).append(taken)
    print(f"{n_threads} thread(s), {rounds} rounds, medians; answer of up to {n_tokens} tokens")
    print("| model | MiB | blocks | TTFT ms | TTFT CPU ms | tokens/s | CPU ms per token |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for (name, depth), runs in found.items():
        median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        size = models[name].info.size_bytes / 2**20
        print(
            f"| {name} | {size:.0f} | {depth} | {median['ttft_ms']:.1f} | {median['ttft_cpu_ms']:.1f} | "
            f"{1e3 / max(median['token_ms'], 1e-3):.1f} | {median['token_cpu_ms']:.2f} |"
        )
    for model in models.values():
        model.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the ONNX back end with the GGUF one on the same model.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    alike = verbs.add_parser("parity", help="same answers and logits, in F32")
    alike.add_argument("gguf", type=Path)
    alike.add_argument("onnx", type=Path)
    alike.add_argument("--questions", type=Path, help="one per line, or JSON lines with a field question")
    alike.add_argument("--max-tokens", type=int, default=24)
    alike.add_argument("--threads", type=int)
    cost = verbs.add_parser("timing", help="time to first token and time per token, taking turns")
    cost.add_argument("models", type=Path, nargs="+")
    cost.add_argument("--blocks", type=int, nargs="+", default=[0, 8])
    cost.add_argument("--tokens", type=int, default=33)
    cost.add_argument("--rounds", type=int, default=5)
    cost.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.verb == "parity":
        questions = read_questions(options.questions)
        return 0 if parity(options.gguf, options.onnx, questions, options.max_tokens, options.threads) else 1
    timing(options.models, QUESTION, options.blocks, options.tokens, options.rounds, options.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
