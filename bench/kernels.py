"""Our kernels beside those of llama.cpp and ik_llama.cpp, the same files, in turn.

    python bench/kernels.py MODEL.gguf... [--widths 32 74 106 512] [--threads N] [--rounds 5] [--cpu-time]

A child process per file and engine takes a sample in every round: prefill of random tokens at each width, decoding of
one answer and of eight side by side. Prints medians in tokens per second, and the median of the ratios of the pairs.
Before that, in a fresh process each time: the load (opening, checking, mapping, laying out) and a first question of 106
tokens on top of it, in milliseconds. The engines, as far as they are installed and run here:

    ours              rim_edge
    libllama          rim_edge with libllama's own kernels (RIM_EDGE_KERNELS=0)
    llama-cpp-python  the C functions of llama_cpp
    ik, ik-rtr        the C functions of ik_llama_cpp, without and with repacking at load

The library in ik-llama-cpp-python's wheel is for AVX2 only, and its source distribution 0.1.5 lacks a file that its
own build needs; this builds the library alone, for the processor at hand. It needs a folder of its own, because its
wheel also replaces the headers of llama-cpp-python:

    pip install --no-deps --target ik-python ik-llama-cpp-python==0.1.5 && export PYTHONPATH=$PWD/ik-python
    pip download --no-deps --no-binary ik-llama-cpp-python ik-llama-cpp-python==0.1.5
    tar xf ik_llama_cpp_python-0.1.5.tar.gz
    cmake -S ik_llama_cpp_python-0.1.5/vendor/ik_llama.cpp -B ik -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \\
      -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF
    cmake --build ik --target llama --parallel && export IK_LLAMA_CPP_LIB_PATH=$PWD/ik/src/libllama.so
"""

from __future__ import annotations

import argparse
import math
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from rim_edge.benchmark.child import Child, ChildEndedError
from rim_edge.benchmark.machine import peak_rss_bytes
from rim_edge.benchmark.statistics import interleave, paired_ratio, summarize
from rim_edge.errors import BackendError, RimError, UnsupportedError

N_DECODED = 24
SIDE_BY_SIDE = 8
FIRST_QUESTION = 106


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


class Functions:
    """llama.cpp's C functions in a child process, from llama_cpp or ik_llama_cpp: what ``Side`` measures, there.

    Raises UnsupportedError where the package is missing or refuses the file.
    """

    def __init__(self, path: str, n_threads: int, cpu_time: bool, module: str, repack: bool = False) -> None:
        try:
            self._c: Any = import_module(module)
        except ImportError:
            raise UnsupportedError(f"{module.partition('.')[0]} is not installed") from None
        self._clock = time.process_time if cpu_time else time.perf_counter
        began = self._clock()
        c = self._c
        c.llama_backend_init()
        options = c.llama_model_default_params()
        if repack:
            options.repack_tensors = True
        self._model = c.llama_model_load_from_file(path.encode(), options)
        if not self._model:
            raise UnsupportedError("the model could not be loaded")
        self._contexts = {n: self._context(n, n_threads) for n in (1, SIDE_BY_SIDE)}
        self._load = 1e3 * (self._clock() - began)
        self._n_vocab: int = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self._model))

    def _context(self, n_sequences: int, n_threads: int) -> Any:
        options = self._c.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_seq_max = 1024, 1024, n_sequences
        options.n_threads = options.n_threads_batch = n_threads
        for name in ("flash_attn", "kv_unified"):
            if hasattr(options, name):
                setattr(options, name, True)
        context = self._c.llama_init_from_model(self._model, options)
        if not context:
            raise UnsupportedError("no context could be made")
        return context

    def facts(self) -> dict[str, Any]:
        return {"instructions": "", "load": self._load, "peak": peak_rss_bytes() / 1e6}

    def prefill(self, width: int, seed: int) -> float:
        tokens = np.random.default_rng(seed).choice(self._n_vocab - 10, width)
        self._clear(1)
        began = self._clock()
        self._decode(1, [(int(token), place, 0) for place, token in enumerate(tokens)], [width - 1])
        return width / (self._clock() - began)

    def decode(self, n: int, seed: int) -> float:
        del seed
        self._clear(n)
        for lane in range(n):
            self._decode(n, [(20 + place, place, lane) for place in range(8)], [7])
        began = self._clock()
        for step in range(N_DECODED):
            self._decode(n, [(20 + step * n + lane, 8 + step, lane) for lane in range(n)], list(range(n)))
        return n * N_DECODED / (self._clock() - began)

    def _clear(self, n: int) -> None:
        context = self._contexts[n]
        if hasattr(self._c, "llama_kv_cache_clear"):
            self._c.llama_kv_cache_clear(context)
        else:
            self._c.llama_memory_clear(self._c.llama_get_memory(context), True)

    def _decode(self, n: int, tokens: list[tuple[int, int, int]], outputs: list[int]) -> None:
        """One pass of (token, position, sequence), and its logits at ``outputs``."""
        batch = self._c.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for index, (token, place, lane) in enumerate(tokens):
            batch.token[index], batch.pos[index] = token, place
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, lane
            batch.logits[index] = index in outputs
        if self._c.llama_decode(self._contexts[n], batch) != 0:
            raise BackendError("llama_decode failed")
        self._c.llama_get_logits_ith(self._contexts[n], outputs[-1])  # waits for the pass
        self._c.llama_batch_free(batch)


