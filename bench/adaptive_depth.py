"""What adaptive depth (``blocks="auto"``) does to depth, accuracy and time.

    python bench/adaptive_depth.py [MODEL.gguf] [-n 400] [--steps 2-5] [--seed 7] [--timed 100] [--threads N]

Every test problem runs once at full depth with all readouts decoded. Later blocks do not change earlier readouts, so
each halting rule can be replayed on what was recorded. The time is measured apart: ``--timed`` questions one by one,
fixed depths and ``auto`` in turn for each question: time to the first token, and processor time of the whole answer,
which other work on the machine disturbs less (with ``--threads 1``).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import rim_edge
from rim_edge import Answer, Model
from rim_edge.depth import DEFAULT_RULE, HaltingRule
from rim_edge.selection import value_key
from train.data import generate, parse_steps


def stop_depth(rule: HaltingRule, answer: Answer) -> int:
    """The depth at which ``rule`` would have stopped on the recorded readouts."""
    for depth in rule.depths(len(answer.readouts)):
        if depth == len(answer.readouts) or rule.sure(answer.readouts[:depth]):
            return depth
    raise AssertionError("the last group always ends it")


def replay(rule: HaltingRule, answers: Sequence[Answer], expected: Sequence[str]) -> tuple[float, float, float]:
    """Mean depth, accuracy, and share of questions that stopped early under ``rule``."""
    depths = [stop_depth(rule, answer) for answer in answers]
    right = [
        value_key(answer.readouts[depth - 1].value or "") == value_key(truth)
        for answer, depth, truth in zip(answers, depths, expected, strict=True)
    ]
    deepest = len(answers[0].readouts)
    return statistics.mean(depths), statistics.mean(right), statistics.mean(depth < deepest for depth in depths)


def rules(has_probe: bool) -> list[tuple[str, HaltingRule]]:
    """Rules to compare: other groups, other thresholds."""
    made = []
    for groups in ((2,), (4,), (2, 4)):
        if has_probe:
            for score in (0.5, 0.7, 0.8, 0.9, 0.95):
                made.append((f"groups {groups}, probe >= {score}", HaltingRule(groups=groups, probe=score)))
        else:
            for entropy in (0.1, 0.5, 1.0, 1.5, 9.0):
                made.append((f"groups {groups}, entropy <= {entropy}", HaltingRule(groups=groups, entropy=entropy)))
    return made


def accuracy(model: Model, arguments: argparse.Namespace) -> None:
    """Print accuracy by depth and by rule."""
    assert model.spec is not None
    problems = list(generate("test", arguments.steps, arguments.n, arguments.seed))
    questions = [problem.question for problem in problems]
    expected = [str(problem.values[-1]) for problem in problems]
    answers = model.ask_many(questions, readouts=True, max_tokens=24)
    print(f"{'':34}{'depth':>7}{'right':>8}{'early':>8}")
    for depth in range(1, model.spec.block_count + 1):
        right = [
            value_key(answer.readouts[depth - 1].value or "") == value_key(truth)
            for answer, truth in zip(answers, expected, strict=True)
        ]
        print(f"{f'fixed depth {depth}':34}{depth:7}{statistics.mean(right):8.1%}")
    for name, rule in [("auto (default rule)", DEFAULT_RULE), *rules(model.spec.has_probe)]:
        depth, right, early = replay(rule, answers, expected)
        print(f"{name:34}{depth:7.2f}{right:8.1%}{early:8.1%}")


def times(model: Model, arguments: argparse.Namespace) -> None:
    """Print the median time to the first token of fixed depths and of ``auto``."""
    assert model.spec is not None
    problems = generate("test", arguments.steps, arguments.timed, arguments.seed)
    questions = [problem.question for problem in problems]
    plans = (0, *DEFAULT_RULE.depths(model.spec.block_count), "auto")
    first: dict[object, list[float]] = {plan: [] for plan in plans}
    cpu: dict[object, list[float]] = {plan: [] for plan in plans}
    model.ask(questions[0])
    for question in questions:
        for plan in plans:
            before = time.process_time()
            answer = model.ask(question, blocks=plan, max_tokens=8)  # type: ignore[arg-type]
            cpu[plan].append(1e3 * (time.process_time() - before))
            first[plan].append(answer.timings.ttft_ms)
    print(f"\n{'blocks':>10}{'TTFT ms, median':>18}{'fastest quarter':>17}{'CPU ms, whole answer':>22}")
    for plan, values in first.items():
        quarter = statistics.quantiles(values, n=4)[0]
        print(f"{plan!s:>10}{statistics.median(values):18.1f}{quarter:17.1f}{statistics.median(cpu[plan]):22.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a GGUF file; the bundled model by default")
    parser.add_argument("-n", type=int, default=400, help="problems")
    parser.add_argument("--steps", type=parse_steps, default=(2, 3, 4, 5), help="steps of the problems, from-to")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--timed", type=int, default=100, help="questions whose time is measured; 0: none")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    with rim_edge.load(arguments.model, n_threads=arguments.threads) as model:
        print(f"{model.info.description}, {arguments.n} problems of {arguments.steps} steps")
        accuracy(model, arguments)
        if arguments.timed:
            times(model, arguments)


if __name__ == "__main__":
    main()
