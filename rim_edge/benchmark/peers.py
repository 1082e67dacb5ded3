"""Other engines on the same file and the same tokens, each in a child process of its own."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from typing import Any

from rim_edge.benchmark import machine
from rim_edge.errors import OptionError, UnsupportedError

#: name for ``--compare``: the class that a child process holds, the package that it needs
PEERS = {"llama-cpp-python": ("rim_edge.benchmark.peers:LlamaCpp", "llama_cpp")}


def check_peer(name: str) -> str:
    """The child's target for the peer ``name``.

    Raises:
        OptionError: there is no such peer, or its package is not installed.
    """
    if name not in PEERS:
        raise OptionError(f"there is no peer {name!r} to compare with, known are: {', '.join(PEERS)}")
    target, package = PEERS[name]
    if importlib.util.find_spec(package) is None:
        raise OptionError(f"{name} is not installed: pip install {name}")
    return target


class LlamaCpp:
    """``llama_cpp.Llama`` with the settings of :class:`rim_edge.benchmark.engine.Engine`.

    It knows no memory blocks: their tokens are ordinary ones at the end of the prompt. Arguments as of the engine.
    """

    def __init__(
        self,
        path: str,
        *,
        n_threads: int,
        n_ctx: int,
        n_gpu_layers: int = -1,
        cache_type: str = "f16",
        flash_attention: str = "auto",
        use_mmap: bool = True,
        n_batch: int = 2048,
    ) -> None:
        import llama_cpp

        began = time.perf_counter()
        kind = getattr(llama_cpp, f"GGML_TYPE_{cache_type.upper()}", None)
        if kind is None:
            raise UnsupportedError(f"llama-cpp-python has no cache type {cache_type}")
        self._llama: Any = llama_cpp.Llama(
            path,
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_ubatch=min(512, n_batch),
            n_threads=n_threads,
            n_threads_batch=n_threads,
            n_gpu_layers=n_gpu_layers,
            type_k=int(kind),
            type_v=int(kind),
            flash_attn=flash_attention != "off",
            use_mmap=use_mmap,
            verbose=False,
        )
        self._started = {
            "load_ms": 1e3 * (time.perf_counter() - began),
            "peak_rss_bytes": machine.peak_rss_bytes(),
        }

    def started(self) -> dict[str, float]:
        """``load_ms``, which model and context took when this process began, and ``peak_rss_bytes`` since."""
        return dict(self._started)

    def answer(self, tokens: Sequence[int], n_answer: int, n_thought: int = 0) -> dict[str, float]:
        """Greedy answer of ``n_thought + n_answer`` tokens after ``tokens``, from an empty context: times in ms.

        ``ttft_ms`` to token ``n_thought`` + 1, ``total_ms`` to the last one.
        """
        self._llama.reset()
        return self._run(tokens, n_answer, n_thought)

    def second_turn(self, first: Sequence[int], second: Sequence[int], reuse: bool) -> dict[str, float]:
        """``pass_ms`` to the first token after ``first + second``; with ``reuse`` ``first`` is in the cache before."""
        self._llama.reset()
        if reuse:
            self._llama.eval(list(first))
        return {"pass_ms": self._run([*first, *second], 1, 0, keep=reuse)["ttft_ms"]}

    def prefill(self, tokens: Sequence[int]) -> dict[str, float]:
        """``tokens`` up to the first answer token: ``tokens_per_s``."""
        return {"tokens_per_s": len(tokens) / self.answer(tokens, 1)["ttft_ms"] * 1e3}

    def decode(self, tokens: Sequence[int], n_tokens: int) -> dict[str, float]:
        """``n_tokens`` after ``tokens``: ``tokens_per_s`` from the first one on."""
        times = self.answer(tokens, n_tokens)
        return {"tokens_per_s": (n_tokens - 1) / (times["total_ms"] - times["ttft_ms"]) * 1e3}

    def memory(self) -> dict[str, float]:
        """``peak_rss_bytes`` of this process, pages of the mapped file included."""
        return {"peak_rss_bytes": machine.peak_rss_bytes()}

    def _run(self, tokens: Sequence[int], n_answer: int, n_thought: int, keep: bool = False) -> dict[str, Any]:
        began = time.perf_counter()
        first = 0.0
        pieces = self._llama.generate(list(tokens), temp=0.0, repeat_penalty=1.0, reset=keep)
        for index, _ in enumerate(pieces):
            if index == n_thought:
                first = time.perf_counter()
            if index + 1 == n_thought + n_answer:
                break
        ended = time.perf_counter()
        pieces.close()
        return {"ttft_ms": 1e3 * (first - began), "total_ms": 1e3 * (ended - began)}
