"""Word problems as JSONL, in three disjoint splits.

    python -m train.data --split train|probe|test --steps 2-5 -n N --seed S [-o FILE]

One line per problem: ``question`` (str), ``steps`` (the solving equations in order, such as ``["5+3=8", "8*2=16"]``)
and ``answer`` (str, the last value). A hash of its canonical operations and numbers (names, items and wording removed)
says to which split a problem belongs, so no test problem was ever trained in other words. What is learnt about a model
that is trained, such as its probe, comes from the split ``probe``. Standard library only; the same arguments always
give the same lines.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from train.kinds import draw_kind, problem
from train.problems import MAX_VALUE, Problem

SPLITS = ("train", "probe", "test")
HELD_OUT_SHARE = 16  # one of so many canonical forms is not for training; half of these are test problems


def split_of(canonical: str) -> str:
    """The split to which a canonical form belongs. Single operations (and none) are all for training."""
    if canonical.count("(") <= 1:
        return "train"
    number = int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:8], "little")
    if number % HELD_OUT_SHARE:
        return "train"
    return "probe" if number % (2 * HELD_OUT_SHARE) else "test"


def draw(rng: random.Random, split: str, n_steps: int, max_value: int = MAX_VALUE, kind: str | None = None) -> Problem:
    """A random problem of ``split`` with exactly ``n_steps`` steps, of a given kind or of any.

    The kind is drawn first, so that both splits have the same shares of kinds.
    """
    kind = kind or draw_kind(rng)
    while True:
        made = problem(rng, n_steps, max_value, kind=kind)
        if split_of(made.canonical) == split:
            return made


def generate(split: str, steps: tuple[int, ...], count: int, seed: int) -> Iterator[Problem]:
    """``count`` problems with distinct questions, the step counts in turn.

    Raises ValueError when the language has too few distinct questions of this kind, or none.
    """
    if split != "train" and 1 in steps:
        raise ValueError(f"the {split} split starts at 2 steps: single operations are all for training")
    rng = random.Random(f"{split}/{steps}/{seed}")
    seen: set[bytes] = set()
    repeats = 0
    while len(seen) < count:
        made = draw(rng, split, steps[len(seen) % len(steps)])
        key = hashlib.blake2b(made.question.encode(), digest_size=8).digest()
        if key in seen:
            repeats += 1
            if repeats > 1000 + 10 * count:
                raise ValueError(f"only {len(seen)} distinct problems of {steps} steps were found")
            continue
        seen.add(key)
        yield made


def as_json(made: Problem) -> str:
    """One line of the JSONL file."""
    return json.dumps({"question": made.question, "steps": made.steps, "answer": str(made.values[-1])})


def parse_steps(text: str) -> tuple[int, ...]:
    """``"3"`` or ``"2-5"`` as step counts. Raises argparse.ArgumentTypeError for anything else."""
    low, dash, high = text.partition("-")
    if not (low.isdecimal() and (high.isdecimal() if dash else True)):
        raise argparse.ArgumentTypeError(f"{text!r} is no step count: give one number or a range such as 2-5")
    first, last = int(low), int(high) if dash else int(low)
    if not 1 <= first <= last <= 8:
        raise argparse.ArgumentTypeError(f"{text!r}: steps must rise and lie in 1 to 8")
    return tuple(range(first, last + 1))


def parse_count(text: str) -> int:
    """A positive number of problems. Raises argparse.ArgumentTypeError for anything else."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of problems: give a whole number from 1")
    return int(text)


def add_problem_options(parser: argparse.ArgumentParser, count: int, count_help: str, seed: int) -> None:
    """Which problems a command takes: ``--steps``, ``--count`` and ``--seed``, with the defaults of the command."""
    parser.add_argument("--steps", type=parse_steps, default=(2, 3, 4, 5), help="step count or range (default 2-5)")
    parser.add_argument("-n", "--count", type=parse_count, default=count, help=f"{count_help} (default {count})")
    parser.add_argument("--seed", type=int, default=seed, help=f"another gives other problems (default {seed})")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m train.data",
        description="Write multi-step arithmetic word problems as JSONL {question, steps, answer}.",
        epilog="example: python -m train.data --split test --steps 2-5 -n 1000 --seed 1 -o test.jsonl",
    )
    parser.add_argument("--split", choices=SPLITS, required=True, help="the splits share no operations and numbers")
    add_problem_options(parser, 1000, "number of problems", 0)
    parser.add_argument("-o", "--output", type=Path, help="file to write (default: standard output)")
    options = parser.parse_args(arguments)
    if options.split != "train" and 1 in options.steps:
        parser.error(f"the {options.split} split starts at 2 steps: single operations are all for training")
    lines = (as_json(made) + "\n" for made in generate(options.split, options.steps, options.count, options.seed))
    try:
        if options.output is None:
            sys.stdout.writelines(lines)
            sys.stdout.flush()
        else:
            from train.files import atomic_write

            with atomic_write(options.output) as stream:
                stream.writelines(line.encode() for line in lines)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (OSError, ValueError) as error:
        print(f"train.data: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
