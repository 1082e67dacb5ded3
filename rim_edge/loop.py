"""The latent loop: prompt and memory blocks in one pass, a readout per block, selection, answer.

One or several questions side by side (lanes) run through one session of a back end; what a question is and where its
session comes from is the business of :mod:`rim_edge.model` and :mod:`rim_edge.chat`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from rim_edge.backends.base import Backend, BackendSession, Decoded, PassProgress, ReadoutState
from rim_edge.depth import DEFAULT_RULE, HaltingRule
from rim_edge.errors import CancelledError
from rim_edge.options import Request
from rim_edge.results import Answer, Finish, Readout, Timings, TokenCounts
from rim_edge.selection import choose


@dataclass(frozen=True)
class Outcome:
    """An answer, and whether some readout of it ended for want of room, so that more room might change it."""

    answer: Answer
    cut: bool


@dataclass
class _Pass:
    """Readouts of all lanes, and what it took to get them."""

    readouts: list[list[Readout]]
    reused: int
    evaluated: int


def run(
    backend: Backend,
    session: BackendSession,
    prompts: Sequence[Sequence[int]],
    request: Request,
    limit: int,
    *,
    started: float,
    on_text: Callable[[str], None] | None = None,
    on_prefill: PassProgress | None = None,
    rule: HaltingRule = DEFAULT_RULE,
) -> list[Outcome]:
    """Answer ``prompts``, one per lane.

    Args:
        backend, session: the model, and a context of it with at least ``len(prompts)`` lanes.
        prompts: visible tokens of each lane.
        request: checked options.
        limit: most answer tokens that the context leaves room for.
        started: ``time.perf_counter()`` at the user's call.
        on_text: gets the pieces of the chosen answer; with one lane only.
        on_prefill: see :class:`rim_edge.options.Options`.
        rule: when ``blocks="auto"`` stops.

    Returns:
        One outcome per prompt, in order.

    Raises:
        CancelledError: cancelled before any text of a chosen answer was there.
    """
    began = time.perf_counter()
    thought = _think(backend, session, prompts, request, on_prefill, rule)
    ready = time.perf_counter()
    first_text: list[float] = []

    early = [choose(request.select, readouts) for readouts in thought.readouts]  # right for final and probe
    late = request.select in ("vote", "confidence")
    targets: list[tuple[int, int]] = []
    for lane, readouts in enumerate(
        thought.readouts
    ):  # the chosen one first: it then samples alike with and without the others
        blocks = [readouts[early[lane]].block]
        if request.decodes_all:
            blocks += [readout.block for readout in readouts if readout.block != blocks[0]]
        targets += [(lane, block) for block in blocks]

    def heard(index: int, piece: str) -> None:
        if index == 0:
            if not first_text:
                first_text.append(time.perf_counter())
            if on_text is not None:
                on_text(piece)

    prefix = backend.tokenizer.detokenize(backend.prefix) if backend.prefix else ""
    if prefix and on_text is not None and not late:
        on_text(prefix)
    most = limit if request.max_tokens is None else min(limit, request.max_tokens)
    listen = heard if len(prompts) == 1 and not late else None
    decoded = session.decode(targets, request.sampling, most, request.stop, listen)
    ended = time.perf_counter()

    outcomes = []
    for lane, readouts in enumerate(thought.readouts):
        found = {item.block: item for item in decoded if item.lane == lane}
        full = [_with_answer(backend, readout, found.get(readout.block), prefix) for readout in readouts]
        index = choose(request.select, full)
        chosen = found[full[index].block]
        if chosen.finish == "cancelled" and (late or len(prompts) > 1 or not chosen.text):
            raise CancelledError("cancelled before the answer had any text")
        text, n_tokens = full[index].text or "", len(chosen.tokens)
        if late and on_text is not None and text:
            on_text(text)
        shown = ended if late else first_text[0] if first_text else ready if len(prompts) > 1 else ended
        answer = Answer(
            text=text,
            value=full[index].value,
            depth=full[-1].block,
            blocks=request.blocks,
            select=request.select,
            readout=full[index].block,
            readouts=tuple(full),
            timings=Timings(
                ttft_ms=(shown - started) * 1e3,
                total_ms=(ended - started) * 1e3,
                prefill_ms=(ready - began) * 1e3,
                decode_ms=(ended - ready) * 1e3,
                tokens_per_s=n_tokens / max(ended - ready, 1e-9) if n_tokens else 0.0,
            ),
            tokens=_counts(backend, prompts[lane], full[-1].block, thought, n_tokens, len(prompts) == 1),
            finish=_finish(chosen, request.max_tokens),
            notices=request.notices,
        )
        cut = any(_finish(item, request.max_tokens) == "context" for item in found.values())
        outcomes.append(Outcome(answer, cut))
    return outcomes


def _think(
    backend: Backend,
    session: BackendSession,
    prompts: Sequence[Sequence[int]],
    request: Request,
    on_prefill: PassProgress | None,
    rule: HaltingRule,
) -> _Pass:
    depths = rule.depths(request.depth) if request.blocks == "auto" else (request.depth,)
    hidden = request.hidden or (backend.spec is not None and backend.spec.has_probe and request.depth > 0)
    states = session.think(prompts, depths[0], hidden=hidden, logits=request.logits, progress=on_prefill)
    readouts = [[_readout(backend, state, request) for state in lane] for lane in states]
    reused, evaluated = session.counts.reused, session.counts.text
    done = [len(depths) == 1 or rule.sure(lane) for lane in readouts]
    for depth in depths[1:]:
        if all(done):
            break
        states = session.extend(depth, hidden=hidden, logits=request.logits)
        for lane, more in enumerate(states):
            if not done[lane]:  # a lane that is sure keeps its depth, as it would alone
                readouts[lane] += [_readout(backend, state, request) for state in more]
                done[lane] = rule.sure(readouts[lane])
    return _Pass(readouts, reused, evaluated)


def _readout(backend: Backend, state: ReadoutState, request: Request) -> Readout:
    spec, hidden = backend.spec, state.hidden
    scored = spec is not None and spec.has_probe and state.block > 0 and hidden is not None
    return Readout(
        block=state.block,
        top_token=backend.tokenizer.token_text(state.token),
        top_id=state.token,
        probability=state.probability,
        entropy=state.entropy,
        probe=spec.probe_score(state.block, hidden) if scored and spec is not None and hidden is not None else None,
        hidden=hidden if request.hidden else None,
        logits=state.logits if request.logits else None,
    )


def _with_answer(backend: Backend, readout: Readout, decoded: Decoded | None, prefix: str) -> Readout:
    if decoded is None:
        return readout
    text = prefix + decoded.text
    logprobs = decoded.logprobs
    return replace(
        readout,
        text=text,
        value=find_value(backend.spec.answer_pattern if backend.spec else None, text),
        confidence=sum(logprobs) / len(logprobs) if logprobs else None,
    )


def find_value(pattern: str | None, text: str) -> str | None:
    """Group 1 of ``pattern`` (``rim.answer_pattern``) at its first match in ``text``, trimmed; None without one."""
    match = re.search(pattern, text) if pattern else None
    value = match.group(1) if match else None
    return value.strip() if value is not None else None


def _counts(
    backend: Backend, prompt: Sequence[int], depth: int, thought: _Pass, n_answer: int, alone: bool
) -> TokenCounts:
    width = backend.spec.block_width if backend.spec else 0
    return TokenCounts(
        prompt=len(prompt),
        reused=thought.reused if alone else 0,
        evaluated=thought.evaluated if alone else len(prompt),
        slots=depth * width,
        prefix=max(1, depth) * len(backend.prefix),
        answer=n_answer,
    )


def _finish(decoded: Decoded, max_tokens: int | None) -> Finish:
    if decoded.finish == "callback":
        return "cancelled"
    if decoded.finish == "length" and (max_tokens is None or len(decoded.tokens) < max_tokens):
        return "context"  # the limit that was reached is the context's, not the user's
    return cast(Finish, decoded.finish)
