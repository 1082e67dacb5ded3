"""Three ratios of one model with memory blocks: what blocks add to the first token, what several readouts cost, and how
near decoding comes to the memory's speed.

    python bench/ratios.py MODEL.gguf [--prompt-tokens 106] [--threads N] [--rounds 7] [--early 0.83]

Everything is measured in turn in every round, and ratios are taken within a round, so a machine that is faster or
slower for a while changes no ratio. Prints medians and quartiles.

    first token   a question of random tokens up to the logits of its answer: direct, all blocks at once, the first
                  group of blocks="auto" alone, and that group with the others after it. "auto" is their mean, where
                  --early of the questions end after the first (rim-tiny's: five in six, docs/adaptive-depth.md).
    readouts      a decoding step of one answer, and of the answers of all blocks side by side.
    read          bytes of a one-answer step (weights and cache) a second, over what as many threads read of plain
                  memory, a buffer of the weights' size, mean of just before and just after.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rim_edge import _native
from rim_edge.benchmark.engine import Engine
from rim_edge.benchmark.statistics import interleave, paired_ratio, summarize
from rim_edge.benchmark.work import Work, steps
from rim_edge.depth import DEFAULT_RULE
from rim_edge.errors import RimError

N_STEPS = 24


def read(engine: Engine, work: Work, n_prompt: int, n_threads: int, depth: int) -> tuple[float, float]:
    """GB/s of decoding one answer, and of plain reading."""

    def plain() -> float:
        size = max(work.weight_bytes, 1 << 20)
        return 1e-9 * max(_native.read_bandwidth(size, n_threads=n_threads, n_samples=3, min_seconds=0.05))

    before = plain()
    step_ms = engine.readouts(engine.text(n_prompt), depth, False, N_STEPS)["step_ms"]
    n_bytes = work.bytes(steps(N_STEPS, n_prompt)) / N_STEPS
    return 1e-6 * n_bytes / step_ms, (before + plain()) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompt-tokens", type=int, default=106)
    parser.add_argument("--threads", type=int, default=_native.physical_cores())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--early", type=float, default=5 / 6, help="share of answers that end after the first group")
    arguments = parser.parse_args()
    n_prompt = arguments.prompt_tokens
    try:
        engine = Engine(arguments.model, n_threads=arguments.threads)
        file = _native.GgufFile(arguments.model)
    except RimError as error:
        raise SystemExit(f"Error: {error}") from None
    facts, work = engine.facts(), Work(file.metadata, file.tensors)
    if facts["no_blocks"]:
        raise SystemExit(
            f"Error: {arguments.model}: {facts['no_blocks']}; bench/random_model.py writes files with blocks"
        )
    deepest = facts["blocks"]
    groups = DEFAULT_RULE.depths(deepest)
    ways = {
        "direct": (0,),
        f"{deepest} blocks": (deepest,),
        f"{groups[0]} blocks": groups[:1],
        " then ".join(map(str, groups)): groups,
    }

    def line(name: str, values: Sequence[float], unit: str, ratios: Sequence[float], of: Sequence[float]) -> None:
        ratio, value = paired_ratio(ratios, of), summarize(values)
        print(
            f"  {name:16s}{value.median:9.2f} {unit:5s}{ratio.median:7.2f} x"
            f"   quartiles {ratio.low_quartile:.2f}-{ratio.high_quartile:.2f}",
            flush=True,
        )

    print(f"{Path(arguments.model).name}, {arguments.threads} threads, question of {n_prompt} tokens")
    tokens = (n_prompt + deepest * len(facts["block_tokens"])) / n_prompt
    print(f"first token; {deepest} blocks are {tokens:.2f} x the tokens")

    def first_token(depths: Sequence[int], number: int) -> float:
        return engine.readouts(engine.text(n_prompt, number + 1), depths[0], True, then=depths[1:])["pass_ms"]

    firsts = interleave({name: partial(first_token, depths) for name, depths in ways.items()}, arguments.rounds)
    direct = firsts["direct"]
    for name, samples in firsts.items():
        line(name, samples, "ms", samples, direct)
    early, late = firsts[f"{groups[0]} blocks"], firsts[" then ".join(map(str, groups))]
    mean = [arguments.early * a + (1 - arguments.early) * b for a, b in zip(early, late, strict=True)]
    line("auto", mean, "ms", mean, direct)

    print("a step of decoding")
    text = engine.text(n_prompt)

    def step(every: bool, _: int) -> float:
        return engine.readouts(text, deepest, every, N_STEPS)["step_ms"]

    taken = interleave(
        {"1 readout": partial(step, False), f"{deepest} readouts": partial(step, True)}, arguments.rounds
    )
    for name, samples in taken.items():
        line(name, samples, "ms", samples, taken["1 readout"])

    print("read from memory")
    rates = [read(engine, work, n_prompt, arguments.threads, deepest) for _ in range(arguments.rounds)]
    decoding, plain = [rate for rate, _ in rates], [rate for _, rate in rates]
    line("plain", plain, "GB/s", plain, plain)
    line("decoding", decoding, "GB/s", decoding, plain)


if __name__ == "__main__":
    main()
