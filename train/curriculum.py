"""The paper's two-stage curriculum as data: layouts, readout masks, targets and loss weights.

A sample is laid out as ``x ⊕ m_1 … m_K ⊕ readouts``: the question, the memory blocks, then every supervised readout. A
readout k predicts its text from block k's last token on, so its own tokens (all but the last) stand at the positions
that follow block k. It sees x, m_1..m_k and itself: never a later block, never another readout.

Several questions about the same facts share them: ``facts ⊕ branch ⊕ branch …``, where a branch is what is asked, the
blocks and the readouts. A branch sees the facts and itself, at the positions it would have alone, so each is exactly
the sample that it would be with facts of its own; only the facts are computed once.

Stage 1, *grounding*: a problem of T steps gets T blocks. Number the values as r_1 (the quantity the text starts from),
r_2, …, r_{T+1} (the results of the T operations, the last of them the answer y). Readout t predicts r_{t+1}, so readout
T predicts the answer:
    L_1(s) = - sum_t lambda_t(s) log p(r_{t+1} | x, m_<=t)
Stage 2, *refinement*: always K = 8 blocks, and every readout predicts the answer:
    L_2 = - sum_k alpha_k log p(y | x, m_<=k),   alpha_k = 2k / (K(K+1))

One addition to the paper, for a small model trained from scratch: *deep grounding*. All blocks run through the same
few layers at once, so a step can only build on an earlier one whose value exists some layers below the top. So every
block learns to run through the steps, one per layer: the state at the end of block t, read after DEEP_LAYERS[j-1]
layers, is to give r_{j+1} for j up to t, and the name of its owner where facts must be searched by name. It costs no
position and nothing at inference; ``deep_weight=0`` gives the paper's losses alone. In the same way the state at the
end of a sentence learns early whom it is about and to whom it refers, and the state at the end of the question who is
asked for (*pointers*): finding the sentence that the question needs is then a comparison of two states. Where a reader
knows the sentence's quantity at its end, because all it builds on was told before, the state learns that quantity too,
the deeper it lies the higher up (*told values*): blocks can take it from there.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from train.model import Llama
from train.problems import Problem
from train.tokenizer import Vocabulary

BLOCK_COUNT = 8  # K
BLOCK_SIZE = 2  # M
DIRECT_WEIGHT = 0.1  # weight of readout 0 (no block) in the samples that carry it
BEHIND_WEIGHT = 0.5  # of a readout behind the last step, in stage 1
DEEP_LAYERS = (5, 7, 8, 9, 10)  # after so many layers step 1, 2, … is to be known
LATE_LAYERS = (6, 8, 9, 10)  # the same for LATE kinds, where a fact must be found before its step can be done
EARLIER_WEIGHT = 0.25  # of a step in the blocks behind its own, as a part of the weight in its own
NAME_WEIGHT = 0.5  # of the name of a step's owner, as a part of the weight of its value
LATE = ("relations", "relations-branching", "two-stories", "shop")
VALUE_LAYERS = (4, 5, 7, 8, 9)  # after so many layers a told quantity is known that is 0, 1, … operations deep
POINTER_LAYER = 3  # after so many layers it is to be known to whom a sentence refers, one higher whom it is about
POINTED = (
    "relations",
    "relations-branching",
    "relations-in-order",
    "two-stories",
    "shop",
    "lookup",
)  # kinds whose sentences name their subject first


def lambda_t(t: int, n_steps: int, s: float) -> float:
    """Weight of readout t of T in stage 1 at progress ``s`` in 0..1.

    All weights start at 1. Early steps, relative to T, fall to 0 first (t/T = 0 around s = 0.8, then linearly later);
    the answer's readout (t = T) keeps its weight.
    """
    if t == n_steps:
        return 1.0
    release = 0.8 + 0.15 * t / n_steps
    return min(1.0, max(0.0, (release - s) / 0.1 + 0.5))


def alpha_k(k: int, block_count: int = BLOCK_COUNT) -> float:
    """Weight of readout k in stage 2; the weights of 1..K sum to 1."""
    return 2 * k / (block_count * (block_count + 1))


@dataclass(frozen=True)
class Readout:
    """A readout to train or to score: after block ``k``, the text ``tokens``."""

    k: int
    tokens: list[int]
    weight: float


@dataclass(frozen=True)
class Tap:
    """A target below the top: after ``layer`` layers, the state at ``place`` (from 0) is to give ``token``."""

    layer: int
    place: int
    token: int
    weight: float


@dataclass(frozen=True)
class Branch:
    """One question about the facts of its sample: what is asked, how many blocks follow, and what is to be learnt.

    Places of ``taps`` count from the first token of ``asked``.
    """

    asked: list[int]
    n_blocks: int
    readouts: list[Readout]
    taps: list[Tap] = field(default_factory=list)

    @property
    def total_weight(self) -> float:
        """Sum of the loss weights of all supervised tokens."""
        return sum(r.weight * len(r.tokens) for r in self.readouts) + sum(tap.weight for tap in self.taps)

    @property
    def length(self) -> int:
        return len(self.asked) + self.n_blocks * (BLOCK_SIZE + 2) + sum(len(r.tokens) - 1 for r in self.readouts)


@dataclass(frozen=True)
class Sample:
    """Facts and the questions about them, ready to be laid out."""

    facts: list[int]
    branches: list[Branch]
    taps: list[Tap] = field(default_factory=list)

    @property
    def total_weight(self) -> float:
        return sum(branch.total_weight for branch in self.branches) + sum(tap.weight for tap in self.taps)

    @property
    def length(self) -> int:
        return len(self.facts) + sum(branch.length for branch in self.branches)


def grounding(
    problem: Problem, vocabulary: Vocabulary, s: float, deep_weight: float = 0.0, n_blocks: int | None = None
) -> Branch:
    """Stage 1: T blocks; readout t predicts the value of operation t.

    With ``n_blocks`` above T (an addition to the paper) the readouts behind the last step predict the answer, so that
    stage 2, where all K blocks always run, brings nothing that was never seen.
    """
    n_steps = len(problem.values)
    n_blocks = max(n_steps, n_blocks or 0)
    readouts = []
    for t, value in enumerate(problem.values, start=1):
        weight = lambda_t(t, n_steps, s)
        if weight > 0:
            readouts.append(Readout(t, vocabulary.value(value)[:1], weight))
    for k in range(n_steps + 1, n_blocks + 1):
        readouts.append(Readout(k, vocabulary.value(problem.values[-1])[:1], BEHIND_WEIGHT))
    last = readouts[-1]
    readouts[-1] = Readout(last.k, vocabulary.value(problem.values[-1]), last.weight)
    asked = asked_of(problem, vocabulary)
    return Branch(asked, n_blocks, readouts, deep_taps(problem, asked, n_blocks, vocabulary, deep_weight))


def refinement(problem: Problem, vocabulary: Vocabulary, deep_weight: float = 0.0) -> Branch:
    """Stage 2: K blocks; every readout predicts the answer, and so does readout 0 with a small weight."""
    tokens = vocabulary.value(problem.values[-1])
    readouts = [Readout(k, tokens if k == BLOCK_COUNT else tokens[:1], alpha_k(k)) for k in range(1, BLOCK_COUNT + 1)]
    readouts.insert(0, Readout(0, tokens, DIRECT_WEIGHT))
    asked = asked_of(problem, vocabulary)
    return Branch(asked, BLOCK_COUNT, readouts, deep_taps(problem, asked, BLOCK_COUNT, vocabulary, deep_weight))


def deep_taps(problem: Problem, asked: list[int], n_blocks: int, vocabulary: Vocabulary, weight: float) -> list[Tap]:
    """Deep grounding: step j at the ends of blocks j and later, after its kind's number of layers; who is asked."""
    if weight <= 0:
        return []
    block = len(vocabulary.block)
    late = problem.kind in LATE
    layers = LATE_LAYERS if late else DEEP_LAYERS
    owners = [vocabulary.entity(operation.name) if late else None for operation in problem.operations]
    owners += [None] * (len(problem.values) - len(owners))
    taps = []
    for j, (layer, value, owner) in enumerate(
        zip(layers, steps_of(problem, vocabulary), owners, strict=False), start=1
    ):
        for t in range(j, n_blocks + 1):
            place = len(asked) + t * block - 1
            share = weight if t == j else EARLIER_WEIGHT * weight
            taps.append(Tap(layer, place, value, share))
            if owner is not None:
                taps.append(Tap(layer, place, owner, NAME_WEIGHT * share))
    if problem.kind in POINTED:
        named = [vocabulary.entities[token] for token in asked if token in vocabulary.entities]
        if len(set(named)) == 1:
            taps.append(Tap(POINTER_LAYER, len(asked) - 1, named[0], weight))
    if problem.kind == "shop":
        plurals = vocabulary.plurals
        taps += [Tap(POINTER_LAYER, at, plurals[token], weight) for at, token in enumerate(asked) if token in plurals]
    return taps


