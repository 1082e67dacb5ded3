"""Score a model file on the test split, through the runtime that users have.

    python -m train.score rim_edge/models/rim-tiny.gguf -n 500 --seed 4242

Prints one row per step count: the last readout, any readout, the first block's readout, the probe's choice (where the
model has a probe) and the direct answer (0 blocks), in percent; ``--by-kind`` adds the last readout for each kind of
problem. Needs neither torch nor the training extra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import rim_edge
from rim_edge import Answer, RimError
from train.data import add_problem_options, generate
from train.kinds import KINDS


def probe_choice(answer: Answer) -> str | None:
    """The value of the readout that the probe scores highest."""
    best = max(answer.readouts, key=lambda readout: readout.probe or 0.0)
    return best.value


def shares(answers: Sequence[Answer], direct: Sequence[Answer], truths: Sequence[str], probe: bool) -> dict[str, float]:
    """Percent right of each way to answer."""
    pairs = list(zip(answers, truths, strict=True))
    right = {
        "last": [a.readouts[-1].value == y for a, y in pairs],
        "any block": [any(r.value == y for r in a.readouts) for a, y in pairs],
        "first block": [a.readouts[0].value == y for a, y in pairs],
    }
    if probe:
        right["probe's choice"] = [probe_choice(a) == y for a, y in pairs]
    right["direct"] = [a.value == y for a, y in zip(direct, truths, strict=True)]
    return {name: 100 * sum(hits) / len(hits) for name, hits in right.items()}


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.score",
        description="Score a GGUF on the test split, greedy, through rim_edge.",
        epilog="example: python -m train.score rim_edge/models/rim-tiny.gguf -n 500 --seed 4242",
    )
    parser.add_argument("model", type=Path, help="the GGUF file")
    add_problem_options(parser, 500, "problems per step count", 4242)
    parser.add_argument("--by-kind", action="store_true", help="also the last readout for each kind of problem")
    options = parser.parse_args(arguments)
    kinds: dict[str, list[str]] = {}
    try:
        with rim_edge.load(options.model) as model:
            probe = model.spec is not None and model.spec.has_probe
            for row, n_steps in enumerate(options.steps):
                problems = list(generate("test", (n_steps,), options.count, options.seed))
                questions = [p.question for p in problems]
                truths = [str(p.values[-1]) for p in problems]
                answers = model.ask_many(questions, readouts=True, max_tokens=4)
                direct = model.ask_many(questions, blocks=0, max_tokens=4)
                result = shares(answers, direct, truths, probe)
                if row == 0:
                    print("| steps | problems | " + " | ".join(result) + " |")
                    print("| --- " * (len(result) + 2) + "|")
                cells = " | ".join(f"{value:.1f}" for value in result.values())
                print(f"| {n_steps} | {len(problems)} | {cells} |", flush=True)
                for kind in KINDS:
                    hits = [
                        a.readouts[-1].value == y
                        for a, y, p in zip(answers, truths, problems, strict=True)
                        if p.kind == kind
                    ]
                    kinds.setdefault(kind, []).append(f"{100 * sum(hits) / max(1, len(hits)):.0f} ({len(hits)})")
        if options.by_kind:
            print("\n| last readout, percent (problems) | " + " | ".join(f"{n} steps" for n in options.steps) + " |")
            print("| --- " * (len(options.steps) + 1) + "|")
            for kind, cells_of_kind in kinds.items():
                print(f"| `{kind}` | " + " | ".join(cells_of_kind) + " |")
    except (RimError, ValueError) as error:
        print(f"train.score: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
