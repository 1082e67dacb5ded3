"""How much ``ask_many`` gains over ``ask``, by the number of questions side by side.

    python bench/ask_many.py [MODEL.gguf] [-n 64] [--steps 2-5] [--batches 2,4,8,16,32] [--rounds 5]
                              [--threads N] [--max-tokens N]

Questions come from the test split of the bundled model's problems. Every round runs all variants one after the other; a
variant's time is the best of its rounds, once by the clock and once in processor time, which other work on the machine
disturbs less. Also said: how many answers differ from those of ``ask``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import rim_edge
from rim_edge import Answer, Model
from train.data import generate, parse_steps


def measure(
    variants: dict[str, Callable[[], list[Answer]]], rounds: int
) -> tuple[dict[str, tuple[float, float]], dict[str, list[Answer]]]:
    """Best (wall, processor) seconds of each variant over ``rounds``, and its last answers."""
    best = dict.fromkeys(variants, (float("inf"), float("inf")))
    answers: dict[str, list[Answer]] = {}
    for _ in range(rounds + 1):  # the first round opens contexts and is not counted
        for name, run in variants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            found = run()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if name in answers:
                best[name] = (min(best[name][0], wall), min(best[name][1], cpu))
            answers[name] = found
    return best, answers


def report(model: Model, questions: list[str], batches: list[int], rounds: int, most: int | None) -> None:
    """Measure and print one line per variant."""
    variants: dict[str, Callable[[], list[Answer]]] = {
        "ask, one by one": lambda: [model.ask(question, max_tokens=most) for question in questions]
    }
    for batch in batches:
        variants[f"ask_many, batch {batch}"] = lambda batch=batch: model.ask_many(
            questions, batch=batch, max_tokens=most
        )
    best, answers = measure(variants, rounds)
    alone_wall, alone_cpu = best["ask, one by one"]
    expected = [answer.text for answer in answers["ask, one by one"]]
    print(f"{'':22}{'questions/s':>12}{'gain':>7}{'CPU ms each':>13}{'gain':>7}{'differ':>8}")
    for name, (wall, cpu) in best.items():
        differ = sum(answer.text != text for answer, text in zip(answers[name], expected, strict=True))
        print(
            f"{name:22}{len(questions) / wall:12.1f}{alone_wall / wall:7.2f}"
            f"{1e3 * cpu / len(questions):13.2f}{alone_cpu / cpu:7.2f}{differ:8}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a GGUF file; the bundled model by default")
    parser.add_argument("-n", type=int, default=64, help="questions")
    parser.add_argument("--steps", type=parse_steps, default=(2, 3, 4, 5), help="steps of the problems, from-to")
    parser.add_argument("--batches", default="2,4,8,16,32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--max-tokens", type=int, help="of each answer")
    arguments = parser.parse_args()
    questions = [problem.question for problem in generate("test", arguments.steps, arguments.n, 7)]
    with rim_edge.load(arguments.model, n_threads=arguments.threads) as model:
        print(f"{model.info.description}, {arguments.n} questions, threads: {arguments.threads or 'all cores'}")
        report(
            model,
            questions,
            [int(batch) for batch in arguments.batches.split(",")],
            arguments.rounds,
            arguments.max_tokens,
        )


if __name__ == "__main__":
    main()