ENGINES: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "ours": ("kernels:Side", {}, {}),
    "libllama": ("kernels:Side", {}, {"RIM_EDGE_KERNELS": "0"}),
    "llama-cpp-python": ("kernels:Functions", {"module": "llama_cpp"}, {}),
    "ik": ("kernels:Functions", {"module": "ik_llama_cpp._ctypes_api"}, {}),
    "ik-rtr": ("kernels:Functions", {"module": "ik_llama_cpp._ctypes_api", "repack": True}, {}),
}
"""Name to the class in the child process, what it takes beside the model, and its environment."""


def take(side: Child, method: str, values: dict[str, int], number: int) -> float:
    """A sample of a round; the warm-up round is number -1. Not a number once the engine's process has ended."""
    try:
        rate: float = side.call(method, **values, seed=number + 1)
    except ChildEndedError as error:
        if number < 0:
            print(f"  {error}")
        return math.nan
    return rate


@dataclass
class Engine:
    """How an engine is started for one file, and what its processes told."""

    name: str
    setup: dict[str, Any]
    loads: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)

    def start(self, stack: ExitStack) -> Child:
        """The engine in a fresh process, with its first question answered."""
        target, more, environment = ENGINES[self.name]
        child = stack.enter_context(Child(target, {**self.setup, **more}, name=self.name, environment=environment))
        first = 1e3 * FIRST_QUESTION / child.call("prefill", width=FIRST_QUESTION, seed=0)
        self.loads.append(child.call("facts")["load"])
        self.firsts.append(self.loads[-1] + first)
        return child


def start_all(engines: list[Engine], stack: ExitStack) -> dict[str, Child]:
    """All in turn; one that does not run here leaves ``engines``, and a line says why."""
    children = {}
    for engine in list(engines):
        try:
            children[engine.name] = engine.start(stack)
        except RimError as error:
            print(f"  without {engine.name}: {error}")
            engines.remove(engine)
    return children


def measure(path: str, arguments: argparse.Namespace) -> None:
    setup = {"path": path, "n_threads": arguments.threads, "cpu_time": arguments.cpu_time}
    works: list[tuple[str, str, dict[str, int]]] = [(f"pp{n}", "prefill", {"width": n}) for n in arguments.widths]
    works += [("decode", "decode", {"n": 1}), (f"{SIDE_BY_SIDE} decodes", "decode", {"n": SIDE_BY_SIDE})]
    print(f"{Path(path).name}, {arguments.threads} threads")
    engines = [Engine(name, setup) for name in arguments.engines]
    for _ in range(arguments.rounds - 1):
        with ExitStack() as stack:
            start_all(engines, stack)
    with ExitStack() as stack:
        children = start_all(engines, stack)
        facts = {name: child.call("facts") for name, child in children.items()}
        if "ours" in facts:
            print(f"  ours: {facts['ours']['instructions'] or 'no kernels'}")
        others = [name for name in children if name != "ours"]
        heads = [*children, *(f"x {name}" for name in others if "ours" in children)]
        print(" " * 15 + "".join(f"{head:>{max(10, len(head) + 2)}}" for head in heads))

        def line(name: str, values: list[float], digits: int, ratios: list[float]) -> None:
            cells = [f"{value:.{digits}f}" for value in values] + [f"{ratio:.2f}" for ratio in ratios]
            widths = (max(10, len(head) + 2) for head in heads)
            cells = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False)]
            print(f"  {name:13s}" + "".join(cells), flush=True)

        def times(name: str, samples: dict[str, list[float]]) -> None:
            ratios = [paired_ratio(samples[other], samples["ours"]).median for other in others if "ours" in samples]
            line(name, [summarize(side).median for side in samples.values()], 0, ratios)

        times("load, ms", {engine.name: engine.loads for engine in engines})
        times("+ question, ms", {engine.name: engine.firsts for engine in engines})
        line("peak, MB", [fact["peak"] for fact in facts.values()], 0, [])
        for name, method, values in works:
            sides = {name: partial(take, child, method, values) for name, child in children.items()}
            samples = interleave(sides, arguments.rounds)
            ratios = [paired_ratio(samples["ours"], samples[other]).median for other in others if "ours" in samples]
            line(name, [summarize(side).median for side in samples.values()], 1, ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 74, 106, 512])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time instead: for one thread on a busy machine"
    )
    arguments = parser.parse_args()
    for path in arguments.models:
        measure(path, arguments)


if __name__ == "__main__":
    main()
