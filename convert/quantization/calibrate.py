"""Collecting an importance matrix on what the model really reads: questions, memory blocks, answers.

An importance matrix from plain text never sees the memory tokens, though a model that reasons in memory spends many of
its positions on them. Here each sequence is question, K memory blocks, answer, in one pass. Every token is an output,
because libllama computes the last layer for output rows only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rim_edge import _native
from rim_edge.backends.gguf import GgufTokenizer, read_head
from rim_edge.errors import CancelledError, OptionError, UnsupportedError
from rim_edge.prompt import PromptBuilder
from rim_edge.spec import RimSpec

from .described import read_tensors
from .importance import ImportanceMatrix

Progress = Callable[[int, int], bool | None]


@dataclass(frozen=True)
class TokenSequence:
    """Tokens of one sequence, and which of them are slots."""

    tokens: list[int]
    slots: list[bool]


def collect_importance(
    model_path: Path,
    problems: Iterable[Mapping[str, Any]],
    *,
    blocks: int | None = None,
    slot_weight: float = 1.0,
    n_threads: int = 0,
    progress: Progress | None = None,
    dataset: str = "problems",
    output: bool = False,
) -> ImportanceMatrix:
    """Run every problem through the model and sum the squares of what its matrices are multiplied with.

    Args:
        model_path: GGUF model of any type; F32, F16 or BF16 gives the activations of the model as trained.
        problems: ``question`` and ``answer`` as texts, more keys do no harm.
        blocks: memory blocks between question and answer; None as trained, 0 none (text only).
        slot_weight: how much a position inside a memory block counts; 1 is as much as one of text, 0 not at all.
        n_threads: 0 is one per physical core.
        progress: called with problems done and in all; returning False stops.
        dataset: what the matrix says it was made from.
        output: collect the output matrix too, which costs nothing here but is not what llama.cpp does by default.

    Raises:
        OptionError: no problems, one without question or answer, one that is too long, more blocks than the model has,
            a negative weight.
        UnsupportedError: blocks for a model without memory blocks.
        ModelFileError, SpecError: the model cannot be read. CancelledError: ``progress`` returned False.
    """
    if not (math.isfinite(slot_weight) and slot_weight >= 0):
        raise OptionError(f"slot_weight is {slot_weight}, expected 0 or more")
    spec, n_positions = read_head(model_path)
    n_blocks = _block_count(model_path, spec, blocks)
    tensors = read_tensors(model_path)
    names = [name for name, tensor in tensors.items() if name.startswith("blk.") and len(tensor.shape) > 1]
    if output:
        names.append("output.weight" if "output.weight" in tensors else "token_embd.weight")
    model = _native.Model(os.fspath(model_path))
    try:
        limit = min(n_positions or model.n_ctx_train, model.n_ctx_train)
        sequences = make_sequences(model, spec, problems, n_blocks, limit)
        longest = max(len(sequence.tokens) for sequence in sequences)
        collector = _native.ImportanceCollector(model, longest, names, n_threads)
        for done, sequence in enumerate(sequences):
            if progress is not None and progress(done, len(sequences)) is False:
                raise CancelledError(f"cancelled after {done} of {len(sequences)} problems")
            collector.add(sequence.tokens, [slot_weight if slot else 1.0 for slot in sequence.slots])
        results = collector.results()
    finally:
        model.close()
    if progress is not None:
        progress(len(sequences), len(sequences))
    counts = {name: np.asarray(count, np.float32) for name, (_, count) in results.items()}
    sums = {name: np.asarray(total, np.float32).reshape(len(counts[name]), -1) for name, (total, _) in results.items()}
    return ImportanceMatrix(sums, counts, len(sequences), longest, (dataset,))


def _block_count(path: Path, spec: RimSpec | None, blocks: int | None) -> int:
    if blocks is None:
        return spec.block_count if spec is not None else 0
    if blocks < 0:
        raise OptionError(f"blocks is {blocks}, expected 0 or more")
    if blocks > 0 and spec is None:
        raise UnsupportedError(f"{path} has no memory blocks (rim.version): calibrate it with blocks=0, on text only")
    if spec is not None and blocks > spec.max_block_count:
        raise OptionError(f"blocks is {blocks}, but {path} has at most {spec.max_block_count} memory blocks")
    return blocks


def make_sequences(
    model: _native.Model, spec: RimSpec | None, problems: Iterable[Mapping[str, Any]], n_blocks: int, limit: int
) -> list[TokenSequence]:
    """Question, memory blocks, answer prefix, answer, end token: as in training, ``limit`` tokens at most.

    Raises OptionError, naming the problem.
    """
    tokenizer = GgufTokenizer(model, spec)
    prompts = PromptBuilder(tokenizer, spec)
    prefix = spec.answer_prefix if spec is not None and spec.answer_prefix else ""
    slots = list(spec.block_tokens) * n_blocks if spec is not None else []
    end = model.eot_id if tokenizer.chat_template and model.eot_id >= 0 else model.eos_id
    found = []
    for number, problem in enumerate(problems, 1):
        question, answer = problem.get("question"), problem.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str) or not question.strip() or not answer.strip():
            raise OptionError(f"problem {number} has no texts 'question' and 'answer': both are needed to calibrate")
        prompt = prompts.question(question, None).tokens
        reply = tokenizer.tokenize(prefix, parse_special=True) if prefix else []
        reply += tokenizer.tokenize(answer.removeprefix(prefix)) + ([end] if end >= 0 else [])
        tokens = prompt + slots + reply
        if len(tokens) > limit:
            raise OptionError(f"problem {number} takes {len(tokens)} tokens, but the model has room for {limit}")
        found.append(TokenSequence(tokens, [False] * len(prompt) + [True] * len(slots) + [False] * len(reply)))
    if not found:
        raise OptionError("there are no problems to calibrate on: give questions with answers")
    return found
