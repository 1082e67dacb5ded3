"""Answers from one or many readouts of an ONNX session, one run per token for all of them.

A single answer to the last block goes on in its lane's own row. Several answers, or one to an earlier block, go on in
rows of a scratch cache, copied once; rows of finished answers are given up, so that later runs are narrower.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from rim_edge.arrays import FloatArray
from rim_edge.backends.base import OnText, Sampling
from rim_edge.backends.onnx_graph import Cache
from rim_edge.backends.sampling import Banned, RowStats, Sampler
from rim_edge.backends.text_stream import TextStream
from rim_edge.errors import CancelledError

if TYPE_CHECKING:
    from rim_edge.backends.onnx_graph import Graph
    from rim_edge.backends.onnx_lanes import Lanes
    from rim_edge.backends.onnx_vocab import OnnxTokenizer

_ROOM_STEP = 64  # tokens by which scratch rows grow at least


@dataclass(eq=False)
class Start:
    """Where the answer of a readout starts.

    Attributes:
        lane, block: the readout.
        length: tokens before its first one.
        logits: ``[n_vocab] float32`` of that first one.
        branch, row: where those tokens lie, if not in the lane's own row.
    """

    lane: int
    block: int
    length: int
    logits: FloatArray
    branch: Cache | None = None
    row: int = 0


@dataclass(eq=False)
class OnnxDecoded:
    """See :class:`rim_edge.backends.base.Decoded`."""

    lane: int
    block: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    text: str = ""
    finish: str = "length"


class Host(Protocol):
    """What answers need of their session."""

    @property
    def graph(self) -> Graph: ...
    @property
    def lanes(self) -> Lanes: ...
    @property
    def stopping(self) -> bool: ...
    def is_last(self, start: Start) -> bool: ...
    def run(
        self, cache: Cache, tokens: Sequence[Sequence[int]], lengths: Sequence[int], outputs: Sequence[int]
    ) -> tuple[FloatArray, FloatArray]: ...


@dataclass(eq=False)
class _Answer:
    """One answer being written."""

    index: int
    start: Start
    length: int
    logits: FloatArray
    sampler: Sampler
    stream: TextStream
    out: OnnxDecoded
    open: bool = True


class Answers:
    """Decodes for one session; keeps its scratch rows for the next time."""

    def __init__(self, host: Host, tokenizer: OnnxTokenizer, banned: Banned) -> None:
        self._host = host
        self._tokenizer = tokenizer
        self._banned = banned
        self._scratch: Cache | None = None

    def drop(self) -> None:
        """Free the scratch rows."""
        self._scratch = None

    def decode(
        self,
        starts: Sequence[Start],
        sampling: Sampling,
        max_tokens: int,
        stop: Sequence[str],
        on_text: OnText | None,
        room: int,
    ) -> list[OnnxDecoded]:
        """Answers from ``starts``, in their order; ``room``: tokens that the context still holds, over all of them."""
        began = time.perf_counter()
        base = secrets.randbits(32) if sampling.seed is None else sampling.seed
        answers = [
            _Answer(
                index=index,
                start=start,
                length=start.length,
                logits=start.logits,
                sampler=Sampler(sampling, base + index, self._banned, self._host.lanes[start.lane].text),
                stream=TextStream(stop),
                out=OnnxDecoded(start.lane, start.block),
            )
            for index, start in enumerate(starts)
        ]
        ends = frozenset() if sampling.ignore_end else self._tokenizer.end_ids
        decoding = _Decoding(self._host, self._tokenizer, answers, max_tokens, on_text, ends, began)
        decoding.run(room, self)
        return [answer.out for answer in answers]

    def rows(self, answers: Sequence[_Answer], capacity: int) -> Cache:
        """Scratch rows for ``answers``, in their order, filled with what comes before them."""
        if self._scratch is None or self._scratch.rows < len(answers) or self._scratch.capacity < capacity:
            self._scratch = None  # its memory first
            self._scratch = Cache(self._host.graph.layout, len(answers), capacity)
        for row, answer in enumerate(answers):
            start = answer.start
            source = start.branch or self._host.lanes[start.lane].row(start.length, used=start.length)
            self._scratch.copy_row(row, source, start.row, start.length)
        return self._scratch

    def grow(self, answers: Sequence[_Answer], capacity: int) -> Cache:
        """The scratch rows with more room."""
        assert self._scratch is not None
        self._scratch = self._scratch.grown(capacity, [answer.length for answer in answers])
        return self._scratch


class _Decoding:
    """One call of ``decode``."""

    def __init__(
        self,
        host: Host,
        tokenizer: OnnxTokenizer,
        answers: list[_Answer],
        max_tokens: int,
        on_text: OnText | None,
        ends: Container[int],
        began: float,
    ) -> None:
        self._host = host
        self._tokenizer = tokenizer
        self._answers = answers
        self._max_tokens = max_tokens
        self._on_text = on_text
        self._ends = ends
        self._began = began

    def run(self, room: int, scratch: Answers) -> None:
        if self._max_tokens == 0:
            self._finish_all("length")
        alone = len(self._answers) == 1 and self._host.is_last(self._answers[0].start)
        cache: Cache | None = None
        rows = list(self._answers)  # answers in the order of their rows
        while True:
            for answer in rows:
                if answer.open and self._host.stopping:
                    self._finish(answer, "cancelled")
                elif answer.open:
                    self._step(answer)
            if not any(answer.open for answer in rows):
                return
            n_open = sum(answer.open for answer in rows)
            room -= n_open
            longest = max(answer.length for answer in rows if answer.open) + 1
            if room < 0 or longest > self._host.lanes.n_positions:
                return self._finish_all("context")
            if alone:
                cache = self._host.lanes[rows[0].start.lane].row(longest, used=rows[0].length)
            elif cache is None:
                rows = [answer for answer in rows if answer.open]
                cache = scratch.rows(rows, longest + min(self._max_tokens, _ROOM_STEP))
            else:
                rows = _close_gaps(rows, cache)
                if cache.capacity < longest:
                    cache = scratch.grow(rows, longest + max(_ROOM_STEP, longest // 2))
            try:
                tokens = [[answer.out.tokens[-1]] for answer in rows]
                logits, _ = self._host.run(cache, tokens, [answer.length + 1 for answer in rows], [0])
            except CancelledError:
                return self._finish_all("cancelled")
            for row, answer in enumerate(rows):
                answer.length += 1
                answer.logits = logits[row, 0]

    def _step(self, answer: _Answer) -> None:
        """Choose the next token of an answer."""
        token = answer.sampler.sample(answer.logits)
        logit = float(answer.logits[token])
        answer.out.logprobs.append(RowStats(answer.logits).log_probability(logit))
        answer.out.seconds.append(time.perf_counter() - self._began)
        if token in self._ends:
            return self._finish(answer, "stop")
        answer.out.tokens.append(token)
        if not self._give(answer, answer.stream.push(self._tokenizer.token_bytes(token))):
            self._finish(answer, "callback")
        elif answer.stream.stopped:
            self._finish(answer, "stop")
        elif len(answer.out.tokens) >= self._max_tokens:
            self._finish(answer, "length")

    def _give(self, answer: _Answer, text: str) -> bool:
        return not text or self._on_text is None or self._on_text(answer.index, text) is not False

    def _finish(self, answer: _Answer, how: str) -> None:
        answer.open = False
        answer.out.finish = how
        if how != "callback":
            self._give(answer, answer.stream.finish())
        answer.out.text = answer.stream.text

    def _finish_all(self, how: str) -> None:
        for answer in self._answers:
            if answer.open:
                self._finish(answer, how)


def _close_gaps(rows: list[_Answer], cache: Cache) -> list[_Answer]:
    """The open answers in rows ``0..n - 1``; the last ones move to the places of those that have ended."""
    rows = list(rows)
    place = 0
    while place < len(rows):
        if rows[place].open:
            place += 1
            continue
        last = rows.pop()
        if place < len(rows) and last.open:
            cache.copy_row(place, cache, len(rows), last.length)
            rows[place] = last
            place += 1
    return rows