def pointers(problem: Problem, facts: list[int], vocabulary: Vocabulary, weight: float) -> list[Tap]:
    """Taps on the facts: at every number whom its clause is about; at the end of a clause to whom it refers, and a
    layer higher whom it is about.

    A clause ends with its sentence, or at an "and" or a comma before a name that is followed by a verb.
    """
    taps: list[Tap] = []
    if problem.kind not in POINTED or weight <= 0:
        return taps
    entities, verbs = vocabulary.entities, vocabulary.verbs
    stop, link, comma = (vocabulary.ids[text] for text in (".", "Ġand", ","))
    digits = {vocabulary.ids[str(digit)] for digit in range(10)}
    named: list[int] = []
    for place, token in enumerate(facts):
        if token in entities:
            named.append(entities[token])
        elif token in digits and named and facts[place + 1] not in digits:
            taps.append(Tap(POINTER_LAYER, place, named[0], weight))
        elif token == stop or (
            (token == link or (token == comma and facts[place + 1] != link))
            and starts_clause(facts[place + 1 : place + 5], entities, verbs)
        ):
            if named:
                taps.append(Tap(POINTER_LAYER + 1, place, named[0], weight))
            if len(named) >= 2:
                taps.append(Tap(POINTER_LAYER, place, named[1], weight))
            named = []
    return taps


