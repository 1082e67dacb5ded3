"""RiM Edge as something to measure: lives in a child process, each method takes one sample.

A sample starts from an empty context, on weights that are loaded and sessions that are open: what a second question of
a user meets. All answers are greedy and of a given length; tokens that would end them end nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from rim_edge import _native, loop
from rim_edge.backends.base import BackendSession, Decoded, LoadOptions, Sampling
from rim_edge.backends.gguf import GgufBackend, GgufSession
from rim_edge.benchmark import machine, questions
from rim_edge.context import Context
from rim_edge.options import check
from rim_edge.prompt import PromptBuilder

_GREEDY = Sampling(ignore_end=True)
Sample = dict[str, float]


class Engine:
    """One GGUF model. Arguments as of :func:`rim_edge.load`.

    Raises:
        ModelFileError, SpecError, OptionError, UnsupportedError: as loading does.
    """

    def __init__(
        self,
        path: str,
        *,
        n_threads: int | None = None,
        n_ctx: int | None = None,
        n_gpu_layers: int = -1,
        cache_type: str = "f16",
        flash_attention: str = "auto",
        use_mmap: bool = True,
        n_batch: int = 2048,
    ) -> None:
        self._path, self._n_ctx = Path(path), n_ctx
        self._options = LoadOptions(
            n_threads=n_threads or _native.physical_cores(),
            n_gpu_layers=n_gpu_layers,
            cache_type=cache_type,
            flash_attention=flash_attention,
            use_mmap=use_mmap,
            n_batch=n_batch,
        )
        self._load_ms = self._open()

    def _open(self) -> float:
        began = time.perf_counter()
        self._backend = GgufBackend(self._path, self._options)
        taken = 1e3 * (time.perf_counter() - began)
        self._prompts = PromptBuilder(self._backend.tokenizer, self._backend.spec)
        self._counting = PromptBuilder(self._backend.tokenizer, self._backend.spec)
        self._context = Context(self._backend, self._n_ctx)
        self._sessions: dict[tuple[object, ...], GgufSession] = {}
        return taken

    # ---- facts ------------------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """What the model is, and how it runs."""
        backend, spec = self._backend, self._backend.spec
        runs_blocks = spec is not None and not backend.coupled_reason
        reason = backend.coupled_reason or "the model has no memory-slot metadata (rim.*)"
        return {
            "description": backend.info.description,
            "n_params": backend.info.n_params,
            "weight_bytes": backend.info.size_bytes,
            "n_ctx": self._context.n_ctx,
            "n_threads": self._options.n_threads,
            "blocks": spec.block_count if spec is not None and runs_blocks else 0,
            "block_tokens": list(spec.block_tokens) if spec is not None and runs_blocks else [],
            "prefix_tokens": list(backend.prefix),
            "n_positions": backend.n_positions,
            "on_gpu": backend.on_gpu,
            "block_room": self._context.block_room,
            "no_blocks": "" if runs_blocks else reason,
        }

    def started(self) -> Sample:
        """``load_ms``, which the model took when this process began, and ``peak_rss_bytes`` since."""
        return {"load_ms": self._load_ms, "peak_rss_bytes": machine.peak_rss_bytes()}

    def reload(self) -> Sample:
        """Give the weights back and load them again, from pages that the system still holds."""
        for session in self._sessions.values():
            session.close()
        self._backend.close()
        return {"load_ms": self._open()}

    def question(self, n_tokens: int, variant: int) -> dict[str, Any]:
        """A question whose prompt has about ``n_tokens`` tokens, and those tokens."""
        text = questions.question(n_tokens, variant, lambda text: len(self._counting.question(text, None).tokens))
        return {"text": text, "tokens": self._counting.question(text, None).tokens}

    # ---- answers ----------------------------------------------------------------------------------------------------

    def answer(self, question: str, blocks: int | Literal["auto"], n_answer: int, n_thought: int = 0) -> Sample:
        """Answer as ``Model.ask`` does, with ``n_thought`` tokens of reasoning before ``n_answer`` ones of answer.

        Returns:
            ``prompt_ms`` from text to tokens, ``ttft_ms`` to the first token of the answer, ``total_ms`` to its last
            one, each from the question's text on; ``depth``, ``n_prompt``.
        """
        spec, backend, context = self._backend.spec, self._backend, self._context
        request = check({"blocks": blocks, "max_tokens": n_thought + n_answer}, spec, backend.coupled_reason)
        request = replace(request, sampling=_GREEDY)
        session = self._session("answer", context.n_ctx + context.block_room, 1, blocks=True)
        watched = _Watched(session)
        started = time.perf_counter()
        prompt = self._prompts.question(question, None).tokens
        prompted = time.perf_counter()
        limit = context.answer_limit(len(prompt))
        session.reset()
        (outcome,) = loop.run(backend, cast(BackendSession, watched), [prompt], request, limit, started=started)
        ended = time.perf_counter()
        first = watched.began + watched.decoded[0].seconds[n_thought]
        return {
            "prompt_ms": 1e3 * (prompted - started),
            "ttft_ms": 1e3 * (first - started),
            "total_ms": 1e3 * (ended - started),
            "depth": outcome.answer.depth,
            "n_prompt": len(prompt),
        }

    def readouts(
        self, tokens: Sequence[int], depth: int, every: bool, n_answer: int = 0, then: Sequence[int] = ()
    ) -> Sample:
        """One pass that reads out every block or the last alone, then their answers, ``n_answer`` tokens each.

        ``then``: greater depths after it, a pass each, as adaptive depth goes on; they count as part of the pass.

        Returns ``pass_ms`` and, with answers, ``step_ms``: mean time of a step that decodes all of them.
        """
        room = self._context.block_room + (depth if every else 1) * n_answer
        session = self._session("readouts", len(tokens) + room + 1, 1, blocks=True)
        session.reset()
        began = time.perf_counter()
        states = session.think([tokens], depth, all_readouts=every)
        for deeper in then:
            session.extend(deeper)
        taken = {"pass_ms": 1e3 * (time.perf_counter() - began)}
        if n_answer > 1:
            targets = [(0, state.block) for state in states[0]]
            taken["step_ms"] = 1e3 * _step_seconds(session.decode(targets, _GREEDY, n_answer))
        return taken

    def second_turn(self, n_first: int, n_second: int, depth: int, reuse: bool) -> Sample:
        """Text of ``n_first`` and then ``n_second`` tokens with ``depth`` blocks: ``pass_ms`` from the second part on.

        With ``reuse`` the first part is in the cache, as after the first turn of a chat; without it all is evaluated.
        """
        first, second = self.text(n_first, 1), self.text(n_second, 2)
        session = self._session("turns", n_first + n_second + self._context.block_room + 1, 1, blocks=depth > 0)
        session.reset()
        if reuse:
            session.prefill(first)
        began = time.perf_counter()
        session.think([first + second], depth)
        return {"pass_ms": 1e3 * (time.perf_counter() - began), "reused": session.counts.reused}

    # ---- raw speed --------------------------------------------------------------------------------------------------

    def text(self, n_tokens: int, seed: int = 0) -> list[int]:
        """``n_tokens`` ordinary tokens at random, always the same for a seed; a longer text begins as a shorter one."""
        control = set(self._backend.tokenizer.control_texts.values())
        ordinary = [token for token in range(self._backend.info.n_vocab) if token not in control]
        return [int(token) for token in np.random.default_rng(seed).choice(ordinary, max(n_tokens, 8192))][:n_tokens]

    def prefill(self, n_tokens: int, n_threads: int) -> Sample:
        """A text of ``n_tokens``, without blocks, up to its first answer token: ``tokens_per_s``."""
        text = self.text(n_tokens)
        session = self._session("prefill", n_tokens + 1, 1, n_threads=n_threads)
        session.reset()
        began = time.perf_counter()
        session.think([text], 0)
        return {"tokens_per_s": n_tokens / (time.perf_counter() - began)}

    def decode(self, n_lanes: int, n_past: int, n_tokens: int, n_threads: int) -> Sample:
        """``n_lanes`` answers side by side, each ``n_tokens`` after ``n_past``: ``tokens_per_s`` of all together."""
        session = self._session("decode", n_lanes * (n_past + n_tokens), n_lanes, n_threads=n_threads)
        session.reset()
        session.think([self.text(n_past, seed) for seed in range(n_lanes)], 0)
        decoded = session.decode([(lane, 0) for lane in range(n_lanes)], _GREEDY, n_tokens)
        return {"tokens_per_s": n_lanes / _step_seconds(decoded)}

    def memory(self) -> Sample:
        """``peak_rss_bytes`` of this process, pages of the mapped file included."""
        return {"peak_rss_bytes": machine.peak_rss_bytes()}

    def _session(
        self, purpose: str, n_cells: int, n_lanes: int, *, blocks: bool = False, n_threads: int | None = None
    ) -> GgufSession:
        key = (purpose, n_cells, n_lanes, blocks, n_threads)
        if key not in self._sessions:
            backend = self._backend if n_threads is None else self._backend.with_threads(n_threads)
            self._sessions[key] = backend.open(n_cells, n_lanes, blocks=blocks and not backend.coupled_reason)
        return self._sessions[key]


class _Watched:
    """A session that remembers when ``decode`` began and what it gave; all else goes to the session."""

    def __init__(self, session: GgufSession) -> None:
        self._session = session
        self.began = 0.0
        self.decoded: Sequence[Decoded] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def decode(self, *arguments: Any) -> Sequence[Decoded]:
        self.began = time.perf_counter()
        self.decoded = self._session.decode(*arguments)
        return self.decoded


def _step_seconds(decoded: Sequence[Decoded]) -> float:
    """Mean seconds of a step, out of answers of the same length that ran side by side."""
    seconds = decoded[-1].seconds
    return (seconds[-1] - seconds[0]) / (len(seconds) - 1)
