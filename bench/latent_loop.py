"""What the latent loop costs, in ratios measured side by side.

    python bench/latent_loop.py [MODEL.gguf] [--question 74] [--answer 32] [--rounds 15] [--threads N] [--cpu-time]

Without a model a tiny one of 256 dimensions is made (random weights). Every round runs all variants one after the other
on the same tokens. Two ratios are printed: of the best times over all rounds, which a busy machine disturbs least, and
the median of the ratios within each round. Blocks are made of any three tokens: the cost is the same.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import llama_cpp
import numpy as np

from rim_edge import _native

SIZE, COUNT = 2, 8


def tiny_model(folder: str) -> Path:
    from shapes import make_model

    return make_model(Path(folder) / "tiny.gguf", "llama", outtype="bf16", n_embd=256, n_layer=6, n_head=8, n_head_kv=4)


def milliseconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return 1000 * (clock() - start)


class Ours:
    """One session with COUNT blocks; every call starts from an empty cache."""

    def __init__(self, model: _native.Model, question: list[int], memory: list[int], answer: int, threads: int) -> None:
        layout = _native.Blocks(begin_id=memory[0], memory_id=memory[1], end_id=memory[2], size=SIZE, count=COUNT)
        self.session = _native.Session(model, layout, _native.SessionOptions(n_ctx=1024, n_threads=threads))
        self.question, self.answer = question, answer

    def think(self, depth: int = COUNT, all_readouts: bool = True, hidden: bool = False) -> None:
        self.session.reset()
        self.session.think([self.question], depth, all_readouts=all_readouts, hidden=hidden)

    def whole(self) -> None:
        self.think(all_readouts=False)
        self.session.decode([(0, COUNT)], _native.Sampling(), self.answer)

    def decode(self, blocks: list[int]) -> None:
        self.session.decode([(0, block) for block in blocks], _native.Sampling(), self.answer)


class Theirs:
    """llama_cpp.Llama on the same tokens."""

    def __init__(self, path: str, tokens: list[int], answer: int, threads: int, ends: Callable[[int], bool]) -> None:
        self.llama = llama_cpp.Llama(
            path, n_ctx=1024, n_batch=2048, n_threads=threads, n_threads_batch=threads, flash_attn=True, verbose=False
        )
        self.tokens, self.answer, self.ends = tokens, answer, ends

    def first(self) -> None:
        self.llama.reset()
        self.llama.eval(self.tokens)
        self.llama.sample(temp=0.0, repeat_penalty=1.0)

    def whole(self) -> None:
        self.llama.reset()
        for i, token in enumerate(self.llama.generate(self.tokens, temp=0.0, repeat_penalty=1.0, reset=False), 1):
            if i == self.answer or self.ends(token):
                break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--question", type=int, default=74, help="tokens of the question (%(default)s)")
    parser.add_argument("--answer", type=int, default=32, help="tokens of the answer (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0, help="0: physical cores")
    parser.add_argument("--only", nargs="+", help="variants to run (all)")
    parser.add_argument("--cpu-time", action="store_true", help="time of one computing thread, for busy machines")
    arguments = parser.parse_args()
    threads = 1 if arguments.cpu_time else arguments.threads or _native.physical_cores()
    clock = time.thread_time if arguments.cpu_time else time.perf_counter

    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or str(tiny_model(folder))
        model = _native.Model(path)
        ordinary = [t for t in range(model.n_vocab) if t not in set(model.control_ids)]
        question = [int(t) for t in np.random.default_rng(0).choice(ordinary, arguments.question)]
        memory = ordinary[:3]
        tokens = question + [memory[0], *[memory[1]] * SIZE, memory[2]] * COUNT
        ours = Ours(model, question, memory, arguments.answer, threads)
        theirs = Theirs(path, tokens, arguments.answer, threads, model.is_eog)
        variants: dict[str, Callable[[], None]] = {
            "direct": lambda: ours.think(0),
            "one": lambda: ours.think(all_readouts=False),
            "all": ours.think,
            "hidden": lambda: ours.think(hidden=True),
            "llama first": theirs.first,
            "whole": ours.whole,
            "llama whole": theirs.whole,
        }
        if arguments.only:
            variants = {name: variants[name] for name in arguments.only}
        rounds: list[dict[str, float]] = []
        for i in range(arguments.rounds + 2):
            times = {name: milliseconds(work, clock) for name, work in variants.items()}
            if not arguments.only:
                ours.think()
                times["decode one"] = milliseconds(lambda: ours.decode([COUNT]), clock)
                times["decode all"] = milliseconds(lambda: ours.decode(list(range(1, COUNT + 1))), clock)
            if i >= 2:
                rounds.append(times)

    def best(name: str) -> float:
        return min(times[name] for times in rounds)

    def median(name: str) -> float:
        return statistics.median(times[name] for times in rounds)

    print(f"{model.description}, {len(question)} + {len(tokens) - len(question)} tokens, {threads} threads", end=", ")
    print(f"{len(rounds)} rounds; best and median" + (", CPU time" if arguments.cpu_time else ""))
    for name in rounds[0]:
        print(f"  {name:12} {best(name):9.2f} {median(name):9.2f} ms")
    for text, name, other in [
        ("8 readouts against 1", "all", "one"),
        ("hidden states on against off", "hidden", "all"),
        ("8 blocks against direct", "one", "direct"),
        ("8 answers against 1", "decode all", "decode one"),
        ("one readout, against llama_cpp.Llama", "one", "llama first"),
        ("8 readouts, against llama_cpp.Llama", "all", "llama first"),
        ("whole answer, against llama_cpp.Llama", "whole", "llama whole"),
    ]:
        if name not in rounds[0] or other not in rounds[0]:
            continue
        ratio = statistics.median(times[name] / times[other] for times in rounds)
        print(f"  {text:38} x {best(name) / best(other):.3f}   {ratio:.3f}")


if __name__ == "__main__":
    main()