def told_values(problem: Problem, vocabulary: Vocabulary, weight: float) -> list[Tap]:
    """Taps on the facts: at the end of a clause the quantity that it gives, where it is known by then."""
    if weight <= 0:
        return []
    place_at = {at: place for place, at in enumerate(vocabulary.starts(problem.facts))}
    return [
        Tap(VALUE_LAYERS[mark.depth], place_at[mark.at], vocabulary.value(mark.value)[0], weight)
        for mark in problem.marks
        if mark.depth < len(VALUE_LAYERS)
    ]


def starts_clause(tokens: list[int], entities: Container[int], verbs: Container[int]) -> bool:
    """Whether ``tokens`` begin with a name and its verb: "Ann has", "the red box holds"; not "Ann together"."""
    first = next((at for at, token in enumerate(tokens[:2]) if token in entities), None)
    return first is not None and any(token in verbs for token in tokens[first + 1 : first + 3])


def direct(problem: Problem, vocabulary: Vocabulary) -> Branch:
    """A control: no block, the answer at once."""
    readout = Readout(0, vocabulary.value(problem.values[-1]), 1.0)
    return Branch(asked_of(problem, vocabulary), 0, [readout])


def chain(problem: Problem, vocabulary: Vocabulary) -> Branch:
    """A control: no block, the values of all steps one after the other, the last of them the answer."""
    steps = steps_of(problem, vocabulary)
    return Branch(asked_of(problem, vocabulary), 0, [Readout(0, [*steps, vocabulary.end_of_text_id], 1.0)])


def asked_of(problem: Problem, vocabulary: Vocabulary) -> list[int]:
    """Tokens of what is asked; after the facts' tokens they are those of the whole question."""
    return vocabulary.encode(" " + problem.asked if problem.facts else problem.asked)


