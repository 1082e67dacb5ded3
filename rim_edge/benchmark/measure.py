"""A model file measured in a child process of its own, alone or in turn with others.

    with FileChild("a.gguf", questions, n_threads=2) as a, FileChild("b.gguf", questions, n_threads=2) as b:
        samples = interleave({"a": a.sample, "b": b.sample}, rounds=5)
    print(summarize([sample["ttft_rim_ms"] for sample in samples["a"]]).median)

What each figure means is said in docs/bench.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rim_edge.benchmark.child import Child
from rim_edge.benchmark.statistics import Summary, interleave, paired_ratio, summarize

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ENGINE", "FileChild", "Summary", "interleave", "measure_file", "paired_ratio", "summarize"]

ENGINE = "rim_edge.benchmark.engine:Engine"


class FileChild:
    """One GGUF file in its child process. A context manager; :meth:`close` ends the process.

    Args:
        path: the file.
        questions: asked in turn, one per sample.
        n_threads: None: the physical cores that this process may use.
        prefill_tokens: length of the text for ``prefill_tokens_per_s``.
        decode_tokens: tokens decoded for ``decode_tokens_per_s``.
        options: further keyword arguments of :class:`rim_edge.benchmark.engine.Engine`.

    Attributes:
        facts: of the model, see ``Engine.facts``.

    Raises:
        RimError: as loading the file does.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        questions: Sequence[str],
        *,
        n_threads: int | None = None,
        prefill_tokens: int = 128,
        decode_tokens: int = 16,
        **options: Any,
    ) -> None:
        self._questions = list(questions)
        self._prefill_tokens, self._decode_tokens = prefill_tokens, max(2, decode_tokens)
        setup = {"path": os.fspath(path), "n_threads": n_threads, **options}
        self._child = Child(ENGINE, setup, name=Path(path).name)
        try:
            self.facts: dict[str, Any] = self._child.call("facts")
        except BaseException:
            self.close()
            raise

    def sample(self, number: int) -> dict[str, float | None]:
        """One sample of everything, with question ``number``.

        Returns:
            ``load_ms`` (again, from pages that the system holds), ``ttft_direct_ms``, ``ttft_rim_ms`` (None for a model
            without memory blocks), ``prefill_tokens_per_s``, ``decode_tokens_per_s``, ``peak_rss_bytes`` (of the whole
            life of the process so far).
        """
        ask, n_threads = self._child.call, self.facts["n_threads"]
        question = self._questions[number % len(self._questions)]
        load = ask("reload")
        blocks = self.facts["blocks"]
        ask("answer", question=question, blocks=blocks, n_answer=1)  # opens the session, touches all weights once
        direct = ask("answer", question=question, blocks=0, n_answer=1)
        rim = ask("answer", question=question, blocks=blocks, n_answer=1) if blocks else None
        width, n_past = self._prefill_tokens, min(32, self._prefill_tokens)
        ask("prefill", n_tokens=width, n_threads=n_threads)
        prefill = ask("prefill", n_tokens=width, n_threads=n_threads)
        decode = ask("decode", n_lanes=1, n_past=n_past, n_tokens=self._decode_tokens, n_threads=n_threads)
        return {
            "load_ms": load["load_ms"],
            "ttft_direct_ms": direct["ttft_ms"],
            "ttft_rim_ms": rim["ttft_ms"] if rim else None,
            "prefill_tokens_per_s": prefill["tokens_per_s"],
            "decode_tokens_per_s": decode["tokens_per_s"],
            "peak_rss_bytes": ask("memory")["peak_rss_bytes"],
        }

    def close(self) -> None:
        """End the process. May be called again."""
        self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def measure_file(
    path: str | os.PathLike[str],
    questions: Sequence[str],
    *,
    n_threads: int | None = None,
    rounds: int = 5,
    progress: Callable[[str, int], None] | None = None,
    **options: Any,
) -> dict[str, list[float | None]]:
    """Samples of one file: the keys of :meth:`FileChild.sample`, ``rounds`` values each.

    To compare files, take turns instead: one :class:`FileChild` each, and :func:`interleave`.
    """
    name = Path(path).name
    with FileChild(path, questions, n_threads=n_threads, **options) as child:
        samples = interleave({name: child.sample}, rounds, progress=progress)[name]
    return {key: [sample[key] for sample in samples] for key in samples[0]} if samples else {}
