"""One context over an ONNX graph: what the native session does, with one row of cache per lane.

Attention is causal, so the text and the blocks of a lane run as one row in one run, and the readouts are columns of
it: no mask between them is needed. What later blocks must not see (answer prefixes, several answers) runs in
rows of its own, which start as copies of the lane's row and go on side by side in the batch dimension.

Like the native session it keeps visible text only, serves one call at a time, and is usable after any failure: how much
of a row is valid is known here, and what lies behind is overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rim_edge.arrays import FloatArray
from rim_edge.backends.base import Decoded, OnText, PassProgress, Sampling
from rim_edge.backends.onnx_decode import Answers, Start
from rim_edge.backends.onnx_gate import Gate
from rim_edge.backends.onnx_graph import Cache, Graph, one_line
from rim_edge.backends.onnx_lanes import Lane, Lanes
from rim_edge.backends.onnx_vocab import OnnxTokenizer
from rim_edge.backends.sampling import Banned, RowStats, check_sampling
from rim_edge.errors import BackendError, CancelledError, OptionError
from rim_edge.spec import RimSpec

_FINE_SLICE = 512  # tokens of one run where progress is watched


@dataclass(frozen=True, eq=False)
class OnnxReadoutState:
    """See :class:`rim_edge.backends.base.ReadoutState`."""

    lane: int
    block: int
    token: int
    probability: float
    entropy: float
    hidden: FloatArray | None
    logits: FloatArray | None


@dataclass
class OnnxPassCounts:
    """See :class:`rim_edge.backends.base.PassCounts`; ``passes`` counts runs of the graph."""

    reused: int = 0
    text: int = 0
    slots: int = 0
    prefix: int = 0
    passes: int = 0


@dataclass
class _Thought:
    """What runs on top of the visible text of lanes ``0..n_lanes - 1``."""

    n_lanes: int
    depth: int
    cells: int
    starts: dict[tuple[int, int], Start]


@dataclass(frozen=True)
class _Want:
    hidden: bool
    logits: bool


class OnnxSession:
    """See :class:`rim_edge.backends.base.BackendSession`.

    Args:
        graph, tokenizer: of the model.
        spec: memory-slot metadata; None for a session that answers directly only.
        prefix: tokens of the answer prefix.
        lanes: questions side by side, and how much they may hold.
        n_batch: most tokens of one run.
    """

    def __init__(
        self,
        graph: Graph,
        tokenizer: OnnxTokenizer,
        spec: RimSpec | None,
        prefix: Sequence[int],
        lanes: Lanes,
        n_batch: int,
    ) -> None:
        self._graph: Graph | None = graph
        self._spec = spec
        self._prefix = list(prefix) if spec is not None else []
        self._width = spec.block_width if spec is not None else 0
        self._n_batch = n_batch
        self._banned = Banned([token for token in tokenizer.banned if token < graph.layout.n_vocab])
        self._lanes = lanes
        self._thought: _Thought | None = None
        self._answers = Answers(self, tokenizer, self._banned)
        self._work, self._counts = OnnxPassCounts(), OnnxPassCounts()
        self._gate = Gate()

    # ---- visible text -----------------------------------------------------------------------------------------------

    @property
    def counts(self) -> OnnxPassCounts:
        return self._counts

    def cached(self, lane: int = 0) -> int:
        with self._gate.entered():
            return len(self._lanes[lane].text)

    def prefill(self, tokens: Sequence[int], lane: int = 0, progress: PassProgress | None = None) -> None:
        with self._gate.entered():
            row = self._lanes[lane]
            self._check_tokens(tokens)
            self._gate.check()
            self._lanes.make_room([lane], len(tokens), len(tokens))
            self._thought = None
            keep = row.common(tokens)
            self._work = OnnxPassCounts(reused=keep, text=len(tokens) - keep)
            row.text = row.text[:keep]
            self._run_row(row, list(tokens[keep:]), keep, [], _Meter(progress, len(tokens) - keep))
            row.text = list(tokens)
            self._counts = self._work

    def reset(self) -> None:
        with self._gate.entered():
            self._thought = None
            self._lanes.forget()

    # ---- the latent loop --------------------------------------------------------------------------------------------

    def think(
        self,
        prompts: Sequence[Sequence[int]],
        depth: int,
        *,
        hidden: bool = False,
        logits: bool = False,
        progress: PassProgress | None = None,
    ) -> list[list[OnnxReadoutState]]:
        with self._gate.entered():
            self._check_depth(depth)
            self._check_prompts(prompts)
            on_top, n_prefix = depth * self._width, len(self._prefix)
            self._gate.check()
            self._lanes.make_room(
                range(len(prompts)),
                sum(len(prompt) + on_top + max(depth, 1) * n_prefix + 1 for prompt in prompts),
                max(len(prompt) + on_top + n_prefix + 1 for prompt in prompts),
            )
            self._thought = None
            self._work = OnnxPassCounts()
            lanes = self._lanes.first(len(prompts))
            keeps = []
            for lane, prompt in zip(lanes, prompts, strict=True):
                keep = lane.common(prompt)
                if depth == 0 and keep == len(prompt) and (not n_prefix or hidden):
                    keep -= 1  # the direct readout is taken at the last visible token
                keeps.append(keep)
            meter = _Meter(progress, sum(map(len, prompts)) - sum(keeps) + len(prompts) * on_top)
            rows = []
            for lane, prompt, keep in zip(lanes, prompts, keeps, strict=True):
                lane.text = lane.text[:keep]
                tokens = [*prompt[keep:], *self._blocks(1, depth)]
                ends = self._ends(len(prompt), 1, depth) if depth else [len(prompt) - 1]
                rows.append(self._run_row(lane, tokens, keep, ends if tokens else [], meter))
                self._work.reused += keep
                self._work.text += len(prompt) - keep
                self._work.slots += on_top
            blocks = range(1, depth + 1) if depth else range(1)
            starts, states = self._read(rows, [len(prompt) for prompt in prompts], blocks, _Want(hidden, logits))
            for lane, prompt in zip(lanes, prompts, strict=True):
                lane.text = list(prompt)
            self._thought = _Thought(len(lanes), depth, self._work.slots + self._work.prefix, starts)
            self._counts = self._work
            return states

    def extend(self, depth: int, *, hidden: bool = False, logits: bool = False) -> list[list[OnnxReadoutState]]:
        with self._gate.entered():
            thought = self._thought
            if thought is None:
                raise OptionError("extend() needs a think() before")
            self._check_depth(depth)
            first = thought.depth + 1
            if depth < first:
                raise OptionError(f"depth is {depth}, but {thought.depth} blocks have run already")
            self._gate.check()
            lanes = self._lanes.first(thought.n_lanes)
            each = (depth - thought.depth) * (self._width + len(self._prefix)) + 1
            self._lanes.make_room(
                range(len(self._lanes)),
                self._lanes.visible + thought.cells + len(lanes) * each,
                max(len(lane.text) for lane in lanes) + depth * self._width + len(self._prefix) + 1,
            )
            self._work = OnnxPassCounts()
            rows = []
            for lane in lanes:
                at, tokens = len(lane.text) + thought.depth * self._width, self._blocks(first, depth)
                ends = self._ends(len(lane.text), first, depth)
                rows.append(self._run_row(lane, tokens, at, ends, _Meter(None, 0)))
                self._work.slots += len(tokens)
            lengths = [len(lane.text) for lane in lanes]
            starts, states = self._read(rows, lengths, range(first, depth + 1), _Want(hidden, logits))
            thought.depth = depth
            thought.cells += self._work.slots + self._work.prefix
            thought.starts.update(starts)
            self._counts = self._work
            return states

    def decode(
        self,
        targets: Sequence[tuple[int, int]],
        sampling: Sampling,
        max_tokens: int,
        stop: Sequence[str] = (),
        on_text: OnText | None = None,
    ) -> Sequence[Decoded]:
        with self._gate.entered():
            check_sampling(sampling)
            if max_tokens < 0:
                raise OptionError(f"max_tokens is {max_tokens}, but must be at least 0")
            if not all(stop):
                raise OptionError("a stop string is empty: leave it out")
            if self._thought is None:
                raise OptionError("decode() needs the readouts of a think() before")
            if len(set(targets)) < len(targets):
                raise OptionError("a readout is asked for twice")
            missing = next((target for target in targets if target not in self._thought.starts), None)
            if missing is not None:
                raise OptionError(
                    f"no readout of block {missing[1]} in lane {missing[0]}: "
                    "decode what the last think() or extend() returned"
                )
            starts = [self._thought.starts[target] for target in targets]
            room = self._lanes.n_cells - self._lanes.visible - self._thought.cells
            return self._answers.decode(starts, sampling, max_tokens, stop, on_text, room)

    # ---- stopping ---------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        self._gate.cancel()

    def clear_cancel(self) -> None:
        self._gate.clear_cancel()

    def close(self) -> None:
        self._gate.close()
        self._thought = None
        self._answers.drop()
        self._lanes.drop()
        self._graph = None

    # ---- running ----------------------------------------------------------------------------------------------------

    def _blocks(self, first: int, last: int) -> list[int]:
        return list(self._spec.block_tokens) * (last - first + 1) if self._spec else []

    def _ends(self, length: int, first: int, last: int) -> list[int]:
        """Positions of the end tokens of the blocks ``first..last`` behind ``length`` tokens of text."""
        return [length + block * self._width - 1 for block in range(first, last + 1)]

    def _run_row(
        self, lane: Lane, tokens: list[int], at: int, wanted: Sequence[int], meter: _Meter
    ) -> tuple[FloatArray, FloatArray]:
        """Run ``tokens`` from position ``at`` on; logits and states of the positions ``wanted``, ``[n, ...]`` each."""
        cache = lane.row(at + len(tokens) + len(self._prefix) + 1, used=at)
        step = min(self._n_batch, _FINE_SLICE) if meter.watched else self._n_batch
        logits = [np.empty((0, self.graph.layout.n_vocab), np.float32)]
        hidden = [np.empty((0, self.graph.layout.n_embd), np.float32)]
        for start in range(0, len(tokens), step):
            part = tokens[start : start + step]
            here = [place - at - start for place in wanted if 0 <= place - at - start < len(part)]
            found = self.run(cache, [part], [at + start + len(part)], here or [len(part) - 1])
            if here:
                logits.append(found[0][0])
                hidden.append(found[1][0])
            meter.add(len(part))
        return np.concatenate(logits), np.concatenate(hidden)

    def run(
        self, cache: Cache, tokens: Sequence[Sequence[int]], lengths: Sequence[int], outputs: Sequence[int]
    ) -> tuple[FloatArray, FloatArray]:
        """One run of the graph: see :meth:`rim_edge.backends.onnx_graph.Graph.run`."""
        self._gate.check()
        self._work.passes += 1
        try:
            return self.graph.run(
                cache, np.array(tokens, np.int64), np.array(lengths, np.int64), outputs, self._gate.run_options
            )
        except Exception as error:  # onnxruntime has many kinds without a common base
            self._gate.check()
            n = sum(map(len, tokens))
            raise BackendError(f"onnxruntime failed to compute {n} tokens: {one_line(error)}") from None

    def _read(
        self, rows: list[tuple[FloatArray, FloatArray]], lengths: list[int], blocks: range, want: _Want
    ) -> tuple[dict[tuple[int, int], Start], list[list[OnnxReadoutState]]]:
        """Readouts of all lanes: answer prefixes are run, and the statistics of each row of logits taken."""
        nothing = np.empty(0, np.float32)
        starts = [
            Start(lane, block, length + block * self._width, logits[index] if index < len(logits) else nothing)
            for lane, ((logits, _), length) in enumerate(zip(rows, lengths, strict=True))
            for index, block in enumerate(blocks)
        ]
        if self._prefix:
            self._run_prefix(starts)
        states: list[list[OnnxReadoutState]] = [[] for _ in rows]
        for start in starts:
            stats = RowStats(start.logits, entropy=True)
            token = self._banned.top(start.logits)
            state = OnnxReadoutState(
                lane=start.lane,
                block=start.block,
                token=token,
                probability=float(np.exp(stats.log_probability(float(start.logits[token])))),
                entropy=stats.entropy,
                hidden=rows[start.lane][1][start.block - blocks[0]] if want.hidden else None,
                logits=start.logits if want.logits else None,
            )
            states[start.lane].append(state)
        return {(start.lane, start.block): start for start in starts}, states

    def _run_prefix(self, starts: list[Start]) -> None:
        """Run the answer prefix behind each readout, in rows of their own, side by side; a direct one in its lane."""
        n_prefix = len(self._prefix)
        self._work.prefix += n_prefix * len(starts)
        if starts[0].block == 0:
            for start in starts:
                start.length += n_prefix
                cache = self._lanes[start.lane].row(start.length + 1, used=start.length - n_prefix)
                start.logits = self.run(cache, [self._prefix], [start.length], [n_prefix - 1])[0][0, 0]
            return
        branch = Cache(self.graph.layout, len(starts), max(start.length for start in starts) + n_prefix)
        for row, start in enumerate(starts):
            branch.copy_row(row, self._lanes[start.lane].row(start.length, used=start.length), 0, start.length)
            start.branch, start.row = branch, row
        for token in self._prefix:
            for start in starts:
                start.length += 1
            logits, _ = self.run(branch, [[token]] * len(starts), [start.length for start in starts], [0])
        for row, start in enumerate(starts):
            start.logits = logits[row, 0]

    # ---- what answers need (onnx_decode.Host) -----------------------------------------------------------------------

    @property
    def graph(self) -> Graph:
        assert self._graph is not None
        return self._graph

    @property
    def lanes(self) -> Lanes:
        return self._lanes

    @property
    def stopping(self) -> bool:
        return self._gate.stopping

    def is_last(self, start: Start) -> bool:
        """Whether nothing that is still needed lies behind ``start`` in its lane's row."""
        return start.branch is None and self._thought is not None and start.block == self._thought.depth

    # ---- checks -----------------------------------------------------------------------------------------------------

    def _check_prompts(self, prompts: Sequence[Sequence[int]]) -> None:
        if not 1 <= len(prompts) <= len(self._lanes):
            raise OptionError(f"{len(prompts)} prompts for {len(self._lanes)} lanes")
        for prompt in prompts:
            if not prompt:
                raise OptionError("a prompt needs at least one token")
            self._check_tokens(prompt)

    def _check_tokens(self, tokens: Sequence[int]) -> None:
        n_vocab = self.graph.layout.n_vocab
        wrong = next((token for token in tokens if not 0 <= token < n_vocab), None)
        if wrong is not None:
            raise OptionError(f"token {wrong} does not exist: the vocabulary has {n_vocab}")

    def _check_depth(self, depth: int) -> None:
        most = self._spec.max_block_count if self._spec else 0
        if not 0 <= depth <= most:
            raise OptionError(f"depth is {depth}, but must be in 0..{most}")


class _Meter:
    """Tells a progress callback how many tokens have run; False from it stops the work."""

    def __init__(self, progress: PassProgress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self.watched = progress is not None

    def add(self, n: int) -> None:
        self._done += n
        if self._progress is not None and self._progress(self._done, self._total) is False:
            raise CancelledError("cancelled by the progress callback")
