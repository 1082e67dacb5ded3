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
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from rim_edge import _native
from rim_edge.backends.base import LoadOptions, Sampling
from rim_edge.backends.gguf import GgufBackend
from rim_edge.benchmark.statistics import interleave, paired_ratio, summarize
from rim_edge.benchmark.work import Work, steps
from rim_edge.depth import DEFAULT_RULE
from rim_edge.errors import RimError, UnsupportedError

N_STEPS = 24


class Model:
    """One model, one session; every sample starts from an empty cache.

    Raises:
        RimError: as loading does; the file has no memory blocks.
    """

    def __init__(self, path: str, n_threads: int, n_prompt: int) -> None:
        self._backend = GgufBackend(Path(path), LoadOptions(n_threads=n_threads))
        if self._backend.spec is None:
            raise UnsupportedError(
                f"{path} has no memory-slot metadata (rim.*): bench/random_model.py writes files with it"
            )
        self.spec = self._backend.spec
        self._n_threads, self._n_prompt = n_threads, n_prompt
        control = set(self._backend.tokenizer.control_texts.values())
        self._ordinary = [token for token in range(self._backend.info.n_vocab) if token not in control]
        room = self.spec.block_count * (self.spec.block_width + 1 + N_STEPS)
        self._session = self._backend.open(n_prompt + room + 1, 1, blocks=True)
        head = _native.GgufFile(path)
        self._work = Work(head.metadata, head.tensors)

    def first_token(self, depths: Sequence[int], number: int) -> float:
        """Milliseconds until the last of ``depths`` is read out, one group after the other."""
        prompt = [int(token) for token in np.random.default_rng(number + 1).choice(self._ordinary, self._n_prompt)]
        self._session.reset()
        began = time.perf_counter()
        self._session.think([prompt], depths[0])
        for depth in depths[1:]:
            self._session.extend(depth)
        return 1e3 * (time.perf_counter() - began)

    def step(self, blocks: Sequence[int]) -> float:
        """Milliseconds of a step that decodes the answers of ``blocks``, mean of N_STEPS."""
        self._session.reset()
        self._session.think([self._ordinary[: self._n_prompt]], self.spec.block_count)
        decoded = self._session.decode([(0, block) for block in blocks], Sampling(ignore_end=True), N_STEPS)
        first, *_, last = decoded[-1].seconds
        return float(1e3 * (last - first) / (N_STEPS - 1))

    def read(self) -> tuple[float, float]:
        """GB/s of decoding one answer, and of plain reading."""
        before = self._plain()
        seconds = 1e-3 * self.step([self.spec.block_count])
        passes = steps(N_STEPS, self._n_prompt)
        return 1e-9 * self._work.bytes(passes) / (N_STEPS * seconds), (before + self._plain()) / 2

    def _plain(self) -> float:
        size = max(self._work.weight_bytes, 1 << 20)
        return 1e-9 * max(_native.read_bandwidth(size, n_threads=self._n_threads, n_samples=3, min_seconds=0.05))


def step_of(model: Model, blocks: Sequence[int], number: int) -> float:
    del number  # the same tokens every time
    return model.step(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompt-tokens", type=int, default=106)
    parser.add_argument("--threads", type=int, default=_native.physical_cores())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--early", type=float, default=5 / 6, help="share of answers that end after the first group")
    arguments = parser.parse_args()
    try:
        model = Model(arguments.model, arguments.threads, arguments.prompt_tokens)
    except RimError as error:
        raise SystemExit(f"Error: {error}") from None
    deepest = model.spec.block_count
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

    n_prompt = arguments.prompt_tokens
    print(f"{Path(arguments.model).name}, {arguments.threads} threads, question of {n_prompt} tokens")
    tokens = (n_prompt + deepest * model.spec.block_width) / n_prompt
    print(f"first token; {deepest} blocks are {tokens:.2f} x the tokens")
    turns = {name: partial(model.first_token, depths) for name, depths in ways.items()}
    firsts = interleave(turns, arguments.rounds)
    direct = firsts["direct"]
    for name, samples in firsts.items():
        line(name, samples, "ms", samples, direct)
    early, late = firsts[f"{groups[0]} blocks"], firsts[" then ".join(map(str, groups))]
    mean = [arguments.early * a + (1 - arguments.early) * b for a, b in zip(early, late, strict=True)]
    line("auto", mean, "ms", mean, direct)

    print("a step of decoding")
    several = {"1 readout": [deepest], f"{deepest} readouts": range(1, deepest + 1)}
    taken = interleave({name: partial(step_of, model, blocks) for name, blocks in several.items()}, arguments.rounds)
    for name, samples in taken.items():
        line(name, samples, "ms", samples, taken["1 readout"])

    print("read from memory")
    rates = [model.read() for _ in range(arguments.rounds)]
    decoding, plain = [rate for rate, _ in rates], [rate for _, rate in rates]
    line("plain", plain, "GB/s", plain, plain)
    line("decoding", decoding, "GB/s", decoding, plain)


if __name__ == "__main__":
    main()
