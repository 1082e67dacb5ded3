"""Our kernels beside libllama's own (RIM_EDGE_KERNELS=0), the same files, in turn.

    python bench/kernels.py MODEL.gguf... [--widths 32 74 106 512] [--threads N] [--rounds 5] [--cpu-time]

Two child processes per file, one of each kind, take a sample each in every round: prefill of random tokens at each
width, decoding of one answer and of eight side by side. Prints medians in tokens per second, and the median of the
ratios of the pairs. The load is timed too: opening, checking, mapping, laying out.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rim_edge.benchmark.child import Child
from rim_edge.benchmark.machine import peak_rss_bytes
from rim_edge.benchmark.statistics import interleave, paired_ratio, summarize

N_DECODED = 24
SIDE_BY_SIDE = 8


class Side:
    """A model in a child process."""

    def __init__(self, path: str, n_threads: int, cpu_time: bool) -> None:
        from rim_edge import _native

        self._clock = time.process_time if cpu_time else time.perf_counter
        began = self._clock()
        self._model = _native.Model(path)
        self._load = 1e3 * (self._clock() - began)
        options = _native.SessionOptions(n_ctx=1024, n_lanes=1, n_threads=n_threads)
        self._session = _native.Session(self._model, None, options)
        control = set(self._model.control_ids)
        self._ordinary = [token for token in range(self._model.n_vocab) if token not in control]
        many = _native.SessionOptions(n_ctx=1024, n_lanes=SIDE_BY_SIDE, n_threads=n_threads)
        self._many = _native.Session(self._model, None, many)
        self._native = _native

    def facts(self) -> dict[str, Any]:
        kernels = self._native.kernels()
        return {
            "active": kernels.active,
            "instructions": kernels.instructions,
            "load": self._load,
            "peak": peak_rss_bytes() / 1e6,
        }

    def prefill(self, width: int, seed: int) -> float:
        tokens = [int(token) for token in np.random.default_rng(seed).choice(self._ordinary, width)]
        self._session.reset()
        began = self._clock()
        self._session.think([tokens], 0)
        return width / (self._clock() - began)

    def decode(self, n: int, seed: int) -> float:
        del seed  # the same tokens every time
        session = self._session if n == 1 else self._many
        session.reset()
        session.think([[token + 7 * lane + 1 for token in self._ordinary[5:13]] for lane in range(n)], 0)
        began = self._clock()
        for step in range(N_DECODED):
            session.advance([(lane, 0) for lane in range(n)], self._ordinary[step * n : (step + 1) * n])
        return n * N_DECODED / (self._clock() - began)


def take(side: Child, method: str, values: dict[str, int], number: int) -> float:
    """A sample of a round; the warm-up round is number -1."""
    rate: float = side.call(method, **values, seed=number + 1)
    return rate


def measure(path: str, arguments: argparse.Namespace) -> None:
    setup = {"path": path, "n_threads": arguments.threads, "cpu_time": arguments.cpu_time}
    works: list[tuple[str, str, dict[str, int]]] = [(f"pp{n}", "prefill", {"width": n}) for n in arguments.widths]
    works += [("decode", "decode", {"n": 1}), (f"{SIDE_BY_SIDE} decodes", "decode", {"n": SIDE_BY_SIDE})]
    with (
        Child("kernels:Side", setup, name="ours") as ours,
        Child("kernels:Side", setup, name="libllama", environment={"RIM_EDGE_KERNELS": "0"}) as theirs,
    ):
        facts = [ours.call("facts"), theirs.call("facts")]
        print(f"{Path(path).name}: {facts[0]['instructions'] or 'no kernels of ours'}, {arguments.threads} threads")
        load, peak = ([side[key] for side in facts] for key in ("load", "peak"))
        print(f"  load ms {load[0]:8.0f} {load[1]:8.0f}    peak MB {peak[0]:6.0f} {peak[1]:6.0f}")
        for name, method, values in works:
            sides = {"ours": partial(take, ours, method, values), "libllama": partial(take, theirs, method, values)}
            samples = interleave(sides, arguments.rounds)
            medians = [summarize(side).median for side in samples.values()]
            ratio = paired_ratio(samples["ours"], samples["libllama"]).median
            print(f"  {name:10s} {medians[0]:8.1f} {medians[1]:8.1f}  x {ratio:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 74, 106, 512])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time instead: for one thread on a busy machine"
    )
    arguments = parser.parse_args()
    for path in arguments.models:
        measure(path, arguments)


if __name__ == "__main__":
    main()