def alone(problem: Problem, branch: Branch, vocabulary: Vocabulary) -> Sample:
    """One problem as a sample of its own."""
    return Sample(vocabulary.encode(problem.facts), [branch])


def steps_of(problem: Problem, vocabulary: Vocabulary) -> list[int]:
    """The value token of each step."""
    return [vocabulary.value(value)[0] for value in problem.values]


@dataclass(frozen=True)
class Batch:
    """Samples in one rectangle. ``B`` samples, ``T`` positions, ``R`` supervised tokens of all samples.

    tokens, positions: [B, T] int64. marks: [4, B, T] int64, what ``isolation_mask`` needs to know of each position.
    rows: [R] int64, index into the flattened [B·T] positions whose state predicts ``targets`` [R] int64 with loss
    weight ``weights`` [R] float32. readout: [R] int64, running number of the readout a target belongs to. ends: for
    each readout (branch, k, row of its first prediction), branches numbered through the batch. taps: for a
    number of layers, the same three as rows, targets and weights.
    """

    tokens: Tensor
    positions: Tensor
    marks: Tensor
    rows: Tensor
    targets: Tensor
    weights: Tensor
    readout: Tensor
    ends: list[tuple[int, int, int]]
    taps: dict[int, tuple[Tensor, Tensor, Tensor]]

    @property
    def mask(self) -> Tensor:
        """[B, 1, T, T] float32, 0 where position i may see j, else -inf."""
        return isolation_mask(*self.marks)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        taps = {layer: (rows.to(device), t.to(device), w.to(device)) for layer, (rows, t, w) in self.taps.items()}
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, taps=taps, **moved)


def lay_out(samples: list[Sample], vocabulary: Vocabulary, width: int | None = None) -> Batch:
    """The samples as one batch: a row each, padded on the right to the longest.

    With ``width``, rows have that many positions and take as many samples as fit, each in the first that has room
    (give the longest first). Raises ValueError for a sample that is longer.
    """
    longest = max(sample.length for sample in samples)
    if width is not None and longest > width:
        raise ValueError(f"a sample of {longest} positions does not fit in a row of {width}: use longer rows")
    packed, width = width is not None, width or longest
    tokens: list[list[int]] = []
    positions: list[list[int]] = []
    marks: tuple[list[list[int]], ...] = ([], [], [], [])  # sample, branch, owner, depth
    rows: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    readout_of: list[int] = []
    ends: list[tuple[int, int, int]] = []
    taps: dict[int, tuple[list[int], list[int], list[float]]] = {}

    def row_for(length: int) -> int:
        if packed:
            for row, held in enumerate(tokens):
                if len(held) + length <= width:
                    return row
        for lists in (tokens, positions, *marks):
            lists.append([])
        return len(tokens) - 1

    def add_tap(tap: Tap, start: int) -> None:
        tap_rows, tap_targets, tap_weights = taps.setdefault(tap.layer, ([], [], []))
        tap_rows.append(start + tap.place)
        tap_targets.append(tap.token)
        tap_weights.append(tap.weight)

    block = len(vocabulary.block)
    n_branches = 0
    for index, sample in enumerate(samples):
        row = row_for(sample.length)
        token, position = tokens[row], positions[row]
        # branch 0: the facts; b: branch b alone. owner 0: visible to all of the branch that come later; r: readout r
        # alone. sample -1: padding.
        _, member, owner, depth = (mark[row] for mark in marks)
        begin = len(token)
        origin = row * width + begin
        n_facts = len(sample.facts)
        token += sample.facts
        position += range(n_facts)
        for mark in (member, owner, depth):
            mark += [0] * n_facts
        for tap in sample.taps:
            add_tap(tap, origin)
        for number, branch in enumerate(sample.branches, start=1):
            start = len(token)  # of the branch in the row; in its own text it stands at n_facts
            shared = branch.asked + vocabulary.block * branch.n_blocks
            token += shared
            position += range(n_facts, n_facts + len(shared))
            owner += [0] * len(shared)
            depth += [0] * len(branch.asked) + [k for k in range(1, branch.n_blocks + 1) for _ in range(block)]
            for readout in branch.readouts:
                first = len(branch.asked) + readout.k * block  # in the branch, the position after block k
                states = [start + first - 1, *range(len(token), len(token) + len(readout.tokens) - 1)]
                rows += [row * width + state for state in states]
                targets += readout.tokens
                weights += [readout.weight] * len(readout.tokens)
                readout_of += [len(ends)] * len(readout.tokens)
                ends.append((n_branches, readout.k, row * width + states[0]))
                fed = readout.tokens[:-1]
                token += fed
                position += range(n_facts + first, n_facts + first + len(fed))
                owner += [len(ends)] * len(fed)
                depth += [readout.k] * len(fed)
            for tap in branch.taps:
                add_tap(tap, row * width + start)
            member += [number] * (len(token) - start)
            n_branches += 1
        marks[0][row] += [index] * (len(token) - begin)

    def rectangle(lists: list[list[int]], padding: int = 0) -> Tensor:
        return torch.from_numpy(np.array([held + [padding] * (width - len(held)) for held in lists]))

    return Batch(
        rectangle(tokens),
        rectangle(positions),
        torch.stack([rectangle(mark, -1 if mark is marks[0] else 0) for mark in marks]),
        torch.tensor(rows),
        torch.tensor(targets),
        torch.tensor(weights),
        torch.tensor(readout_of),
        ends,
        {layer: (torch.tensor(r), torch.tensor(t), torch.tensor(w)) for layer, (r, t, w) in taps.items()},
    )


