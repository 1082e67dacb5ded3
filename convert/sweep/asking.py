"""A loaded model that answers problems at every readout, and that is led through given answers token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from rim_edge.arrays import FloatArray
from rim_edge.backends.base import LoadOptions, ReadoutState, Sampling
from rim_edge.backends.gguf import GgufBackend, GgufSession
from rim_edge.context import Context
from rim_edge.errors import OptionError
from rim_edge.evaluation.data import Problem
from rim_edge.evaluation.suites import fill, find_suite
from rim_edge.loop import find_value
from rim_edge.many import MOST_SEQUENCES
from rim_edge.prompt import PromptBuilder

from .plan import Settings

Target = tuple[int, int]  # lane and block
_GREEDY = Sampling()
_SPARE = 8  # cells


@dataclass(frozen=True)
class Given:
    """The answer of one readout.

    Attributes:
        tokens: without the end token. ended: whether an end token followed.
        text: with the answer prefix. value: what ``rim.answer_pattern`` finds in it, or None.
        confidence: mean log-probability of the tokens. probe: score of the readout, None without a probe.
    """

    tokens: tuple[int, ...]
    ended: bool
    text: str
    value: str | None
    confidence: float | None
    probe: float | None

    @property
    def n_rows(self) -> int:
        """Tokens that were chosen, the end token included."""
        return len(self.tokens) + self.ended


class Said(Protocol):
    """What a model would say next: its greedy token (never one that is not to be said) and its row of logits."""

    @property
    def token(self) -> int: ...
    @property
    def logits(self) -> FloatArray | None: ...


@dataclass(frozen=True)
class _Plain:
    token: int
    logits: FloatArray


class Runner:
    """A model file, loaded to answer ``settings.batch`` questions side by side. :meth:`close` frees it.

    Attributes:
        passes: depths that are run per question: 0 for the direct answer, K for the memory blocks.
        blocks: every readout, 0 first where the direct answer is asked for.
        why_direct: why there are no memory blocks, empty where there are.

    Raises:
        ModelFileError, SpecError, OptionError, UnsupportedError: the file cannot be run, or not with these settings.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.settings = settings
        options = LoadOptions(
            n_threads=settings.n_threads, cache_type=settings.cache_type, flash_attention=settings.flash_attention
        )
        self.backend = GgufBackend(path, options)
        try:
            self.spec = None if self.backend.coupled_reason else self.backend.spec
            self.why_direct = self.backend.coupled_reason or (
                "" if self.spec else "the model has no memory-slot metadata (rim.*)"
            )
            depth = self._depth(path)
            direct = self.spec is None or depth == 0 or self.spec.trained_direct
            self.passes = (*((0,) if direct else ()), *((depth,) if depth else ()))
            self.blocks = (*((0,) if direct else ()), *range(1, depth + 1))
            self._context = Context(self.backend, None)
            self._prompts = PromptBuilder(self.backend.tokenizer, self.spec)
            self._prefix = self.backend.tokenizer.detokenize(self.backend.prefix) if self.backend.prefix else ""
        except BaseException:
            self.backend.close()
            raise
        self._session: GgufSession | None = None
        self._size = 0

    def _depth(self, path: Path) -> int:
        asked = self.settings.blocks
        if self.spec is None:
            if asked:
                raise OptionError(f"{path} cannot run {asked} memory blocks: {self.why_direct}")
            return 0
        depth = self.spec.block_count if asked is None else asked
        if not 0 <= depth <= self.spec.max_block_count:
            raise OptionError(f"--blocks is {depth}, {path} runs 0 to {self.spec.max_block_count}")
        return depth

    @property
    def batch(self) -> int:
        """Questions that run side by side."""
        each = self.spec.max_block_count if self.spec else 2
        return max(1, min(self.settings.batch, MOST_SEQUENCES // each))

    def question(self, problem: Problem) -> str:
        """What is asked: the problem as its suite puts it."""
        return fill(find_suite(self.settings.suite).prompt, problem.question, problem.choices)

    def prompt(self, problem: Problem) -> list[int]:
        """Tokens of a problem. Raises ContextFullError where no answer fits behind it."""
        tokens = self._prompts.question(self.question(problem), None).tokens
        self._context.answer_limit(len(tokens), f"the question in line {problem.line}")
        return tokens

    def think(self, prompts: Sequence[Sequence[int]], depth: int) -> Thought:
        """Run questions, up to ``batch`` of them, and blocks 1..depth in one pass."""
        room = self._context.blocks(self.spec.max_block_count) if self.spec else 0
        answers = max(1, depth) * (self.settings.max_tokens + 1) + _SPARE
        cells = sum(len(prompt) + room + answers for prompt in prompts)
        if self._session is None or cells > self._size:
            if self._session is not None:
                self._session.close()
            self._session = self.backend.open(cells, self.batch, blocks=self.spec is not None)
            self._size = cells
        session = self._session
        session.reset()
        has_probe = depth > 0 and self.spec is not None and self.spec.has_probe
        states = session.think(prompts, depth, hidden=has_probe, logits=True)
        limit = min(self._context.n_ctx - len(prompt) for prompt in prompts)
        return Thought(self, session, prompts, [state for lane in states for state in lane], limit)

    def plain(self, prompt: Sequence[int], block: int, given: Given) -> FloatArray:
        """``[given.n_rows, n_vocab] float32`` logits of readout ``block`` along its answer, in a plain run alone."""
        slots = list(self.spec.block_tokens) * block if self.spec else []
        tokens = [*prompt, *slots, *self.backend.prefix]
        last = len(tokens) - 1
        return self.backend.plain_logits([*tokens, *given.tokens], range(last, last + given.n_rows))

    def close(self) -> None:
        """Free context and weights."""
        if self._session is not None:
            self._session.close()
            self._session = None
        self.backend.close()


class Thought:
    """Questions with their blocks in the context: readouts to answer from, or to lead through given answers.

    Attributes:
        states: the readouts, lane by lane, block by block, with logits.
    """

    def __init__(
        self,
        runner: Runner,
        session: GgufSession,
        prompts: Sequence[Sequence[int]],
        states: Sequence[ReadoutState],
        limit: int,
    ) -> None:
        self._runner, self._session, self._prompts, self.states = runner, session, prompts, states
        self._limit = min(limit, runner.settings.max_tokens)
        self.targets: list[Target] = [(state.lane, state.block) for state in states]

    def answers(self) -> dict[Target, Given]:
        """The greedy answer of every readout."""
        runner, found = self._runner, {}
        spec, backend = runner.spec, runner.backend
        decoded = self._session.decode(self.targets, _GREEDY, self._limit)
        for state, answer in zip(self.states, decoded, strict=True):
            text = runner._prefix + answer.text
            scored = spec is not None and spec.has_probe and state.block > 0 and state.hidden is not None
            logprobs = list(answer.logprobs)
            found[state.lane, state.block] = Given(
                tokens=tuple(answer.tokens),
                ended=len(logprobs) > len(answer.tokens),
                text=text,
                value=find_value(backend.spec.answer_pattern if backend.spec else None, text),
                confidence=sum(logprobs) / len(logprobs) if logprobs else None,
                probe=spec.probe_score(state.block, state.hidden)
                if scored and spec is not None and state.hidden is not None
                else None,
            )
        return found

    def led(self, answers: Mapping[Target, Given]) -> Iterator[dict[Target, Said]]:
        """What the model would say at each token of ``answers``: token by token, all answers that are that long.

        The passes are those of :meth:`answers` with the same answers: as wide, in the same order.
        """
        if self._runner.backend.coupled_reason:
            yield from self._led_alone(answers)
            return
        said: dict[Target, Said] = dict(zip(self.targets, self.states, strict=True))
        step = 0
        while said:
            yield said
            step += 1
            going = [target for target in said if answers[target].n_rows > step]
            tokens = [answers[target].tokens[step - 1] for target in going]
            said = dict(zip(going, self._session.advance(going, tokens), strict=True)) if going else {}

    def _led_alone(self, answers: Mapping[Target, Given]) -> Iterator[dict[Target, Said]]:
        """The same for models that keep one state per sequence: each answer in a plain run of its own."""
        backend, steps = self._runner.backend, []
        for target in self.targets:
            given = answers[target]
            steps.append((target, self._runner.plain(self._prompts[target[0]], 0, given), given))
        silent = _silent(backend)
        for step in range(max((given.n_rows for _, _, given in steps), default=0)):
            said: dict[Target, Said] = {}
            for target, rows, given in steps:
                if step < given.n_rows:
                    row = rows[step].copy()
                    row[silent] = -np.inf
                    said[target] = _Plain(int(row.argmax()), rows[step])
            yield said


def _silent(backend: GgufBackend) -> list[int]:
    """Tokens that are never said: control tokens that end nothing."""
    native = backend._model
    return [token for token in native.control_ids if not native.is_eog(token)]