def isolation_mask(sample: Tensor, branch: Tensor, owner: Tensor, depth: Tensor) -> Tensor:
    """The additive mask [B, 1, T, T] that isolates samples, branches and readouts; all arguments are [B, T] integers.

    Position i sees j <= i of its sample if j belongs to the facts or to i's branch, and if j is text or a block of
    depth at most i's, or both belong to the same readout.
    """
    length = branch.shape[1]

    def pair(values: Tensor) -> tuple[Tensor, Tensor]:
        return values[:, :, None], values[:, None, :]

    (sample_i, sample_j), (branch_i, branch_j) = pair(sample), pair(branch)
    (owner_i, owner_j), (depth_i, depth_j) = pair(owner), pair(depth)
    visible = (sample_j == sample_i) & ((branch_j == branch_i) | (branch_j == 0))
    visible &= ((owner_j == 0) & (depth_j <= depth_i)) | ((owner_j > 0) & (owner_j == owner_i))
    visible &= torch.ones(length, length, dtype=torch.bool, device=branch.device).tril()
    return torch.zeros(visible.shape, device=branch.device).masked_fill_(~visible, float("-inf")).unsqueeze(1)


def loss_sum(model: Llama, batch: Batch) -> Tensor:
    """Weighted sum of -log p over the supervised tokens (not divided by the weights)."""
    taps = {layer: tap for layer, tap in sorted(batch.taps.items()) if layer < len(model.layers)}
    tapped: list[Tensor] = []
    rows = {layer: tap_rows for layer, (tap_rows, _, _) in taps.items()}
    hidden = model.hidden(batch.tokens, batch.positions, batch.mask, batch.rows, rows, tapped)
    targets = torch.cat([batch.targets, *(tap_targets for _, tap_targets, _ in taps.values())])
    weights = torch.cat([batch.weights, *(tap_weights for _, _, tap_weights in taps.values())])
    logits = model.logits(torch.cat([hidden, *tapped])).float()
    return (F.cross_entropy(logits, targets, reduction="none") * weights).sum()


@torch.no_grad()
def readouts_correct(model: Llama, batch: Batch) -> Tensor:
    """[n_readouts] bool in the order of ``batch.ends``: whether greedy decoding of that readout gives its text.

    Greedy decoding is right exactly if every token is the most likely one after the right ones before it.
    """
    hit = model.logits(model.hidden(batch.tokens, batch.positions, batch.mask, batch.rows)).argmax(-1) == batch.targets
    wrong = torch.zeros(len(batch.ends), dtype=torch.int64, device=hit.device)
    wrong.index_add_(0, batch.readout, (~hit).long())
    return wrong == 0
